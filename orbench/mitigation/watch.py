"""Scores checkpoints with orbench itself while TRL trains, and keeps the best.

In: the model in training. Out: a run folder of each checkpoint under `scores/`, a `Score` of each, and the weights of
the best so far under `best/`. Scoring happens after a checkpoint is saved, so that an interrupted training, started
again, scores it then.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from orbench.errors import OrbenchError, RunError
from orbench.mitigation.checkpoints import Replies, Score, best, replies_of, score, waited
from orbench.mitigation.config import Training
from orbench.mitigation.folder import SCORES
from orbench.mitigation.paid import evaluate_for
from orbench.mitigation.terms import Terms
from orbench.models.huggingface import HuggingFaceModel
from orbench.results import Evaluation
from orbench.splits import Split

BEST = "best"


class Ended(Exception):  # noqa: N818 - no error
    """The checkpoint that is gone on from was the last; the Trainer would do one step more."""


class Watch(TrainerCallback):  # type: ignore[misc]
    """TRL calls this on the way.

    Attributes:
        scores: One for each checkpoint so far, the start first; empty where there is nothing to score on.
        trainer: To be set before training begins.
    """

    def __init__(self, config: Training, tokenizer: Any, validation: Split | None, every: int, terms: Terms) -> None:
        """Watch a training.

        Args:
            config: Its settings.
            tokenizer: The model's.
            validation: Prompts of both kinds to score on; None scores nothing.
            every: Steps between checkpoints.
            terms: On which the judge is asked.
        """
        self.scores: list[Score] = []
        self.trainer: Any = None
        self._config = config
        self._tokenizer = tokenizer
        self._validation = validation
        self._every = every
        self._terms = terms
        self._out = Path(config.out)
        self._start: Replies | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Score the start; after an interruption read what was scored, and score the checkpoint it goes on from.

        Raises:
            Ended: There is nothing left to train.
        """
        if self._validation is not None:
            for step in sorted({0, *range(self._every, state.global_step, self._every), state.global_step}):
                if step == state.global_step:
                    self._score(step, model, control)
                elif (folder := self._folder(step)).exists():
                    self._note(step, replies_of(Evaluation.load(folder)))
        if state.global_step and (state.global_step >= state.max_steps or control.should_training_stop):
            raise Ended

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Score the checkpoint that was saved."""
        if self._validation is not None and all(one.step != state.global_step for one in self.scores):
            self._score(state.global_step, model, control)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Stop at once where the loss is no number: what follows would be none either."""
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise RunError(
                f"{self._out}: the loss is {loss} at step {state.global_step}: lower --learning-rate, or train in "
                f"--dtype float32; start again in another --out"
            )

    def _folder(self, step: int) -> Path:
        return self._out / SCORES / f"step-{step}"

    def _score(self, step: int, model: Any, control: Any) -> None:
        from accelerate.utils import broadcast_object_list

        found: list[Any] = [None]
        if self.trainer.is_world_process_zero():
            try:
                found = [self._evaluate(step, model)]
            except OrbenchError as error:  # the other processes wait for word
                found = [error]
        broadcast_object_list(found)
        if isinstance(found[0], OrbenchError):
            raise found[0]
        self._note(step, found[0])
        if best(self.scores).step == step and step:
            self.trainer.save_model(str(self._out / BEST))
        if self._config.patience and waited(self.scores) >= self._config.patience:
            control.should_training_stop = True

    def _note(self, step: int, replies: Replies) -> None:
        self._start = self._start or replies
        config = self._config
        self.scores.append(score(step, self._start, replies, containment=config.containment, neither=config.neither))

    def _evaluate(self, step: int, model: Any) -> Replies:
        config = self._config
        assert self._validation is not None
        was_training, generation = model.training, copy.deepcopy(model.generation_config)
        model.eval()
        try:
            result = evaluate_for(
                config,
                self._terms,
                lambda: HuggingFaceModel.of(config.out, model, self._tokenizer),
                splits=self._validation,
                out=self._folder(step),
                progress=False,
            )
        finally:
            model.generation_config = generation
            model.train(was_training)
        return replies_of(result)
