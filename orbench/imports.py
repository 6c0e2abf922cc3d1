"""`orbench import`: replies that another tool got become a run, which is scored and compared like any other."""

from __future__ import annotations

import datetime
import hashlib
import json
import platform
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench.engine.run_folder import RunFolder, write_json
from orbench.engine.threads import run_sync
from orbench.errors import RunError, SplitError, UsageError
from orbench.evaluation.run import Run
from orbench.evaluation.setup import describe_splits
from orbench.integrations.export import is_export, read_export
from orbench.integrations.imported import Imported
from orbench.integrations.inspect.log import read_log
from orbench.integrations.lm_eval.samples import is_samples, read_samples
from orbench.integrations.table import REPLY_COLUMNS, read_replies
from orbench.records import KINDS, Kind, Response
from orbench.results import Evaluation
from orbench.scoring.outcomes import Verdict, check_policy
from orbench.scoring.scorers import make_scorer
from orbench.splits import check_columns


def import_run(
    files: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    model: str | None = None,
    columns: Mapping[str, str] | None = None,
    scorer: str | None = None,
    family: str | None = None,
    policy: str | None = None,
) -> Evaluation:
    """Make a run folder of replies that are there already, and score them; no model is called.

    A judge can be asked afterwards: `orbench.score(out, judge=...)`.

    Args:
        files: Logs of inspect_ai (`.eval`, `.json`), samples of lm-eval (`samples_*.jsonl`), finished runs that
            `Evaluation.to_parquet` wrote, or tables of prompts and replies (`.csv`, `.jsonl`, `.json`, `.parquet`)
            with the columns `prompt` and `response`, optionally `category`, `id`, `seed_id`, `kind`, `model`,
            `reasoning`, `finish_reason`, `error`. `safe=FILE` and `toxic=FILE` say what a table's prompts are, where
            it has no column `kind`.
        out: The new run folder; it appears whole or not at all.
        model: Who replied, as `provider/name`; of several in a file, the one to take. Default: what the file says.
        columns: Our name of a column to the file's own, where they differ.
        scorer: `cascade`, `keywords` or `paper`. Default: the file's own verdicts, a judge's included, where it has
            them; else `cascade`.
        family: As for `orbench.evaluate`.
        policy: As for `orbench.evaluate`. Default: the file's, else `default`.

    Raises:
        orbench.UsageError: Options that cannot be meant, or files of different models or kinds.
        orbench.SplitError: A file that cannot be read or understood; it names row and column.
        orbench.RunError: `out` is there already, or cannot be written.
    """
    given = [files] if isinstance(files, (str, Path)) else list(files)
    if not given:
        raise UsageError("no file given")
    check_columns(columns, REPLY_COLUMNS)
    target = Path(out)
    if target.exists():
        raise RunError(f"{target}: is there already. Choose another --out, or remove it")
    imported = _joined([_read(str(file), model, columns or {}) for file in given], given)
    if scorer is None and imported.unusable:
        raise UsageError(f"{imported.unusable}. --scorer cascade reads all replies anew, by orbench alone")
    config = {**_config(imported), "policy": check_policy(policy or imported.policy or "default")}
    kept = imported.verdicts if scorer is None else ()
    reader = None if kept else make_scorer(scorer or "cascade", judge=None, model=imported.model, family=family)
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an import that was stopped
    try:
        if reader is None:
            config |= {"scorer": imported.scorer, "templates": {}, "stopped_at_max_cost": None}
            _write(part, config, imported.responses, kept)
        else:
            run = Run(
                model=None,
                splits=[],
                folder=part,
                config=config,
                scorer=reader,
                limit=None,
                position=0,
                progress=False,
            )
            _write(part, run.config, imported.responses, ())
            run_sync(run.run())
        part.rename(target)
    except OSError as error:
        raise RunError(f"{target}: cannot be written: {error.strerror}. Choose another --out") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    result = Evaluation.load(target)
    write_json(target / "result.json", result.to_dict())
    return result


def _write(folder: Path, config: dict[str, Any], responses: Iterable[Response], verdicts: Iterable[Verdict]) -> None:
    opened = RunFolder(folder, config)
    try:
        for response in responses:
            opened.responses.append(response)
        for line in verdicts:
            opened.verdicts.append(line)
    finally:
        opened.close()


