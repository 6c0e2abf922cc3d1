"""A sample of prompts that people judge, and what their judgements say of the moderators: the paper's Table 12.

In: prompts, then the files that labellers filled in. Out: a file for each labeller to fill in, then the accuracies.
The file shows no vote, so that nobody is led by one.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from orbench.engine.jsonl import without_surrogates
from orbench.errors import RunError, SplitError, UsageError
from orbench.generation.agreement import Accuracies, Vote, Votes, accuracies

SIZE = 100
"""Prompts that the paper's labellers judged (Appendix L)."""
COLUMNS = ("id", "category", "label", "prompt")
LABELS: Mapping[str, Vote] = {"safe": "safe", "s": "safe", "toxic": "toxic", "t": "toxic", "skip": "abstained"}
"""What a labeller may write, in any case, to what it means; an empty cell is not labelled yet."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_review(
    path: Path,
    ids: Sequence[str],
    texts: Sequence[str],
    categories: Sequence[str],
    *,
    size: int = SIZE,
    seed: int = 0,
) -> int:
    """Write a sample of prompts as a CSV file with an empty column `label`, one file for all labellers to copy.

    The sample and its order follow from the seed and the ids alone. What a spreadsheet would take for a formula gets an
    apostrophe before it.

    Args:
        path: The file; one that is there is not written over, because labels may be in it.
        ids: The id of each prompt.
        texts: Its text.
        categories: Its category.
        size: How many, at least 1; all if there are fewer.
        seed: Draws the sample.

    Returns:
        How many prompts are in the file.

    Raises:
        UsageError: Fewer than one is wanted.
        RunError: The file is there already, or cannot be written.
    """
    if size < 1:
        raise UsageError(f"size is {size}: at least 1")
    rows = sorted(
        zip(ids, texts, categories, strict=True),
        key=lambda row: hashlib.sha256(f"{seed}\n{row[0]}".encode("utf-8", "surrogatepass")).digest(),
    )[:size]
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(COLUMNS)
    for id_, text, category in rows:
        writer.writerow([_inert(without_surrogates(cell)) for cell in (id_, category, "", text)])
    try:
        with path.open("x", encoding="utf-8", newline="") as file:
            file.write(buffer.getvalue())
    except FileExistsError:
        raise RunError(f"{path}: is there already and may hold labels; move it away to draw again") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}") from None
    return len(rows)


def _inert(cell: str) -> str:
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def _without_apostrophe(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def read_review(path: Path) -> dict[str, Vote]:
    """The labels of one labeller, by prompt id; rows without a label are left out.

    Raises:
        SplitError: The file cannot be read, lacks a column, repeats an id, or holds what is no label; names the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SplitError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SplitError(f"{path}: not UTF-8: save the file as CSV in UTF-8") from None
    first = text.partition("\n")[0]
    # Spreadsheets of some countries part the cells with semicolons.
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter=";" if first.count(";") > first.count(",") else ","
    )
    for name in ("id", "label"):
        if name not in (reader.fieldnames or ()):
            raise SplitError(f"{path}: no column {name!r}; keep the columns of the file that was handed out")
    labels: dict[str, Vote] = {}
    for row in reader:
        id_, label = _without_apostrophe(row["id"] or ""), (row["label"] or "").strip().lower()
        where = f"{path}, line {reader.line_num}"
        if id_ in labels:
            raise SplitError(f"{where}: the id {id_[:40]!r} is labelled already")
        if label and label not in LABELS:
            raise SplitError(f"{where}: {label[:40]!r} is no label: write {', '.join(LABELS)}, or nothing")
        if label:
            labels[id_] = LABELS[label]
    return labels


def is_labelled(path: Path) -> bool:
    """Whether a file is there that holds labels, or cannot be read and so may hold some."""
    try:
        return path.exists() and bool(read_review(path))
    except SplitError:
        return True


def check_labels(files: Mapping[str, str]) -> None:
    """Before anything is asked: files without a single label would only be noticed in the end.

    Raises:
        UsageError: None of the files holds a label.
        SplitError: A file cannot be used.
    """
    if files and not any(read_review(Path(path)) for path in files.values()):
        raise UsageError(
            f"no label in {', '.join(files.values())}: fill in the column label (safe or toxic), or leave `labels` out"
        )


def review(files: Mapping[str, Path], moderators: Votes, *, of_others: bool = False) -> Accuracies:
    """Each labeller's and moderator's accuracy against the majority, as in the paper's Table 12.

    Args:
        files: Name of each labeller to the file it filled in.
        moderators: Votes on the same prompts of what is to be judged beside them: the paper gives the ensemble's
            decision as one; moderators one by one can be given too, and then each has a voice in the majority. Votes on
            other prompts are passed over.
        of_others: As in `accuracies`.

    Raises:
        UsageError: No labels, a labeller named like a moderator, or no prompt that two have labelled.
        SplitError: A file cannot be used.
    """
    labels = {name: read_review(path) for name, path in files.items()}
    seen = {id_ for own in labels.values() for id_ in own}
    if not seen:
        raise UsageError(f"no label in {', '.join(map(str, files.values())) or 'no file'}")
    if both := sorted(set(labels) & set(moderators)):
        raise UsageError(f"{both[0]!r} is the name of a labeller and of a moderator")
    return accuracies(
        {
            **labels,
            **{name: {id_: vote for id_, vote in own.items() if id_ in seen} for name, own in moderators.items()},
        },
        of_others=of_others,
    )
