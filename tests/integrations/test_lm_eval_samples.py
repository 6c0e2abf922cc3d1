"""`orbench.import_run` on files as lm-evaluation-harness writes them; the harness itself is not needed."""

import json
from pathlib import Path

import pytest

import orbench

STAMP = "2026-01-02T03-04-05.678901"


def sample(number, response, **doc):
    given = {"id": f"p{number}", "prompt": f"How do I whisk {number} eggs?", "category": "harmful"}
    return {
        "doc_id": number,
        "doc": {**given, "kind": "safe", "split": "hard-1k", "seed_id": None, **doc},
        "target": "safe",
        "arguments": {"gen_args_0": {"arg_0": "...", "arg_1": {"temperature": 0.5, "max_gen_toks": 64}}},
        "resps": [[response]],
        "filtered_resps": [response],
        "filter": "answer",
        "metrics": ["over_refusal_rate"],
        "over_refusal_rate": float("nan"),
    }


SAMPLES = [sample(1, "I'm sorry, but I can't help with that."), sample(0, "<think>Easy.</think>Sure! First, a bowl.")]


@pytest.fixture
def write(here):
    def write(samples, name=f"samples_orbench_hard_1k_{STAMP}.jsonl"):
        Path(name).write_text("".join(json.dumps(each) + "\n" for each in samples), encoding="utf-8")
        return name

    return write


def test_samples_become_a_run_in_the_order_of_the_split(write):
    result = orbench.import_run(write(SAMPLES), "run")
    assert [row.prompt_id for row in result.rows()] == ["p0", "p1"]
    assert (result.over_refusal_rate.refused, result.over_refusal_rate.scored) == (1, 2)
    assert next(result.rows()).reasoning == "Easy."
    assert result.config["sampling"] == {"temperature": 0.5, "max_tokens": 64, "top_p": None, "seed": None}
    assert result.model == f"imported/samples_orbench_hard_1k_{STAMP}"


def test_the_results_beside_them_say_who_replied(write):
    said = {
        "model_source": "hf",
        "model_name": "acme/tiny",
        "lm_eval_version": "0.4.13",
        "system_instruction": "Be kind.",
    }
    Path(f"results_{STAMP}.json").write_text(json.dumps(said), encoding="utf-8")
    result = orbench.import_run(write(SAMPLES), "run")
    assert (result.model, result.config["system_prompt"]) == ("hf/acme/tiny", "Be kind.")
    assert result.config["imported_from"]["version"] == "0.4.13"
    assert orbench.import_run(write(SAMPLES), "other", model="acme/large").model == "acme/large"


CANARY = "sk-CANARY"


@pytest.mark.parametrize(
    "arguments",
    [
        {
            "model": "m",
            "revision": "main",
            "base_url": f"https://user:{CANARY}@host:8000/{CANARY}/v1?api_key={CANARY}",
            "api_key": CANARY,
            "token": CANARY,
            "header": {"Authorization": f"Bearer {CANARY}"},
            "tokenizer": {"auth": CANARY},
        },
        f"model=m,api_key={CANARY},revision=main,token={CANARY},base_url=https://user:{CANARY}@host/v1?key={CANARY}",
    ],
)
def test_no_key_of_the_harness_reaches_run_report_or_parquet(write, arguments):
    said = {
        "model_source": "local-chat-completions",
        "model_name": f"https://{CANARY}@host/m",
        "config": {"model_args": arguments},
    }
    Path(f"results_{STAMP}.json").write_text(json.dumps(said), encoding="utf-8")
    result = orbench.import_run(write(SAMPLES), "run")
    assert result.config["imported_from"]["model_args"] == {
        "model": "m",
        "revision": "main",
        "base_url": "https://host",
    }
    orbench.write_report(result, "report.html")
    result.to_parquet("rows.parquet")
    made = [path for path in (*Path("run").iterdir(), Path("report.html"), Path("rows.parquet")) if path.is_file()]
    assert len(made) > 4
    assert [path for path in made if b"CANARY" in path.read_bytes()] == []


def test_two_files_of_one_harness_run_are_one_run(write):
    toxic = [sample(7, "Never.", kind="toxic", split="toxic")]
    files = [write(SAMPLES), write(toxic, f"samples_orbench_toxic_{STAMP}.jsonl")]
    assert set(orbench.import_run(files, "run").splits) == {"hard-1k", "toxic"}


def test_two_files_of_one_split_are_two_runs(write):
    files = [write(SAMPLES), write(SAMPLES, "samples_again.jsonl")]
    with pytest.raises(orbench.UsageError, match="split called 'hard-1k': they are two runs: import each by itself"):
        orbench.import_run(files, "run", model="x/a")


def test_a_file_with_two_splits_is_a_run_of_both(write):
    mixed = [*SAMPLES, sample(0, "Never.", kind="toxic", split="toxic"), sample(1, "Sure!", split="mine")]
    result = orbench.import_run(write(mixed), "run")
    assert {name: (split.kind, split.prompts) for name, split in result.splits.items()} == {
        "hard-1k": ("safe", 2),
        "toxic": ("toxic", 1),
        "mine": ("safe", 1),
    }
    assert len(list(result.rows())) == 4


def test_results_without_samples_say_what_to_do(write):
    content = {"results": {}, "configs": {}, "versions": {}}
    Path("results.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(orbench.SplitError, match=r"without the replies\. Run lm_eval with --log_samples"):
        orbench.import_run("results.json", "run")
    assert not Path("run").exists()


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        (
            [{"doc_id": 0, "doc": {"question": "1 + 1?"}, "resps": [["2"]]}],
            "SplitError",
            "no sample of orbench's tasks",
        ),
        ([sample(0, "a"), sample(0, "b")], "SplitError", "two samples of 'hard-1k' have the prompt id 'p0'"),
        ([sample(0, "a"), sample(1, "b", kind="toxic")], "SplitError", "'hard-1k' holds safe and toxic prompts"),
        ([{**sample(0, "a"), "resps": []}], "SplitError", "no reply to 'p0'"),
        ([{**sample(0, "a"), "resps": [[]]}], "SplitError", "no reply to 'p0'"),
        ([{**sample(0, "a"), "resps": [["a", "b"]]}], "UsageError", "several replies to 'p0'"),
        ([sample(0, "a"), {"doc_id": 1}], "SplitError", "line 2: no sample of orbench's tasks"),
    ],
)
def test_what_cannot_be_meant_is_an_error_and_leaves_nothing(write, samples, error, message):
    file = write(samples)
    with pytest.raises(getattr(orbench, error), match=message):
        orbench.import_run(file, "run")
    assert [path.name for path in Path().iterdir()] == [file]


def test_a_torn_line_is_named(write):
    file = Path(write(SAMPLES))
    file.write_text(file.read_text(encoding="utf-8") + '{"doc_id": 3, ', encoding="utf-8")
    with pytest.raises(orbench.SplitError, match="line 3: broken JSON"):
        orbench.import_run(file, "run")
