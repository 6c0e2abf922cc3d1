"""Tables of prompts and replies: CSV, JSONL, JSON or Parquet, whoever wrote them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from orbench.errors import SplitError, UsageError
from orbench.integrations.imported import Imported, reply_to
from orbench.models.reasoning import split_reasoning
from orbench.records import KINDS, FinishReason, Kind, Prompt, Response
from orbench.splits import Split
from orbench.splits.files import COLUMNS, Table, read_table
from orbench.splits.prompts import to_prompts

REPLY_COLUMNS = (*COLUMNS, "response", "model", "reasoning", "finish_reason", "error")
"""The columns that mean something in a table of replies."""


def read_replies(path: Path, kind: Kind | None, columns: Mapping[str, str], model: str | None) -> Imported:
    """Read a table with at least the columns `prompt` and `response`, one row a prompt.

    Args:
        path: The file.
        kind: What its prompts are; None leaves it to the column `kind`.
        columns: Our name of a column to the file's own, where they differ.
        model: Who replied; of a table with replies of several, the one to take. Default: its column `model`, else
            `imported/` and the file's name.

    Raises:
        orbench.SplitError: A broken file, no column `response`, a prompt twice, or a cell that cannot be meant.
        orbench.UsageError: Several models and none chosen, or nobody says what kind the prompts are.
    """
    table = read_table(path, columns, REPLY_COLUMNS)
    if "response" not in table.columns:
        found = ", ".join(map(repr, table.found))
        raise SplitError(f"{path}: no column 'response'; found {found}. Say --column response=NAME")
    table, model = _of_one_model(table, model or None, f"imported/{path.stem}")
    prompts = to_prompts(table, path.stem, kind, "kind" in columns)
    _refuse_repeated(table, prompts)
    splits = {each: [prompt for prompt in prompts if prompt.kind == each] for each in KINDS}
    return Imported(
        model=model,
        splits=[Split(mine[0].split, mine, str(path)) for mine in splits.values() if mine],
        responses=[_reply(table, row, prompt) for row, prompt in enumerate(prompts)],
        origin={"tool": "table"},
    )


def _of_one_model(table: Table, wanted: str | None, default: str) -> tuple[Table, str]:
    cells = table.columns.get("model", [])
    absent = [row for row, cell in enumerate(cells) if _is_absent(cell)]
    if len(absent) == len(cells):
        return table, wanted or default
    if absent:
        raise SplitError(f"{table.where(absent[0])}: 'model' is empty, but other rows name one: fill it in")
    names = list(dict.fromkeys(str(cell) for cell in cells))
    if wanted in names or (wanted is None and len(names) == 1):
        chosen = wanted or names[0]
    elif len(names) == 1:
        return table, str(wanted)  # the user has a better name for it
    else:
        listed = ", ".join(names[:10]) + (" and more" if len(names) > 10 else "")
        what = "holds replies of several models" if wanted is None else f"holds no replies of {wanted}"
        raise UsageError(f"{table.source}: {what}; choose one with --model: {listed}")
    rows = [row for row, cell in enumerate(cells) if str(cell) == chosen]
    columns = {name: [cells[row] for row in rows] for name, cells in table.columns.items()}
    lines = None if table.lines is None else [table.lines[row] for row in rows]
    return Table(table.source, len(rows), columns, table.found, lines), chosen


def _refuse_repeated(table: Table, prompts: list[Prompt]) -> None:
    """The same prompt twice is one too many, unless ids of both say that it is meant."""
    ids = table.columns.get("id", [None] * table.rows)
    first: dict[str, int] = {}
    for row, prompt in enumerate(prompts):
        if prompt.text in first and (_is_absent(ids[row]) or _is_absent(ids[first[prompt.text]])):
            raise SplitError(
                f"{table.where(row)}: the prompt of row {first[prompt.text] + 1} again. Leave one out, or tell the "
                "rows apart by a column id (or model, with --model)"
            )
        first[prompt.text] = row


def _is_absent(cell: object) -> bool:
    """Whether a cell says nothing: blank, null, or the NaN that stands for it in tables of numbers."""
    if isinstance(cell, float):
        return math.isnan(cell)
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _reply(table: Table, row: int, prompt: Prompt) -> Response:
    error, reasoning = _text(table, row, "error"), _text(table, row, "reasoning")
    finish_reason = _text(table, row, "finish_reason") or "stop"
    if finish_reason not in get_args(FinishReason):
        raise SplitError(
            f"{table.where(row)}: 'finish_reason' is {finish_reason[:40]!r}; it must be one of "
            f"{', '.join(get_args(FinishReason))}"
        )
    if error:
        return reply_to(prompt, "", error=error)
    blocked = finish_reason in ("content_filter", "refusal")
    if table.columns["response"][row] is None and not blocked:
        raise SplitError(
            f"{table.where(row)}: no 'response'. Say why in a column 'error', or, where the model said nothing, give "
            "an empty text"
        )
    text, inner = split_reasoning(_text(table, row, "response"))
    return reply_to(
        prompt,
        text,
        reasoning="\n".join(filter(None, (reasoning, inner))) or None,
        finish_reason=finish_reason,
        blocked_by="output" if blocked else None,
    )


def _text(table: Table, row: int, name: str) -> str:
    cell = table.columns[name][row] if name in table.columns else None
    if cell is None:
        return ""
    if not isinstance(cell, str):
        raise SplitError(f"{table.where(row)}: {name!r} is not text but of type {type(cell).__name__}")
    return cell
