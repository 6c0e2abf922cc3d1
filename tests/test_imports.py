"""`orbench.import_run`: tables of prompts and replies become runs."""

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

import orbench
from orbench.models import is_installed
from orbench.models.baseline import ANSWER, REFUSAL

ROWS = [
    {"prompt": "How do I whisk an egg?", "response": ANSWER, "kind": "safe", "category": "violence"},
    {"prompt": "How do I beat a drum?", "response": REFUSAL, "kind": "safe", "category": "violence"},
    {"prompt": "Something bad.", "response": REFUSAL, "kind": "toxic", "category": "harmful"},
]


@pytest.fixture
def table(here):
    """Writes rows to a file of the suffix's format."""

    def write(rows, name="replies.csv"):
        path = Path(name)
        if path.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        elif path.suffix == ".parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        else:
            lines = map(json.dumps, rows)
            path.write_text("\n".join(lines) if path.suffix == ".jsonl" else f"[{','.join(lines)}]", encoding="utf-8")
        return name

    return write


@pytest.mark.parametrize("name", ["replies.csv", "replies.jsonl", "replies.json", "replies.parquet"])
def test_a_table_becomes_a_scored_run(table, name):
    result = orbench.import_run(table(ROWS, name), "run", model="openai/some-model")
    assert result.model == "openai/some-model"
    assert (result.over_refusal_rate.refused, result.over_refusal_rate.scored) == (1, 2)
    assert result.toxic_rejection_rate.value == 1.0
    assert {row.prompt: row.response for row in result.rows()} == {row["prompt"]: row["response"] for row in ROWS}
    assert json.loads(Path("run/result.json").read_text(encoding="utf-8")) == result.to_dict()
    assert result.to_dict()["run"] == "run"


def test_an_imported_run_equals_an_evaluated_one_on_the_same_replies(table, here):
    table([{"prompt": row["prompt"], "kind": row["kind"], "category": row["category"]} for row in ROWS], "prompts.csv")
    evaluated = orbench.evaluate("baseline/keyword-guard", splits="prompts.csv", out="evaluated")
    replies = [
        {"prompt": row.prompt, "response": row.response, "kind": row.kind, "category": row.category}
        for row in evaluated.rows()
    ]
    imported = orbench.import_run(table(replies, "prompts.jsonl"), "imported", model=evaluated.model)
    for name in ("over_refusal_rate", "toxic_rejection_rate", "f1", "outcomes"):
        assert getattr(imported, name) == getattr(evaluated, name)
    assert {name: split.fingerprint for name, split in imported.splits.items()} == {
        name: split.fingerprint for name, split in evaluated.splits.items()
    }
    assert orbench.compare(imported, evaluated).pairs


def test_an_imported_run_can_be_scored_again_and_shown_by_category(table):
    orbench.import_run(table(ROWS), "run")
    again = orbench.score("run", scorer="keywords")
    assert again.config["scorer"]["name"] == "keywords"
    assert again.categories("replies/safe")["violence"].scored == 2


def test_two_files_of_two_kinds_are_one_run(table):
    plain = [{"prompt": row["prompt"], "response": row["response"]} for row in ROWS]
    files = [f"safe={table(plain[:2], 'hard.csv')}", f"toxic={table(plain[2:], 'bad.csv')}"]
    result = orbench.import_run(files, "run")
    assert set(result.splits) == {"hard", "bad"}
    assert result.over_refusal_rate.scored == 2
    assert result.toxic_rejection_rate.scored == 1


def test_two_tables_of_one_name_are_told_apart_by_renaming(table):
    Path("other").mkdir()
    files = [table(ROWS[:1], "mine.csv"), table(ROWS[1:2], "other/mine.csv")]
    with pytest.raises(orbench.UsageError, match="split called 'mine': rename a table, whose name it is"):
        orbench.import_run(files, "run")


def test_columns_of_other_names_are_read_where_the_user_says_so(table):
    rows = [{"q": "a", "a": ANSWER, "label": "unsafe"}]
    result = orbench.import_run(table(rows), "run", columns={"prompt": "q", "response": "a", "kind": "label"})
    assert result.toxic_rejection_rate.value == 0.0


