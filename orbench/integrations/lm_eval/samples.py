"""Samples that lm-evaluation-harness logged, in orbench's own records."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from orbench.errors import SplitError, UsageError
from orbench.integrations.imported import Imported, reply_to, splits_of
from orbench.models.reasoning import split_reasoning
from orbench.records import Kind, Prompt, Response, Sampling

_STAMP = re.compile(r"_(\d{4}-\d{2}-\d{2}T.+)\.jsonl$")
_PUBLIC = ("pretrained", "model", "revision", "dtype", "tokenizer", "peft", "base_url")
"""The model arguments that say which model it was. No others are kept: keys, tokens and headers are among them."""


class _Doc(msgspec.Struct):
    """A prompt, as `orbench.integrations.lm_eval.tasks.load` made it."""

    id: str
    prompt: str
    category: str
    kind: Kind
    split: str
    seed_id: str | None = None


class _Sample(msgspec.Struct):
    """A line of `samples_*.jsonl`; there is more in it."""

    doc_id: int
    doc: _Doc
    resps: list[list[str]]
    arguments: Any = None


def is_samples(path: Path) -> bool:
    """Whether a JSON Lines file is of the harness: its first line has what only the harness writes."""
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"doc_id", "doc", "resps"} <= first.keys()


def read_samples(path: Path, model: str | None = None) -> Imported:
    """Read `samples_*.jsonl` of one of orbench's tasks; `results_*.json` beside it says whose replies they are.

    Args:
        path: The file.
        model: Who replied; by default what the results say, else `imported/` and the file's name.

    Raises:
        orbench.SplitError: A damaged line, samples of another task, a prompt twice or without
            a reply, or a split of both kinds.
        orbench.UsageError: Several replies to a prompt.
    """
    samples = [_sample(path, number, line) for number, line in _lines(path)]
    seen: dict[tuple[str, str], tuple[Prompt, Response]] = {}
    for sample in sorted(samples, key=lambda sample: sample.doc_id):
        doc = sample.doc
        prompt = Prompt(
            id=doc.id, text=doc.prompt, category=doc.category, kind=doc.kind, split=doc.split, seed_id=doc.seed_id
        )
        if (prompt.split, prompt.id) in seen:
            raise SplitError(f"{path}: two samples of {prompt.split!r} have the prompt id {prompt.id!r}")
        if not any(sample.resps):
            raise SplitError(f"{path}: no reply to {prompt.id!r}; run the task again")
        if len(sample.resps) != 1 or len(sample.resps[0]) != 1:
            raise UsageError(f"{path}: several replies to {prompt.id!r}; a run has one. Run the task with repeats: 1")
        text, reasoning = split_reasoning(sample.resps[0][0])
        seen[prompt.split, prompt.id] = (prompt, reply_to(prompt, text, reasoning=reasoning, finish_reason="stop"))
    prompts = [prompt for prompt, _ in seen.values()]
    results = _results(path)
    config = results.get("config")
    return Imported(
        model=model or _model(results) or f"imported/{path.stem}",
        splits=splits_of(path, prompts),
        responses=[response for _, response in seen.values()],
        sampling=_sampling(samples[0].arguments),
        system_prompt=results.get("system_instruction") or None,
        origin={
            "tool": "lm_eval",
            "version": results.get("lm_eval_version"),
            "model_args": _public(config.get("model_args")) if isinstance(config, Mapping) else None,
        },
    )


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SplitError(f"{path}: cannot be read: {error}") from None
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def _sample(path: Path, number: int, line: str) -> _Sample:
    try:
        content = json.loads(line)  # not msgspec: the harness writes NaN
    except (ValueError, RecursionError) as error:
        raise SplitError(f"{path}, line {number}: broken JSON: {error}") from None
    try:
        return msgspec.convert(content, _Sample)
    except msgspec.ValidationError as error:
        raise SplitError(f"{path}, line {number}: no sample of orbench's tasks: {error}") from None


def _results(path: Path) -> dict[str, Any]:
    stamp = _STAMP.search(path.name)
    beside = path.with_name(f"results_{stamp.group(1)}.json") if stamp else path
    if not stamp or not beside.is_file():
        return {}
    try:
        content = json.loads(beside.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _model(results: Mapping[str, Any]) -> str | None:
    source, name = results.get("model_source"), results.get("model_name")
    return f"{_bare(str(source))}/{_bare(str(name))}" if source and name else None


def _public(arguments: Any) -> dict[str, str]:
    """Which model it was, of `--model_args`, given as `name=value,...` or as an object."""
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    given = arguments if isinstance(arguments, Mapping) else {}
    kept = {name: given[name] for name in _PUBLIC if isinstance(given.get(name), (str, int, float))}
    return {name: _bare(str(value)) for name, value in kept.items()}


def _bare(value: str) -> str:
    """An address without what may be a key in it: scheme and host alone; another value as it is."""
    if "://" not in value:
        return value
    try:
        parts = urlsplit(value)
        return f"{parts.scheme}://{parts.hostname or '?'}"
    except ValueError:
        return "?"


def _sampling(arguments: Any) -> Sampling:
    """The settings of generation as the harness passed them on."""
    given = next(iter(arguments.values()), None) if isinstance(arguments, Mapping) else None
    settings = given.get("arg_1") if isinstance(given, Mapping) else None
    kept = settings if isinstance(settings, Mapping) else {}
    default = Sampling()
    temperature, tokens = kept.get("temperature"), kept.get("max_gen_toks")
    return Sampling(
        temperature=float(temperature) if isinstance(temperature, (int, float)) else default.temperature,
        max_tokens=tokens if isinstance(tokens, int) else default.max_tokens,
    )
