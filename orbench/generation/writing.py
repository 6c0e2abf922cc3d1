"""Splits to files: CSV and Parquet, each whole or not at all."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from orbench.engine.jsonl import read_lines, without_surrogates
from orbench.errors import RunError
from orbench.generation.config import GenerationConfig
from orbench.generation.folder import REWRITES, State
from orbench.generation.overlap import Overlap
from orbench.generation.records import GIVEN, Item
from orbench.generation.roles import shown
from orbench.generation.selection import Drop, Row
from orbench.generation.standing import Standing

_PART = 10_000
"""Rows that are turned into a table at once."""


def write_split(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write `NAME.csv` and `NAME.parquet`; a split without rows has no file, and an old one is taken away.

    Raises:
        RunError: The disk is full, or the like.
    """
    targets = [folder / f"{name}.csv", folder / f"{name}.parquet"]
    if not rows:
        for path in targets:
            path.unlink(missing_ok=True)
        return

    fields = Row.__struct_fields__

    def to_csv(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(fields)
            writer.writerows([getattr(row, field) for field in fields] for row in rows)

    def to_parquet(path: Path) -> None:
        import pyarrow
        from pyarrow import parquet

        schema = pyarrow.schema([(field, pyarrow.string()) for field in fields])
        with parquet.ParquetWriter(path, schema) as writer:
            for start in range(0, len(rows), _PART):  # Arrow takes several times the memory of what it holds
                part = rows[start : start + _PART]
                columns = []
                for field in fields:
                    builder = pyarrow.lib.StringBuilder()  # `pyarrow.array` would import pandas: 0.3 s and 60 MB
                    builder.append_values([getattr(row, field) for row in part])
                    columns.append(builder.finish())
                writer.write_table(pyarrow.Table.from_arrays(columns, schema=schema))

    folder.mkdir(exist_ok=True)
    for path, write in zip(targets, (to_csv, to_parquet), strict=True):
        whole(path, write)


def write_drops(path: Path, drops: Sequence[Drop]) -> None:
    """Write drops.jsonl."""
    content = b"".join(msgspec.json.encode(drop) + b"\n" for drop in drops)
    whole(path, lambda part: part.write_bytes(content))


def write_audit(path: Path, config: GenerationConfig, state: State, stands: Standing) -> None:
    """Write audit.csv: every moderated prompt, what was decided, who calls it toxic, and every vote.

    Each row of a given file has its row, with its number from 1 and its own id; rows of one text share `id` and votes.
    People are shown of a prompt what moderators were.

    Raises:
        RunError: It cannot be written.
    """
    moderators = list(stands.moderators)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["id", "row", "own_id", "prompt", "category", "decision", "toxic_votes", *moderators])
    for item in read_lines(path.with_name(REWRITES), Item):
        given = item.call == GIVEN
        if given or item.dropped is None:
            track = state.tracks[item.id]
            votes = [track.votes.get(name, "") for name in moderators]
            row = [
                item.id,
                item.place + 1 if given else "",
                item.own_id or "",
                shown(config, item.prompt),
                item.category,
                stands.of(track).decision or "",
                votes.count("toxic"),
                *votes,
            ]
            writer.writerow(row)
    whole(path, lambda part: part.write_text(text.getvalue(), encoding="utf-8", newline=""))


def write_overlap(path: Path, splits: Mapping[str, Sequence[Row]], found: Mapping[str, Sequence[Overlap]]) -> None:
    """Write overlap.csv: prompts that another set has too, the nearest first, with the row there, counted from 1.

    Where nothing was looked for there is no file, and an old one is taken away.

    Raises:
        RunError: It cannot be written.
    """
    if not found:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["split", "id", "how", "likeness", "run", "other_row"])
    for name, overlaps in found.items():
        rows = splits[name]
        writer.writerows(
            [name, rows[each.prompt].id, each.how.value, f"{each.likeness:.3f}", each.run, each.other + 1]
            for each in overlaps
        )
    whole(path, lambda part: part.write_text(text.getvalue(), encoding="utf-8", newline=""))


def write_text(path: Path, text: str) -> None:
    """Write a text file."""
    whole(path, lambda part: part.write_text(without_surrogates(text), encoding="utf-8"))


def whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written beside its place, then put it there.

    Raises:
        RunError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except OSError as error:
        raise RunError(
            f"{path}: cannot be written: {error.strerror or error}. Make room and run the same command again"
        ) from None
