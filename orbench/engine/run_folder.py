"""The run folder: where a run's configuration, replies and verdicts lie, and the lock that guards them.

    run.json          the resolved configuration; never a key
    responses.jsonl   one line a reply, as it arrives
    verdicts.jsonl    one line a verdict
    result.json       what the command printed with --json

In both JSONL files the last line for a row counts. A run is one configuration: a folder refuses another one and
names what differs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, cast

import filelock
import msgspec

from orbench.engine.jsonl import Appender, read_lines
from orbench.errors import RunError
from orbench.records import Kind, Response, Sampling
from orbench.scoring.outcomes import Verdict

RUN, RESPONSES, VERDICTS, RESULT = "run.json", "responses.jsonl", "verdicts.jsonl", "result.json"
_LOCK = ".lock"


class SavedSplit(msgspec.Struct):
    """What `run.json` says of a split."""

    name: str
    kind: Kind
    fingerprint: str
    prompts: int
    categories: list[str]


class _ScorerName(msgspec.Struct):
    name: str
    digest: str
    judge: str | None


class _Config(msgspec.Struct):
    """What every `run.json` has; there is more in it."""

    orbench_version: str
    model: str
    splits: list[SavedSplit]
    sampling: Sampling
    system_prompt: str | None
    policy: str
    scorer: _ScorerName


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of a run folder's `run.json`.

    Raises:
        RunError: The folder is no run folder, or the file is damaged.
    """
    path = folder / RUN
    try:
        config = msgspec.json.decode(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{folder}: not a run folder (no {RUN} in it{_instead(folder)})") from None
    except NotADirectoryError:
        raise RunError(f"{folder}: not a run folder but a file; `orbench evaluate` makes run folders") from None
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged ({error}); restore it, or use another --out") from None
    try:
        msgspec.convert(config, _Config)
    except msgspec.ValidationError as error:
        raise RunError(f"{path}: damaged ({error}); restore it, or use another --out") from None
    return cast("dict[str, Any]", config)


def _instead(folder: Path) -> str:
    """What a folder without `run.json` is, as far as that says what to do."""
    if not folder.exists():
        return "; there is no such folder"
    runs = sorted(run.parent for pattern in (f"*/{RUN}", f"*/*/{RUN}") for run in folder.glob(pattern))
    if runs:
        return f", but runs are below it: {', '.join(map(str, runs[:3]))}{' and more' if len(runs) > 3 else ''}"
    if (folder / "generation.json").exists():
        return f", but a set of `orbench generate`: evaluate a model on it with --data {folder / 'splits'}"
    return ""


def read_responses(folder: Path) -> Iterator[Response]:
    """Every line of `responses.jsonl`, superseded ones included."""
    return read_lines(folder / RESPONSES, Response)


def read_verdicts(folder: Path) -> Iterator[Verdict]:
    """Every line of `verdicts.jsonl`, superseded ones included."""
    return read_lines(folder / VERDICTS, Verdict)


def refuse_folder(path: Path) -> None:
    """Before a file is made, and what goes into it is paid for.

    Raises:
        RunError: A folder is there; `.` is one too.
    """
    if path.is_dir():
        raise RunError(f"{path}: cannot be written: it is a folder. Name a file in it")


def write_json(path: Path, content: object) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        RunError: It cannot be written.
    """
    part = path.with_name(_part(path.name))
    try:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")
        part.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}. Make room or choose another --out") from None


def folder_name(model: str, digest: str = "") -> str:
    """A folder's name for a model: `provider--name`, with the digest behind it if there is one."""
    parts = [re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.")[-80:] for part in model.partition("/")[::2]]
    return "--".join(part or "model" for part in parts) + (f"-{digest}" if digest else "")


class RunFolder:
    """A run folder opened for writing: locked, its configuration checked, its files open for appending."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        """Make or reopen the folder.

        Args:
            path: The folder.
            config: What `run.json` is to hold.

        Raises:
            RunError: Another process works on it, it belongs to another configuration, it holds something else,
                or it cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{path}: cannot be made: {error.strerror}. Choose another --out") from None
        self._lock = filelock.FileLock(path / _LOCK)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RunError(
                f"{path}: another process is working on this run. Wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}. Choose another --out") from None
        with ExitStack() as opened:
            opened.callback(self._lock.release)
            self._prepare(config)
            self.responses: Appender[Response] = opened.enter_context(closing(Appender(path / RESPONSES)))
            self.verdicts: Appender[Verdict] = opened.enter_context(closing(Appender(path / VERDICTS)))
            self._opened = opened.pop_all()

    def _prepare(self, config: Mapping[str, Any]) -> None:
        if (self.path / RUN).exists():
            before = read_config(self.path)
            check_same(self.path, before, config)
            config = {**before, **config, "created_at": before.get("created_at", config.get("created_at"))}
        else:
            others = sorted(e.name for e in self.path.iterdir() if e.name[0] != "." and e.name != _part(RUN))
            if RESPONSES in others:
                raise RunError(f"{self.path}: has {RESPONSES} but no {RUN}; restore it, or choose another --out")
            if others:
                raise RunError(f"{self.path}: no run folder, but holds {_list(others)}. Choose another --out")
        write_json(self.path / RUN, config)

    def note(self, key: str, value: object) -> None:
        """Add something to `run.json` that was found out while running."""
        config = read_config(self.path)
        if config.get(key) != value:
            write_json(self.path / RUN, {**config, key: value})

    def write_result(self, result: object) -> None:
        """Replace `result.json`."""
        write_json(self.path / RESULT, result)

    def close(self) -> None:
        """Close the files and let go of the lock."""
        self._opened.close()


def add_remarks(lists: Sequence[Sequence[str]]) -> list[str]:
    """Remarks on the parts of a run, such as `adaptations`: each once; of those that begin with a number, the sum."""
    counts: dict[str, int | None] = {}
    for remark in (remark for each in lists for remark in each):
        number = re.match(r"(\d+) ", remark)
        text = remark[number.end() :] if number else remark
        counts[text] = (counts.get(text) or 0) + int(number[1]) if number else None
    return [text if count is None else f"{count} {text}" for text, count in counts.items()]


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a folder that holds another run.

    Raises:
        RunError: Names what differs.
    """
    old, new = _identity(before), _identity(now)
    for what, value in new.items():
        if old[what] != value:
            raise RunError(
                f"{folder}: holds a run with another {what}: {_short(old[what])} there, {_short(value)} now. "
                "Choose another --out; `orbench evaluate` without --out makes a folder of its own"
            )


def _identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a run is: a folder holds one of it."""
    sampling = msgspec.structs.asdict(msgspec.convert(config["sampling"], Sampling))
    return {
        "model": config["model"],
        "version of the model": config.get("model_digest"),
        "set of prompts": _prompts_of(config["splits"]),
        **{name.replace("_", " "): value for name, value in sampling.items()},
        "system prompt": config["system_prompt"],
    }


def _prompts_of(splits: list[dict[str, Any]]) -> str:
    """What of the splits makes the run: not where they were read from."""
    return ", ".join(f"{split['name']} ({split['prompts']} prompts, {split['fingerprint'][:12]})" for split in splits)


def _short(value: Any) -> str:
    if value is None:
        return "none"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 160 else text[:157] + "..."


def _list(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and more" if len(names) > 3 else "")


def _part(name: str) -> str:
    return name + ".part"
