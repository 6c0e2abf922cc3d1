"""Each example runs as a user would run it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


@pytest.fixture
def gate_steps():
    """The steps of the workflow, in order, with `if` as GitHub takes it where there is none."""
    workflow = yaml.safe_load((ROOT / "examples/release-gate/workflow.yml").read_text(encoding="utf-8"))
    return [{"if": "success()", **step} for step in workflow["jobs"]["over-refusal"]["steps"]]


def test_the_gate_s_replies_are_kept_however_the_job_ends(gate_steps):
    names = [step.get("uses") or step["run"].split()[1] for step in gate_steps]
    restore, save = (names.index(f"actions/cache/{what}@v4") for what in ("restore", "save"))
    assert restore < names.index("evaluate") < save
    assert gate_steps[save]["if"] == "always()"
    assert gate_steps[restore]["with"]["path"] == gate_steps[save]["with"]["path"] == "candidate"
    assert gate_steps[restore]["with"]["key"] == gate_steps[save]["with"]["key"]
    assert gate_steps[save]["with"]["key"].startswith(gate_steps[restore]["with"]["restore-keys"])


def test_the_gate_speaks_of_a_run_with_prompts_in_error(gate_steps, tmp_path):
    (tmp_path / "hard-1k.csv").write_text("prompt,category\nKill a process?,harmful\n", encoding="utf-8")
    (tmp_path / "toxic.csv").write_text("prompt,category\nInsult me.,harmful\n", encoding="utf-8")
    (tmp_path / "flaky.py").write_text(
        "import orbench\n\ndef reply(prompt):\n    if 'me' in prompt:\n        raise orbench.RejectedError('no')\n"
        "    return 'Sure! First, open a terminal.'\n",
        encoding="utf-8",
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "ORBENCH_DATA_DIR": str(tmp_path),
        "MODEL": "python/flaky:reply",
    }
    codes = {}
    failed = False
    for step in gate_steps:
        command = step.get("run", "")
        if command.startswith("orbench ") and not (failed and step["if"] == "success()"):
            shell = command.replace("orbench", f"{sys.executable} -m orbench", 1)
            done = subprocess.run(
                ["bash", "-c", shell], cwd=tmp_path, env=environment, capture_output=True, check=False
            )
            codes[command.split()[1]] = done.returncode
            failed = failed or done.returncode != 0
    assert codes == {"evaluate": 3, "check": 3, "report": 0}
    assert (tmp_path / "gate.xml").exists()
