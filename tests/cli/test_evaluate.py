import json
import os
import resource
from pathlib import Path

import pytest

import orbench
from orbench.engine.run_folder import read_responses
from orbench.models.baseline import ANSWER
from orbench.testing import LoopbackServer

LABEL = "It responds. [[direct_answer]]"


def outcomes(run):
    return {str(outcome): count for outcome, count in orbench.Evaluation.load(run).outcomes.items()}


def write_module(folder, code, name="mine"):
    (folder / f"{name}.py").write_text(code)


@pytest.fixture
def unclear(here, monkeypatch):
    """`python/unclear:reply`, a model that no local stage can read."""
    write_module(here, "def reply(prompt):\n    return 'Hm.'\n", "unclear")
    monkeypatch.syspath_prepend(here)
    return "python/unclear:reply"


def test_the_main_job_prints_both_rates_and_saves_them(cli):
    done = cli("evaluate", "baseline/keyword-guard", "--split", "sample")
    assert done.code == 0
    assert done.err == ""
    assert done.out.startswith("baseline/keyword-guard\n230 prompts, scorer cascade, policy default\n")
    assert "over-refusal (safe)" in done.out
    assert "toxic rejection" in done.out
    (run,) = Path("runs").iterdir()
    assert f"saved in {run}" in done.out
    assert sum(outcomes(run).values()) == 230


def test_the_same_command_again_prints_the_same(cli):
    command = ("evaluate", "baseline/keyword-guard", "--split", "sample", "--json")
    assert cli(*command).out == cli(*command).out
    assert len(list(Path("runs").iterdir())) == 1


def test_json_is_one_object_a_model_a_line_and_nothing_else(cli):
    models = ("baseline/always-refuse", "baseline/always-answer")
    done = cli("evaluate", *models, "--split", "sample", "--json")
    assert done.code == 0
    assert [line["model"] for line in done.json] == list(models)
    assert [line["over_refusal_rate"]["value"] for line in done.json] == [1.0, 0.0]
    for line in done.json:
        assert line == json.loads((Path(line["run"]) / "result.json").read_text())


@pytest.mark.parametrize("way", ["--json", "--quiet"])
def test_without_a_table_what_must_be_known_goes_to_standard_error(cli, way):
    Path("bots.py").write_text("def unclear(prompt):\n    return 'Hm.'\n")
    Path("mine.csv").write_text("prompt,kind\nHow do I boil an egg?,safe\n")
    done = cli("evaluate", "python/bots:unclear", "--split", "mine.csv", way)
    assert done.code == 0
    assert "no stage was sure of 1 reply" in done.err
    assert "no stage" not in done.out


def test_quiet_prints_nothing(cli):
    done = cli("evaluate", "baseline/always-refuse", "--split", "sample", "--quiet")
    assert (done.code, done.out, done.err) == (0, "", "")


def test_warnings_go_to_standard_error_beside_json(finish, here):
    (here / "mine.csv").write_text("prompt,category\nWhy is the sky blue?,physics\n")
    done = finish("evaluate", "baseline/always-refuse", "--split", "safe=mine.csv", "--json")
    assert (done.code, len(done.json)) == (0, 1)
    assert done.err.startswith("orbench: warning: ")
    assert "'physics' (1)" in done.err
    assert done.err.count("\n") == 1


def test_a_prompt_in_error_makes_the_exit_code_3_and_says_what_to_do(cli, here, monkeypatch, split_file):
    write_module(
        here,
        "def reply(prompt):\n    if '1' in prompt:\n        raise ValueError('odd')\n"
        "    return 'Certainly. Here is how it is done, step by step.'\n",
    )
    monkeypatch.syspath_prepend(here)
    done = cli("evaluate", "python/mine:reply", "--split", split_file(), "--out", "run")
    assert done.code == 3
    assert "1 prompt ended in error; run the same command again" in done.out
    assert "most often: ValueError: odd" in done.out
    assert outcomes("run") == {"direct_answer": 3, "error": 1}


def test_replies_that_no_stage_is_sure_of_do_not_change_the_exit_code(cli, unclear, split_file):
    done = cli("evaluate", unclear, "--split", split_file(), "--out", "run")
    assert done.code == 0
    assert "--judge MODEL settles them" in done.out


def test_a_judge_that_failed_makes_the_exit_code_3(cli, unclear, split_file):
    with LoopbackServer("no label here") as server:
        done = cli(
            "evaluate",
            unclear,
            "--split",
            split_file(),
            "--judge",
            "openai/judge",
            "--judge-base-url",
            server.base_url,
            "--out",
            "run",
        )
    assert done.code == 3
    assert "the judge failed on 4 replies; run the same command again" in done.out
    assert "  most often: judge gave no label\n" in done.out


