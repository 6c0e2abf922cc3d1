"""Rows for a training: read, mixed, checked against what is measured on, and cut to what the model can take.

In: the settings and the model's tokenizer. Out: plain rows for TRL, and counts of what was dropped and why.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import msgspec

from orbench.errors import RunError, UsageError
from orbench.mitigation.apart import check_apart
from orbench.mitigation.card import read_card
from orbench.mitigation.config import Dpo, Training
from orbench.mitigation.files import (
    CHOSEN,
    HELD_OUT_PROMPTS,
    TRAIN,
    UNPAIRED,
    VALIDATION_PROMPTS,
    Example,
    Pair,
    SafetyExample,
    Single,
    Turns,
    has_prompts,
    read_rows,
    text_of,
    user,
)
from orbench.models.files import digest_of
from orbench.records import Kind, Prompt
from orbench.splits import Split, load_split

UNASKABLE = "validation_prompt_too_long"
"""Reason: a validation prompt that the model's context has no room for."""
UNPAIRED_LEFT_OUT = "unpaired"
"""Reason: a row without a rejected reply, which only KTO can learn from."""


class Rows(msgspec.Struct):
    """What a training is given."""

    rows: list[dict[str, Any]]
    dropped: dict[str, int]
    counts: dict[str, int]
    """Kind to rows; `replay` for general ones that were mixed in."""

    @property
    def notes(self) -> list[str]:
        """What the trained model's owner should know of them."""
        found = []
        if left_out := self.dropped.get(UNPAIRED_LEFT_OUT):
            found.append(
                f"{left_out} rows without a rejected reply were left out: --loss kto takes them, and `align pairs "
                "--stand-in TEXT` makes pairs of them."
            )
        if not self.counts.get("toxic"):
            found.append("No toxic row: nothing in this data keeps the model's safety.")
        return found


def check_model(config: Training) -> None:
    """Refuse to train a model on the mistakes of another.

    Raises:
        UsageError: The data is of another model, and `other_model` does not say that this is meant.
    """
    card = read_card(folder_of(config))
    if card is None or config.other_model:
        return
    theirs = card.model.partition("/")[2]
    same = theirs == config.model or (
        Path(theirs).exists() and Path(config.model).exists() and Path(theirs).samefile(config.model)
    )
    if not same:
        raise UsageError(
            f"{config.data} was made from a run of {card.model}, and {config.model} is to be trained: its refusals are "
            f"not this model's. Train {theirs}, make pairs from a run of hf/{config.model}, or say --other-model"
        )


def folder_of(config: Training) -> Path:
    """The folder of the data: card and prompts to measure on lie beside a file of it, too."""
    path = Path(config.data)
    return path.parent if path.is_file() else path


def digests(config: Training, examples: Sequence[Example] | None = None) -> dict[str, str]:
    """What a training starts from, each as a short digest, so that the same command knows it again.

    Args:
        config: The settings.
        examples: Rows instead of those of `config.data`.

    Raises:
        RunError: A file is missing or cannot be read.
        orbench.OrbenchError: The validation prompts or the model cannot be read.
    """
    path = Path(config.data)
    if examples is not None:
        found = {"data": _digest(msgspec.json.encode(examples))}
    else:
        names = [name for name in (CHOSEN, TRAIN, UNPAIRED) if (path / name).is_file()]
        files = [path / name for name in names] if path.is_dir() else [path]
        found = {"data": _digest(*map(_read, files))}
    for name in ("replay", "safety"):
        if file := getattr(config, name):
            found[name] = _digest(_read(Path(file)))
    validation = load_validation(config)
    if validation is not None:
        found["validation"] = validation.fingerprint
    if model := digest_of(config.model, [config.model]):
        found["model"] = model
    return found


def load_validation(config: Training) -> Split | None:
    """The prompts that checkpoints are scored on; None if there are none.

    Raises:
        SplitError: A file that was named cannot be read.
    """
    if config.validation is not None:
        return load_split(config.validation)
    path = folder_of(config) / VALIDATION_PROMPTS
    return load_split(path) if has_prompts(path) else None


