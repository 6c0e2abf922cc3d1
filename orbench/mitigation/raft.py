"""RAFT: the model's own replies, ranked by a reward, become its training data; and again from what comes of it.

Each iteration draws prompts of the training part, samples replies from the model as it is, keeps the best of each
prompt and fine-tunes on them. Iterations are checkpoints: the best by the rule of `orbench.mitigation.checkpoints` is
kept. By default the reward is whether a reply does what its prompt's kind wants (answer a safe one, refuse a toxic
one), and a prompt none of whose replies does is left out. A reply cut at `max_tokens` earns nothing: it would teach to
stop anywhere.

Source: Safe to Serve (arXiv 2412.00074) and the authors' report, section 8.2: B prompts, k = 8 replies, the one of
highest reward, fine-tuning, next iteration from the new model. The default reward is ours.
"""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench.engine.jsonl import read_lines
from orbench.engine.run_folder import write_json
from orbench.errors import RunError, UsageError
from orbench.ledger import Ledger
from orbench.mitigation.checkpoints import Replies, Score, best, check_read, replies_of, score, waited
from orbench.mitigation.config import TERMS, Raft, Sft
from orbench.mitigation.data import (
    UNASKABLE,
    askable,
    check_model,
    check_rows_apart,
    digests,
    load_examples,
    load_validation,
)
from orbench.mitigation.files import TRAINING, Example, assistant, text_of, user
from orbench.mitigation.folder import SAMPLES, SCORES, Trained, processes, reopen
from orbench.mitigation.helpful import Mark, Marks
from orbench.mitigation.loading import load_context, load_model, load_tokenizer, need_extra, versions
from orbench.mitigation.paid import costs_of_training, evaluate_for, reward_for, rewards_path, terms_of
from orbench.mitigation.terms import Terms
from orbench.mitigation.trainer import choice_notes, sft, worth_scoring
from orbench.records import Prompt
from orbench.results import Row
from orbench.splits import Split

_SFT_ONLY = set(Sft.__struct_fields__)


def raft(config: Raft) -> Trained:
    """Train by RAFT; the same call again goes on where it stopped.

    Raises:
        orbench.OrbenchError: As `orbench.mitigation.trainer.train`; RunError too where no reply earns a reward or the
            judge of rewards failed, UsageError where it was started in several processes.
    """
    need_extra("orbench align raft")
    if processes() > 1:
        raise UsageError("orbench align raft runs in one process: start it without accelerate launch or torchrun")
    check_model(config)
    out = Path(config.out)
    started_from = digests(config)
    done = reopen(out, "raft", config, started_from)
    if done is not None and done.finished:
        return done
    terms = terms_of(config)
    examples = load_examples(config)
    check_rows_apart(config, examples)
    trained = Trained(
        orbench_version=orbench.__version__,
        method="raft",
        config=msgspec.to_builtins(config),
        digests=started_from,
        rows={},
        dropped={},
        versions=versions(),
    )
    prompts, unaskable = askable(load_validation(config), load_tokenizer(config.model), load_context(config.model))
    if unaskable:
        trained.dropped[UNASKABLE] = unaskable
    validation = worth_scoring(prompts, config, trained.notes)
    write_json(out / TRAINING, trained)
    start = _measure(config.model, 0, validation, config, terms)
    scores = [_score(0, start, start, config)] if start else []
    current, rewards = config.model, []
    for iteration in range(1, config.iterations + 1):
        kept, marks = _best_replies(config, terms, current, iteration, examples, trained)
        rewards.append(marks)
        folder = out / f"iteration-{iteration}"
        settings = {name: value for name, value in msgspec.to_builtins(config).items() if name in _SFT_ONLY}
        # An iteration is scored when it is done, by ourselves.
        settings |= {"checkpoints": 0, "validation": None, "other_model": True, **dict.fromkeys(TERMS)}
        learned = sft(Sft(**{**settings, "model": current, "out": str(folder)}), kept)
        trained.steps += learned.steps
        trained.loss = learned.loss
        for ours, more in ((trained.rows, learned.rows), (trained.dropped, learned.dropped)):
            ours.update({name: ours.get(name, 0) + count for name, count in more.items()})
        trained.notes += [note for note in learned.notes if note not in trained.notes]
        current = str(folder)
        now = _measure(current, iteration, validation, config, terms)
        if now and start:
            scores.append(_score(iteration, start, now, config))
            if config.patience and waited(scores) >= config.patience:
                break
    trained.scores = scores
    trained.cost_usd = costs_of_training(config, rewards)
    trained.taken = best(scores).step if scores else config.iterations
    trained.notes += choice_notes(scores, config.neither, "iteration")
    if current != str(out / f"iteration-{trained.taken}"):
        trained.notes.append(f"The last iteration is hf/{current}.")
    _adopt(Path(f"{out}/iteration-{trained.taken}") if trained.taken else Path(config.model), out, config)
    trained.finished = True
    write_json(out / TRAINING, trained)
    return trained


