"""A person labels replies of a run: which ones, in which order, and what is kept of it.

Doubtful replies (undecided ones, those on which judges differ, those of low confidence) are drawn four times as
often as sure ones; each line of the file keeps its stratum and the stratum's size, so that whoever uses the file can
weigh it back to the whole run, also if the labelling was left early. The order is random and follows from the seed,
and every answer is in the file before the next reply is shown.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from orbench.engine.jsonl import without_surrogates
from orbench.errors import RunError, UsageError
from orbench.labels import load_labels
from orbench.results import Evaluation, Row
from orbench.scoring.audit import position
from orbench.scoring.outcomes import Outcome

KEYS = {"c": "compliance", "r": "refusal", "p": "partial", "s": "skipped"}
COLUMNS = (
    "id",
    "source",
    "split",
    "prompt_id",
    "kind",
    "category",
    "stratum",
    "stratum_size",
    "weight",
    "label",
    "prompt",
    "response",
)
HELP = "c compliance, r refusal, p partial, s skip, u undo, space show, q quit"
_DOUBT = 4.0
"""How much likelier a doubtful reply is drawn than a sure one."""
_SURE = 0.9
"""Confidence from which a verdict counts as sure."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One reply to label."""

    row: Row
    stratum: str
    stratum_size: int
    weight: float

    @property
    def id(self) -> str:
        """Unique in the file."""
        return f"{self.row.split}/{self.row.prompt_id}"


def draw(result: Evaluation, n: int, seed: int = 0) -> list[Task]:
    """The replies to label, in the order of labelling.

    Raises:
        UsageError: Fewer than one is wanted.
        RunError: The run has no reply that can be read.
    """
    if n < 1:
        raise UsageError(f"n is {n}: at least 1")
    strata: dict[str, list[tuple[float, tuple[str, str]]]] = {}
    for row in result.rows():
        if row.by != "signal" and row.error is None:
            key = (row.split, row.prompt_id)
            strata.setdefault(f"{row.kind}/{_doubt(row)}", []).append((position(seed, key), key))
    if not strata:
        raise RunError(f"{result.run}: no reply in it that can be labelled")
    sizes = {name: len(members) for name, members in sorted(strata.items())}
    quotas = _quotas(sizes, n)
    order = {key: (place, name) for name in sizes for place, key in sorted(strata[name])[: quotas[name]]}
    tasks = [
        Task(
            row=row,
            stratum=(name := order[row.split, row.prompt_id][1]),
            stratum_size=sizes[name],
            weight=sizes[name] / quotas[name],
        )
        for row in result.rows()
        if (row.split, row.prompt_id) in order
    ]
    return sorted(tasks, key=lambda task: position(seed + 1, (task.row.split, task.row.prompt_id)))


def _doubt(row: Row) -> str:
    if row.outcome is Outcome.UNSCORED:
        return "undecided"
    if row.is_disputed:
        return "disputed"
    return "doubtful" if row.confidence is not None and row.confidence < _SURE else "sure"


def _quotas(sizes: dict[str, int], n: int) -> dict[str, int]:
    """How many of each stratum: in proportion to size and doubt, at least two, at most all."""
    if sum(sizes.values()) <= n:
        return dict(sizes)
    quotas = {name: min(2, size) for name, size in sizes.items()} if n >= 2 * len(sizes) else dict.fromkeys(sizes, 0)
    weights = {name: size * (1.0 if name.endswith("/sure") else _DOUBT) for name, size in sizes.items()}
    for _ in range(n - sum(quotas.values())):
        open_ones = [name for name in sizes if quotas[name] < sizes[name]]
        most = max(open_ones, key=lambda name: weights[name] / (quotas[name] + 0.5))
        quotas[most] += 1
    return {name: max(1, quota) for name, quota in quotas.items()}


class LabelFile:
    """The file of labels, appended to as they are given."""

    def __init__(self, path: Path, source: str) -> None:
        """Open the file, or begin it.

        Raises:
            RunError: It cannot be read, or holds labels of another run.
        """
        self.path = path
        self._source = source
        self.done: list[str] = []
        if path.exists() and path.stat().st_size:
            found = load_labels(path) if len(path.read_text(encoding="utf-8").splitlines()) > 1 else None
            for label in found.rows if found else ():
                if label.groups.get("source") != source:
                    raise RunError(f"{path}: holds labels of {label.groups.get('source')}; choose another --out")
                self.done.append(label.id)
        else:
            self._append(COLUMNS)

    def add(self, task: Task, label: str) -> None:
        """Append one label.

        Raises:
            RunError: Disk full, or the like.
        """
        row = task.row
        self._append(
            (
                task.id,
                self._source,
                row.split,
                row.prompt_id,
                row.kind,
                row.category,
                task.stratum,
                str(task.stratum_size),
                f"{task.weight:.6g}",
                label,
                row.prompt,
                row.response,
            )
        )
        self.done.append(task.id)

    def undo(self) -> str | None:
        """Take the last label back; its id, or None if there is none."""
        if not self.done:
            return None
        with self.path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file))
        part = self.path.with_name(self.path.name + ".part")
        part.write_text(_text(lines[:-1]), encoding="utf-8", newline="")
        part.replace(self.path)
        return self.done.pop()

    def _append(self, cells: Sequence[str]) -> None:
        try:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(_text([cells]))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise RunError(f"{self.path}: cannot be written: {error.strerror}") from None


def _text(rows: Sequence[Sequence[str]]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(
        [without_surrogates(cell) for cell in row] for row in rows
    )
    return buffer.getvalue()


def label_run(
    result: Evaluation,
    out: Path,
    *,
    n: int,
    seed: int,
    keys: Iterator[str],
    write: Callable[[str], None],
) -> int:
    """Show replies and take a key for each, until all are labelled or the person quits.

    Args:
        result: The run.
        out: The file of labels; one that is there is gone on with.
        n: How many replies in all.
        seed: Draws and orders them.
        keys: One key a piece; its end counts as quitting.
        write: Prints a line; gets no control character.

    Returns:
        How many labels the file holds in the end.
    """
    tasks = draw(result, n, seed)
    file = LabelFile(out, str(result.config.get("digest") or result.model))
    at = 0
    while True:
        done = set(file.done)
        at = next((i for i, task in enumerate(tasks) if task.id not in done), len(tasks))
        if at == len(tasks):
            write(f"{len(file.done)} labelled: {out}")
            return len(file.done)
        if not _one(tasks[at], f"{len(file.done) + 1}/{len(tasks)}", file, keys, write):
            write(f"{len(file.done)} of {len(tasks)} labelled: {out}; the same command goes on")
            return len(file.done)


def _one(task: Task, number: str, file: LabelFile, keys: Iterator[str], write: Callable[[str], None]) -> bool:
    """Label one reply, or undo the one before; False to quit."""
    row = task.row
    hidden = row.kind == "toxic"
    write(f"--- {number}  {row.split}  {row.category}")
    if hidden:
        write("(hidden, may be unpleasant: space shows it)")
    else:
        _show(row, write)
    for key in keys:
        if key == "q":
            return False
        if key == "u":
            undone = file.undo()
            write(f"undone: {undone}" if undone else "nothing to undo")
            return True
        if key == " " and hidden:
            hidden = False
            _show(row, write)
        elif key in KEYS and (not hidden or key == "s"):
            file.add(task, KEYS[key])
            return True
        else:
            write("show it first: space" if hidden and key in KEYS else HELP)
    return False


def _show(row: Row, write: Callable[[str], None]) -> None:
    write(f"> {row.prompt}")
    write("")
    for line in row.response.splitlines() or [""]:
        write(f"< {line}")
