"""`orbench sweep`."""

import json
from pathlib import Path

import pytest

from orbench.testing import LoopbackServer


def test_the_command_prints_both_rates_of_each_cell(cli):
    done = cli(
        "sweep", "baseline/keyword-guard", "--split", "sample", "--defense", "smoothllm", "--system-prompt", "Hi."
    )
    assert done.code == 0
    assert "3 cells, 1 run each" in done.out
    for label in ("temperature 0", 'system prompt "Hi."', "smoothllm"):
        assert done.out.count(f"\n{label} ") == 2
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_the_picture(cli, here):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    done = cli(
        "sweep",
        "baseline/keyword-guard",
        "--split",
        "sample",
        "--defense",
        "smoothllm",
        "--repeat",
        "2",
        "--plot",
        "s.png",
    )
    assert done.code == 0
    assert (here / "s.png").read_bytes().startswith(b"\x89PNG")
    assert "drawn in s.png" in done.err


def test_json_formats_and_the_prompts_that_move(cli):
    command = ("sweep", "baseline/keyword-guard", "--split", "sample", "--defense", "smoothllm")
    (found,) = cli(*command, "--json").json
    assert [cell["label"] for cell in found["cells"]] == ["temperature 0", "smoothllm"]
    moved = cli(*command, "--unstable", "--json").json
    assert len(moved) == round(found["cells"][1]["over_refusal"]["changed"] * 170) + round(
        found["cells"][1]["toxic_rejection"]["changed"] * 60
    )
    assert all(prompt["refused"] in ([1, 0], [0, 1]) for prompt in moved)
    assert "refused in 1: 100 %  2: 0 %" in cli(*command, "--unstable").out
    assert cli(*command, "--format", "csv").out.startswith("condition,rate of,")


def test_a_system_prompt_may_be_a_file(cli, here):
    (here / "prompt.txt").write_text("Be brief.")
    done = cli("sweep", "baseline/always-answer", "--split", "sample", "--system-prompt", "@prompt.txt")
    assert 'system prompt "Be brief."' in done.out


def test_judges_and_options_of_the_provider_are_those_of_evaluate(cli, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")

    def reply(body):
        return "It says no. [[direct_refusal]]" if body["model"].startswith("judge") else "Hm."

    with LoopbackServer(reply) as server:
        command = ("sweep", "openai/model", "--split", "sample", "--limit", "5", "--base-url", server.base_url)
        judges = ("--judge", "openai/judge-1", "--judge", "openai/judge-2", "--judge-rule", "unanimous")
        more = ("--judge-template", "three-classes-brief", "--timeout", "20", "--api", "chat", "--audit", "0")
        done = cli(*command, *judges, *more, "--defense", "self-reminder", "--json")
        assert done.code == 0
        (found,) = done.json
        assert [cell["over_refusal"]["rate"]["value"] for cell in found["cells"]] == [1, 1]
        config = json.loads(Path(found["cells"][1]["runs"][0], "run.json").read_text())
        assert config["scorer"]["judges"] == ["openai/judge-1", "openai/judge-2"]
        assert config["scorer"]["judge_rule"] == "unanimous"
        assert config["scorer"]["judge_template"] == "three-classes-brief"
        (found,) = cli(*command, "--out", "labelled", "--safety-judge", "openai/judge-1", "--json").json
        config = json.loads(Path(found["cells"][0]["runs"][0], "run.json").read_text())
        assert config["scorer"]["safety_judge"] == "openai/judge-1"
    assert cli("sweep", "openai/model", "--split", "sample", "--api", "nope").code == 2


def test_wrong_usage(cli):
    assert cli("sweep", "baseline/always-answer", "--defense", "hope").code == 2
    assert cli("sweep", "baseline/always-answer", "--split", "sample", "--plot", "s.bmp").code == 2


def test_rows_that_failed_show_in_the_exit_code(cli, here):
    (here / "broken.py").write_text("def model(prompt):\n    raise ValueError('no')\n")
    done = cli("sweep", "python/broken:model", "--split", "sample")
    assert done.code == 3
    assert "230 replies without a verdict" in done.out


def test_precision_on_the_command_line(cli, here):
    lines = "".join(f"Prompt {n}?,harmful\n" for n in range(600))
    (here / "many.csv").write_text("prompt,category\n" + lines)
    (here / "slow.py").write_text("def model(prompt):\n    return 'I cannot help with that.'\n")
    done = cli("evaluate", "python/slow:model", "--split", "safe=many.csv", "--precision", "0.05")
    assert done.code == 0
    assert "stopped early" in done.out
    assert cli("evaluate", "python/slow:model", "--split", "safe=many.csv", "--precision", "0.9").code == 2


@pytest.mark.filterwarnings("default")
def test_a_plan_says_once_where_the_bound_for_all_of_it_is_not_enough(cli, here):
    (here / "prices.csv").write_text("model,input,output\nopenai/*,1,2\n")
    words = ["sweep", "openai/any", "--base-url", "http://127.0.0.1:9/v1", "--split", "sample", "--dry-run", "--json"]
    words += ["--temperature", "0", "--temperature", "0.5", "--prices", "prices.csv"]
    plans = cli(*words).json
    low, high = (sum(plan["cost_usd"][end] for plan in plans) for end in ("low", "high"))
    short = cli(*words, "--max-cost", f"{low / 1.5:.6f}")  # enough for each, not for both
    assert short.err.count("\n") == 1
    assert "is not enough: the low end is $" in short.err
    assert "is within the estimate: $" in cli(*words, "--max-cost", f"{low * 2:.6f}").err
    assert cli(*words, "--max-cost", f"{high + 0.01:.6f}").err == ""
