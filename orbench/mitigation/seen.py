"""Whether a trained model has seen the prompts of a run: what was learned from, or chose a checkpoint, is no measure.

In: a run of the trained model, and what is known of its training: `training.json` in its folder, or a folder of pairs.
Out: an error where prompts were seen, notes where that cannot be known.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from orbench.engine.run_folder import read_responses
from orbench.errors import OrbenchError, RunError, UsageError
from orbench.mitigation.apart import like_any
from orbench.mitigation.files import (
    CHOSEN,
    HELD_OUT_PROMPTS,
    TRAIN,
    TRAINING,
    UNPAIRED,
    VALIDATION_PROMPTS,
    Asked,
    has_prompts,
    read_rows,
    text_of,
)
from orbench.records import Prompt
from orbench.results import Evaluation
from orbench.splits import load_split


class Learned(NamedTuple):
    """The files that a training read."""

    files: list[Path]
    """Prompts that are no measure, nor what is nearly the same."""
    replayed: list[Path]
    """General prompts: only the same texts are no measure, for short everyday ones share most words with many others.
    """


def check_new(after: Evaluation, learned: Learned) -> list[str]:
    """Look whether the model was trained on prompts of the run, or chosen by them, or by ones nearly the same.

    Args:
        after: The run.
        learned: See `learned_from`.

    Returns:
        A note where that cannot be known, and one on general prompts that are nearly the same.

    Raises:
        UsageError: It was.
    """
    files, replayed = learned
    if not files and not replayed:
        return ["What the model was trained on is not known here: name the folder of the pairs with --pairs to look."]
    replies = {response.key: response for response in read_responses(after.run)}
    asked = [response.asked for response in replies.values()]
    lost: list[str] = []

    def prompts(names: Sequence[Path]) -> list[Prompt]:
        found: list[Prompt] = []
        for file in names:
            try:
                found += _prompts_in(file)
            except OrbenchError:
                lost.append(str(file))
        return found

    general = prompts(replayed)
    texts = {prompt.text for prompt in general}
    known = like_any(asked, prompts(files)) or [prompt for prompt in asked if prompt.text in texts]
    if known:
        where = ", ".join(map(str, [*files, *replayed]))
        raise UsageError(
            f"{len(known)} of {len(asked)} prompts of {after.run}, such as {known[0].id}, were trained on or chose the "
            f"checkpoint, or are nearly the same as such ({where}): figures on them mean nothing. "
            f"Evaluate both models on {HELD_OUT_PROMPTS} of the pairs, and on general prompts that were not replayed"
        )
    notes = [f"Could not be read, so not known to hold none of these prompts: {', '.join(lost)}."] if lost else []
    if alike := like_any(asked, general):
        notes.append(
            f"{len(alike)} of {len(asked)} prompts of {after.run}, such as {alike[0].id}, share most of their words "
            f"with general prompts that were learnt ({', '.join(map(str, replayed))})."
        )
    return notes


def learned_from(after: Evaluation, pairs: str | Path | None) -> Learned:
    """The files that a training read, of the pairs and as the trained model's folder tells; and what it replayed.

    Args:
        after: A run of the trained model.
        pairs: Folder of `align pairs`; None looks at the model's folder alone.

    Raises:
        RunError: The model's `training.json` is damaged.
    """
    named = [] if pairs is None else [str(pairs)]
    replayed: list[Path] = []
    path = _training_of(after.model)
    if path is not None:
        try:
            config = msgspec.json.decode(path.read_bytes())["config"]
            named += [str(config[each]) for each in ("data", "safety", "validation") if config.get(each)]
            replayed = [Path(config["replay"])] if config.get("replay") else []
        except (OSError, msgspec.MsgspecError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{path}: cannot be read ({error})") from None
    found: list[Path] = []
    for name in dict.fromkeys(named):
        folder = Path(name)
        inside = [folder / each for each in (TRAIN, UNPAIRED, CHOSEN, VALIDATION_PROMPTS)]
        if not folder.is_dir():  # rows; what checkpoints were chosen by may lie beside them
            inside = [folder.with_name(VALIDATION_PROMPTS)]
            found.append(folder)
        there = [file for file in inside if file.is_file()]
        found += there if there or not folder.is_dir() else [folder]  # what is gone cannot be read, and that is said
    return Learned(list(dict.fromkeys(found)), replayed)


def weights_of(model: str) -> str | None:
    """Folder or Hub id of a model that runs on this machine; None of one behind a service."""
    provider, _, source = model.partition("/")
    return source if provider in ("hf", "vllm") else None


def _training_of(model: str) -> Path | None:
    """What the folder of a model or adapter says, or the one around it, which adapters and last weights lie in."""
    folder = Path((weights_of(model) or "").rpartition("+")[2])
    if weights_of(model) is None or not folder.is_dir():
        return None
    return next((path for each in (folder, folder.parent) if (path := each / TRAINING).is_file()), None)


def _prompts_in(file: Path) -> list[Prompt]:
    """The prompts of a file of rows, or of a split."""
    if file.suffix != ".jsonl":
        return list(load_split(file)) if has_prompts(file) or not file.is_file() else []
    return [
        Prompt(
            id=row.prompt_id,
            text=text_of(row.prompt),
            category="",
            kind=row.kind,
            split="",
            seed_id=row.seed_id or None,
            group_id=row.group_id or None,
        )
        for row in read_rows(file, Asked)
    ]
