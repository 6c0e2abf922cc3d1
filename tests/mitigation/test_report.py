"""Before and after: the papers' measures and paired tests of two runs."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orbench
from orbench.errors import OrbenchWarning, RunError, UsageError
from orbench.mitigation.pairs import make_pairs
from orbench.mitigation.ranking import area_under_curve
from orbench.mitigation.report import report_loop
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.records import Completion, Usage
from orbench.testing import ScriptedModel

_spec = importlib.util.spec_from_file_location("mitigation_helpers", Path(__file__).with_name("conftest.py"))
helpers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helpers)


@pytest.fixture
def runs(here, prompts):
    """A run that refuses everything, and one that answers safe prompts but for a fifth, and says nothing to a few."""
    file = str(prompts(60, 40))

    def after(request):
        if "insult" in request.prompt:
            return REFUSAL
        number = int(request.prompt.split("number")[1].split("a")[0])
        return REFUSAL if number % 5 == 0 else "" if number % 10 == 1 else ANSWER

    for name, reply in (("before", REFUSAL), ("after", after)):
        model = ScriptedModel(reply, name=f"scripted/{name}")
        guard = ScriptedModel("Fine. [[safe]]", name="scripted/guard")
        orbench.evaluate(model, splits=file, out=name, safety_judge=guard, progress=False)
    return "before", "after"


def test_the_papers_measures_and_the_paired_test(runs):
    loop = report_loop(*runs)
    assert loop.before.not_overrefusal == 0.0
    assert loop.after.not_overrefusal == pytest.approx(42 / 54)
    assert loop.after.not_unsafe == 1.0
    assert loop.after.f1 == pytest.approx(2 * (42 / 54) / (42 / 54 + 1))
    assert loop.significant == {"over_refusal": True, "toxic_rejection": False}
    assert loop.comparison["pairs"][0]["over_refusal"]["p_holm"] < 1e-9


def test_a_reply_is_refused_answered_or_neither(runs):
    ways = report_loop(*runs).after.safe
    assert (ways.refused, ways.answered, ways.neither) == pytest.approx((0.2, 0.7, 0.1))


def test_rates_that_leave_many_replies_out_are_not_left_without_a_word(here, prompts):
    file = str(prompts(20, 10))
    for name, reply in (("before", REFUSAL), ("after", lambda request: "" if "kill" in request.prompt else ANSWER)):
        orbench.evaluate(ScriptedModel(reply, name=f"scripted/{name}"), splits=file, out=name, progress=False)
    loop = report_loop("before", "after")
    assert loop.after.not_overrefusal == 1.0
    assert "65.0 % of the replies of scripted/after to safe prompts are neither" in str(loop)


def test_without_general_prompts_the_report_says_what_is_missing(runs):
    assert "--general" in str(report_loop(*runs))
    shown = str(report_loop(*runs, general=runs))
    assert "--general" not in shown
    assert "scripted/before refuses 100.0 % of the general prompts" in shown


def test_helpfulness_is_marked_on_general_prompts_and_tested_in_pairs(runs):
    def judge(request):
        return f"[[{2 if REFUSAL in request.prompt else 8}]]"

    loop = report_loop(*runs, general=runs, helpfulness=ScriptedModel(judge, name="scripted/judge"))
    assert loop.before.helpfulness == 2.0
    assert loop.helpfulness.low > 0
    with pytest.raises(UsageError, match="--general"):
        report_loop(*runs, helpfulness=ScriptedModel(judge))


def test_a_reply_without_a_word_has_the_lowest_mark(runs):
    judge = ScriptedModel("[[8]]", name="scripted/judge")
    loop = report_loop(*runs, general=runs, helpfulness=judge)
    assert loop.after.marked == loop.before.marked == 60
    assert loop.after.helpfulness == pytest.approx((8 * 54 + 1 * 6) / 60)
    assert len(judge.requests) == 114


def test_what_failed_is_in_no_share_and_said(here, prompts):
    """A broken call says nothing of the model: it is neither a refusal nor gibberish, and ends no report."""
    file = str(prompts(20, 10))
    broken = ScriptedModel(
        lambda request: RuntimeError("out of order") if "kill" in request.prompt else ANSWER, name="scripted/after"
    )
    orbench.evaluate(ScriptedModel(REFUSAL, name="scripted/before"), splits=file, out="before", progress=False)
    orbench.evaluate(broken, splits=file, out="after", progress=False)
    loop = report_loop("before", "after")
    assert (loop.before.safe.prompts, loop.before.safe.missing) == (20, 0)
    assert (loop.after.safe.answered, loop.after.safe.prompts, loop.after.safe.missing) == (1.0, 7, 13)
    assert "13 of 30 prompts of after have no verdict" in str(loop)
    assert "out of order" in str(loop)


def test_marks_that_a_judge_fails_to_give_are_counted_and_asked_again(runs):
    def judge(request):
        return RuntimeError("out of order") if "stop" in request.prompt else "[[8]]"

    loop = report_loop(*runs, general=runs, helpfulness=ScriptedModel(judge, name="scripted/judge"))
    assert (loop.failed, loop.before.marked) == (25, 47)
    assert "25 marks of helpfulness are missing" in str(loop)
    again = ScriptedModel("[[8]]", name="scripted/judge")
    assert report_loop(*runs, general=runs, helpfulness=again).failed == 0
    assert len(again.requests) == 25


def test_the_judge_of_helpfulness_has_a_bound_and_a_higher_one_goes_on(runs, here):
    (here / "prices.csv").write_text("model,input,output\nscripted/*,100,100\n", encoding="utf-8")
    usage = Usage(input_tokens=50, output_tokens=50)  # $0.01
    judge = ScriptedModel(lambda request: Completion(id=request.id, text="[[7]]", usage=usage), name="scripted/judge")
    options = {"general": runs, "helpfulness": judge, "concurrency": 1}
    with pytest.raises(UsageError, match="no price"):
        report_loop(*runs, **options, max_cost=0.3)
    options["prices"] = "prices.csv"
    with pytest.warns(OrbenchWarning, match=r"stopped at --max-cost 0.5.*goes on"):
        loop = report_loop(*runs, **options, max_cost=0.5)
    asked = len(judge.requests)
    assert 0 < asked < 114
    assert loop.failed == 114 - asked
    assert loop.cost_usd == pytest.approx({"helpfulness scripted/judge": 0.01 * asked})
    loop = report_loop(*runs, **options, max_cost=9)
    assert (len(judge.requests), loop.failed) == (114, 0)
    assert "helpfulness scripted/judge $1.14" in str(loop)


def test_an_interval_of_marks_wants_ten_replies_that_do_not_all_move_alike(here, prompts):
    def report(safe, reply):
        file = str(prompts(safe, 0))
        for name, said in (("before", REFUSAL), ("after", reply)):
            orbench.evaluate(
                ScriptedModel(said, name=f"scripted/{name}"), splits=file, out=f"{name}-{safe}", progress=False
            )
        both = (f"before-{safe}", f"after-{safe}")
        judge = ScriptedModel(lambda request: f"[[{2 if REFUSAL in request.prompt else 8}]]", name="scripted/judge")
        return report_loop(*both, general=both, helpfulness=judge)

    assert report(9, lambda request: REFUSAL if "kill" in request.prompt else ANSWER).helpfulness.low is None
    assert "no interval" in str(report(12, ANSWER))
    mixed = report(15, lambda request: REFUSAL if "process" in request.prompt else ANSWER).helpfulness
    spread = ((13 * (6 - mixed.value) ** 2 + 2 * mixed.value**2) / 14) ** 0.5
    assert mixed.high - mixed.value == pytest.approx(2.1448 * spread / 15**0.5, rel=1e-4)


@pytest.mark.parametrize("name", ["vllm/cured", "hf/base+cured/adapter", "hf/cured/last"])
def test_a_trained_model_is_known_however_it_is_run(here, prompts, teacher, name):
    for model in ("before", name):
        out = "before" if model == "before" else "after"
        orbench.evaluate(ScriptedModel(REFUSAL, name=model), splits=str(prompts(60, 40)), out=out, progress=False)
    make_pairs("before", teacher=teacher, out="pairs", progress=False)
    for inside in ("adapter", "last"):
        (here / "cured" / inside).mkdir(parents=True)
    (here / "cured" / "training.json").write_text('{"config": {"data": "pairs"}}', encoding="utf-8")
    with pytest.raises(UsageError, match=r"80 of 100 prompts.*trained on"):
        report_loop("before", "after")


def test_prompts_that_were_trained_on_are_no_measure(here, prompts, teacher):
    file = str(prompts(60, 40))
    for name in ("before", "hf/cured"):
        orbench.evaluate(ScriptedModel(REFUSAL, name=name), splits=file, out=name.split("/")[-1], progress=False)
    folder = make_pairs("before", teacher=teacher, out="pairs", progress=False).folder
    (here / "cured" / "training.json").write_text(json.dumps({"config": {"data": "pairs"}}), encoding="utf-8")
    with pytest.raises(UsageError, match=r"80 of 100 prompts.*trained on.*held_out_prompts"):
        report_loop("before", "cured")
    for name in ("before", "hf/cured"):
        orbench.evaluate(
            ScriptedModel(REFUSAL, name=name),
            splits=str(folder / "held_out_prompts.csv"),
            out=f"held-{name.split('/')[-1]}",
            progress=False,
        )
    assert report_loop("held-before", "held-cured").notes == []

    held = orbench.load_split(folder / "held_out_prompts.csv")[0].text

    def replay(text):
        turns = ([{"role": role, "content": said}] for role, said in (("user", text), ("assistant", ANSWER)))
        row = {**dict(zip(("prompt", "chosen"), turns, strict=True)), "prompt_id": "g", "kind": "safe"}
        (here / "general.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")

    config = {"data": "pairs", "replay": "general.jsonl"}
    (here / "cured" / "training.json").write_text(json.dumps({"config": config}), encoding="utf-8")
    replay(f"{held} Today")
    [note] = report_loop("held-before", "held-cured").notes
    assert "1 of 20 prompts" in note
    assert "learnt (general.jsonl)" in note
    replay(held)
    with pytest.raises(UsageError, match="1 of 20 prompts"):
        report_loop("held-before", "held-cured")


def test_general_prompts_that_were_learned_are_no_measure_either(here, prompts):
    for name in ("before", "hf/cured"):
        out = name.split("/")[-1]
        orbench.evaluate(ScriptedModel(REFUSAL, name=name), splits=str(prompts(20, 10)), out=out, progress=False)
        everyday = f"safe={prompts(30, 0, name='everyday.csv')}"
        orbench.evaluate(ScriptedModel(ANSWER, name=name), splits=everyday, out=f"{out}-general", progress=False)
    turns = {"prompt": [{"role": "user", "content": helpers.safe_prompts(30)[-1]}]}
    (here / "general.jsonl").write_text(json.dumps(turns) + "\n", encoding="utf-8")
    (here / "cured" / "training.json").write_text('{"config": {"data": "x", "replay": "general.jsonl"}}')
    assert "could not be read" in " ".join(report_loop("before", "cured").notes).lower()
    with pytest.raises(UsageError, match=r"1 of 30 prompts of cured-general.*general\.jsonl"):
        report_loop("before", "cured", general=("before-general", "cured-general"))


def test_the_report_says_where_it_cannot_look(runs):
    assert "--pairs" in str(report_loop(*runs))


def test_runs_that_differ_in_the_safety_judge_alone_are_told_apart(runs, here, prompts):
    orbench.evaluate(ScriptedModel(REFUSAL, name="scripted/bare"), splits="mine.csv", out="bare", progress=False)
    with pytest.raises(UsageError, match=r"score bare --scorer cascade --safety-judge scripted/guard"):
        report_loop("bare", "after")


def test_results_of_lm_eval_stand_beside_the_rates(runs, here):
    for name, accuracy in (("a", 0.7), ("b", 0.75)):
        results = {
            "boolq": {"acc,none": accuracy, "alias": "boolq"},
            "arc": {"acc,none": "N/A"},
            "piqa": {"acc_norm,none": 0.6, "acc,none": 0.5},
        }
        (here / f"{name}.json").write_text(json.dumps({"results": results}), encoding="utf-8")
    loop = report_loop(*runs, lm_eval=("a.json", "b.json"))
    assert loop.after.tasks == {"boolq": 0.75, "arc": None, "piqa": 0.6}
    assert "boolq" in str(loop)
    (here / "a.json").write_text("[]", encoding="utf-8")
    with pytest.raises(RunError, match=r"a\.json"):
        report_loop(*runs, lm_eval=("a.json", "b.json"))


def test_the_page_of_both_runs_is_written(runs, here):
    report_loop(*runs, html="loop.html")
    assert "scripted/after" in (here / "loop.html").read_text(encoding="utf-8")


def test_the_ranking_figure_needs_weights(runs, cautious, teacher, here):
    folder = make_pairs("before", teacher=teacher, out="pairs", progress=False).folder
    with pytest.raises(UsageError, match="hf/"):
        report_loop(*runs, pairs=folder)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_the_area_is_the_share_of_pairs_in_order(toxic, safe):
    wins = sum((a > b) + (a == b) / 2 for a in toxic for b in safe)
    assert area_under_curve(toxic, safe) == pytest.approx(wins / (len(toxic) * len(safe)))
