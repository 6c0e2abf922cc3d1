"""Each example runs as a user would run it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = [path for path in sorted((ROOT / "examples").rglob("*.py")) if "mitigation" not in path.parts]
"""The one that trains is run in tests/mitigation."""
NEEDS = {"local_transformers.py": ("hf", ("torch", "transformers"))}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs_and_prints_both_rates(example, tmp_path):
    extra, modules = NEEDS.get(example.name, ("", ()))
    if not all(importlib.util.find_spec(module) for module in modules):
        pytest.skip(f"needs the extra `{extra}`")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, example], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "over-refusal (safe)" in done.stdout
    assert "toxic rejection" in done.stdout


def test_the_shards_of_an_array_job_make_one_run(tmp_path):
    script = ROOT / "examples/slurm/evaluate.sbatch"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "SLURM_ARRAY_TASK_COUNT": "1",  # each submitted alone
    }
    for task in ("1", "2"):
        command = ["bash", script, "2", "baseline/always-refuse", "out", "--split", "sample", "--quiet"]
        subprocess.run(command, cwd=tmp_path, env={**environment, "SLURM_ARRAY_TASK_ID": task}, check=True)
    merge = [sys.executable, "-m", "orbench", "merge", "out/shard-1", "out/shard-2", "--out", "out/whole"]
    done = subprocess.run(merge, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "230 prompts" in done.stdout
