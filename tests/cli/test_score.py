from pathlib import Path

import pytest

import orbench
from orbench.testing import LoopbackServer, ScriptedModel


@pytest.fixture
def run(here, split_file):
    """A run of four replies that no local stage is sure of."""
    orbench.evaluate(ScriptedModel("Hm."), splits=split_file(), out=here / "run")
    return Path("run")


def test_another_scorer_calls_no_model(cli, run):
    done = cli("score", run, "--scorer", "keywords")
    assert done.code == 0
    assert "scorer keywords" in done.out
    assert "outcomes: direct_answer 4" in done.out


def test_a_judge_settles_what_was_left(cli, run):
    with LoopbackServer("It offers something else. [[indirect_refusal]]") as server:
        done = cli("score", run, "--judge", "openai/judge", "--judge-base-url", server.base_url, "--json")
    assert done.code == 0
    assert done.json[0]["splits"]["safe"]["outcomes"] == {"indirect_refusal": 4}
    assert done.json[0]["scorer"]["judge"] == "openai/judge"
    assert server.answered == 4


def test_a_judge_that_fails_makes_the_exit_code_3(cli, run):
    with LoopbackServer((400, {"error": {"message": "no"}})) as server:
        done = cli("score", run, "--judge", "openai/judge", "--judge-base-url", server.base_url, "--quiet")
    assert (done.code, done.out) == (3, "")


def test_another_policy_is_kept(cli, here, split_file):
    orbench.evaluate(ScriptedModel(""), splits=split_file(), out=here / "run")
    done = cli("score", "run", "--policy", "strict", "--json")
    assert done.json[0]["over_refusal_rate"]["refused"] == 4
    assert cli("show", "run", "--json").json[0]["policy"] == "strict"


def test_an_error_without_a_verdict_is_still_an_error(cli, here, split_file):
    orbench.evaluate(ScriptedModel(ValueError("odd")), splits=split_file(), out=here / "run")
    (here / "run" / "verdicts.jsonl").unlink()
    done = cli("score", "run", "--json")
    assert done.code == 3
    assert done.json[0]["outcomes"] == {"error": 4}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 1, "nowhere: not a run folder"),
        (["run", "--scorer", "magic"], 2, "unknown scorer 'magic'"),
        (["run", "--rpm", "-1"], 2, "rpm is -1.0: a number above 0"),
        (["run", "--concurrency", "0"], 2, "concurrency is 0: at least 1"),
        (["run", "--policy", "kind"], 2, "unknown policy 'kind'"),
        (["run", "--judge", "openai/judge"], 1, "Set OPENAI_API_KEY"),
        (["run", "--scorer", "keywords", "--judge", "baseline/always-answer"], 2, "leave --judge out"),
        (["run", "--scorer", "paper", "--family", "gtp-4"], 2, "did you mean gpt-4?"),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(cli, run, arguments, code, message):
    before = {path: path.read_bytes() for path in run.iterdir()}
    done = cli("score", *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert done.err.count("\n") == 1
    assert {path: path.read_bytes() for path in run.iterdir()} == before