def askable(validation: Split | None, tokenizer: Any, context: int | None) -> tuple[Split | None, int]:
    """The validation prompts that the model has room for, and how many it has none for: those say nothing of it.

    Args:
        validation: All of them; None if there are none.
        tokenizer: The model's.
        context: Tokens of prompt and reply together at most; None where the model has no bound.
    """
    if validation is None or context is None:
        return validation, 0

    fit = [prompt for prompt in validation if len(asked_tokens(tokenizer, prompt.text)) < context]
    return Split(validation.name, fit, validation.source), len(validation) - len(fit)


def asked_tokens(tokenizer: Any, text: str) -> list[int]:
    """A prompt as it is asked: a user's turn in the chat template, up to where the reply begins."""
    tokens: list[int] = tokenizer.apply_chat_template(
        plain(user(text)), add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return tokens


def load_examples(config: Training) -> list[Example]:
    """Completions to learn: the chosen replies of pairs and the good unpaired ones, or examples as they are.

    Raises:
        RunError: A file is missing or holds something else.
    """
    path = Path(config.data)
    if path.is_file():
        return read_rows(path, Example)
    if (path / CHOSEN).is_file():
        return read_rows(path / CHOSEN, Example)
    found = [_example(row, row.chosen) for row in read_rows(_train_file(path), Pair)]
    return found + [_example(row, row.completion) for row in _unpaired(path) if row.label]


def sft_rows(config: Training, examples: Sequence[Example], tokenizer: Any, context: int | None) -> Rows:
    """Rows of TRL's type "prompt-completion".

    Raises:
        RunError: A prompt is also among those to measure on, or no row is left.
    """
    draw = random.Random(config.seed)
    safety, replay = load_safety(config, draw), load_replay(config, draw)
    check_rows_apart(config, [*examples, *safety, *replay])
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    special, bound = special_tokens(tokenizer), _bound(config, context)

    def add(row: Example, kind: str, times: int) -> None:
        if reason := misfit(tokenizer, special, row.prompt, [row.completion], bound):
            dropped[reason] += 1
        else:
            rows.extend([{"prompt": plain(row.prompt), "completion": plain(row.completion)}] * times)
            counts[kind] += times

    for row in examples:
        add(row, row.kind, config.toxic_repeat if row.kind == "toxic" else 1)
    for row in safety:
        add(row, "toxic", config.toxic_repeat)
    for row in replay:
        add(row, "replay", 1)
    return _checked(rows, dropped, counts, config, context)


def pair_rows(config: Dpo, tokenizer: Any, context: int | None) -> Rows:
    """Rows of TRL's type "preference", or for KTO "unpaired preference".

    General and safety rows that are mixed in become pairs too: their own reply over a refusal of the model's, and over
    a reply that gives in, each drawn from the pairs. Where these have none, KTO takes the good reply alone.

    Raises:
        RunError: A prompt is also among those to measure on, or no row is left.
    """
    draw = random.Random(config.seed)
    path = Path(config.data)
    pairs = read_rows(_train_file(path) if path.is_dir() else path, Pair)
    singles = _unpaired(path) if path.is_dir() else []
    unpaired = singles if config.loss == "kto" else []
    replay, safety = load_replay(config, draw), load_safety(config, draw)
    check_rows_apart(config, [*pairs, *unpaired, *replay, *safety])
    counts: Counter[str] = Counter()
    dropped: Counter[str] = Counter({UNPAIRED_LEFT_OUT: len(singles) - len(unpaired)})
    rows: list[dict[str, Any]] = []
    special, bound = special_tokens(tokenizer), _bound(config, context)

    def add(prompt: Turns, good: Turns, bad: Turns | None, times: int) -> int:
        if bad is not None and text_of(good).strip() == text_of(bad).strip():
            dropped["chosen_equals_rejected"] += 1
            return 0
        if reason := misfit(tokenizer, special, prompt, [good, *([bad] if bad else [])], bound):
            dropped[reason] += 1
            return 0
        if config.loss == "kto":
            both = [(good, True), *([(bad, False)] if bad else [])]
            rows.extend({"prompt": plain(prompt), "completion": plain(c), "label": label} for c, label in both * times)
        else:
            assert bad is not None
            rows.extend([{"prompt": plain(prompt), "chosen": plain(good), "rejected": plain(bad)}] * times)
        return times

    for pair in pairs:
        times = config.toxic_repeat if pair.kind == "toxic" else 1
        counts[pair.kind] += add(pair.prompt, pair.chosen, pair.rejected, times)
    for single in unpaired:
        if single.label:
            counts[single.kind] += add(single.prompt, single.completion, None, config.toxic_repeat)
    for examples, kind, times in (
        (replay, "safe", 1),
        (safety, "toxic", config.toxic_repeat),
    ):
        opposite = [pair.rejected for pair in pairs if pair.kind == kind]
        if examples and not opposite and config.loss != "kto":
            raise RunError(
                f"{path}: no pair of a {kind} prompt, so there is nothing to set the rows mixed in against: "
                "--loss kto takes them by themselves"
                + (", and align pairs --stand-in TEXT makes pairs of toxic prompts" if kind == "toxic" else "")
            )
        for example in examples:
            added = add(example.prompt, example.completion, draw.choice(opposite) if opposite else None, times)
            counts["replay" if kind == "safe" else "toxic"] += added
    return _checked(rows, dropped, counts, config, context)


def load_replay(config: Training, draw: random.Random) -> list[Example]:
    """The general rows that are mixed in.

    Raises:
        UsageError: One is of a toxic prompt, or there are fewer than are to be drawn.
    """
    if config.replay is None:
        return []
    rows = read_rows(Path(config.replay), Example)
    _check_kind(rows, "safe", config.replay, "--replay takes general prompts with replies")
    return _draw(rows, config.replay_rows, draw, "replay")


def load_safety(config: Training, draw: random.Random) -> list[Example]:
    """The toxic prompts with refusals that are mixed in.

    Raises:
        UsageError: One is of a safe prompt, or there are fewer than are to be drawn.
    """
    if config.safety is None:
        return []
    rows: list[Example] = [*read_rows(Path(config.safety), SafetyExample)]
    _check_kind(rows, "toxic", config.safety, "--safety takes toxic prompts with refusals")
    return _draw(rows, config.safety_rows, draw, "safety")


def check_rows_apart(config: Training, rows: Sequence[Example | Pair | Single]) -> None:
    """Look whether what is trained on is also measured on, by text or nearly so.

    Raises:
        RunError: It is; the message names both prompts by their ids.
    """
    parts: dict[str, list[Prompt]] = {}
    seen: dict[str, Prompt] = {}
    for number, row in enumerate(rows):
        text = text_of(row.prompt)
        seen.setdefault(text, _prompt(row.prompt_id or f"row {number + 1}", text, row))
    parts["the training rows"] = list(seen.values())
    held_out = folder_of(config) / HELD_OUT_PROMPTS
    if has_prompts(held_out):
        parts[HELD_OUT_PROMPTS] = list(load_split(held_out))
    validation = load_validation(config)
    if validation is not None:
        parts["the validation prompts"] = list(validation)
    if len(parts) > 1:
        check_apart(parts)


def misfit(
    tokenizer: Any, special: tuple[str, ...], prompt: Turns, completions: Sequence[Turns], bound: int
) -> str | None:
    """Why a row is not trained on; None if it is.

    Args:
        tokenizer: The model's.
        special: See `special_tokens`.
        prompt: What is asked.
        completions: The one to learn first, then perhaps one to unlearn.
        bound: Tokens that are trained on, or that the model can read.
    """
    if not text_of(completions[0]).strip():
        return "empty_completion"
    if has_special(special, prompt, *completions):
        return "special_token"
    try:
        tokens = [
            len(tokenizer.apply_chat_template(plain(prompt + one), tokenize=True, return_dict=False))
            for one in completions
        ]
    except jinja2.TemplateError:  # such as one that knows no system prompt
        return "chat_template_refuses"
    return "too_long" if max(tokens) > bound else None


def _bound(config: Training, context: int | None) -> int:
    return config.max_length if context is None else min(config.max_length, context)


def special_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Texts that the tokenizer turns into tokens of its own, such as the end of a turn, wherever they stand."""
    added = tokenizer.added_tokens_decoder.values()
    found = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special)}
    return tuple(sorted(token for token in found if token.strip()))


def has_special(special: tuple[str, ...], *conversation: Turns) -> bool:
    """Whether a message has such a text: it would be learnt as a real end of turn or the like."""
    return any(token in turn.content for turns in conversation for turn in turns for token in special)


def plain(turns: Turns) -> list[dict[str, str]]:
    """Messages as the dicts that TRL takes."""
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def _digest(*contents: bytes) -> str:
    found = hashlib.sha256()
    for content in contents:
        found.update(b"%d " % len(content) + content)
    return found.hexdigest()[:16]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None


def _train_file(folder: Path) -> Path:
    file = folder / TRAIN
    if not file.is_file():
        other = f"; {CHOSEN}, which is there, is for align sft and raft" if (folder / CHOSEN).is_file() else ""
        raise RunError(f"{folder}: no {TRAIN} in it, as orbench align pairs makes it{other}")
    return file


def _unpaired(path: Path) -> list[Single]:
    return read_rows(path / UNPAIRED, Single) if (path / UNPAIRED).is_file() else []


def _example(row: Pair | Single, completion: Turns) -> Example:
    return Example(
        prompt=row.prompt,
        completion=completion,
        prompt_id=row.prompt_id,
        kind=row.kind,
        seed_id=row.seed_id,
        group_id=row.group_id,
    )


def _check_kind(rows: Sequence[Example], kind: Kind, file: str, wanted: str) -> None:
    """Refuse rows that would teach the opposite of what they are mixed in for, and a file without any."""
    if not rows:
        raise UsageError(f"{file}: no row in it: {wanted}")
    for number, row in enumerate(rows, start=1):
        if row.kind != kind:
            raise UsageError(
                f"{file}, row {number}: of a {row.kind} prompt: {wanted}. Leave the others out of the file"
            )


def _draw(rows: list[Example], count: int, draw: random.Random, what: str) -> list[Example]:
    if count > len(rows):
        raise UsageError(f"{what}_rows is {count}, and there are {len(rows)}")
    return draw.sample(rows, count) if count else rows


def _prompt(id_: str, text: str, row: Example | Pair | Single) -> Prompt:
    return Prompt(
        id=id_,
        text=text,
        category="",
        kind=row.kind,
        split="",
        seed_id=row.seed_id or None,
        group_id=row.group_id or None,
    )


def _checked(
    rows: list[dict[str, Any]], dropped: Counter[str], counts: Counter[str], config: Training, context: int | None
) -> Rows:
    if not rows:
        why = ", ".join(f"{reason} {count}" for reason, count in dropped.items() if count) or "the data is empty"
        ways = []
        if dropped["too_long"]:
            longer = context is None or config.max_length < context
            ways.append("raise --max-length" if longer else f"{config.model} reads {context:,} tokens at most")
        if dropped[UNPAIRED_LEFT_OUT]:
            ways.append("rows without a rejected reply are for --loss kto or align sft")
        raise RunError("; ".join([f"{config.data}: no row is left to train on: {why}", *ways]))
    return Rows(rows, {k: n for k, n in dropped.items() if n}, {k: n for k, n in counts.items() if n})
