"""How transformers draws the next token: each row by its own numbers, and what the authors recommend for it."""

from __future__ import annotations

import hashlib
import random
import secrets
import threading
from typing import Any

from orbench.models.chat import Question


class Stopped(Exception):  # noqa: N818 - no error, but the way out of `generate`
    """Nobody wants the batch at hand any more."""


class Watch:
    """Looks at every step's scores: notes rows of NaN or infinity, and draws the next token where one is drawn.

    It is also where generation is broken off.

    transformers would draw for the whole batch from one global generator. Here every row draws by its own numbers,
    made from seed and request id, so that its reply is the same in any batch; the global generator is left alone.
    """

    def __init__(self, batch: list[Question], authors: Authors, stopped: threading.Event) -> None:
        from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        self.broken: Any = None
        sampling = batch[0].request.sampling
        self._temperature = sampling.temperature
        self._step = 0
        self._points: Any = None
        self._batch = batch
        self._stopped = stopped
        self._warpers: list[Any] = []
        if self._temperature > 0:
            top_p = authors.top_p if sampling.top_p is None else sampling.top_p
            if authors.top_k:
                self._warpers.append(TopKLogitsWarper(authors.top_k))
            if top_p is not None and top_p < 1:
                self._warpers.append(TopPLogitsWarper(top_p))
            if authors.min_p:
                self._warpers.append(MinPLogitsWarper(authors.min_p))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores of the next token (rows x vocabulary) in and out; greedy choice follows."""
        if self._stopped.is_set():
            raise Stopped
        broken = ~scores.amax(dim=-1).isfinite()
        self.broken = broken if self.broken is None else self.broken | broken
        return self._drawn(input_ids, scores) if self._temperature > 0 else scores

    def _drawn(self, input_ids: Any, scores: Any) -> Any:
        """Scores that leave only the drawn token: that at which the cumulated probability passes the row's number."""
        import torch

        if self._points is None:
            self._points = torch.tensor([_numbers(row) for row in self._batch], device=scores.device)
        scores = scores / self._temperature
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        sums = scores.softmax(dim=-1).cumsum(dim=-1)
        points = self._points[:, self._step, None] * sums[:, -1:]
        self._step += 1
        drawn = torch.searchsorted(sums, points, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


def row_seed(question: Question) -> int:
    """A seed for this row alone, below 2 ** 63, from the run's seed and the request's id; without one a fresh one."""
    seed = question.request.sampling.seed
    if seed is None:
        return secrets.randbits(63)
    return int.from_bytes(hashlib.sha256(f"{seed}\n{question.request.id}".encode()).digest()[:8], "big") >> 1


def _numbers(question: Question) -> list[float]:
    """One number in [0, 1) for each token that the row may get."""
    draw = random.Random(row_seed(question))
    return [min(draw.random(), 1 - 1e-6) for _ in range(question.room)]  # 1 - 1e-6: below 1 also in float32


class Authors:
    """What the model's authors recommend for sampling (`generation_config.json`)."""

    def __init__(self, config: Any) -> None:
        self.top_k: int | None = config.top_k
        self.top_p: float | None = config.top_p
        self.min_p: float | None = config.min_p


def take_over(model: Any, tokenizer: Any) -> Authors:
    """Make the model's generation settings ours where a request says how to sample; the rest stays the authors'.

    Stop tokens are the authors' and the tokenizer's end of turn, as in vLLM.
    """
    config = model.generation_config
    authors = Authors(config)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = [token for token in dict.fromkeys([*ends, tokenizer.eos_token_id]) if token is not None]
    pad = tokenizer.pad_token_id
    config.update(
        do_sample=False,  # `Watch` draws
        num_beams=1,
        num_return_sequences=1,
        return_dict_in_generate=False,
        max_length=None,
        eos_token_id=ends or None,
        pad_token_id=pad if pad is not None else ends[0] if ends else 0,
    )
    return authors
