"""Several completions a prompt, scored, the best of them taken."""

import importlib.util
from pathlib import Path

import pytest

import orbench
from orbench.errors import OrbenchWarning, RunError, UsageError
from orbench.mitigation.choose import Candidate, any_of, best_of
from orbench.mitigation.overgenerate import estimate_overgeneration, overgenerate
from orbench.models.baseline import REFUSAL
from orbench.records import Completion, Usage
from orbench.splits import Split
from orbench.testing import ScriptedModel

_spec = importlib.util.spec_from_file_location("mitigation_helpers", Path(__file__).with_name("conftest.py"))
helpers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(helpers)
lines = helpers.lines


def candidate(**known):
    return Candidate(
        **{
            "prompt_id": "1",
            "prompt": "p",
            "kind": "safe",
            "category": "",
            "teacher": "t",
            "number": 1,
            "completion": "Certainly.",
            "refused": False,
            **known,
        }
    )


def varied(request):
    """A teacher whose replies differ by the seed of the draw."""
    if "insult" in request.prompt:
        return REFUSAL
    how = ["press the button", "open the list and press the button", "wait"][request.sampling.seed % 3]
    return f"Certainly. To do it, {how}."


def marks(request):
    """A judge of helpfulness that likes the list."""
    return f"So [[{9 if 'open the list and' in request.prompt else 3}]]"


def test_the_most_helpful_fit_reply_is_taken_and_all_are_kept(here, prompts):
    made = overgenerate(
        str(prompts(6, 4)),
        teachers=[ScriptedModel(varied, name="scripted/teacher")],
        out="made",
        n=3,
        helpfulness=ScriptedModel(marks, name="scripted/judge"),
        progress=False,
    )
    assert made.candidates == 30
    assert len(lines(here / "made" / "candidates.jsonl")) == 30
    chosen = lines(here / "made" / "chosen.jsonl")
    assert {row["completion"][0]["content"] for row in chosen if row["kind"] == "safe"} == {
        "Certainly. To do it, open the list and press the button."
    }
    assert {row["completion"][0]["content"] for row in chosen if row["kind"] == "toxic"} == {REFUSAL}
    control = {row["completion"][0]["content"] for row in lines(here / "made" / "random.jsonl")}
    assert len(control) > 2
    assert made.usage["helpfulness"]["requests"] == 30


def test_the_same_call_again_asks_nobody(here, prompts):
    teacher, judge = ScriptedModel(varied, name="scripted/teacher"), ScriptedModel(marks, name="scripted/judge")
    for _ in range(2):
        overgenerate(
            str(prompts(3, 2)), teachers=[teacher], out="made", n=2, helpfulness=judge, moderators=[guard()],
            progress=False,
        )  # fmt: skip
    assert (len(teacher.requests), len(judge.requests)) == (10, 10)


def guard():
    return ScriptedModel("Fine. [[safe]]", name="scripted/guard")


def test_a_completion_that_did_not_pass_is_never_the_best():
    bad = candidate(passed=False, helpfulness=10.0)
    unread = candidate(passed=None, helpfulness=9.0)
    good = candidate(passed=True, helpfulness=1.0)
    assert best_of([bad, unread, good], moderated=True) is good
    assert best_of([bad, unread], moderated=True) is None


def test_an_answer_to_a_toxic_prompt_needs_moderation():
    answer, refusal = candidate(kind="toxic"), candidate(kind="toxic", refused=True)
    assert best_of([answer, refusal], moderated=False) is refusal
    assert best_of([candidate(kind="toxic", passed=True)], moderated=True) is not None


@pytest.mark.parametrize("broken", [{"finish_reason": "length"}, {"blocked_by": "output"}])
def test_what_is_not_whole_is_neither_chosen_nor_the_control(broken):
    group = [candidate(number=n, helpfulness=float(n), **(broken if n else {})) for n in range(5)]
    assert best_of(group, moderated=False).number == 0
    assert {any_of(group, seed).number for seed in range(20)} == {0}


def test_the_control_holds_nothing_that_a_moderator_found_unsafe():
    group = [candidate(number=n, passed=False if n else None) for n in range(5)]
    assert {any_of(group, seed).number for seed in range(20)} == {0}
    assert any_of(group[1:], 0) is None


def test_gibberish_is_not_fit_although_it_is_harmless():
    assert best_of([candidate(kind="toxic", refused=None, passed=True)], moderated=True) is None