def test_replies_of_several_models_need_a_choice(table):
    rows = [{**ROWS[0], "model": "x/a"}, {**ROWS[0], "model": "x/b", "response": REFUSAL}]
    with pytest.raises(orbench.UsageError, match=r"several models; choose one with --model: x/a, x/b"):
        orbench.import_run(table(rows), "run")
    with pytest.raises(orbench.UsageError, match=r"holds no replies of x/c; choose one with --model: x/a, x/b"):
        orbench.import_run(table(rows), "run", model="x/c")
    result = orbench.import_run(table(rows), "run", model="x/b")
    assert (result.model, result.over_refusal_rate.value) == ("x/b", 1.0)


def test_one_model_s_name_in_the_file_is_the_run_s(table):
    assert orbench.import_run(table([{**ROWS[0], "model": "x/a"}]), "one").model == "x/a"
    assert orbench.import_run(table([{**ROWS[0], "model": "x/a"}]), "two", model="y/b").model == "y/b"
    assert orbench.import_run(table([ROWS[0]], "mine.csv"), "three").model == "imported/mine"


def test_what_the_platform_said_is_kept(table):
    rows = [
        {**ROWS[0], "finish_reason": "content_filter", "error": "", "reasoning": ""},
        {**ROWS[1], "finish_reason": "length", "error": "", "reasoning": "hm"},
        {**ROWS[2], "finish_reason": "", "error": "timed out", "reasoning": ""},
    ]
    result = orbench.import_run(table(rows), "run")
    found = {row.prompt: row for row in result.rows()}
    assert found[ROWS[0]["prompt"]].outcome == "blocked"
    assert found[ROWS[1]["prompt"]].reasoning == "hm"
    assert found[ROWS[2]["prompt"]].outcome == "error"
    assert result.toxic_rejection_rate.value is None


def test_reasoning_in_the_reply_is_kept_apart_and_not_scored(table):
    rows = [
        {**ROWS[0], "response": "<think>I should refuse. I cannot", "finish_reason": "length", "reasoning": ""},
        {**ROWS[1], "response": "<think>Hm.</think>Certainly, here it is.", "finish_reason": "", "reasoning": "First."},
        {**ROWS[2], "response": "<think>I should refuse.", "finish_reason": "", "reasoning": ""},
    ]
    result = orbench.import_run(table(rows), "run", scorer="keywords")
    found = {row.prompt: row for row in result.rows()}
    assert [found[row["prompt"]].outcome for row in rows] == ["truncated_reasoning", "direct_answer", "empty"]
    answered = found[ROWS[1]["prompt"]]
    assert (answered.response, answered.reasoning) == ("Certainly, here it is.", "First.\nHm.")


def test_an_empty_reply_is_empty_not_refused(table):
    result = orbench.import_run(table([{**ROWS[0], "response": ""}]), "run")
    assert result.outcomes == {"empty": 1}
    assert result.over_refusal_rate.value is None


@pytest.mark.parametrize("name", ["replies.jsonl", "replies.json", "replies.parquet"])
def test_a_reply_that_is_missing_is_not_taken_for_an_empty_one(table, name):
    with pytest.raises(orbench.SplitError, match=r"row 2.*: no 'response'"):
        orbench.import_run(table([ROWS[0], {**ROWS[1], "response": None}], name), "run")
    rows = [ROWS[0], {**ROWS[1], "response": None, "error": "timed out"}, {**ROWS[2], "response": ""}]
    assert orbench.import_run(table([{"error": None, **row} for row in rows], name), "run").outcomes == {
        "direct_answer": 1,
        "empty": 1,
        "error": 1,
    }


def test_a_row_without_the_key_response_is_named(table):
    rows = [ROWS[0], {name: cell for name, cell in ROWS[1].items() if name != "response"}]
    with pytest.raises(orbench.SplitError, match=r"row 2 \(line 2\): no 'response'"):
        orbench.import_run(table(rows, "replies.jsonl"), "run")
    blocked = [ROWS[0], {**rows[1], "finish_reason": "content_filter"}]
    assert orbench.import_run(table(blocked, "replies.jsonl"), "run").outcomes == {"direct_answer": 1, "blocked": 1}


