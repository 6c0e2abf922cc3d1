"""A run as one Parquet file: a row a prompt, with its reply and verdict; what the run is stands in the file's head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from orbench.engine.run_folder import read_responses, read_verdicts, refuse_folder
from orbench.errors import RunError

if TYPE_CHECKING:
    from orbench.results import Evaluation, Row
    from orbench.scoring.outcomes import Verdict

METADATA = b"orbench"
"""Key in the file's metadata: `run` (as in `run.json`), `result`, `policy` and `open` (prompts still owed) as JSON."""

_ROWS = 5_000
"""Rows that are held in memory and written at once."""


def write_parquet(result: Evaluation, out: str | Path) -> Path:
    """Write all rows of a run to one file, whole or not at all.

    The columns are those of `Row`, but `id` for `prompt_id`, `model`, `votes` as JSON, and `verdict`, the line of
    `verdicts.jsonl`: `orbench.import_run` makes the same run of the file again, where the run was finished.

    Args:
        result: The run.
        out: The file; one that is there is replaced.

    Raises:
        orbench.RunError: It cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    text, truth = pyarrow.string(), pyarrow.bool_()
    types = dict.fromkeys(
        (
            "model",
            "id",
            "split",
            "category",
            "kind",
            "seed_id",
            "group_id",
            "prompt",
            "response",
            "reasoning",
            "finish_reason",
        ),
        text,
    )
    types |= dict.fromkeys(("blocked_by", "error", "outcome", "by"), text) | {"confidence": pyarrow.float64()}
    types |= {"reason": text, "judge": text, "refused": truth, "unsafe": truth, "votes": text}
    types |= {"group_id": text, "verdict": text}
    about = msgspec.json.encode(
        {"run": result.config, "result": result.to_dict(), "policy": result.policy, "open": result.open}
    )
    schema = pyarrow.schema(list(types.items()), metadata={METADATA: about})
    target = Path(out)
    refuse_folder(target)
    part = target.with_name(f"{target.name}.part")
    states = result.states
    verdicts = {
        verdict.key: verdict
        for verdict in read_verdicts(result.run)
        if (state := states.get(verdict.key)) and state.fits(verdict)
    }
    groups = {response.key: response.group_id for response in read_responses(result.run) if response.group_id}

    def write(writer: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            writer.write_table(pyarrow.Table.from_pylist(rows, schema=schema))
            rows.clear()

    try:
        with pyarrow.parquet.ParquetWriter(part, schema) as writer:
            rows: list[dict[str, Any]] = []
            for row in result.rows():
                key = (row.split, row.prompt_id)
                rows.append(_plain(result.model, row, groups.get(key), verdicts[key]))
                if len(rows) == _ROWS:
                    write(writer, rows)
            write(writer, rows)
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    return target


def _plain(model: str, row: Row, group_id: str | None, verdict: Verdict) -> dict[str, Any]:
    plain = msgspec.structs.asdict(row)
    plain["model"], plain["id"], plain["group_id"] = model, plain.pop("prompt_id"), group_id
    plain["votes"] = msgspec.json.encode(row.votes).decode() if row.votes else None
    plain["verdict"] = msgspec.json.encode(verdict).decode()
    return plain
