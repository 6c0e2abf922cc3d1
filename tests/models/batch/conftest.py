"""What tests of batches share: a service of either vendor, polls without waits, a batch run in one call."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orbench
from orbench.testing import LoopbackServer

VENDORS = ("openai", "anthropic")


@pytest.fixture(autouse=True)
def _no_polls_by_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orbench.models.batch.FIRST_POLL_S", 0.0)
    monkeypatch.setattr("orbench.models.batch.LAST_POLL_S", 0.0)


@pytest.fixture(params=VENDORS)
def vendor(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def address(vendor: str) -> Callable[[LoopbackServer], str]:
    """What `--base-url` is for the vendor."""
    return lambda server: server.base_url if vendor == "openai" else server.root_url


@pytest.fixture
def batched(
    vendor: str, address: Callable[[LoopbackServer], str], tmp_path: Path, split_file: Callable[..., str]
) -> Callable[..., orbench.Evaluation]:
    """Evaluates a model of the vendor in batches, in the same run folder each time."""

    def evaluate(server: LoopbackServer, rows: int = 40, **options: Any) -> orbench.Evaluation:
        given = {"splits": split_file(rows=rows), "out": tmp_path / "run", "batch": True} | options
        return orbench.evaluate(f"{vendor}/any", base_url=address(server), **given)

    return evaluate
