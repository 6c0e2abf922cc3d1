"""`orbench doctor`: what of this set-up works, what does not, and what to do about it.

Nothing is sent unless models are named; then each gets one short question. No key is ever shown.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

import orbench
from orbench.engine.calls import CallResult, Retries, complete
from orbench.engine.threads import run_sync
from orbench.errors import ModelError, OrbenchError
from orbench.evaluation.setup import RUNS
from orbench.models import PROVIDERS, make_options, open_model
from orbench.models.services import SERVICES
from orbench.models.wire import check_address
from orbench.records import Message, Request, Sampling
from orbench.splits import DATA_VARIABLE, available_splits

Status = Literal["ok", "note", "problem"]
"""`note`: nothing is wrong, but something can only be used after what the advice says."""

QUESTION = "Reply with the word ready."
_ROOM = 1 << 30
_NEEDED = ("aiohttp", "anthropic", "datasets", "google-genai", "msgspec", "numpy", "openai", "scipy", "typer")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    what: str
    status: Status
    found: str
    advice: str | None = None


def examine(
    models: Sequence[str] = (), *, data: str | Path | None = None, base_url: str | None = None
) -> list[Finding]:
    """Look at everything that an evaluation needs.

    Args:
        models: Models to send one short question each.
        data: Folder of the named splits; default `ORBENCH_DATA_DIR`, else the Hub, which is not asked.
        base_url: Address of those models.
    """
    return [
        _python(),
        *_packages(),
        _room(),
        *_keys(),
        *_addresses(),
        _data(data),
        *(_question(model, base_url) for model in models),
    ]


def _python() -> Finding:
    found = f"orbench {orbench.__version__}, Python {platform.python_version()}, {platform.system()}"
    return Finding(what="versions", status="ok", found=f"{found} {platform.machine()}")


def _packages() -> Iterator[Finding]:
    missing = [name for name in _NEEDED if _version(name) is None]
    found = ", ".join(f"{name} {_version(name)}" for name in _NEEDED if name not in missing)
    if missing:
        advice = "pip install --force-reinstall orbench"
        yield Finding(what="packages", status="problem", found=f"missing: {', '.join(missing)}", advice=advice)
    else:
        yield Finding(what="packages", status="ok", found=found)
    there: list[str] = []
    without: list[str] = []
    requirements = metadata.requires("orbench") or []
    for extra in sorted({*metadata.metadata("orbench").get_all("Provides-Extra", [])} - {"dev"}):
        names = [_name(line) for line in requirements if f"extra == '{extra}'" in line.replace('"', "'")]
        absent = [name for name in names if name != "orbench" and _version(name) is None]
        (without if absent else there).append(extra)
    if there:
        yield Finding(what="extras", status="ok", found=f"installed: {', '.join(there)}")
    if without:
        advice = f"pip install 'orbench[{without[0]}]', and so on, for what you need of them"
        yield Finding(what="missing extras", status="note", found=", ".join(without), advice=advice)


def _name(requirement: str) -> str:
    """The package's name in a line such as `torch>=2.4; extra == 'hf'`."""
    end = next((i for i, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), len(requirement))
    return requirement[:end]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _room() -> Finding:
    """Where runs go by default: it can be written, and a run of the 80K split with long replies fits."""
    folder = RUNS if RUNS.exists() else Path()
    where = str(folder.absolute())
    if not os.access(folder, os.W_OK):
        return Finding(what="run folders", status="problem", found=f"{where} cannot be written", advice="use --out DIR")
    free = shutil.disk_usage(folder).free
    if free < _ROOM:
        found = f"{free / _ROOM:.1f} GB free in {where}; 80,000 long replies take about one"
        return Finding(what="run folders", status="problem", found=found, advice="make room, or use --out DIR")
    return Finding(what="run folders", status="ok", found=f"{where}, {free / _ROOM:,.0f} GB free")


