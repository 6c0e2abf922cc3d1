"""Tables to prompts: checks every row and gives it an id, a category and a kind.

In: a `Table` from a file or from the Hub. Out: a list of `Prompt` in the table's order. Messages name the row and
never quote a prompt, because some are toxic.
"""

from __future__ import annotations

import difflib
import hashlib
import shlex
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from orbench.categories import CATEGORIES, UNCATEGORISED
from orbench.errors import OrbenchWarning, SplitError, UsageError
from orbench.records import KINDS, Kind, Prompt
from orbench.splits.files import COLUMNS, Table
from orbench.splits.named import own_categories

KIND_WORDS: dict[str, Kind] = {
    "safe": "safe",
    "harmless": "safe",
    "benign": "safe",
    "toxic": "toxic",
    "unsafe": "toxic",
    "harmful": "toxic",
}
"""Other sets' words for the two kinds, in lower case."""


def to_prompts(table: Table, name: str, kind: Kind | None, foreign: bool = False) -> list[Prompt]:
    """Check the rows of a table and make prompts of them.

    Args:
        table: The rows; only the column `prompt` must be there.
        name: Name of the split. Where the rows are of both kinds, they belong to `NAME/safe` and `NAME/toxic`.
        kind: What the rows are said to be; None leaves it to the column `kind`.
        foreign: The column `kind` is another set's and may use its words (`KIND_WORDS`).

    Returns:
        One prompt a row, in order, text unchanged. A row without an `id` of its own gets the first 16 hexadecimal
        digits of the sha256 of its text; the second row with that text gets `-2` behind it, and so on.

    Raises:
        SplitError: No column `prompt`, or a cell that cannot be meant; the message names the row.
        UsageError: Nobody says what kind the prompts are, or `kind` and the column `kind` differ.
    """
    texts = _texts(table)
    kinds = _kinds(table, kind, KIND_WORDS if foreign else {})
    both = len(set(kinds)) > 1
    split_of = {each: f"{name}/{each}" if both else name for each in KINDS}
    return [
        Prompt(
            id=id_,
            text=text,
            category=category,
            kind=each,
            split=split_of[each],
            seed_id=seed_id or None,
            group_id=group_id or None,
        )
        for id_, text, category, each, seed_id, group_id in zip(
            _ids(table, texts),
            texts,
            _categories(table),
            kinds,
            _cells(table, "seed_id"),
            _cells(table, "group_id"),
            strict=True,
        )
    ]


def _cells(table: Table, name: str, numbers: bool = True) -> list[str]:
    """One column as text, "" for an empty cell or a missing column; whole numbers as text if `numbers`."""
    cells = table.columns.get(name)
    if cells is None:
        return [""] * table.rows
    for row, cell in enumerate(cells):
        if not isinstance(cell, str) and cell is not None and not (numbers and type(cell) is int):
            raise SplitError(f"{table.where(row)}: {name!r} is not text but of type {type(cell).__name__}")
    return ["" if cell is None else str(cell) for cell in cells]


def _texts(table: Table) -> list[str]:
    if "prompt" not in table.columns:
        found = ", ".join(repr(column) for column in table.found) or "none"
        raise SplitError(f"{table.source}: no column 'prompt'; found {found}{_meant(table.found)}")
    texts = _cells(table, "prompt", numbers=False)
    for row, text in enumerate(texts):
        if not text or text.isspace():
            raise SplitError(f"{table.where(row)}: the prompt is empty")
        if "\0" in text:  # a fingerprint parts the prompts by it
            raise SplitError(f"{table.where(row)}: the prompt holds a NUL character")
    return texts


def _meant(found: Sequence[str]) -> str:
    """What to say where there is no column `prompt`: options that name it and the others, ready to be typed."""
    bare = {column.strip().lower(): column for column in reversed(found)}
    near = difflib.get_close_matches("prompt", bare, n=1, cutoff=0.5)
    if not near:
        return ". Say --column prompt=NAME, in quotes if NAME holds a space"
    theirs = {"prompt": bare[near[0]]}
    theirs |= {name: bare[name] for name in COLUMNS if name in bare and bare[name] not in (name, bare[near[0]])}
    said = " ".join("--column " + shlex.quote(f"{name}={column}") for name, column in theirs.items())
    return f"; is it {bare[near[0]]!r}? Then say {said}"


def _kinds(table: Table, kind: Kind | None, words: Mapping[str, Kind]) -> list[Kind]:
    said = _cells(table, "kind", numbers=False)
    cells = [words.get(cell.strip().lower(), cell) for cell in said]
    if kind is None and "kind" not in table.columns:
        raise UsageError(
            f"{table.source}: no column 'kind', so say what the prompts are: "
            f"--split safe={table.source} or --split toxic={table.source}"
        )
    known = "'safe' or 'toxic'" + "".join(f" or {word!r}" for word in words if word not in KINDS)
    for row, cell in enumerate(cells):
        if cell not in KINDS and not (kind and not cell):
            raise SplitError(f"{table.where(row)}: 'kind' is {said[row][:40]!r}; it must be {known}")
        if kind and cell and cell != kind:
            raise UsageError(f"{table.where(row)}: the file says {cell}, but its prompts are to be {kind}")
    return [cast("Kind", cell or kind) for cell in cells]


def _categories(table: Table) -> list[str]:
    cells = _cells(table, "category")
    known = {cell: cell.strip().lower() or UNCATEGORISED for cell in set(cells)}
    unknown = Counter(cell for cell in cells if known[cell] not in CATEGORIES and known[cell] != UNCATEGORISED)
    if unknown and unknown.keys() - own_categories(table.source):
        names = ", ".join(f"{cell[:40]!r} ({count})" for cell, count in unknown.most_common(10))
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        warnings.warn(
            f"{table.source}: categories that are none of OR-Bench's ten, kept as they are: {names}{more}",
            OrbenchWarning,
            stacklevel=2,
        )
    return [cell if cell in unknown else known[cell] for cell in cells]


def _ids(table: Table, texts: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    ids: list[str] = []
    for own, text in zip(_cells(table, "id"), texts, strict=True):
        if own and not own.isspace():
            ids.append(own)
            continue
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        count = seen[digest] = seen.get(digest, 0) + 1
        ids.append(digest if count == 1 else f"{digest}-{count}")
    if len(set(ids)) < len(ids):
        first: dict[str, int] = {}
        for row, id_ in enumerate(ids):
            if id_ in first:
                raise SplitError(f"{table.where(row)}: the id {id_[:40]!r} is that of row {first[id_] + 1} already")
            first[id_] = row
    return ids
