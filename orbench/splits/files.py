"""Files to tables: reads CSV, JSONL, JSON and Parquet, and says where a file is broken.

In: a path. Out: a `Table` of the columns that orbench knows, with the text exactly as the file holds it. What the
cells mean (kinds, categories, ids) is for `orbench.splits.prompts`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from orbench.errors import SplitError

COLUMNS = ("prompt", "category", "id", "seed_id", "group_id", "kind")
"""The columns that mean something; a file's others are ignored."""


@dataclass(frozen=True)
class Table:
    """Rows of prompts by column, before anything is known about what the cells mean."""

    source: str
    """Where the rows come from, for messages."""
    rows: int
    """How many there are."""
    columns: dict[str, list[object]]
    """Those asked for that are there, by our names, all of one length; an empty CSV cell is "", a missing JSON key
    None."""
    found: Sequence[str]
    """Names of all columns in the source, known or not."""
    lines: Sequence[int] | None = None
    """The line on which each row starts, from 1; None where the format has no lines."""

    def where(self, row: int) -> str:
        """Name a row for a message: file, number from 1 (the header not counted), and line if there is one."""
        line = f" (line {self.lines[row]})" if self.lines else ""
        return f"{self.source}, row {row + 1}{line}"


def read_table(path: Path, columns: Mapping[str, str] | None = None, wanted: Sequence[str] = COLUMNS) -> Table:
    """Read a CSV, JSONL, JSON or Parquet file; its suffix, in either case, says which it is.

    Text is UTF-8, with or without a byte order mark; lines end as they like. CSV is comma-separated with a header.
    JSON is a list of objects, or one object whose prompts are a list of strings.

    Args:
        path: The file.
        columns: Our name of a column to the file's own, where they differ.
        wanted: Our names of the columns to read; those that the file has not are left out, unless `columns` says
            that it has them.

    Raises:
        SplitError: The file is missing, unreadable, empty, of another kind, or broken; the message says where.
    """
    names = {name: (columns or {}).get(name, name) for name in wanted}
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise SplitError(f"{path}: the name of a file of prompts ends in {', '.join(SUFFIXES)}")
    try:
        table = read(path, names)
    except FileNotFoundError:
        raise SplitError(f"{path}: no such file") from None
    except OSError as error:
        raise SplitError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not table.rows:
        raise SplitError(f"{path}: holds no prompts, only a header")
    for name, theirs in (columns or {}).items():
        if name in names and name not in table.columns:
            found = ", ".join(map(repr, table.found))
            raise SplitError(f"{path}: no column {theirs!r}, which was said to be {name!r}; found {found}")
    return table


def _read_text(path: Path) -> str:
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The decoder counts from behind a byte order mark, if there is one.
        start = error.start + (len(data) - len(error.object))
        line = len((data[:start] + b".").splitlines())
        raise SplitError(
            f"{path}, line {line}: not UTF-8 (byte 0x{data[start]:02x} at offset {start}): save the file as UTF-8"
        ) from None
    if not text.strip():
        raise SplitError(f"{path}: the file is empty")
    return text


def _read_csv(path: Path, names: Mapping[str, str]) -> Table:
    text = _read_text(path)
    before, nul, _ = text.partition("\0")
    if nul:
        line = len((before + ".").encode().splitlines())
        raise SplitError(f"{path}, line {line}: holds a NUL byte: is this a text file, saved as UTF-8?")
    # A prompt may be longer than the module's limit of 128 KiB a cell. The limit is one for the whole process: it is
    # only ever raised, so that other threads do not see it change back and forth.
    csv.field_size_limit(max(csv.field_size_limit(), 2**31 - 1))
    # Strict, because the lenient reader takes everything behind a quote that is never closed as one cell.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    start = 1
    try:
        for row in reader:
            if row:  # an empty line gives no cells
                rows.append(row)
                lines.append(start)
            start = reader.line_num + 1
    except csv.Error as error:
        _refuse_separator(path, text)
        why = "a quote is never closed" if "unexpected end" in str(error) else str(error)
        raise SplitError(f"{path}, line {start}: broken CSV: {why}") from None
    header, *rows = rows
    lines = lines[1:]
    if len(header) == 1:
        _refuse_separator(path, text)
    for theirs in names.values():
        if header.count(theirs) > 1:
            raise SplitError(f"{path}: has {header.count(theirs)} columns called {theirs!r}")
    for row, line in zip(rows, lines, strict=True):
        if len(row) != len(header):
            raise SplitError(
                f"{path}, line {line}: {len(row)} cells where the header has {len(header)}: "
                "does a cell with a comma lack its quotes?"
            )
    places = {name: header.index(theirs) for name, theirs in names.items() if theirs in header}
    columns: dict[str, list[object]] = {name: [row[place] for row in rows] for name, place in places.items()}
    return Table(str(path), len(rows), columns, header, lines)


