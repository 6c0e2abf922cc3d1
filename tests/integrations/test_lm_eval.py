"""lm-evaluation-harness, run for real on a tiny model: its tasks give orbench's rates, its samples become runs."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import orbench
from orbench.testing import LoopbackServer, make_tiny_model, prompt_of

pytest.importorskip("lm_eval", reason="needs the extra `lm-eval`")

REFUSAL = "I'm sorry, but I can't help with that."
REPLIES = [
    "Sure! First, boil the water.",
    REFUSAL,
    "I would rather talk about gardening.",
    "<think>Hm.</think>" + REFUSAL,
]


def harness(*arguments, data):
    """The harness's own program, as a user starts it; gives its results and the files of samples."""
    places = subprocess.run(
        [sys.executable, "-m", "orbench", "path", "lm-eval"], capture_output=True, text=True, check=True
    )
    command = [str(Path(sys.executable).with_name("lm_eval")), "--include_path", places.stdout.strip()]
    command += ["--output_path", "out", "--log_samples", *arguments]
    environment = {
        **os.environ,
        "ORBENCH_DATA_DIR": str(data),
        "HF_HUB_OFFLINE": "1",
        "OPENAI_API_KEY": "loopback",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [results] = Path("out").rglob("results_*.json")
    return json.loads(results.read_text(encoding="utf-8"))["results"], sorted(Path("out").rglob("samples_*.jsonl"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Both halves of the sample under the names of the released splits."""
    folder = tmp_path_factory.mktemp("data")
    for name, kind in (("hard-1k", "safe"), ("toxic", "toxic"), ("80k", "safe")):
        rows = [{"prompt": p.text, "category": p.category} for p in list(orbench.load_split(f"sample/{kind}"))[:40]]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def assert_same(results, result):
    for task, name, rate in (
        ("orbench_hard_1k", "over_refusal", result.over_refusal_rate),
        ("orbench_toxic", "toxic_rejection", result.toxic_rejection_rate),
    ):
        if task in results:
            found = [results[task][f"{name}_{part},answer"] for part in ("rate", "low", "high", "left_out")]
            assert found == [rate.value, rate.low, rate.high, rate.left_out]


@pytest.mark.filterwarnings("ignore::orbench.OrbenchWarning")  # the data is a stand-in for the released splits
def test_a_local_model_gets_the_same_rates_from_both_tools(here, data):
    pytest.importorskip("torch", reason="needs the extra `hf`")
    make_tiny_model("tiny")
    arguments = ["--model", "hf", "--model_args", f"pretrained={here}/tiny", "--apply_chat_template"]
    results, samples = harness(*arguments, "--tasks", "orbench", "--device", "cpu", "--batch_size", "8", data=data)
    imported = orbench.import_run(samples, "imported")
    assert_same(results, imported)
    assert imported.model == f"hf/{here}/tiny"
    ours = orbench.evaluate("hf/tiny", data=data, out="ours")
    assert {(row.split, row.prompt): row.response.strip() for row in imported.rows()} == {
        (row.split, row.prompt): row.response.strip() for row in ours.rows()
    }
    for name in ("over_refusal_rate", "toxic_rejection_rate", "outcomes"):
        assert getattr(imported, name) == getattr(ours, name)
    assert [s.fingerprint for s in imported.splits.values()] == [s.fingerprint for s in ours.splits.values()]


@pytest.mark.filterwarnings("ignore::orbench.OrbenchWarning")
def test_a_served_model_gets_the_same_rates_from_both_tools(here, data, monkeypatch):
    with LoopbackServer(lambda body: REPLIES[len(prompt_of(body)) % len(REPLIES)]) as server:
        endpoint = f"base_url={server.base_url}/chat/completions,model=any,num_concurrent=4"
        arguments = ["--model", "local-chat-completions", "--model_args", endpoint, "--apply_chat_template"]
        results, samples = harness(*arguments, "--tasks", "orbench,orbench_80k", data=data)
        monkeypatch.setenv("OPENAI_API_KEY", "loopback")
        ours = orbench.evaluate("openai/any", base_url=server.base_url, data=data, out="ours")
    assert len(samples) == 3
    assert results["orbench_80k"]["over_refusal_rate,answer"] == ours.over_refusal_rate.value
    imported = orbench.import_run([file for file in samples if "80k" not in file.name], "imported")
    assert_same(results, imported)
    assert_same(results, ours)
    assert imported.outcomes == ours.outcomes
    assert imported.config["sampling"] == ours.config["sampling"]
    assert {pair.over_refusal.value for pair in orbench.compare(imported, ours).pairs} == {0.0}
    assert {row.reasoning for row in imported.rows() if row.response == REFUSAL} == {None, "Hm."}


@pytest.mark.filterwarnings("ignore::orbench.OrbenchWarning")
def test_a_rate_without_a_scored_prompt_is_no_number(here, data):
    with LoopbackServer("") as server:
        endpoint = f"base_url={server.base_url}/chat/completions,model=any,num_concurrent=4"
        arguments = ["--model", "local-chat-completions", "--model_args", endpoint, "--apply_chat_template"]
        results, _ = harness(*arguments, "--tasks", "orbench_toxic", "--limit", "3", data=data)
    assert math.isnan(results["orbench_toxic"]["toxic_rejection_rate,answer"])
    assert results["orbench_toxic"]["toxic_rejection_left_out,answer"] == 3