@pytest.mark.parametrize("arguments", [["openai/x"], ["baseline/always-answer", "--judge", "openai/x"]])
def test_a_missing_key_is_said_before_any_prompt_is_fetched(cli, monkeypatch, arguments):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = cli("evaluate", *arguments, "--split", "nowhere.csv")
    assert (done.code, done.err) == (1, "orbench: openai/x: no key. Set OPENAI_API_KEY in the environment\n")


def test_a_model_that_needs_no_key_is_not_held_up_by_one_that_has_none(cli, monkeypatch, split_file):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = cli("evaluate", "openai/x", "baseline/always-answer", "--split", split_file(), "--out", "runs")
    assert done.code == 1
    assert outcomes("runs/baseline--always-answer") == {"direct_answer": 4}


def test_several_models_have_folders_within_out_and_one_has_out_itself(cli):
    cli("evaluate", "baseline/always-refuse", "--split", "sample", "--out", "one")
    assert (Path("one") / "run.json").is_file()
    cli("evaluate", "baseline/always-refuse", "baseline/always-answer", "--split", "sample", "--out", "two")
    assert sorted(path.name for path in Path("two").iterdir()) == ["baseline--always-answer", "baseline--always-refuse"]


def test_a_model_that_fails_leaves_the_results_of_the_others_and_exit_code_1(cli):
    done = cli("evaluate", "openai/gpt-4o-mini", "baseline/always-refuse", "--split", "sample", "--json")
    assert done.code == 1
    assert [line["model"] for line in done.json] == ["baseline/always-refuse"]
    assert done.err == "orbench: openai/gpt-4o-mini: no key. Set OPENAI_API_KEY in the environment\n"


def test_options_reach_the_request(cli, here, split_file):
    (here / "system.txt").write_text("Be brief.\nBe kind.", encoding="utf-8")
    with LoopbackServer(ANSWER) as server:
        done = cli(
            *("evaluate", "openai/any", "--split", split_file(rows=9), "--base-url", server.base_url),
            *("--limit", "1", "--temperature", "0.5", "--max-tokens", "7", "--seed", "3", "--concurrency", "2"),
            *("--system-prompt", "@system.txt", "--scorer", "keywords", "--policy", "strict", "--json"),
        )
    (body,) = server.requests
    assert body["messages"][0] == {"role": "system", "content": "Be brief.\nBe kind."}
    assert (body["model"], body["temperature"], body["max_tokens"], body["seed"]) == ("any", 0.5, 7, 3)
    assert (done.json[0]["policy"], done.json[0]["scorer"]["name"], done.json[0]["prompts"]) == (
        "strict",
        "keywords",
        1,
    )


def test_a_judge_of_the_same_provider_is_asked_at_the_same_address(cli, split_file):
    with LoopbackServer(lambda body: LABEL if body["model"] == "judge" else "Hm.") as server:
        done = cli(
            *("evaluate", "openai/any", "--judge", "openai/judge", "--base-url", server.base_url),
            *("--split", split_file(), "--json"),
        )
    assert done.code == 0
    assert done.json[0]["usage"]["judge"]["requests"] == 4
    assert server.answered == 8


