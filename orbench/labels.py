"""Files of labels by people, for `orbench calibrate` and for correcting a run: read, checked, weighed.

CSV or JSON Lines. Columns: `response` and `label` (`compliance` or `refusal`, or an outcome's name; other values are
counted and left out), optionally `prompt`, `id`, `source`, `category`, `language`, and what `orbench label` writes:
`split`, `prompt_id`, `kind`, `stratum`, `stratum_size`, `weight`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from orbench.errors import RunError

REFUSAL = ("refusal", "direct_refusal", "indirect_refusal", "blocked")
COMPLIANCE = ("compliance", "direct_answer")
PARTIAL = "partial"
GROUPS = ("source", "category", "language")
"""Columns by which a calibration is shown apart, where the file has them."""


class Label(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One labelled reply."""

    id: str
    response: str
    label: str
    prompt: str = ""
    weight: float = 1.0
    """How many replies it stands for."""
    groups: Mapping[str, str] = {}
    """`source`, `category`, `language`, as far as the file has them."""
    split: str = ""
    prompt_id: str = ""
    stratum: str = ""
    """Part of its run that it was drawn from; empty if unknown."""
    stratum_size: float = 0.0
    """Replies in that part; 0 if unknown."""

    @property
    def refused(self) -> bool | None:
        """Whether the person saw a refusal; None where the label is neither."""
        return True if self.label in REFUSAL else False if self.label in COMPLIANCE else None


class Labels(msgspec.Struct, frozen=True):
    """A file of labels."""

    path: Path
    rows: Sequence[Label]
    fingerprint: str
    """sha256 of the file."""


def load_labels(path: str | Path) -> Labels:
    """Read a file of labels.

    Raises:
        orbench.RunError: No such file, or something in it that cannot be; names file and row.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: not text in UTF-8 (byte {error.start}); save it as UTF-8") from None
    if path.suffix.lower() not in (".csv", ".jsonl"):
        raise RunError(f"{path}: labels are read from .csv or .jsonl files")
    fields = _csv(path, text) if path.suffix.lower() == ".csv" else _jsonl(path, text)
    rows = [_label(path, number, row) for number, row in fields]
    if not rows:
        raise RunError(f"{path}: holds no labels")
    repeated, times = Counter(row.id for row in rows).most_common(1)[0]
    if times > 1:
        raise RunError(f"{path}: two rows have the id {repeated!r}; make it unique")
    return Labels(path, _weigh(path, rows), hashlib.sha256(content).hexdigest())


@contextmanager
def long_cells() -> Iterator[None]:
    """Lets csv read cells of up to 1 GiB, for replies are longer than its own limit of 128 KiB."""
    limit = csv.field_size_limit(1 << 30)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _csv(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with long_cells():
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        try:
            _check_columns(path, reader.fieldnames or [])
            for number, row in enumerate(reader, start=2):
                if None in row:
                    raise RunError(f"{path}, row {number}: has more cells than there are columns")
                yield number, row
        except csv.Error as error:
            raise RunError(f"{path}, near line {reader.line_num}: no CSV: {error}") from None


def _jsonl(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.MsgspecError, RecursionError) as error:
            raise RunError(f"{path}, row {number}: no JSON object: {error}") from None
        _check_columns(path, list(row), f", row {number}")
        yield number, row


def _check_columns(path: Path, found: Sequence[str], where: str = "") -> None:
    for needed in ("response", "label"):
        if needed not in found:
            raise RunError(f"{path}{where}: no column {needed!r}; there are {', '.join(found) or 'none'}")


def _label(path: Path, number: int, row: Mapping[str, Any]) -> Label:
    for name in ("response", "label"):
        if not isinstance(row[name], str):
            raise RunError(f"{path}, row {number}: {name!r} is no text")
    label = row["label"].strip().lower()
    if not label:
        raise RunError(f"{path}, row {number}: no label; write compliance, refusal, or take the row out")
    weight = _number(row.get("weight") or 1.0)
    if not 0 < weight < math.inf:
        raise RunError(f"{path}, row {number}: the weight {row.get('weight')!r} is no number above 0")
    size = _number(row.get("stratum_size") or 0)
    return Label(
        id=str(row.get("id") or number),
        response=row["response"],
        label=label,
        prompt=str(row.get("prompt") or ""),
        weight=weight,
        groups={name: str(row[name]) for name in GROUPS if row.get(name)},
        split=str(row.get("split") or ""),
        prompt_id=str(row.get("prompt_id") or ""),
        stratum=str(row.get("stratum") or ""),
        stratum_size=size if 0 < size < math.inf else 0.0,
    )


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _weigh(path: Path, rows: Sequence[Label]) -> list[Label]:
    """Where strata are known, weights follow from what was labelled of them, also if the labelling was left early."""
    used = Counter(_stratum(row) for row in rows if row.refused is not None)
    sizes: dict[tuple[str, str], float] = {}
    weighed = []
    for row in rows:
        if not row.stratum or not row.stratum_size:
            weighed.append(row)
            continue
        size = sizes.setdefault(_stratum(row), row.stratum_size)
        if size != row.stratum_size:
            raise RunError(
                f"{path}: the stratum {row.stratum!r} of source {row.groups.get('source', '')!r} has {size:g} replies "
                f"in one row and {row.stratum_size:g} in row {row.id!r}, so the rows were drawn from two states of a "
                "run and cannot be weighed together: leave the rows of one state out"
            )
        count = used[_stratum(row)]
        weighed.append(msgspec.structs.replace(row, weight=size / count) if count else row)
    return weighed


def _stratum(row: Label) -> tuple[str, str]:
    """What names a stratum in a file that may hold labels of several runs."""
    return row.groups.get("source", ""), row.stratum
