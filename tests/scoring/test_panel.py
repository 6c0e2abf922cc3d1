"""Several judges on the same replies."""

from __future__ import annotations

from pathlib import Path

import pytest

import orbench
from orbench import Completion, Outcome, Prompt, Split, UsageError
from orbench.engine.run_folder import read_verdicts
from orbench.labelling import draw
from orbench.records import Judgement, Usage
from orbench.scoring.finding import Finding
from orbench.scoring.outcomes import DISAGREE
from orbench.scoring.panel import Rule, combine
from orbench.testing import ScriptedModel

A, D, IND, U = Outcome.DIRECT_ANSWER, Outcome.DIRECT_REFUSAL, Outcome.INDIRECT_REFUSAL, Outcome.UNSCORED


def split(rows: int = 4, kind: str = "safe") -> Split:
    prompts = [
        Prompt(id=str(n), text=f"How is puzzle {n} solved?", category="illegal", kind=kind, split="puzzles")  # type: ignore[arg-type]
        for n in range(rows)
    ]
    return Split("puzzles", prompts, "here")


def judge(name: str, label: str) -> ScriptedModel:
    return ScriptedModel(f"So it is. [[{label}]]", name=f"scripted/{name}")


@pytest.mark.parametrize(
    ("outcomes", "rule", "settled"),
    [
        ((A, A, D), "majority", A),
        ((D, IND, A), "majority", D),
        ((IND, IND, D), "majority", IND),
        ((A, A, U), "majority", A),
        ((A, D), "majority", U),
        ((A, U, U), "majority", U),
        ((A, A, A), "unanimous", A),
        ((D, IND), "unanimous", D),
        ((IND, IND, D), "unanimous", IND),
        ((A, A, D), "unanimous", U),
        ((A, A, U), "unanimous", U),
    ],
)
def test_a_rule_makes_one_verdict_of_the_judges_labels(
    outcomes: tuple[Outcome, ...], rule: Rule, settled: Outcome
) -> None:
    findings = [
        Finding(outcome=outcome, by="judge", judge=Judgement(model=f"j/{number}", reply="Hm."))
        for number, outcome in enumerate(outcomes)
    ]
    found = combine(findings, rule)
    assert found.outcome is settled
    assert found.judge is not None
    assert [vote.outcome for vote in found.judge.votes] == list(outcomes)
    assert found.judge.requests == len(outcomes)


def test_judges_who_differ_leave_the_reply_out_and_are_not_asked_again(tmp_path: Path) -> None:
    def run() -> tuple[orbench.Evaluation, list[ScriptedModel]]:
        judges = [judge("one", "direct_answer"), judge("two", "direct_refusal")]
        result = orbench.evaluate(
            ScriptedModel("Hm."), splits=[split()], judge=judges, out=tmp_path / "run", progress=False
        )
        return result, judges

    result, judges = run()
    assert [len(one.requests) for one in judges] == [4, 4]
    assert (result.outcomes, result.unsure, result.open) == ({"unscored": 4}, 4, 0)
    assert {row.reason for row in result.rows()} == {DISAGREE}
    assert [len(one.requests) for one in run()[1]] == [0, 0]


def test_a_judge_that_fails_leaves_work_only_where_it_could_decide(tmp_path: Path) -> None:
    broken = ScriptedModel(orbench.RejectedError("no"), name="scripted/broken")
    two = [judge("one", "direct_answer"), judge("two", "direct_answer")]
    settled = orbench.evaluate(
        ScriptedModel("Hm."), splits=[split()], judge=[*two, broken], out=tmp_path / "a", progress=False
    )
    assert (settled.outcomes, settled.open) == ({"direct_answer": 4}, 0)
    assert settled.panel is not None
    assert settled.panel["unread"] == {"scripted/one": 0, "scripted/two": 0, "scripted/broken": 4}
    assert ["scripted/broken", "4"] in [line.split() for line in str(settled).splitlines()]
    assert (settled.panel["disagreements"], list(settled.rows(disagreements=True))) == (0, [])
    assert {task.stratum for task in draw(settled, 4)} == {"safe/sure"}
    open_ = orbench.evaluate(
        ScriptedModel("Hm."),
        splits=[split()],
        judge=[*two, broken],
        judge_rule="unanimous",
        out=tmp_path / "b",
        progress=False,
    )
    assert (open_.outcomes, open_.failed_judgements, open_.open) == ({"unscored": 4}, 4, 4)
    assert {row.reason for row in open_.rows()} == {"scripted/broken: judge failed: no"}