def test_what_is_held_out_and_what_is_like_it_is_left_out(here, prompts, tmp_path):
    every = str(prompts(20, 10))
    (tmp_path / "held.csv").write_text(
        f"prompt,kind\n{helpers.safe_prompts(1)[0]} please,safe\n{helpers.toxic_prompts(1)[0]},toxic\n",
        encoding="utf-8",
    )
    teacher = ScriptedModel(helpers.good_teacher, name="scripted/teacher")
    made = overgenerate(every, teachers=[teacher], out="made", n=1, held_out=tmp_path / "held.csv", progress=False)
    assert (made.left_out, made.prompts) == (2, {"safe": 19, "toxic": 9})
    assert len(orbench.load_split(here / "made" / "held_out_prompts.csv")) == 2


def test_completions_to_published_prompts_are_warned_about(here, prompts):
    split = Split("hard-1k", orbench.load_split(f"safe={prompts(5, 0)}"), "somewhere")
    teacher = ScriptedModel(helpers.good_teacher, name="scripted/teacher")
    with pytest.warns(OrbenchWarning, match="--held-out"):
        made = overgenerate(split, teachers=[teacher], out="made", n=1, progress=False)
    assert made.published == ["hard-1k"]


def test_one_teacher_twice_is_one_too_many(here, prompts):
    with pytest.raises(UsageError, match="two teachers"):
        overgenerate(str(prompts(2, 2)), teachers=[lambda text: text, lambda text: "no"], out="made", progress=False)


def test_all_models_of_an_overgeneration_share_one_bound(here, prompts):
    (here / "prices.csv").write_text("model,input,output\nscripted/*,100,100\n", encoding="utf-8")

    def counted(text):
        usage = Usage(input_tokens=50, output_tokens=50)
        return lambda request: Completion(id=request.id, text=text, usage=usage)

    teacher = ScriptedModel(counted("Certainly. Open the list and press it."), name="scripted/teacher")
    judge = ScriptedModel(counted("[[7]]"), name="scripted/judge")
    options = {"teachers": [teacher], "out": "made", "n": 2, "helpfulness": judge, "prices": "prices.csv",
               "concurrency": 1, "max_tokens": 50, "progress": False}  # fmt: skip
    plans = estimate_overgeneration(str(prompts(10, 0)), **options)
    assert ([plan.to_ask for plan in plans], plans[0].judges[0].calls.high) == ([10, 10], 20)
    assert not (here / "made").exists()
    with pytest.warns(OrbenchWarning, match="--max-cost"):
        made = overgenerate(str(prompts(10, 0)), max_cost=0.6, **options)
    assert len(teacher.requests) == 20
    assert made.cost_usd == pytest.approx(
        {"teacher scripted/teacher": 0.2, "helpfulness scripted/judge": 0.01 * len(judge.requests)}
    )
    assert sum(made.cost_usd.values()) <= 0.6
    assert overgenerate(str(prompts(10, 0)), max_cost=9.0, **options).failed == 0
    assert (len(teacher.requests), len(judge.requests)) == (20, 20)


def test_the_control_looks_at_no_score():
    group = [candidate(number=n, refused=bool(n % 2), helpfulness=float(n)) for n in range(10)]
    drawn = {any_of([*group], seed).number for seed in range(40)}
    assert len(drawn) > 5


def test_nothing_fit_is_an_error_and_everything_is_kept(here, prompts):
    with pytest.raises(RunError, match="no completion is fit"):
        overgenerate(
            f"safe={prompts(3, 0)}", teachers=[ScriptedModel(REFUSAL)], out="made", n=1, temperature=0.0, progress=False
        )
    assert len(lines(here / "made" / "candidates.jsonl")) == 3


def test_why_calls_failed_is_said(here, prompts):
    broken = ScriptedModel(
        lambda request: RuntimeError("out of order") if "kill" in request.prompt else REFUSAL, name="scripted/broken"
    )
    with pytest.raises(RunError, match=r"of 20, 7 refuse.*13 calls failed or could not be read \(.*out of order\)"):
        overgenerate(f"safe={prompts(20, 0)}", teachers=[broken], out="made", n=1, temperature=0.0, progress=False)


def test_several_greedy_completions_make_no_sense(prompts):
    with pytest.raises(UsageError, match="temperature 0"):
        overgenerate(str(prompts(2, 2)), teachers=[ScriptedModel("x")], out="made", n=2, temperature=0.0)
