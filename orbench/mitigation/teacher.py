"""The teacher's run, which grows: what it was asked before stays in it, so that nothing is asked twice.

In: prompts that a model failed. Out: the splits to ask, those of earlier commands for the same folder among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from orbench.engine.run_folder import RUN, read_config, read_responses, write_json
from orbench.errors import RunError
from orbench.evaluation.setup import describe_splits
from orbench.records import Kind, Prompt
from orbench.splits import Split

_NAMES: dict[Kind, str] = {"safe": "over-refused", "toxic": "given-in"}
"""Splits of the teacher's run."""


def splits_of(prompts: Sequence[Prompt], source: str) -> list[Split]:
    """The prompts as the splits of the teacher's run; `source` says to people where they are from."""
    found = [Split(name, [p for p in prompts if p.kind == kind], source) for kind, name in _NAMES.items()]
    return [split for split in found if len(split)]


def is_same(folder: Path, splits: Sequence[Split]) -> bool:
    """Whether the run of the folder, if there is one, is of these splits."""
    if not (folder / RUN).exists():
        return True
    before = {split["name"]: split["fingerprint"] for split in read_config(folder)["splits"]}
    return before == {split.name: split.fingerprint for split in splits}


def with_earlier(
    folder: Path, teacher: str, wanted: Sequence[Prompt], source: str, *, write: bool = True
) -> list[Split]:
    """What the teacher is to be asked, and beside it what it was asked before: one run that grows.

    So a source run that went on, or other parts, cost only the prompts that are new.

    Args:
        folder: The teacher's run folder.
        teacher: Its name.
        wanted: What it is to be asked now.
        source: Where that is from, for people.
        write: Let the run's `run.json` speak of the new set.

    Raises:
        RunError: The folder holds another teacher's replies, or replies to other prompts under the same ids.
    """
    if (folder / RUN).exists() and (other := read_config(folder)["model"]) != teacher:
        raise RunError(f"{folder}: {other} was asked there, not {teacher}: choose another --out")
    every = {(_NAMES[p.kind], p.id): msgspec.structs.replace(p, split=_NAMES[p.kind]) for p in wanted}
    for response in read_responses(folder):
        prompt = every.get(response.key)
        if prompt is not None and prompt.text != response.prompt:
            raise RunError(
                f"{folder}: holds replies to the prompts of another run ({response.prompt_id} is another one there): "
                "choose another --out"
            )
        if prompt is None and response.error is None:
            every[response.key] = response.asked
    splits = splits_of([every[key] for key in sorted(every)], source)
    if write and not is_same(folder, splits):
        write_json(folder / RUN, {**read_config(folder), "splits": describe_splits(splits)})
    return splits