def test_every_judge_s_own_label_and_their_agreement_are_kept(tmp_path: Path) -> None:
    def odd(request: orbench.Request) -> str:
        return "[[direct_answer]]" if "puzzle 1" in request.prompt else "[[indirect_refusal]]"

    judges = [
        judge("one", "indirect_refusal"),
        ScriptedModel(odd, name="scripted/odd"),
        judge("three", "indirect_refusal"),
    ]
    result = orbench.evaluate(
        ScriptedModel("Hm."), splits=[split()], judge=judges, out=tmp_path / "run", progress=False
    )
    assert result.outcomes == {"indirect_refusal": 4}
    (row,) = result.rows(disagreements=True)
    assert row.prompt_id == "1"
    assert row.votes == {
        "scripted/one": "indirect_refusal",
        "scripted/odd": "direct_answer",
        "scripted/three": "indirect_refusal",
    }
    panel = result.to_dict()["panel"]
    assert (panel["replies"], panel["disagreements"], panel["rule"]) == (4, 1, "majority")
    assert panel["alpha"] is not None
    assert panel["kappa"]["scripted/one ~ scripted/three"] is None  # the same label throughout
    assert "Krippendorff's alpha" in str(result)
    assert orbench.Evaluation.load(tmp_path / "run").panel == panel
    assert result.to_dict()["usage"]["judge"]["requests"] == 12
    assert all(line.judge and line.judge.votes for line in read_verdicts(tmp_path / "run"))


@pytest.mark.parametrize("batch_size", [1, None])
def test_a_panel_of_any_pace_reads_every_reply_once(tmp_path: Path, batch_size: int | None) -> None:
    judges = [
        ScriptedModel("[[direct_answer]]", name="scripted/list", batch_size=batch_size),
        ScriptedModel("[[direct_answer]]", name="scripted/slow", max_concurrency=1),
    ]
    result = orbench.evaluate(
        ScriptedModel("Hm."), splits=[split(700)], judge=judges, out=tmp_path / "run", progress=False
    )
    assert result.outcomes == {"direct_answer": 700}
    assert [len(one.requests) for one in judges] == [700, 700]


def test_a_judge_that_cannot_be_used_stops_the_panel(tmp_path: Path) -> None:
    judges = [judge("one", "direct_answer"), ScriptedModel(orbench.ModelError("no key"), name="scripted/none")]
    with pytest.raises(orbench.ModelError, match="no key"):
        orbench.evaluate(ScriptedModel("Hm."), splits=[split()], judge=judges, out=tmp_path / "run", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"judge": [ScriptedModel("x"), ScriptedModel("x")]}, "twice"),
        ({"judge": [ScriptedModel("x")], "judge_rule": "loudest"}, "unknown judge rule 'loudest'"),
        ({"judge": [ScriptedModel("x")], "judge_template": "none"}, "unknown judge template 'none'"),
        ({"audit": 2.0}, "audit is 2.0"),
    ],
)
def test_a_mistake_is_told_before_anything_is_asked(tmp_path: Path, options: dict[str, object], message: str) -> None:
    model = ScriptedModel("Hm.")
    with pytest.raises(UsageError, match=message):
        orbench.evaluate(model, splits=[split()], out=tmp_path / "run", **options)  # type: ignore[arg-type]
    assert model.requests == []


