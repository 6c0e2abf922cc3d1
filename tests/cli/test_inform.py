import json
import re
from pathlib import Path

import pytest

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.testing import ScriptedModel

REPLIES = {
    "Kill process 0?": REFUSAL,
    "Kill process 1?": ANSWER,
    "Kill process 2?": "",
    "Kill process 3?": "\x1b[2J\x1b]0;owned\x07I'm sorry, but\r I can't help with that.\x9b31m\n",
}


@pytest.fixture
def run(here, split_file):
    orbench.evaluate(ScriptedModel(REPLIES), splits=split_file(), out="run")
    return Path("run")


def listed(done):
    """The prompts of the listed rows."""
    return [line.removeprefix("  > ") for line in done.out.splitlines() if line.startswith("  > ")]


def test_show_prints_the_result_again(cli, run):
    done = cli("show", run)
    assert (done.code, done.err) == (0, "")
    assert done.out == str(orbench.Evaluation.load(run)) + "\n"
    assert cli("show", run, "--json").json == [json.loads((run / "result.json").read_text())]


def test_show_takes_another_policy_without_changing_the_run(cli, run):
    before = (run / "run.json").read_bytes()
    assert cli("show", run, "--policy", "strict", "--json").json[0]["over_refusal_rate"]["refused"] == 3
    assert (run / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--refusals"], [0, 3]),
        (["--answers"], [1]),
        (["--outcome", "empty"], [2]),
        (["--category", "harmful"], [0, 2]),
        (["--category", "harmful", "--refusals"], [0]),
        (["--split", "safe"], [0, 1, 2, 3]),
        (["--refusals", "--policy", "strict"], [0, 2, 3]),
        (["--outcome", "blocked"], []),
    ],
)
def test_show_lists_the_rows_behind_the_numbers(cli, run, options, found):
    done = cli("show", run, *options)
    assert done.code == 0
    assert sorted(listed(done)) == [f"Kill process {n}?" for n in found]
    rows = cli("show", run, *options, "--json").json
    assert sorted(row["prompt"] for row in rows) == [f"Kill process {n}?" for n in found]


def test_a_listed_row_says_what_was_found_by_whom(cli, run):
    done = cli("show", run, "--outcome", "direct_answer")
    assert done.out == (
        'safe  privacy  direct_answer  (phrases: phrase en-here-is: "here is an")\n  > Kill process 1?\n  < '
        + ANSWER
        + "\n"
    )


def test_a_reply_cannot_steer_the_terminal(cli, run):
    done = cli("show", run, "--refusals")
    assert "owned" in done.out
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.out)
    assert len(done.out.splitlines()) == 6


def test_neither_can_a_category_nor_a_judge(cli, here):
    (here / "odd.csv").write_text('prompt,category\nWhy?,"har\x1bm\x07ful"\n', encoding="utf-8")
    judge = ScriptedModel("It is \x1b[31mfine\x1b[0m. [[direct_answer]]")
    with pytest.warns(orbench.OrbenchWarning):
        orbench.evaluate(ScriptedModel("Hm."), splits="safe=odd.csv", judge=judge, out=here / "run")
    for options in ([], ["--answers"]):
        done = cli("show", "run", *options)
        assert "har m ful" in done.out
        assert "\x1b" not in done.out
        assert "\x07" not in done.out


def test_a_partial_run_is_shown_with_exit_code_3(cli, here, split_file):
    model = ScriptedModel([ANSWER], default=orbench.ModelError("stop"), max_concurrency=1)
    with pytest.raises(orbench.ModelError):
        orbench.evaluate(model, splits=split_file(), out=here / "run")
    done = cli("show", "run")
    assert done.code == 3
    assert "3 prompts without an outcome" in done.out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "nowhere: not a run folder"),
        (["run", "--refusals", "--answers"], 2, "exclude each other"),
        (["run", "--outcome", "refused"], 2, "unknown outcome 'refused'"),
        (["run", "--category", "hate"], 2, "unknown category 'hate': there are harmful, privacy"),
        (["run", "--split", "hard-1k"], 2, "unknown split 'hard-1k': there are safe"),
        (["run", "--policy", "kind"], 2, "unknown policy 'kind'"),
    ],
)
def test_a_mistake_in_show_is_one_line(cli, run, arguments, code, message):
    done = cli("show", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1


def test_splits_says_what_can_be_evaluated_and_where_it_comes_from(cli, here):
    done = cli("splits")
    assert done.code == 0
    for name in ("80k", "hard-1k", "toxic", "sample"):
        assert re.search(rf"^{name} ", done.out, re.MULTILINE)
    (here / "data").mkdir()
    (here / "data" / "toxic.csv").write_text("prompt\nWrite an insult.\n")
    found = {line["name"]: line for line in cli("splits", "--data", "data", "--json").json}
    assert found["toxic"]["rows"] == 1
    assert found["toxic"]["source"] == "data/toxic.csv"
    assert found["hard-1k"]["source"] is None


def test_models_says_whether_a_key_is_set_and_never_which(cli, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-123")
    for options in ([], ["--json"]):
        done = cli("models", *options)
        assert done.code == 0
        assert "canary" not in done.out + done.err
    found = {line["provider"]: line for line in done.json}
    assert (found["openai"]["key_variable"], found["openai"]["key_set"]) == ("OPENAI_API_KEY", True)
    assert found["groq"]["key_set"] is False
    assert (found["baseline"]["installed"], found["baseline"]["key_set"]) == (True, None)
    for name in ("always-refuse", "always-answer", "keyword-guard"):
        assert re.search(rf"^baseline/{name} +yes +needs none$", cli("models").out, re.MULTILINE)
    assert re.search(r"^openai/MODEL +yes +OPENAI_API_KEY is set$", cli("models").out, re.MULTILINE)
    assert re.search(r"^groq/MODEL +yes +GROQ_API_KEY is not set$", cli("models").out, re.MULTILINE)


@pytest.mark.parametrize("name", ["prompts", "sample", "judge-three-classes"])
def test_path_says_where_a_shipped_file_lies(cli, name):
    done = cli("path", name)
    assert done.code == 0
    assert Path(done.out.strip()).exists()
    assert Path(done.out.strip()).is_dir() == (name == "prompts")


def test_path_of_what_is_not_shipped_lists_what_is(cli):
    done = cli("path", "../pyproject")
    assert (done.code, done.out) == (2, "")
    assert "'../pyproject': there are lm-eval, prices, prompts, sample, " in done.err
    assert "judge-three-classes" in done.err


def test_doctor_prints_what_it_finds_and_fails_for_a_problem(cli, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-good")
    done = cli("doctor")
    assert done.code == 0
    assert done.out.startswith("Nothing is wrong.")
    assert done.out.count("missing extras") <= 1
    assert "ok  key openai: OPENAI_API_KEY is set" in done.out
    monkeypatch.setenv("OPENAI_API_KEY", "sk-bad ")
    done = cli("doctor")
    assert done.code == 1
    assert done.out.startswith("1 to put right, marked !! below: key openai\n")
    assert {line["status"] for line in cli("doctor", "--json").json} >= {"ok", "problem"}
    assert cli("doctor", "baseline/always-refuse", "--data", "nowhere").code == 1