def test_the_address_may_come_from_the_providers_own_variable(cli, split_file, monkeypatch):
    with LoopbackServer(ANSWER) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        assert cli("evaluate", "openai/any", "--split", split_file()).code == 0
    assert server.answered == 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["baseline/always-refuse", "--split", "hard-1"], 2, "unknown split 'hard-1': did you mean 'hard-1k'?"),
        (["baseline/always-refuse", "--split", "safe=nowhere.csv"], 1, "nowhere.csv: no such file"),
        (["baseline/always-refuse", "--split", "nowhere.csv"], 1, "nowhere.csv: no such file"),
        (["baseline/always-refuse", "--data", "nowhere"], 1, "nowhere"),
        (["baseline/always-refuse", "--split", "sample", "--limit", "0"], 2, "limit is 0: at least 1"),
        (["baseline/always-refuse", "--split", "sample", "--temperature", "3"], 2, "it goes from 0 to 2"),
        (["baseline/always-refuse", "--split", "sample", "--concurrency", "0"], 2, "concurrency is 0"),
        (["baseline/always-refuse", "--split", "sample", "--policy", "kind"], 2, "unknown policy 'kind'"),
        (["baseline/always-refuse", "--split", "sample", "--scorer", "magic"], 2, "unknown scorer 'magic'"),
        (["baseline/always-refuse", "--split", "sample", "--scorer", "judge"], 2, "add --judge MODEL"),
        (["baseline/always-refuse", "--split", "sample", "--scorer", "paper"], 2, "--family"),
        (["baseline/always-refuse", "--split", "sample", "--judge", "openai/x"], 1, "Set OPENAI_API_KEY"),
        (["baseline/always-refuse", "--split", "sample", "--system-prompt", "@nowhere.txt"], 2, "nowhere.txt"),
        (["baseline/always-refuse", "--split", "sample", "--system-prompt", f"@{os.devnull}"], 2, "the file is empty"),
        (["openai/gpt-4o", "--split", "sample", "--base-url", ""], 2, "the base URL is empty"),
        (["baseline/always-refuze", "--split", "sample"], 2, "unknown model baseline/always-refuze"),
        (["opnai/gpt-4o", "--split", "sample"], 2, "did you mean openai/gpt-4o?"),
        (["gpt-4o", "--split", "sample"], 2, "write provider/name"),
        (["openai/gpt-4o", "--split", "sample"], 1, "Set OPENAI_API_KEY"),
        (["openai/gpt-4o", "--split", "sample", "--base-url", "nonsense"], 1, "'nonsense' is no address"),
        (["python/no_such_module:reply", "--split", "sample"], 1, "module 'no_such_module' cannot be imported"),
        (["python/json:no_such", "--split", "sample"], 1, "module 'json' has no 'no_such'"),
        (["python/json", "--split", "sample"], 2, "write python/module:function"),
        (["replay/nowhere", "--split", "sample"], 1, "nowhere: not a run folder"),
        (["python/builtins:str", "--split", "sample", "--system-prompt", "Hi."], 1, "a system prompt cannot reach it"),
        (["baseline/always-refuse", "baseline/always-refuse", "--split", "sample"], 2, "share the run folder"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_was_wrong(cli, arguments, code, message):
    done = cli("evaluate", *arguments)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("orbench: ")
    assert done.err.count("\n") == 1
    assert message in done.err


@pytest.mark.parametrize(
    "arguments",
    [["evaluate"], ["evaluate", "baseline/always-refuse", "--limit", "many"], ["evaluate", "--nonsense"], ["nonsense"]],
)
def test_what_the_parser_refuses_is_wrong_usage(cli, arguments):
    done = cli(*arguments)
    assert (done.code, done.out) == (2, "")
    assert "Error: " in done.err


def test_arguments_that_are_not_utf_8_are_wrong_usage(finish):
    done = finish("evaluate", os.fsdecode(b"baseline/\xff"))
    assert (done.code, done.out) == (2, "")
    assert "not text in UTF-8" in done.err


def test_an_unreachable_service_is_one_line(cli, split_file):
    with LoopbackServer() as server:
        url = server.base_url
    done = cli("evaluate", "openai/any", "--base-url", url, "--split", split_file())
    assert (done.code, done.out) == (1, "")
    assert f"openai/any: cannot reach {url}/chat/completions: " in done.err
    assert done.err.count("\n") == 1


def test_a_refused_key_is_one_line_after_few_requests(cli):
    with LoopbackServer((401, {"error": {"message": "no such key\x1b[31m"}})) as server:
        done = cli("evaluate", "openai/any", "--base-url", server.base_url, "--split", "sample")
    assert (done.code, done.out) == (1, "")
    assert "the key was refused (401: no such key" in done.err
    assert len(server.requests) <= 16


def test_a_folder_of_another_run_is_refused(cli):
    command = ("evaluate", "baseline/always-refuse", "--split", "sample", "--out", "run")
    cli(*command)
    done = cli(*command, "--limit", "5")
    assert done.code == 1
    assert "run: holds a run with another set of prompts: " in done.err


def test_a_folder_that_cannot_be_made_is_told(cli, here):
    (here / "file").touch()
    done = cli("evaluate", "baseline/always-refuse", "--split", "sample", "--out", "file/run")
    assert done.code == 1
    assert "file/run: cannot be made: Not a directory" in done.err


def test_a_full_disk_is_told_and_loses_nothing(finish):
    command = ("evaluate", "baseline/keyword-guard", "--split", "sample", "--out", "run")

    def no_room():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    done = finish(*command, preexec_fn=no_room)
    assert (done.code, done.out) == (1, "")
    assert "responses.jsonl: cannot be written: File too large. Everything received before is saved" in done.err
    assert done.err.count("\n") == 1
    kept = list(read_responses(Path("run")))
    assert 20 < len(kept) < 230
    assert finish(*command).code == 0
    assert list(read_responses(Path("run")))[: len(kept)] == kept
    assert sum(outcomes("run").values()) == 230
