"""`precision`: the order of asking, when it ends, and what it says."""

import asyncio

import numpy as np
import pytest

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.precision import Stopper, seeded_order
from orbench.records import Prompt
from orbench.run_state import RowState
from orbench.scoring.outcomes import Outcome
from orbench.testing import ScriptedModel


def prompts(counts, kind="safe"):
    return [
        Prompt(id=f"{kind}-{category}-{n}", text=f"{category} {n}", category=category, kind=kind, split=kind)
        for category, count in counts.items()
        for n in range(count)
    ]


def test_every_beginning_keeps_the_proportions():
    order = seeded_order(prompts({"a": 500, "b": 100, "c": 10}), 0)
    for n in (61, 122, 305, 500):
        of_a = sum(prompt.category == "a" for prompt in order[:n])
        assert of_a == pytest.approx(n * 500 / 610, abs=2.5)
    assert {prompt.id for prompt in order} == {prompt.id for prompt in prompts({"a": 500, "b": 100, "c": 10})}


def test_the_order_depends_on_seed_and_ids_alone():
    given = prompts({"a": 20, "b": 5})
    assert seeded_order(given, 1) == seeded_order(given[::-1], 1)
    assert seeded_order(given, 1) != seeded_order(given, 2)


def settle(rows, prompt, refused):
    rows[prompt.split, prompt.id] = RowState(
        kind=prompt.kind,
        category=prompt.category,
        failed=False,
        outcome=Outcome.DIRECT_REFUSAL if refused else Outcome.DIRECT_ANSWER,
    )


@pytest.mark.parametrize("rates", [{"a": 0.3, "b": 0.3, "c": 0.3}, {"a": 0.05, "b": 0.95, "c": 0.5}])
def test_the_interval_at_the_end_covers_the_rate_of_all_prompts(rates):
    """2,000 simulated runs, stopped where the stopper stops, in the order that keeps the proportions."""
    random = np.random.default_rng(23)
    sizes = {"a": 120, "b": 50, "c": 30}
    given = prompts(sizes)
    held = asked = 0
    for run in range(2000):
        refused = {prompt.id: random.random() < rates[prompt.category] for prompt in given}
        true = sum(refused.values()) / len(given)
        rows = {}
        stopper = Stopper(given, rows, 0.1, "default", run)
        for prompt in stopper.order:
            if not stopper.wants(prompt):
                break
            settle(rows, prompt, refused[prompt.id])
        assert not stopper.wants(given[-1])
        known = stopper.known["safe"]
        held += known.low <= true <= known.high
        asked += known.asked
    assert held / 2000 >= 0.95
    assert asked / 2000 < 0.75 * len(given)


def test_replies_count_only_without_a_gap():
    given = prompts({"a": 100})
    rows = {}
    stopper = Stopper(given, rows, 0.2, "default", 0)
    for prompt in stopper.order[1:]:  # all but the first are in, the quick ones say
        settle(rows, prompt, True)
    assert stopper.wants(given[0])
    assert stopper.known["safe"].asked == 0
    settle(rows, stopper.order[0], True)
    assert not stopper.wants(given[0])
    assert stopper.known["safe"].asked == 100


def test_a_row_that_failed_before_does_not_count_till_it_is_asked_again():
    given = prompts({"a": 30})
    first, *others = seeded_order(given, 0)
    rows = {(first.split, first.id): RowState(kind="safe", category="a", failed=True, outcome=Outcome.ERROR)}
    stopper = Stopper(given, rows, 0.4, "default", 0)
    for prompt in others:
        settle(rows, prompt, False)
    assert stopper.wants(others[-1])
    assert stopper.known["safe"].asked == 0
    settle(rows, first, False)
    assert not stopper.wants(others[-1])
    assert stopper.known["safe"].asked == 30


def test_an_end_that_was_reached_is_kept():
    """All looks hold together, so the interval is what they share: it never grows, though the newest one alone may."""
    rows = {}
    stopper = Stopper(prompts({"a": 400}), rows, 0.01, "default", 0)
    before = (0.0, 1.0)
    for n, prompt in enumerate(stopper.order[:160]):
        settle(rows, prompt, n % 2 == 0 or n > 100)
        stopper.wants(stopper.order[-1])
        known = stopper.known["safe"]
        assert before[0] <= known.low <= known.high <= before[1]
        before = known.low, known.high


def test_a_row_that_failed_before_is_asked_again_although_enough_is_known():
    given = prompts({"a": 60})
    *others, last = seeded_order(given, 0)
    rows = {(last.split, last.id): RowState(kind="safe", category="a", failed=True, outcome=Outcome.ERROR)}
    stopper = Stopper(given, rows, 0.2, "default", 0)
    for prompt in others[:50]:
        settle(rows, prompt, False)
    assert stopper.wants(last)
    assert not stopper.wants(others[-1])


def test_what_the_policy_leaves_out_is_no_prompt():
    given = prompts({"a": 40})
    rows = {
        (p.split, p.id): RowState(kind="safe", category="a", failed=False, outcome=Outcome.EMPTY) for p in given[:20]
    }
    stopper = Stopper(given, rows, 0.01, "default", 0)
    for prompt in given[20:]:
        settle(rows, prompt, True)
    assert not stopper.wants(given[0])
    assert stopper.known["safe"].left_out == 20
    assert (stopper.known["safe"].low, stopper.known["safe"].high) == (1, 1)


@pytest.fixture
def splits(split_file):
    return [split_file("safe", 600), split_file("toxic", 300)]


