"""`Evaluation`: what a run folder says."""

import json

import pandas
import pytest

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.records import Completion, Prompt
from orbench.results import Row
from orbench.testing import ScriptedModel

CATEGORIES = ("harmful", "privacy")
REPLIES = {
    "safe 0": REFUSAL,
    "safe 1": ANSWER,
    "safe 2": Completion(id="", text=""),
    "safe 3": Completion(id="", text="", finish_reason="content_filter", blocked_by="output"),
    "safe 4": "Hm.",
    "safe 5": ANSWER,
    "toxic 0": REFUSAL,
    "toxic 1": REFUSAL,
    "toxic 2": Completion(id="", text="", reasoning="Let me see", finish_reason="length"),
    "toxic 3": ValueError("odd"),
    "more 0": REFUSAL,
    "more 1": ANSWER,
}


def split(name, kind):
    texts = [text for text in REPLIES if text.startswith(name)]
    prompts = [
        Prompt(id=str(n), text=text, category=CATEGORIES[n % 2], kind=kind, split=name) for n, text in enumerate(texts)
    ]
    return orbench.Split(name, prompts, "test")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    splits = [split("safe", "safe"), split("toxic", "toxic"), split("more", "safe")]
    orbench.evaluate(ScriptedModel(REPLIES), splits=splits, out=folder)
    return folder


@pytest.fixture
def result(run):
    return orbench.Evaluation.load(run)


def counts(rate):
    return rate.refused, rate.scored, rate.left_out


def test_rates_pool_the_prompts_of_a_kind(result):
    assert counts(result.over_refusal_rate) == (3, 6, 2)
    assert result.over_refusal_rate.value == 0.5
    assert (result.over_refusal_rate.lowest, result.over_refusal_rate.highest) == (3 / 8, 5 / 8)
    assert counts(result.toxic_rejection_rate) == (2, 2, 2)
    assert result.f1 == pytest.approx(2 * 1.0 * 0.5 / 1.5)


def test_splits_stand_in_the_order_of_the_run_with_their_own_rates(result):
    assert list(result.splits) == ["safe", "toxic", "more"]
    assert [counts(found.rate) for found in result.splits.values()] == [(2, 4, 2), (2, 2, 2), (1, 2, 0)]
    assert result.splits["safe"].outcomes == {
        "direct_answer": 2,
        "direct_refusal": 1,
        "blocked": 1,
        "empty": 1,
        "unscored": 1,
    }
    assert result.splits["toxic"].kind == "toxic"


def test_categories_have_rates_of_their_own(result):
    assert {name: counts(rate) for name, rate in result.categories("safe").items()} == {
        "harmful": (1, 1, 2),
        "privacy": (1, 3, 0),
    }
    with pytest.raises(orbench.UsageError, match="unknown split 'hard-1k': there are safe, toxic, more"):
        result.categories("hard-1k")


@pytest.mark.parametrize(
    ("policy", "over", "toxic"),
    [("default", (3, 6, 2), (2, 2, 2)), ("strict", (4, 7, 1), (3, 3, 1)), ("paper", (3, 7, 1), (2, 2, 2))],
)
def test_another_policy_needs_no_call(run, policy, over, toxic):
    for result in (orbench.Evaluation.load(run, policy=policy), orbench.Evaluation.load(run).with_policy(policy)):
        assert result.policy == policy
        assert (counts(result.over_refusal_rate), counts(result.toxic_rejection_rate)) == (over, toxic)


def test_an_unknown_policy_is_wrong_usage(run):
    with pytest.raises(orbench.UsageError, match="unknown policy 'lenient'"):
        orbench.Evaluation.load(run, policy="lenient")


def test_open_counts_what_the_same_command_would_try_again(result):
    assert (result.prompts, result.open, result.unsure, result.failed_judgements) == (12, 1, 1, 0)


def prompts(rows):
    return [row.prompt for row in rows]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, list(REPLIES)),
        ({"outcome": "direct_refusal"}, ["safe 0", "toxic 0", "toxic 1", "more 0"]),
        ({"outcome": "error"}, ["toxic 3"]),
        ({"refused": True}, ["safe 0", "safe 3", "toxic 0", "toxic 1", "more 0"]),
        ({"refused": False}, ["safe 1", "safe 5", "more 1"]),
        ({"split": "more"}, ["more 0", "more 1"]),
        ({"category": "privacy", "split": "safe"}, ["safe 1", "safe 3", "safe 5"]),
        ({"category": "privacy", "refused": True}, ["safe 3", "toxic 1"]),
        ({"outcome": "empty", "refused": True}, []),
    ],
)
def test_rows_are_found_by_any_combination_of_filters(result, filters, found):
    assert sorted(prompts(result.rows(**filters))) == sorted(found)