def _keys() -> Iterator[Finding]:
    unset: list[str] = []
    for provider in PROVIDERS.values():
        values = {name: os.environ[name] for name in provider.key_variables if os.environ.get(name)}
        if not values:
            unset += [" or ".join(provider.key_variables)] if provider.needs_key and provider.key_variables else []
            continue
        name, key = next(iter(values.items()))
        what = f"key {provider.name}"
        if key != key.strip() or not key.isascii() or not key.isprintable():
            found = f"{name} holds a space, a line break or another character that no key has"
            yield Finding(what=what, status="problem", found=found, advice=f"set {name} again, without it")
        else:
            yield Finding(what=what, status="ok", found=f"{name} is set")
    if unset:
        yield Finding(what="keys", status="note", found=f"not set: {', '.join(unset)}", advice="only for their models")


def _addresses() -> Iterator[Finding]:
    """Addresses from the environment: they redirect every call of a provider, so they should be meant."""
    variables = dict.fromkeys(
        [s.base_url_variable for s in SERVICES.values()] + ["ANTHROPIC_BASE_URL", "GOOGLE_GEMINI_BASE_URL"]
    )
    for name in variables:
        if not (value := os.environ.get(name)):
            continue
        what, warned = f"address {name}", []
        try:
            with warnings.catch_warnings(record=True) as warned:
                warnings.simplefilter("always")
                check_address(value, name, has_key=True)
        except ModelError as error:
            found = str(error).removeprefix(f"{name}: ").replace(repr(value), "it")  # there may be a key in it
            advice = f"write it as https://HOST/v1, or unset {name}"
            yield Finding(what=what, status="problem", found=found, advice=advice)
            continue
        parts = urlsplit(value)
        shown = f"{parts.scheme}://{parts.hostname}"
        if warned:
            found = f"{shown}: the key would travel unencrypted"
            yield Finding(what=what, status="problem", found=found, advice="use https")
        else:
            yield Finding(what=what, status="ok", found=f"calls go to {shown}")


def _data(data: str | Path | None) -> Finding:
    where = str(data or os.environ.get(DATA_VARIABLE) or "")
    if not where:
        found = "named splits come from the Hub when they are first used; it was not asked"
        advice = f"for your own copies: --data or {DATA_VARIABLE}; `--split sample` needs neither"
        return Finding(what="splits", status="note", found=found, advice=advice)
    try:
        splits = available_splits(where)
    except OrbenchError as error:
        return Finding(what="splits", status="problem", found=str(error), advice="give the folder with hard-1k.csv")
    there = [split.name for split in splits if split.source and split.source != "bundled"]
    if not there:
        found = f"{where} holds none of the named splits"
        return Finding(what="splits", status="problem", found=found, advice="it needs hard-1k.csv, toxic.csv")
    return Finding(what="splits", status="ok", found=f"{', '.join(there)} in {where}")


def _question(model: str, base_url: str | None) -> Finding:
    """Ask one short question; whatever comes back says that the way there is open."""
    results: list[CallResult] = []

    async def receive(result: CallResult) -> None:
        results.append(result)

    async def ask() -> None:
        opened = open_model(model, make_options(base_url, 1, {}))
        try:
            request = Request(id="doctor", messages=(Message("user", QUESTION),), sampling=Sampling(max_tokens=16))
            await complete(opened, [request], receive, retries=Retries(attempts=2, budget_s=20))
        finally:
            await opened.close()

    began = time.monotonic()
    try:
        run_sync(ask())
    except OrbenchError as error:
        return Finding(what=model, status="problem", found=str(error).removeprefix(f"{model}: "))
    (result,) = results
    took = f"in {time.monotonic() - began:.1f} s"
    if result.error or result.completion is None:
        return Finding(what=model, status="problem", found=f"{result.error or 'no reply'} ({took})")
    usage = result.completion.usage
    tokens = f", {usage.input_tokens} + {usage.output_tokens} tokens" if usage else ""
    return Finding(what=model, status="ok", found=f"replied {took}{tokens}")