def even(request):
    """Refuses every other prompt, whatever the hash seed."""
    number = int("".join(filter(str.isdigit, request.prompt)))
    return REFUSAL if number % 2 else ANSWER


@pytest.mark.parametrize("batch_size", [1, None])
def test_a_run_stops_when_both_rates_are_known(here, splits, batch_size):
    model = ScriptedModel(even, batch_size=batch_size, max_concurrency=4)
    result = orbench.evaluate(model, splits=splits, precision=0.1, out="run")
    early = result.stopped_early
    assert early["asked"] == len(model.requests) < 700
    assert early["prompts"] == 900
    assert early["saved"] == pytest.approx(1 - len(model.requests) / 900)
    for kind in ("safe", "toxic"):
        assert early[kind]["low"] <= 0.5 <= early[kind]["high"]
        assert early[kind]["high"] - early[kind]["low"] <= 0.2
    assert result.open == 0
    assert "stopped early" in str(result)
    assert "not finished" not in str(result)
    assert result.to_dict()["stopped_early"] == early
    assert orbench.Evaluation.load("run").stopped_early == early


def test_what_is_read_later_is_what_stopped_the_run(here, splits):
    """Also where replies of an earlier command, in the order of the file, lie beyond those that counted."""
    orbench.evaluate(ScriptedModel(even), splits=splits, out="run")
    for kind in ("responses", "verdicts"):
        lines = (here / "run" / f"{kind}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (here / "run" / f"{kind}.jsonl").write_text("".join(lines[:80]), encoding="utf-8")
    result = orbench.evaluate(ScriptedModel(even), splits=splits, precision=0.1, out="run")
    stopper = Stopper([p for s in splits for p in orbench.load_split(s)], result.states, 0.1, "default", 0)
    assert stopper.to_dict(0)
    assert stopper.known["safe"].asked < sum(row.kind == "safe" for row in result.states.values())
    for kind, known in stopper.known.items():
        assert result.stopped_early[kind] == {"low": known.low, "high": known.high}


def test_the_same_command_again_asks_nothing(here, splits):
    orbench.evaluate(ScriptedModel(even), splits=splits, precision=0.1, out="run")
    again = ScriptedModel(even)
    result = orbench.evaluate(again, splits=splits, precision=0.1, out="run")
    assert again.requests == []
    assert result.stopped_early


def test_a_finer_precision_goes_on_and_none_goes_to_the_end(here, splits):
    first = orbench.evaluate(ScriptedModel(even), splits=splits, precision=0.15, out="run")
    finer = ScriptedModel(even, max_concurrency=1)
    second = orbench.evaluate(finer, splits=splits, precision=0.08, out="run")
    assert 0 < len(finer.requests) == second.stopped_early["asked"] - first.stopped_early["asked"]
    rest = ScriptedModel(even)
    last = orbench.evaluate(rest, splits=splits, out="run")
    assert len(rest.requests) == 900 - second.stopped_early["asked"]
    assert last.stopped_early is None
    assert last.over_refusal_rate.scored == 600


def test_prompts_in_error_are_tried_again_although_enough_is_known(here, splits):
    broken = {f"Kill process {n}?" for n in range(0, 600, 2)}

    def first(request):
        return orbench.RejectedError("no") if request.prompt in broken else even(request)

    before = orbench.evaluate(ScriptedModel(first), splits=splits, precision=0.1, out="run")
    assert before.open > 0
    after = orbench.evaluate(ScriptedModel(even), splits=splits, precision=0.1, out="run")
    assert after.open == 0
    assert after.stopped_early["safe"]["low"] <= 0.5 <= after.stopped_early["safe"]["high"]


def test_a_judge_that_is_slower_than_the_model_is_waited_for(here, splits):
    class Slow(ScriptedModel):
        async def generate(self, requests):
            for _ in range(30):
                await asyncio.sleep(0)
            async for completion in super().generate(requests):
                yield completion

    judge = Slow("It says no. [[direct_refusal]]", name="scripted/judge", max_concurrency=1)
    model = ScriptedModel(even, name="scripted/model")
    result = orbench.evaluate(
        model, splits=splits, precision=0.1, scorer="judge", judge=judge, out="run", concurrency=4
    )
    assert len(model.requests) < 250
    assert result.stopped_early["safe"]["high"] == 1


def test_a_panel_does_not_let_the_run_overshoot(here, splits):
    def judge(name):
        return ScriptedModel("It says no. [[direct_refusal]]", name=f"scripted/{name}", max_concurrency=200)

    panel = [judge(name) for name in ("one", "two", "three")]
    model = ScriptedModel(even, name="scripted/model", max_concurrency=4)
    result = orbench.evaluate(model, splits=splits, precision=0.1, scorer="judge", judge=panel, out="run")
    alone = orbench.evaluate(
        ScriptedModel(REFUSAL, max_concurrency=1), splits=splits, precision=0.1, scorer="keywords", out="alone"
    )
    assert result.stopped_early["safe"]["high"] == alone.stopped_early["safe"]["high"] == 1
    assert len(model.requests) <= alone.stopped_early["asked"] + 32 + 4 + 1


@pytest.mark.parametrize("precision", [0, -0.1, 0.5, 2])
def test_a_width_that_cannot_be_is_wrong_usage(here, splits, precision):
    with pytest.raises(orbench.UsageError, match="half the width of an interval"):
        orbench.evaluate(ScriptedModel(even), splits=splits, precision=precision, out="run")
