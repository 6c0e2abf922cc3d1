"""Which prompts are for training, for choosing and for measuring: never two that are alike in different parts.

In: the prompts of a run. Out: a part for each. Prompts of one seed, of one marked group, and prompts that share most of
their words (`orbench.statistics.duplicates`), are one group, and a group is never parted.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from orbench.errors import OrbenchError, RunError, UsageError
from orbench.grouping import find_groups
from orbench.records import Kind, Prompt
from orbench.splits import NAMED_SPLITS, load_split

Part = Literal["train", "validation", "held_out"]
PARTS: tuple[Part, ...] = get_args(Part)


def part_prompts(prompts: Sequence[Prompt], *, held_out: float, validation: float, seed: int) -> list[Part]:
    """A part for each prompt: whole groups, drawn until each kind has its share. The order of the prompts is nothing.

    Args:
        prompts: All prompts of a run.
        held_out: What is only ever measured on: a share of each kind below 1, or so many prompts of each kind.
        validation: Likewise for choosing among checkpoints.
        seed: Seed of the draw.

    Raises:
        UsageError: Shares that leave nothing to train on.
    """
    totals = Counter(prompt.kind for prompt in prompts)
    wanted: dict[Part, Counter[Kind]] = {
        "held_out": _wanted("held_out", held_out, totals),
        "validation": _wanted("validation", validation, totals),
    }
    for kind, total in totals.items():
        if total - sum(counts[kind] for counts in wanted.values()) < 1:
            raise UsageError(
                f"held_out {held_out:g} and validation {validation:g} leave none of {total} {kind} prompts to train on"
            )
    groups = find_groups(prompts)
    members: dict[int, list[Prompt]] = {}
    for prompt, group in zip(prompts, groups, strict=True):
        members.setdefault(group, []).append(prompt)
    filled: dict[Part, Counter[Kind]] = {part: Counter() for part in wanted}
    order = sorted(members, key=lambda group: min(prompt.text for prompt in members[group]))
    random.Random(seed).shuffle(order)
    chosen: dict[int, Part] = {}
    for group in order:
        kinds = Counter(prompt.kind for prompt in members[group])
        chosen[group] = "train"
        for part, counts in wanted.items():
            if all(filled[part][kind] + count <= counts[kind] for kind, count in kinds.items()):
                chosen[group] = part
                filled[part].update(kinds)
                break
    return [chosen[group] for group in groups]


def shortfalls(parts: Mapping[Part, Sequence[Prompt]], *, held_out: float, validation: float) -> list[str]:
    """A note for each part that holds clearly fewer prompts of a kind than it was to have.

    Args:
        parts: Part to its prompts.
        held_out: As in `part_prompts`.
        validation: Likewise.
    """
    totals = Counter(prompt.kind for prompts in parts.values() for prompt in prompts)
    notes = []
    for part, amount in (("held_out", held_out), ("validation", validation)):
        there = Counter(prompt.kind for name, prompts in parts.items() if name == part for prompt in prompts)
        notes += [
            f"{part} was to have {count} {kind} prompts and has {there[kind]}: prompts that are alike are never parted."
            for kind, count in _wanted(part, amount, totals).items()
            if there[kind] < 0.9 * count
        ]
    return notes


def _wanted(name: str, amount: float, totals: Mapping[Kind, int]) -> Counter[Kind]:
    """Prompts of each kind that a part is to have at most.

    Raises:
        UsageError: No share and no number of prompts.
    """
    if not math.isfinite(amount) or amount < 0 or (amount >= 1 and amount != int(amount)):
        raise UsageError(f"{name} is {amount:g}: a share from 0 to below 1, or a whole number of prompts of each kind")
    return Counter({kind: int(amount) if amount >= 1 else round(amount * total) for kind, total in totals.items()})


def check_apart(parts: Mapping[Any, Iterable[Prompt]]) -> None:
    """Look at the finished parts once more: no text, seed or near-duplicate group in two of them.

    Raises:
        RunError: Names two parts and one prompt of each by its id.
    """
    every = [(part, prompt) for part, prompts in parts.items() for prompt in prompts]
    first: dict[int, tuple[str, Prompt]] = {}
    for (part, prompt), group in zip(every, find_groups([prompt for _, prompt in every]), strict=True):
        other, there = first.setdefault(group, (part, prompt))
        if other != part:
            raise RunError(
                f"the prompt {there.id} of {other} and the prompt {prompt.id} of {part} are of one group (same seed "
                "or marked group, or nearly the same words): what is trained on cannot be measured on. Make the data "
                "anew with orbench align pairs, which keeps groups together"
            )


def find_published(splits: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of those splits that are OR-Bench's own, or a part of them.

    The prompts tell it, or those of the whole file that they are from: a file of one's own may be called toxic.csv.
    The name decides where the file is not there to look into, and for 80k, whose released file we have no fingerprint
    of.

    Args:
        splits: As `run.json` describes them.
    """
    prints = {named.fingerprint: name for name, named in NAMED_SPLITS.items() if named.fingerprint}
    found = []
    for split in splits:
        name, whole = split["name"], _whole(split)
        if known := prints.get(split["fingerprint"]) or prints.get(whole or ""):
            found.append(known)
        elif name in NAMED_SPLITS and (whole is None or NAMED_SPLITS[name].fingerprint is None):
            found.append(name)
    return found


def _whole(split: Mapping[str, Any]) -> str | None:
    """Fingerprint of the file that a split is from, of which it may be a part; None if it cannot be read."""
    if not Path(split["source"]).is_file():
        return None
    try:
        return load_split(f"{split['kind']}={split['source']}").fingerprint
    except OrbenchError:
        return None


def like_any(prompts: Sequence[Prompt], others: Sequence[Prompt]) -> list[Prompt]:
    """Those of the prompts that are of one group with any of the others."""
    groups = find_groups([*others, *prompts])
    taken = set(groups[: len(others)])
    return [prompt for prompt, group in zip(prompts, groups[len(others) :], strict=True) if group in taken]