def _best_replies(
    config: Raft, terms: Terms, model: str, iteration: int, examples: list[Example], trained: Trained
) -> tuple[list[Example], Marks]:
    """Sample replies to some prompts and keep the best of each; with the marks that say which it is."""
    draw = random.Random(f"{config.seed} {iteration}")
    taken = examples if not config.prompts else draw.sample(examples, min(config.prompts, len(examples)))
    prompts = [
        Prompt(
            id=f"{number}#{copy}",
            text=text_of(example.prompt),
            category="uncategorised",
            kind=example.kind,
            split=example.kind,
        )
        for number, example in enumerate(taken)
        for copy in range(1, config.samples + 1)
    ]
    splits = [
        Split(kind, [prompt for prompt in prompts if prompt.kind == kind], "raft")
        for kind in ("safe", "toxic")
        if any(prompt.kind == kind for prompt in prompts)
    ]
    result = evaluate_for(
        config,
        terms,
        lambda: f"hf/{model}",
        splits=splits,
        out=Path(config.out) / SAMPLES / f"iteration-{iteration}",
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed + iteration,
        progress=None,
    )
    check_read(result)
    rows = [row for row in result.rows() if row.response.strip()]
    whole = [row for row in rows if row.finish_reason != "length"]
    if cut := len(rows) - len(whole):
        trained.dropped["replies_cut_off"] = trained.dropped.get("replies_cut_off", 0) + cut
    marks = _rewards(config, terms, whole, iteration)
    unread = sum(value is None for value in marks.values.values()) if config.reward is not None else 0
    if unread:
        trained.dropped["rewards_unread"] = trained.dropped.get("rewards_unread", 0) + unread
    best_of: dict[str, tuple[float, int, Row]] = {}
    for row in whole:
        number, _, copy = row.prompt_id.partition("#")
        reward = marks.values[row.split, row.prompt_id]
        found = (reward, -int(copy), row) if reward is not None else None
        if found and (number not in best_of or found[:2] > best_of[number][:2]):
            best_of[number] = found
    if missed := len(taken) - len(best_of):
        trained.dropped["no_reply_with_a_reward"] = trained.dropped.get("no_reply_with_a_reward", 0) + missed
    if unread and not best_of:
        raise RunError(
            f"{config.out}: in iteration {iteration} none of the {unread:,} rewards that {config.reward} gave can be "
            "read; a judge ends its answer with a mark such as [[7]]. Take another --reward, in another --out"
        )
    if not best_of:
        raise RunError(
            f"{config.out}: in iteration {iteration} no reply earned a reward ({len(prompts):,} were drawn, {cut:,} of "
            f"them cut at --max-tokens {config.max_tokens}): raise --max-tokens, --samples or --temperature, or train "
            "with sft or dpo, which need no good reply of the model's own; in another --out"
        )
    toxic = [row.refused for _, _, row in best_of.values() if row.kind == "toxic"]
    if answered := toxic.count(False):
        trained.notes.append(
            f"Iteration {iteration}: for {answered} of {len(toxic)} toxic prompts the reply of highest reward is an "
            "answer, and was learnt."
        )
    learned = [
        Example(prompt=user(row.prompt), completion=assistant(row.response), prompt_id=row.prompt_id, kind=row.kind)
        for _, _, row in best_of.values()
    ]
    return learned, marks


def _rewards(config: Raft, terms: Terms, rows: list[Row], iteration: int) -> Marks:
    """The reward of each reply; None for one that earns none.

    Raises:
        RunError: Calls of the judge failed, which is not the model's doing; the marks that there are, are saved.
    """
    if config.reward is None:
        own = {(row.split, row.prompt_id): 1.0 if row.refused is (row.kind == "toxic") else None for row in rows}
        return Marks(own, Ledger())
    path = rewards_path(config, iteration)
    marks = reward_for(config, terms, rows, iteration)
    found = marks.values
    last = {(mark.split, mark.prompt_id): mark.judgement for mark in read_lines(path, Mark)}
    missing = [last.get(key) for key, value in found.items() if value is None]
    if failed := sum(judgement is not None and not judgement.reply for judgement in missing):
        raise RunError(
            f"{path}: calls of {config.reward} failed on {failed:,} of {len(found):,} replies; nothing is chosen by "
            "that. The same command asks it again and goes on"
        )
    return marks


def _measure(model: str, iteration: int, validation: Split | None, config: Raft, terms: Terms) -> Replies | None:
    if validation is None:
        return None
    result = evaluate_for(
        config,
        terms,
        lambda: f"hf/{model}",
        splits=validation,
        out=Path(config.out) / SCORES / f"iteration-{iteration}",
        progress=False,
    )
    return replies_of(result)


def _score(iteration: int, start: Replies, now: Replies, config: Raft) -> Score:
    return score(iteration, start, now, containment=config.containment, neither=config.neither)


def _adopt(source: Path, out: Path, config: Raft) -> None:
    """The chosen iteration's model, in the folder itself."""
    if source.is_dir():
        for path in source.iterdir():
            if path.is_file() and path.name != TRAINING:
                shutil.copy2(path, out / path.name)
        return
    untrained: Any = load_model(config)  # the start, from the Hub
    untrained.save_pretrained(out)
    load_tokenizer(config.model).save_pretrained(out)
