"""The named splits: what they are called, what was released, and which files of a folder hold them."""

from __future__ import annotations

import warnings
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

import msgspec

from orbench.errors import OrbenchWarning, SplitError
from orbench.records import Kind
from orbench.splits.files import SUFFIXES
from orbench.splits.split import Split


@dataclass(frozen=True)
class NamedSplit:
    """One of OR-Bench's splits."""

    name: str
    """What users type."""
    kind: Kind
    rows: int
    """Prompts in the released file."""
    fingerprint: str | None
    """That of the released file (see `orbench.splits.fingerprint`); None if we have not had it in hand."""
    generated: str | None = None
    """What `orbench generate` calls the file, if it is not `name`."""

    @property
    def config(self) -> str:
        """Configuration of the Hub dataset `bench-llm/or-bench`."""
        return f"or-bench-{self.name}"

    @property
    def stems(self) -> tuple[str, ...]:
        """File names without suffix under which a folder may hold the split, in the order of search."""
        return (self.name, self.config, *((self.generated,) if self.generated else ()))


# Rows: the files on the Hub. Fingerprints: computed from the released hard-1k.csv and toxic.csv, rows in file order.
NAMED_SPLITS: dict[str, NamedSplit] = {
    split.name: split
    for split in (
        NamedSplit("80k", "safe", 80_359, None, generated="all"),
        NamedSplit(
            "hard-1k",
            "safe",
            1_319,
            "9c5e0d91775880322e927e7c09703be8695fac9e39ace68411ee1bbf2c934807",
            generated="hard",
        ),
        NamedSplit("toxic", "toxic", 655, "c7c598c45c2ca231650660d7605212c28d99fbe881a52d24d73692a60bd17c87"),
    )
}
"""Name to split."""
_HARD = NAMED_SPLITS["hard-1k"]


def find_file(named: NamedSplit, folder: Path) -> Path | None:
    """The file of a folder that holds the split, by its name alone (in any case); None if there is none."""
    there = {path.name.lower(): path for path in _files(folder)}
    wanted = (f"{stem}{suffix}" for stem in named.stems for suffix in SUFFIXES)
    return next((there[name] for name in wanted if name in there), None)


def require_file(named: NamedSplit, folder: Path) -> Path:
    """The file of a folder that holds the split.

    Raises:
        SplitError: There is none; the message says what was looked for, what is there, and what was likely meant.
    """
    path = find_file(named, folder)
    if path is not None:
        return path
    there = [path.name for path in _files(folder)]
    listed = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
    message = (
        f"{folder}: no file for the split {named.name!r}: looked for {' or '.join(named.stems)} "
        f"with {', '.join(SUFFIXES)}; found {listed or 'no such file at all'}"
    )
    near = next((name for name in there if name.lower().startswith((named.name, named.config))), None)
    if near:
        message += f". {near} is not the split {named.name!r}: name it as a file, "
        message += f"--split {named.kind}={folder / near}"
    raise SplitError(message)


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    except OSError as error:
        raise SplitError(f"{folder}: not a folder that can be read: {error.strerror}") from None


def warn_unless_released(named: NamedSplit, split: Split) -> None:
    """Warn if the prompts of a whole split, before any limit, are not the released ones."""
    if named.fingerprint is None:
        if len(split) != named.rows:
            _warn(f"{split.source}: not the released split {named.name!r}: {len(split)} rows instead of {named.rows}")
    elif split.fingerprint != named.fingerprint:
        _warn(
            f"{split.source}: not the released split {named.name!r}: fingerprint {split.fingerprint[:12]} "
            f"({len(split)} rows) instead of {named.fingerprint[:12]} ({named.rows} rows)"
        )


def is_generated(path: Path) -> bool:
    """Whether `orbench generate` wrote this file: its `generation.json` lies beside it or one folder up."""
    return _generation(path) is not None


def choosers(path: Path) -> tuple[str, ...]:
    """The models whose refusals chose a file's prompts; none unless it is a Hard split of `orbench generate`."""
    found = _generation(path)
    if found is None or path.stem.lower() != _HARD.generated:
        return ()
    try:
        panel = msgspec.json.decode(found.read_bytes(), type=_Generation).panel
    except (OSError, msgspec.MsgspecError):
        return ()
    return tuple(panel.members) if panel else ()


def own_categories(source: str) -> Set[str]:
    """The categories that a set of `orbench generate` was made with, where a table is of one; else none."""
    found = _generation(Path(source))
    try:
        return msgspec.json.decode(found.read_bytes(), type=_Generation).categories.keys() if found else set()
    except (OSError, msgspec.MsgspecError):
        return set()


class _Panel(msgspec.Struct):
    members: dict[str, object]


class _Generation(msgspec.Struct):
    panel: _Panel | None = None
    categories: dict[str, object] = {}


def _generation(path: Path) -> Path | None:
    folder = path.absolute().parent
    return next((file for each in (folder, folder.parent) if (file := each / "generation.json").is_file()), None)


def _warn(message: str) -> None:
    warnings.warn(message, OrbenchWarning, stacklevel=3)
