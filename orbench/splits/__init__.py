"""Splits: from what users type to checked prompts in a fixed order.

    spec ("hard-1k", "sample/safe", "toxic=my.csv")
        -> bundled sample | file of --data | Hub    files.py, named.py, hub.py
        -> prompts with ids, kinds, categories      prompts.py
        -> sample of --limit                        sampling.py
        -> Split                                    split.py

A spec is a name (`80k`, `hard-1k`, `toxic`, `sample`) or a file (`.csv`, `.jsonl`, `.json`, `.parquet`). `safe=` or
`toxic=` before it says what its prompts are; `/safe` or `/toxic` behind it takes one half of what holds both.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from orbench.errors import SplitError, UsageError
from orbench.records import KINDS, Kind, Prompt
from orbench.splits import hub
from orbench.splits.files import COLUMNS, SUFFIXES, read_table
from orbench.splits.named import NAMED_SPLITS, NamedSplit, find_file, is_generated, require_file, warn_unless_released
from orbench.splits.prompts import to_prompts
from orbench.splits.sampling import check_limit, sample
from orbench.splits.split import Split, fingerprint

__all__ = [
    "NAMED_SPLITS",
    "AvailableSplit",
    "NamedSplit",
    "Split",
    "available_splits",
    "fingerprint",
    "load_split",
    "load_splits",
]

StrPath: TypeAlias = str | os.PathLike[str]

SAMPLE = "sample"
"""The split that is inside the package."""
DATA_VARIABLE = "ORBENCH_DATA_DIR"
"""Environment variable that stands in for `data`."""


def load_split(
    name: StrPath,
    *,
    data: StrPath | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> Split:
    """Load one split.

    Args:
        name: A spec: see the module's docstring. A named split comes from `data`, else the folder in
            `ORBENCH_DATA_DIR`, else the Hub dataset `bench-llm/or-bench`.
        data: Folder with files such as `hard-1k.csv` or `or-bench-hard-1k.parquet`.
        revision: Branch, tag or commit of the Hub dataset; None is `main`.
        columns: Our name of a column (`prompt`, `category`, `id`, `seed_id`, `group_id`, `kind`) to that in the files,
            where they differ; holds for files, not for named splits.
        limit: Draw this many prompts (at least 1), each kind and category in proportion; None takes all.
        seed: Seed of that draw, any integer.

    Returns:
        The split. Where it holds both kinds, `kind` is None, and its prompts say `NAME/safe` or `NAME/toxic`.

    Raises:
        UsageError: The spec, the limit or the combination makes no sense.
        SplitError: The prompts cannot be found, reached, read or understood.
    """
    check_limit(limit)
    check_columns(columns)
    spec = os.fspath(name)
    said, target, half = _parse(spec)
    if target == SAMPLE:
        with _sample_file() as path:
            split = Split(SAMPLE, to_prompts(read_table(path), SAMPLE, None), "bundled")
    elif target in NAMED_SPLITS:
        split = _load_named(NAMED_SPLITS[target], data, revision)
    else:
        path = Path(os.path.expanduser(target))
        split = Split(
            path.stem, to_prompts(read_table(path, columns), path.stem, said, "kind" in (columns or {})), str(path)
        )

    prompts: Sequence[Prompt] = split
    if half and split.kind != half:
        prompts = [prompt for prompt in split if prompt.kind == half]
        if not prompts:
            raise UsageError(f"{spec}: all prompts of {split.name!r} are {split.kind}")
    if limit is not None:
        prompts = sample(prompts, limit, seed)
    if prompts is split:
        return split
    return Split(f"{split.name}/{half}" if half and not split.kind else split.name, prompts, split.source)


def load_splits(
    specs: Iterable[StrPath],
    *,
    data: StrPath | None = None,
    revision: str | None = None,
    columns: Mapping[str, str] | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> list[Split]:
    """Load several splits, each of one kind.

    Args:
        specs: See `load_split`. What holds both kinds becomes two splits, `NAME/safe` and `NAME/toxic`. A spec that
            is given twice counts once.
        data: See `load_split`.
        revision: See `load_split`.
        columns: See `load_split`.
        limit: Prompts of each spec, both kinds together; see `load_split`.
        seed: See `load_split`.

    Returns:
        The splits in the order of the specs, safe before toxic. The name of each is the `split` of its prompts.

    Raises:
        UsageError: As in `load_split`, or two specs give splits of one name.
        SplitError: As in `load_split`.
    """
    splits: dict[str, Split] = {}
    origin: dict[str, str] = {}
    for spec in dict.fromkeys(os.fspath(spec) for spec in specs):
        whole = load_split(spec, data=data, revision=revision, columns=columns, limit=limit, seed=seed)
        for kind in KINDS:
            prompts = [prompt for prompt in whole if prompt.kind == kind]
            if not prompts:
                continue
            name = prompts[0].split
            if name in splits:
                raise UsageError(
                    f"--split {origin[name]} and --split {spec} both give a split called {name!r}: "
                    "leave one out, or rename a file"
                )
            splits[name] = whole if name == whole.name else Split(name, prompts, whole.source)
            origin[name] = spec
    return list(splits.values())


def check_columns(columns: Mapping[str, str] | None, known: Sequence[str] = COLUMNS) -> None:
    """Refuse a column that means nothing.

    Raises:
        UsageError: One that orbench does not know.
    """
    for name in columns or {}:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise UsageError(f"unknown column {name!r}: {hint}There are {', '.join(known)}")


@dataclass(frozen=True)
class AvailableSplit:
    """A line of `orbench splits`: what can be typed, and where it would come from."""

    name: str
    kinds: tuple[Kind, ...]
    source: str | None
    """`bundled`, the path of a file, or `hub:...`; None if the data folder has no file for it."""
    rows: int | None
    """Prompts in the file, or in the released split where it would come from the Hub; None if unknown."""


def available_splits(data: StrPath | None = None) -> list[AvailableSplit]:
    """What can be evaluated without naming a file of one's own. Asks no network.

    Args:
        data: See `load_split`.

    Raises:
        SplitError: The data folder cannot be read.
    """
    folder = _data_folder(data)
    found: list[AvailableSplit] = []
    for named in NAMED_SPLITS.values():
        if folder is None:
            found.append(AvailableSplit(named.name, (named.kind,), hub.source(named), named.rows))
        else:
            path = find_file(named, folder)
            found.append(
                AvailableSplit(named.name, (named.kind,), str(path) if path else None, _count(path) if path else None)
            )
    with _sample_file() as path:
        found.append(AvailableSplit(SAMPLE, KINDS, "bundled", _count(path)))
    return found


def _count(path: Path) -> int | None:
    try:
        return read_table(path).rows
    except SplitError:  # a table of what there is should not fail for one broken file; evaluating it will
        return None


def _parse(spec: str) -> tuple[Kind | None, str, Kind | None]:
    """Take `KIND=TARGET/HALF` apart; the target is a name or the path of a file.

    Raises:
        UsageError: It is neither, or a kind or half is given that a named split does not have.
    """
    said: Kind | None = None
    target = spec
    before, equals, behind = spec.partition("=")
    if equals and not os.path.isfile(spec):
        if before in KINDS:
            said, target = before, behind
        elif not {"/", os.sep} & set(before):
            raise UsageError(f"--split {spec}: say safe={behind} or toxic={behind}, not {before}=")
    half: Kind | None = None
    stem, _, last = target.rpartition("/")
    if stem and last in KINDS and not os.path.isfile(target):
        target, half = stem, last

    known = [*NAMED_SPLITS, SAMPLE]
    looks_like_a_path = bool(Path(target).suffix) or bool({"/", os.sep} & set(target))
    if target not in known and not looks_like_a_path:
        near = difflib.get_close_matches(target.lower().removeprefix("or-bench-"), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(
            f"unknown split {target!r}: {hint}A split is {', '.join(known)}, or a file ({', '.join(SUFFIXES)})"
        )
    if said and target == SAMPLE:
        raise UsageError(f"--split {spec}: {SAMPLE!r} holds both kinds: say {SAMPLE}/{said}")
    for kind in (said, half):
        if kind and target in NAMED_SPLITS and NAMED_SPLITS[target].kind != kind:
            raise UsageError(f"--split {spec}: the prompts of {target!r} are {NAMED_SPLITS[target].kind}, not {kind}")
    return said, target, half


def _load_named(named: NamedSplit, data: StrPath | None, revision: str | None) -> Split:
    folder = _data_folder(data)
    if folder is None:
        table = hub.load(named, revision)
    elif revision is not None:
        origin = "--data" if data is not None else DATA_VARIABLE
        raise UsageError(f"--revision is of the Hub dataset, but {origin} says {folder}: leave one of them out")
    else:
        path = require_file(named, folder)
        table = read_table(path)
    split = Split(named.name, to_prompts(table, named.name, named.kind), table.source)
    if folder is None or not is_generated(path):
        warn_unless_released(named, split)
    return split


def _sample_file() -> AbstractContextManager[Path]:
    return resources.as_file(resources.files(__name__) / "sample.csv")


def _data_folder(data: StrPath | None) -> Path | None:
    folder = os.fspath(data) if data is not None else os.environ.get(DATA_VARIABLE)
    return Path(os.path.expanduser(folder)) if folder else None
