"""A run that `Evaluation.to_parquet` wrote, in orbench's own records: the same splits, verdicts and policy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from orbench.engine.run_folder import SavedSplit
from orbench.errors import SplitError
from orbench.integrations.imported import Imported, reply_to
from orbench.records import BlockedBy, FinishReason, Kind, Prompt, Sampling
from orbench.report.parquet import METADATA
from orbench.scoring.outcomes import Outcome, Policy, Verdict
from orbench.splits import Split


class _Run(msgspec.Struct):
    model: str
    splits: list[SavedSplit]
    sampling: Sampling
    system_prompt: str | None
    scorer: dict[str, Any]
    orbench_version: str
    shard: dict[str, Any] | None = None
    stopped_early: dict[str, Any] | None = None


class _Head(msgspec.Struct):
    """What the file's metadata says of the run."""

    run: _Run
    policy: Policy
    open: int


class _Row(msgspec.Struct):
    id: str
    split: str
    category: str
    kind: Kind
    seed_id: str | None
    group_id: str | None
    prompt: str
    response: str
    reasoning: str | None
    finish_reason: FinishReason | None
    blocked_by: BlockedBy | None
    outcome: Outcome
    verdict: str


def is_export(path: Path) -> bool:
    """Whether a Parquet file's metadata has what only orbench writes there."""
    import pyarrow
    import pyarrow.parquet

    try:
        metadata = pyarrow.parquet.read_schema(path).metadata
    except (pyarrow.ArrowException, OSError):
        return False  # the table's reader says what is wrong with it
    return METADATA in (metadata or {})


def read_export(path: Path, model: str | None = None) -> Imported:
    """Read a finished run from its Parquet file, with the verdicts, scorer and policy that it had.

    Args:
        path: The file.
        model: A better name for the model than the run's.

    Raises:
        orbench.SplitError: The run was not finished, a shard, or stopped early, so that its rows are not those of all
            its prompts; or the file is damaged or was changed since.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
        head = msgspec.json.decode(table.schema.metadata[METADATA], type=_Head)
        rows = [msgspec.convert(row, _Row) for row in table.to_pylist()]
        verdicts = [msgspec.json.decode(row.verdict, type=Verdict) for row in rows]
    except (msgspec.MsgspecError, pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        why = str(error).splitlines()[0]
        raise SplitError(f"{path}: not as orbench writes a run ({why}). Write it again with --parquet") from None
    _refuse_part(path, head)
    _refuse_changed(path, head, rows, verdicts)
    prompts = [
        Prompt(
            id=row.id,
            text=row.prompt,
            category=row.category,
            kind=row.kind,
            split=row.split,
            seed_id=row.seed_id,
            group_id=row.group_id,
        )
        for row in rows
    ]
    return Imported(
        model=model or head.run.model,
        splits=[
            Split(split.name, [prompt for prompt in prompts if prompt.split == split.name], str(path))
            for split in head.run.splits
        ],
        described=[{**msgspec.to_builtins(split), "source": str(path)} for split in head.run.splits],
        responses=[
            reply_to(
                prompt,
                row.response,
                reasoning=row.reasoning,
                finish_reason=row.finish_reason,
                blocked_by=row.blocked_by,
            )
            for prompt, row in zip(prompts, rows, strict=True)
        ],
        sampling=head.run.sampling,
        system_prompt=head.run.system_prompt,
        origin={"tool": "orbench", "version": head.run.orbench_version},
        verdicts=verdicts,
        scorer=head.run.scorer,
        policy=head.policy,
    )


def _refuse_part(path: Path, head: _Head) -> None:
    """Rows alone do not say what is missing, so that a part would pass for the run."""
    if head.run.shard:
        why = "one shard of a run; merge the shards first"
    elif head.run.stopped_early:
        why = "a run that --precision stopped early, and its rows alone do not say how sure its rates are"
    elif head.open:
        why = f"a run that is not finished ({head.open:,} of its prompts without an outcome or in error)"
    else:
        return
    raise SplitError(f"{path}: {why}. Share the run folder instead")


def _refuse_changed(path: Path, head: _Head, rows: list[_Row], verdicts: list[Verdict]) -> None:
    """The head describes these rows, each once."""
    wanted = {(split.name, split.kind): split.prompts for split in head.run.splits if split.prompts}
    keys = [(row.split, row.id) for row in rows]
    if (
        Counter((row.split, row.kind) for row in rows) != wanted
        or len(set(keys)) < len(keys)
        or any(verdict.key != key for verdict, key in zip(verdicts, keys, strict=True))
        or any(verdict.outcome is not row.outcome for verdict, row in zip(verdicts, rows, strict=True))
    ):
        raise SplitError(
            f"{path}: its rows are not those of the run that its metadata describes: was it changed? Write it again "
            "with --parquet, or take the metadata out to import it as any table"
        )