@pytest.mark.parametrize("template", ["two-classes", "two-classes-brief"])
def test_two_classes_are_read_as_refusal_and_answer(tmp_path: Path, template: str) -> None:
    def read(request: orbench.Request) -> str:
        return "[[compliance]]" if "puzzle 1" in request.prompt else "[[Refusal]]"

    model = ScriptedModel(read, name="scripted/judge")
    result = orbench.evaluate(
        ScriptedModel("Hm."), splits=[split()], judge=model, judge_template=template, out=tmp_path / "run"
    )
    assert result.outcomes == {"direct_answer": 1, "direct_refusal": 3}
    assert ("why" in model.requests[0].prompt) is (template == "two-classes")


def test_a_label_of_another_template_is_none(tmp_path: Path) -> None:
    model = ScriptedModel("[[direct_answer]]", name="scripted/judge")
    result = orbench.evaluate(
        ScriptedModel("Hm."), splits=[split(1)], judge=model, judge_template="two-classes", out=tmp_path / "run"
    )
    assert [row.reason for row in result.rows()] == ["judge gave an unknown label 'direct_answer'"]


def test_what_judges_of_a_panel_have_said_is_not_asked_again(tmp_path: Path) -> None:
    def evaluate(*judges: ScriptedModel) -> orbench.Evaluation:
        return orbench.evaluate(
            ScriptedModel("Hm."),
            splits=[split()],
            judge=list(judges),
            judge_rule="unanimous",
            out=tmp_path / "run",
            progress=False,
        )

    usage = Usage(input_tokens=100, output_tokens=10)
    heard = Completion(id="", text="So it is. [[direct_answer]]", usage=usage)
    broken = ScriptedModel(orbench.RejectedError("no"), name="scripted/two")
    evaluate(ScriptedModel(heard, name="scripted/one"), broken)
    for _ in range(2):  # also when it fails again
        one = ScriptedModel(heard, name="scripted/one")
        assert evaluate(one, broken).open == 4
        assert one.requests == []
    one, two = ScriptedModel(heard, name="scripted/one"), ScriptedModel(heard, name="scripted/two")
    result = evaluate(one, two)
    assert (len(one.requests), len(two.requests)) == (0, 4)
    assert (result.outcomes, result.open) == ({"direct_answer": 4}, 0)
    row = next(iter(result.rows()))
    assert row.votes == {"scripted/one": "direct_answer", "scripted/two": "direct_answer"}
    lines = list(read_verdicts(tmp_path / "run"))
    assert lines[-1].judge is not None
    assert [vote.reply for vote in lines[-1].judge.votes] == [heard.text, heard.text]
    # Four replies by each judge, and three times four failed calls: nothing is counted twice.
    told = result.usage["judge"]
    assert (told["requests"], told["input_tokens"], told["output_tokens"]) == (20, 800, 80)


def test_what_a_panel_has_said_in_an_audit_is_not_asked_again_either(tmp_path: Path) -> None:
    def evaluate(*judges: ScriptedModel) -> orbench.Evaluation:
        return orbench.evaluate(
            "baseline/always-answer", splits=[split()], judge=list(judges), out=tmp_path / "run", progress=False
        )

    one = judge("one", "direct_answer")
    evaluate(one, ScriptedModel(orbench.RejectedError("no"), name="scripted/two"))
    again, two = judge("one", "direct_answer"), judge("two", "direct_answer")
    result = evaluate(again, two)
    assert [len(each.requests) for each in (one, again, two)] == [4, 0, 4]
    assert result.audit is not None
    assert (result.audit["audited"], result.audit["unread"]) == (4, 0)


def test_a_judge_s_words_do_not_pass_for_ours(tmp_path: Path) -> None:
    said = ScriptedModel('{"reason": "unsure", "label": "direct_answer"}', name="scripted/judge")
    result = orbench.evaluate(
        ScriptedModel("Hm."), splits=[split()], scorer="judge", judge=said, out=tmp_path / "run", progress=False
    )
    assert {row.reason for row in result.rows()} == {"unsure"}
    assert result.unsure == 0
    assert "no stage was sure" not in str(result)
