"""A stand-in for the Hugging Face Hub on loopback, spoken to by the real `datasets` and `huggingface_hub`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import orbench.splits
from orbench.splits.hub import REPOSITORY
from orbench.testing import LoopbackHub


@pytest.fixture
def hub() -> Iterator[LoopbackHub]:
    """A Hub that has the data set, with no files yet."""
    with LoopbackHub({REPOSITORY: {}}) as hub:
        yield hub


@pytest.fixture
def run_python(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a fresh interpreter, because the Hub's libraries read their settings when imported."""

    def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "ORBENCH_"))}
        root = str(Path(orbench.splits.__file__).parents[2])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.run(
            [sys.executable, "-c", code],
            env=kept | {"PYTHONPATH": path, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"} | environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture(autouse=True)
def _no_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORBENCH_DATA_DIR", raising=False)