def _read(file: str, model: str | None, columns: Mapping[str, str]) -> Imported:
    before, equals, behind = file.partition("=")
    kind: Kind | None = None
    if equals and before in KINDS and not Path(file).exists():
        kind, file = before, behind
    path = Path(file).expanduser()
    if not path.exists():
        raise SplitError(f"{path}: no such file")
    if path.is_dir():
        raise SplitError(f"{path}: is a folder; name the log or the table in it")
    foreign = _tool_of(path)
    if foreign is not None and (kind or columns):
        raise UsageError(f"{path}: a file of {foreign} says itself what its prompts are: give its name alone")
    if foreign == "inspect_ai":
        return read_log(path, model)
    if foreign == "lm-eval":
        return read_samples(path, model)
    if foreign == "orbench":
        return read_export(path, model)
    return read_replies(path, kind, columns, model)


def _tool_of(path: Path) -> str | None:
    """Which tool wrote a file; None for a table."""
    if path.suffix.lower() == ".eval":
        return "inspect_ai"
    if path.suffix.lower() == ".json" and path.is_file():
        try:
            content = json.loads(path.read_bytes())  # not msgspec: inspect_ai writes NaN
        except (ValueError, RecursionError):
            return None  # the table's reader says what is wrong with it
        if isinstance(content, dict) and {"version", "status", "eval"} <= content.keys():
            return "inspect_ai"
        if isinstance(content, dict) and {"results", "configs", "versions"} <= content.keys():
            raise SplitError(
                f"{path}: results of lm-eval, without the replies. Run lm_eval with --log_samples, and import its "
                "samples_*.jsonl"
            )
    if path.suffix.lower() == ".jsonl" and is_samples(path):
        return "lm-eval"
    if path.suffix.lower() == ".parquet" and is_export(path):
        return "orbench"
    return None


def _joined(parts: Sequence[Imported], files: Sequence[str | Path]) -> Imported:
    """Several files as one run."""
    first = parts[0]
    for file, part in zip(files, parts, strict=True):
        if part.model != first.model and part.model.startswith("imported/") and first.model.startswith("imported/"):
            continue  # named after the files only
        if part.model != first.model:
            raise UsageError(f"{file}: replies of {part.model}, but those before are of {first.model}")
        if (part.sampling, part.system_prompt) != (first.sampling, first.system_prompt):
            raise UsageError(f"{file}: drawn with another sampling or system prompt than {files[0]}")
    splits = [split for part in parts for split in part.splits]
    _refuse_clash(parts)
    alike = all((part.scorer, part.policy) == (first.scorer, first.policy) for part in parts)
    unusable = [part.unusable for part in parts if part.unusable]
    if not (unusable or alike):
        unusable = [f"{', '.join(map(str, files))}: not all with verdicts of the same scorer and policy"]
    return msgspec.structs.replace(
        first,
        splits=splits,
        described=[split for part in parts for split in _described(part)],
        responses=[response for part in parts for response in part.responses],
        verdicts=[line for part in parts for line in part.verdicts] if not unusable else (),
        unusable=unusable[0] if unusable else None,
    )


def _refuse_clash(parts: Sequence[Imported]) -> None:
    giving: dict[str, Imported] = {}
    for part in parts:
        for split in part.splits:
            other = giving.setdefault(split.name, part)
            if other is part:
                continue
            tables = any(each.origin["tool"] == "table" for each in (part, other))
            advice = "rename a table, whose name it is" if tables else "they are two runs: import each by itself"
            raise UsageError(f"two files give a split called {split.name!r}: {advice}")


def _described(imported: Imported) -> Sequence[dict[str, Any]]:
    return imported.described or describe_splits(imported.splits)


def _config(imported: Imported) -> dict[str, Any]:
    splits = _described(imported)
    identity = [imported.model, [[split["name"], split["fingerprint"]] for split in splits]]
    return {
        "orbench_version": orbench.__version__,
        "digest": hashlib.sha256(msgspec.json.encode(identity)).hexdigest()[:8],
        "model": imported.model,
        "splits": splits,
        "sampling": msgspec.to_builtins(imported.sampling),
        "system_prompt": imported.system_prompt,
        "imported_from": imported.origin,
        "base_url": None,
        "client": None,
        "python_version": platform.python_version(),
        "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "concurrency": None,
        "precision": None,
        "stopped_early": None,
    }