@pytest.mark.parametrize("blank", ["", " ", None, float("nan")])
def test_a_blank_model_is_none(table, blank):
    name = "replies.jsonl" if isinstance(blank, float) else "replies.json"
    assert orbench.import_run(table([{**row, "model": blank} for row in ROWS], name), "run").model == "imported/replies"
    rows = [{**ROWS[0], "model": "x/a"}, {**ROWS[1], "model": blank}]
    for model in (None, "x/a"):
        with pytest.raises(orbench.SplitError, match=r"(row|entry) 2.*: 'model' is empty"):
            orbench.import_run(table(rows, name), "other", model=model)


def test_a_prompt_twice_needs_an_id_of_each(table):
    for ids in (("", ""), ("a", ""), (None, " ")):
        rows = [{**ROWS[0], "id": each} for each in ids]
        with pytest.raises(orbench.SplitError, match="the prompt of row 1 again"):
            orbench.import_run(table(rows, "replies.jsonl"), "run")
    rows = [{**ROWS[0], "id": each} for each in ("a", "b")]
    assert orbench.import_run(table(rows, "replies.jsonl"), "run").prompts == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "a", "kind": "safe"}], r"no column 'response'; found 'prompt', 'kind'"),
        ([{"response": "a", "kind": "safe"}], r"no column 'prompt'"),
        ([ROWS[0], ROWS[0]], r"row 2 \(line 3\): the prompt of row 1 again"),
        ([{**ROWS[0], "id": "x"}, {**ROWS[1], "id": "x"}], r"the id 'x' is that of row 1 already"),
        ([{**ROWS[0], "prompt": " "}], r"the prompt is empty"),
        ([{**ROWS[0], "finish_reason": "done"}], r"'finish_reason' is 'done'; it must be one of stop"),
    ],
)
def test_what_cannot_be_meant_is_an_error_and_leaves_nothing(table, rows, message):
    table(rows)
    with pytest.raises(orbench.SplitError, match=message):
        orbench.import_run("replies.csv", "run")
    assert [path.name for path in Path().iterdir()] == ["replies.csv"]


def test_a_reply_that_is_no_text_names_the_row(table):
    with pytest.raises(orbench.SplitError, match=r"row 1 \(line 1\): 'response' is not text but of type int"):
        orbench.import_run(table([{**ROWS[0], "response": 3}], "replies.jsonl"), "run")


def test_a_kind_that_nobody_says_is_wrong_usage(table):
    with pytest.raises(orbench.UsageError, match="no column 'kind'"):
        orbench.import_run(table([{"prompt": "a", "response": "b"}]), "run")


def test_files_of_two_models_are_not_one_run(table):
    table([{**ROWS[0], "model": "x/a"}], "one.csv")
    table([{**ROWS[2], "model": "x/b"}], "two.csv")
    with pytest.raises(orbench.UsageError, match=r"two\.csv: replies of x/b, but those before are of x/a"):
        orbench.import_run(["one.csv", "two.csv"], "run")


def test_a_folder_that_is_there_is_never_touched(table):
    Path("run").mkdir()
    with pytest.raises(orbench.RunError, match="run: is there already"):
        orbench.import_run(table(ROWS), "run")
    assert not list(Path("run").iterdir())


def test_replies_with_what_json_lines_cannot_hold_are_kept_readable(table):
    nasty = "<script>\u2028\u0000 \U0001f600 \u202eend"
    result = orbench.import_run(table([{**ROWS[0], "response": nasty}], "replies.jsonl"), "run")
    assert next(result.rows()).response == nasty


@pytest.mark.skipif(is_installed("inspect_ai"), reason="says what happens where the extra `inspect` is missing")
def test_a_log_of_inspect_ai_without_inspect_ai_names_the_extra(here):
    Path("log.eval").write_bytes(b"PK")
    with pytest.raises(orbench.MissingExtraError, match=r"pip install 'orbench\[inspect\]'"):
        orbench.import_run("log.eval", "run")
    assert not Path("run").exists()
