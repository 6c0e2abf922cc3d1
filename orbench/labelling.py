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
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from orbench.engine.jsonl import without_surrogates
from orbench.errors import RunError, UsageError
from orbench.labels import Label, load_labels, long_cells
from orbench.results import Evaluation, Row
from orbench.run_state import Key
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

_Strata = dict[str, list[tuple[float, Key]]]
"""Every reply that can be labelled, by stratum, with its place in the order of drawing."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One reply to label."""

    row: Row
    stratum: str
    stratum_size: int
    weight: float

    @property
    def id(self) -> str:
        """Unique in the file."""
        return _id((self.row.split, self.row.prompt_id))


def _id(key: Key) -> str:
    """What names a reply of a run in the file."""
    return f"{key[0]}/{key[1]}"


def draw(result: Evaluation, n: int, seed: int = 0) -> list[Task]:
    """The replies to label, in the order of labelling.

    Raises:
        UsageError: Fewer than one is wanted.
        RunError: The run has no reply that can be read.
    """
    return _draw(result, _strata(result, seed), n, seed)


def _draw(result: Evaluation, strata: _Strata, n: int, seed: int) -> list[Task]:
    if n < 1:
        raise UsageError(f"n is {n}: at least 1")
    if not strata:
        raise RunError(f"{result.run}: no reply in it that can be labelled")
    sizes = {name: len(members) for name, members in strata.items()}
    quotas = _quotas(sizes, n)
    order = {key: (place, name) for name in sizes for place, key in strata[name][: quotas[name]]}
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


def _strata(result: Evaluation, seed: int) -> _Strata:
    strata: _Strata = {}
    for row in result.rows():
        if row.by != "signal" and row.error is None:
            key = (row.split, row.prompt_id)
            strata.setdefault(f"{row.kind}/{_doubt(row)}", []).append((position(seed, key), key))
    return {name: sorted(strata[name]) for name in sorted(strata)}


def _doubt(row: Row) -> str:
    if row.outcome is Outcome.UNSCORED:
        return "undecided"
    if row.is_disputed:
        return "disputed"
    return "doubtful" if row.confidence is not None and row.confidence < _SURE else "sure"


def _quotas(sizes: dict[str, int], n: int) -> dict[str, int]:
    """How many of each stratum, n in all: in proportion to size and doubt, at least two where n allows, else one."""
    if sum(sizes.values()) <= n:
        return dict(sizes)
    quotas = {name: min(2, n // len(sizes), size) for name, size in sizes.items()}
    weights = {name: size * (1.0 if name.endswith("/sure") else _DOUBT) for name, size in sizes.items()}
    for _ in range(n - sum(quotas.values())):
        open_ones = [name for name in sizes if quotas[name] < sizes[name]]
        most = max(open_ones, key=lambda name: weights[name] / (quotas[name] + 0.5))
        quotas[most] += 1
    return quotas


class LabelFile:
    """The file of labels, appended to as they are given."""

    def __init__(self, path: Path, source: str, strata: Mapping[str, tuple[str, float]]) -> None:
        """Open the file, or begin it.

        Args:
            path: The file.
            source: Names the run.
            strata: Of each reply of the run, by its id in the file: its stratum, and that one's size.

        Raises:
            RunError: It cannot be read, or holds labels of another run, or of other strata than the run has now:
                weights cannot be had where two ways of drawing meet in one file.
        """
        self.path = path
        self._source = source
        self.done: list[str] = []
        if path.exists() and path.stat().st_size:
            for label in self._labels():
                if label.groups.get("source") != source:
                    raise RunError(f"{path}: holds labels of {label.groups.get('source')}; choose another --out")
                stratum, size = strata.get(label.id, ("no stratum", 0))
                if (label.stratum, label.stratum_size) != (stratum, size):
                    raise RunError(
                        f"{path}: {label.id} was drawn from {label.stratum} of {label.stratum_size:g} replies, and is "
                        f"now in {stratum} of {size:g}: the run was scored again or has grown. Choose another --out; "
                        "the labels here stay good by themselves"
                    )
                self.done.append(label.id)
        else:
            self._append(COLUMNS)

    def _labels(self) -> Sequence[Label]:
        with self.path.open(encoding="utf-8-sig", errors="replace", newline="") as file, long_cells():
            head, more = next(csv.reader(file), []), file.read(1)
        if tuple(head) != COLUMNS:
            raise RunError(f"{self.path}: has other columns than `orbench label` writes; choose another --out")
        return load_labels(self.path).rows if more else ()

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
        with self.path.open(encoding="utf-8", newline="") as file, long_cells():
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
    strata = _strata(result, seed)
    tasks = _draw(result, strata, n, seed)
    stratum_of = {_id(key): (name, float(len(members))) for name, members in strata.items() for _, key in members}
    file = LabelFile(out, str(result.config.get("digest") or result.model), stratum_of)
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