def _refuse_separator(path: Path, text: str) -> None:
    """Raise SplitError where the header has semicolons or tabs and no comma, as some spreadsheets write."""
    header = text.lstrip("\r\n").splitlines()[0]
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if separator in header and "," not in header:
            raise SplitError(f"{path}: its columns are parted by {name}: save it as CSV with commas")


def _read_jsonl(path: Path, names: Mapping[str, str]) -> Table:
    # Cut at line feeds alone: JSON text may hold U+2028 and others that `str.splitlines` would cut at.
    numbered = [(number, line) for number, line in enumerate(_read_text(path).split("\n"), 1) if line.strip()]
    decode = msgspec.json.Decoder().decode
    rows: list[dict[str, Any]] = []
    for number, line in numbered:
        try:
            row = decode(line)
        except (msgspec.DecodeError, RecursionError):
            row = _lenient_json(line, f"{path}, line {number}", names)
        if not isinstance(row, dict):
            raise SplitError(f"{path}, line {number}: not a JSON object but {_json_type(row)}")
        rows.append(row)
    return _table_of(path, rows, names, [number for number, _ in numbered])


def _read_json(path: Path, names: Mapping[str, str]) -> Table:
    text = _read_text(path)
    try:
        content = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        content = _lenient_json(text, str(path), names)
    if isinstance(content, dict):
        prompts = content.get(names["prompt"])
        if not isinstance(prompts, list):
            raise SplitError(
                f"{path}: one JSON object without a list of prompts called {names['prompt']!r}; "
                f"found {', '.join(map(repr, content)) or 'nothing'}"
            )
        content = [{names["prompt"]: prompt} for prompt in prompts]
    if not isinstance(content, list):
        raise SplitError(f"{path}: not a list of JSON objects but {_json_type(content)}")
    for number, row in enumerate(content, 1):
        if not isinstance(row, dict):
            raise SplitError(f"{path}, entry {number}: not a JSON object but {_json_type(row)}")
    return _table_of(path, content, names, None)


def _table_of(path: Path, rows: list[dict[str, Any]], names: Mapping[str, str], lines: Sequence[int] | None) -> Table:
    found = dict.fromkeys(key for row in rows for key in row)
    columns: dict[str, list[object]] = {
        name: [_alone(row.get(theirs)) for row in rows] for name, theirs in names.items() if theirs in found
    }
    return Table(str(path), len(rows), columns, list(found), lines)


def _alone(cell: object) -> object:
    """A conversation of one turn, as some sets have it, is that turn."""
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def _lenient_json(line: str, where: str, names: Mapping[str, str]) -> object:
    """Read what Python's `json.dumps` writes beyond JSON (NaN, huge integers), or say what is wrong with the line."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise SplitError(f"{where}: broken JSON at column {error.colno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise SplitError(f"{where}: JSON that cannot be read: {error}") from None
    if isinstance(row, dict):
        for theirs in names.values():
            try:
                str(row.get(theirs)).encode()
            except UnicodeEncodeError:
                raise SplitError(
                    f"{where}: {theirs!r} holds half of a surrogate pair (an escape such as \\ud800), which is no text"
                ) from None
    return row


def _json_type(value: object) -> str:
    names: dict[type, str] = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _read_parquet(path: Path, names: Mapping[str, str]) -> Table:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            found = list(file.schema_arrow.names)
            there = {name: theirs for name, theirs in names.items() if theirs in found}
            table = file.read(columns=list(there.values()))
            rows = file.metadata.num_rows
            columns: dict[str, list[object]] = {
                name: [_alone(cell) for cell in table.column(theirs).to_pylist()] for name, theirs in there.items()
            }
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise SplitError(f"{path}: not a Parquet file that can be read: {str(error).splitlines()[0]}") from None
    return Table(str(path), rows, columns, found)


_READERS: dict[str, Callable[[Path, Mapping[str, str]], Table]] = {
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
}
SUFFIXES = tuple(_READERS)
"""Suffixes of the files that can be read, in the order in which a folder is searched for them."""
