"""`orbench align` as typed."""

import importlib.util
import json

import pytest

from orbench.testing import LoopbackServer


@pytest.fixture
def run(cli):
    cli("evaluate", "baseline/always-refuse", "--split", "sample", "--out", "run", "--quiet")
    return "run"


def test_pairs_and_a_report_from_the_command_line(cli, run, here):
    done = cli("align", "pairs", run, "--teacher", "baseline/always-answer", "--out", "pairs", "--json")
    assert done.code == 0
    (card,) = done.json
    assert card["rows"]["train.jsonl"]["safe"] > 50
    rows = [json.loads(line) for line in (here / "pairs" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert set(rows[0]) == {"prompt", "chosen", "rejected", "prompt_id", "kind", "seed_id", "group_id"}
    cli("evaluate", "baseline/always-answer", "--split", "sample", "--out", "after", "--quiet")
    shown = cli("align", "report", run, "after")
    assert "not over-refused (usefulness)" in shown.out
    assert "significant" in shown.out


def test_a_teacher_that_refuses_ends_with_one_line(cli, run):
    done = cli("align", "pairs", run, "--teacher", "baseline/always-refuse", "--out", "pairs")
    assert done.code == 1
    assert "teacher_refused" in done.err
    assert done.err.count("\n") == 1


def test_a_plan_comes_before_the_bill(cli, run, here):
    done = cli("align", "pairs", run, "--teacher", "baseline/always-answer", "--out", "pairs", "--dry-run")
    assert done.code == 0
    assert "144 to ask; nothing was sent" in done.out
    assert not (here / "pairs").exists()


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("command", ["pairs", "overgenerate"])
def test_a_plan_says_where_the_bound_is_not_enough_for_it(cli, run, here, command):
    (here / "prices.csv").write_text("model,input,output\nopenai/*,1,2\n")
    head = ["align", "pairs", run] if command == "pairs" else ["align", "overgenerate", "--split", "sample", "--n", "2"]
    words = [*head, "--teacher", "openai/any", "--base-url", "http://127.0.0.1:9/v1", "--prices", "prices.csv",
             "--out", "made", "--dry-run", "--json"]  # fmt: skip
    done = cli(*words, "--max-cost", "0.001")
    assert done.code == 0
    assert done.err.count("\n") == 1
    assert "--max-cost 0.001 is not enough: the low end is $" in done.err
    assert cli(*words, "--max-cost", "100").err == ""


def test_a_share_that_is_no_number_is_wrong_usage(cli, run):
    done = cli("align", "pairs", run, "--teacher", "baseline/always-answer", "--out", "pairs", "--held-out", "nan")
    assert done.code == 2
    assert "held_out is nan" in done.err


@pytest.mark.parametrize(("option", "value"), [("--rpm", "0"), ("--tpm", "nan"), ("--concurrency", "-1")])
def test_a_report_refuses_a_pace_that_cannot_be(cli, run, option, value):
    cli("evaluate", "baseline/always-answer", "--split", "sample", "--out", "after", "--quiet")
    done = cli("align", "report", run, "after", option, value)
    assert (done.code, done.out) == (2, "")
    assert f"{option[2:]} is" in done.err


@pytest.mark.parametrize("method", ["sft", "dpo", "raft"])
def test_a_training_without_its_settings_names_all_that_are_missing(cli, method):
    done = cli("align", method, "--seed", "1")
    assert done.code == 2
    assert "--out" in done.err
    assert "missing required field" not in done.err
    assert done.err.count("\n") == 1


def test_overgenerate_wants_to_be_told_the_prompts(cli):
    done = cli("align", "overgenerate", "--teacher", "baseline/always-answer", "--out", "made")
    assert done.code == 2
    assert "--split" in done.err


def test_overgenerate_from_the_command_line(cli, here):
    done = cli(
        "align", "overgenerate", "--teacher", "baseline/always-answer", "--split", "sample", "--limit", "20",
        "--n", "1", "--temperature", "0", "--out", "made", "--json",
    )  # fmt: skip
    assert done.code == 0
    assert done.json[0]["candidates"] == 20
    assert (here / "made" / "chosen.jsonl").is_file()


@pytest.mark.parametrize("method", ["sft", "dpo", "raft"])
def test_every_setting_is_a_flag(cli, method):
    from orbench.mitigation.config import Dpo, Raft, Sft

    shown = cli("align", method, "--help").out
    for name in {"sft": Sft, "dpo": Dpo, "raft": Raft}[method].__struct_fields__:
        assert f"--{name.replace('_', '-')}" in shown


def test_a_value_that_cannot_be_meant_is_wrong_usage(cli):
    done = cli("align", "dpo", "--data", "d", "--model", "m", "--out", "o", "--beta", "-1")
    assert done.code == 2
    assert "beta" in done.err


@pytest.mark.skipif(importlib.util.find_spec("trl") is not None, reason="the extra `train` is installed")
def test_without_trl_the_extra_is_named(cli):
    done = cli("align", "sft", "--data", "d", "--model", "m", "--out", "o")
    assert done.code == 1
    assert "orbench[train]" in done.err


@pytest.mark.filterwarnings("always::orbench.OrbenchWarning")
def test_the_judge_of_a_report_has_the_options_of_other_judges(cli, run, here, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "no-key")
    (here / "prices.csv").write_text("model,input,output\nopenai/judge,100,100\n", encoding="utf-8")
    cli("evaluate", "baseline/always-answer", "--split", "sample", "--out", "after", "--quiet")
    with LoopbackServer("So [[7]]") as server:
        done = cli(
            "align", "report", run, "after", "--general", run, "after", "--helpfulness", "openai/judge",
            "--base-url", server.base_url, "--concurrency", "1", "--prices", "prices.csv", "--max-cost", "0.5",
            "--json",
        )  # fmt: skip
    assert done.code == 3, done.err
    assert "stopped at --max-cost 0.5" in done.err
    (loop,) = done.json
    assert 0 < server.answered == loop["before"]["marked"] + (loop["after"]["marked"] or 0) < 100
    assert loop["failed"] > 0
    assert loop["cost_usd"]["helpfulness openai/judge"] < 0.5