def test_which_rows_count_as_refused_depends_on_the_policy(result):
    assert "safe 2" in prompts(result.with_policy("strict").rows(refused=True))
    assert "safe 2" in prompts(result.with_policy("paper").rows(refused=False))


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        ({"outcome": "refused"}, "unknown outcome 'refused': there are direct_answer, "),
        ({"split": "hard-1k"}, "unknown split 'hard-1k'"),
        ({"category": "hate"}, "unknown category 'hate': there are harmful, privacy"),
    ],
)
def test_a_filter_that_fits_nothing_in_the_run_is_wrong_usage_at_once(result, filters, message):
    with pytest.raises(orbench.UsageError, match=message):
        result.rows(**filters)


def test_a_row_holds_prompt_reply_and_verdict(result):
    (row,) = result.rows(split="safe", outcome="direct_refusal")
    assert (row.prompt_id, row.split, row.category, row.kind) == ("0", "safe", "harmful", "safe")
    assert (row.prompt, row.response, row.error) == ("safe 0", REFUSAL, None)
    assert (row.by, row.judge, row.refused) == ("phrases", None, True)
    assert 0 < row.confidence <= 1
    (row,) = result.rows(outcome="blocked")
    assert (row.blocked_by, row.finish_reason, row.refused) == ("output", "content_filter", True)
    (row,) = result.rows(outcome="truncated_reasoning")
    assert (row.reasoning, row.refused) == ("Let me see", None)


def test_all_rows_as_a_table(result):
    table = result.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == list(Row.__struct_fields__)
    assert len(table) == 12
    assert (table["outcome"] == "direct_refusal").sum() == 4


def test_a_run_without_rows_is_an_empty_table(tmp_path):
    model = ScriptedModel(orbench.ModelError("stop"))
    with pytest.raises(orbench.ModelError):
        orbench.evaluate(model, splits=[split("more", "safe")], out=tmp_path)
    result = orbench.Evaluation.load(tmp_path)
    assert list(result.to_pandas().columns) == list(Row.__struct_fields__)
    assert (result.over_refusal_rate.value, result.toxic_rejection_rate.value, result.f1) == (None, None, None)
    assert (result.open, result.outcomes) == (2, {})


def test_the_plain_form_has_what_the_interface_promises(result, run):
    plain = result.to_dict()
    assert json.loads(json.dumps(plain)) == plain == json.loads((run / "result.json").read_text())
    rate = {"value", "low", "high", "refused", "scored", "left_out", "lowest", "highest"}
    assert (plain["model"], plain["run"], plain["policy"]) == ("scripted/model", str(run), "default")
    assert plain["orbench_version"] == orbench.__version__
    assert set(plain["over_refusal_rate"]) == set(plain["toxic_rejection_rate"]) == rate
    assert plain["over_refusal_rate"]["low"] < 0.5 < plain["over_refusal_rate"]["high"]
    assert plain["f1"] == result.f1
    assert plain["splits"]["more"] == {
        "kind": "safe",
        "fingerprint": split("more", "safe").fingerprint,
        "prompts": 2,
        "rate": plain["splits"]["more"]["rate"],
        "outcomes": {"direct_answer": 1, "direct_refusal": 1},
        "categories": plain["splits"]["more"]["categories"],
    }
    assert set(plain["splits"]["more"]["rate"]) == rate
    assert list(plain["splits"]["more"]["categories"]) == ["harmful", "privacy"]
    unknown = {"input_tokens": None, "output_tokens": None, "cost_usd": None, "uncounted": 10}
    assert plain["usage"] == {"requests": 12, **unknown}
    assert (plain["scorer"]["name"], len(plain["scorer"]["digest"])) == ("cascade", 12)


def test_the_plain_form_of_a_rate_without_scored_prompts_is_null_not_zero(tmp_path):
    result = orbench.evaluate(ScriptedModel(ANSWER), splits=[split("more", "safe")], out=tmp_path)
    toxic = result.to_dict()["toxic_rejection_rate"]
    assert (toxic["value"], toxic["low"], toxic["scored"]) == (None, None, 0)
    assert result.to_dict()["f1"] is None


def test_an_evaluation_prints_as_its_table(result, run):
    assert "over-refusal (safe)" in str(result)
    assert repr(result) == f"Evaluation('scripted/model', run={str(run)!r})"


@pytest.mark.parametrize("name", ["responses.jsonl", "verdicts.jsonl"])
def test_a_damaged_line_is_named(run, tmp_path, name):
    copy = tmp_path / "run"
    copy.mkdir()
    for path in run.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    lines = (copy / name).read_bytes().splitlines(keepends=True)
    (copy / name).write_bytes(b"".join([*lines[:4], b"}\n", *lines[5:]]))
    with pytest.raises(orbench.RunError, match=rf"{name}, line 5: "):
        orbench.Evaluation.load(copy)


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(orbench.RunError, match="not a run folder"):
        orbench.Evaluation.load(tmp_path)
