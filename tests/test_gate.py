"""`orbench.check`: a limit passes only where the interval shows it."""

import msgspec
import pytest
from statsmodels.stats.proportion import proportion_confint

import orbench
from orbench.models.baseline import ANSWER, REFUSAL


def check_of(gate, measure):
    return next(check for check in gate.checks if check.measure == measure)


def test_a_limit_that_the_whole_interval_keeps_passes(run):
    gate = orbench.check(run(range(2), "careful"), max_over_refusal=0.2)
    low, high = proportion_confint(2, 40, method="wilson")
    check = check_of(gate, "over_refusal_rate")
    assert (check.low, check.high) == (pytest.approx(low), pytest.approx(high))
    assert check.value == 0.05
    assert check.status == "kept"
    assert gate.passed
    assert gate.exit_code == 0


def test_a_rate_below_the_limit_whose_interval_reaches_beyond_does_not_pass(run):
    gate = orbench.check(run(range(2), "careful"), max_over_refusal=0.1)
    assert check_of(gate, "over_refusal_rate").status == "not shown"
    assert not gate.passed
    assert gate.exit_code == 1
    assert "more prompts may decide it" in str(gate)


def test_the_limits_have_opposite_directions(run):
    result = run(range(40), "refuses-all")
    gate = orbench.check(result, max_over_refusal=0.5, min_toxic_rejection=0.8)
    assert check_of(gate, "over_refusal_rate").status == "broken"
    assert check_of(gate, "toxic_rejection_rate").status == "kept"
    assert not gate.passed
    assert orbench.check(run((), "answers-all"), min_toxic_rejection=0.5).checks[0].status == "broken"


def test_a_limit_on_the_interval_s_end_is_kept(run):
    result = run((), "answers-all")
    _, high = proportion_confint(0, 40, method="wilson")
    assert orbench.check(result, max_over_refusal=high + 1e-9).passed
    assert not orbench.check(result, max_over_refusal=high - 1e-9).passed


def test_replies_that_are_left_out_count_against_the_model(run):
    def reply(request):
        number = int("".join(filter(str.isdigit, request.prompt)))
        return "Hm." if number < 10 else ANSWER

    result = run(reply, "unclear")
    assert result.over_refusal_rate.left_out == 10
    assert result.over_refusal_rate.high < 0.2
    gate = orbench.check(result, max_over_refusal=0.2)
    assert check_of(gate, "over_refusal_rate").status == "not shown"
    assert check_of(gate, "over_refusal_rate").low == 0.0
    _, high = proportion_confint(10, 40, method="wilson")
    assert check_of(gate, "over_refusal_rate").high == pytest.approx(high)
    assert "10 replies left out" in str(gate)


def test_a_run_with_errors_is_not_finished_and_never_passes(run):
    def reply(request):
        if "7" in request.prompt:
            raise orbench.RejectedError("no")
        return ANSWER

    gate = orbench.check(run(reply, "broken"), max_over_refusal=0.99)
    assert gate.open
    assert not gate.passed
    assert gate.exit_code == 3
    assert "not finished" in str(gate)


def test_a_limit_broken_whatever_the_owed_prompts_bring_is_final(run):
    def reply(request):
        if "7" in request.prompt:
            raise orbench.RejectedError("no")
        return REFUSAL

    gate = orbench.check(run(reply, "broken"), max_over_refusal=0.1)
    assert gate.open
    assert gate.exit_code == 1


@pytest.mark.parametrize(("refused", "limit"), [((), 0.9), (range(40), 0.1)])
def test_a_shard_is_not_the_run(run, refused, limit):
    gate = orbench.check(run(refused, "part", shard="1/2"), max_over_refusal=limit)
    assert gate.open == 0
    assert not gate.passed
    assert gate.exit_code == 3
    assert gate.shard == "1/2"
    assert "not finished: shard 1 of 2 alone; orbench merge makes one run of them" in str(gate)


def test_merged_shards_are_the_run(run):
    parts = [run((), "good", shard=f"{n}/2").run.rename(f"part{n}") for n in (1, 2)]
    assert orbench.check(orbench.merge(parts, "whole"), max_over_refusal=0.9).passed


def test_an_imported_run_is_not_told_to_ask_again(here):
    (here / "replies.csv").write_text("prompt,kind,response,error\na,safe,,down\nb,safe,Sure!,\n", encoding="utf-8")
    result = orbench.import_run("replies.csv", "run")
    gate = orbench.check(result, max_over_refusal=0.99)
    assert gate.exit_code == 3
    for text in (str(gate), str(result)):
        assert "import the completed file" in text
        assert "same" not in text


def test_a_rate_that_was_not_measured_is_unknown(run, split_file):
    result = run((), "safe-only", splits=[split_file("safe", 40)])
    gate = orbench.check(result, min_toxic_rejection=0.0)
    assert gate.checks[0].status == "unknown"
    assert gate.exit_code == 1
    assert "scored no such prompt" in str(gate)


def test_a_run_that_stopped_early_is_held_to_its_confidence_sequence(run, split_file):
    result = run((), "early", splits=[split_file("safe", 2000)], precision=0.1)
    assert result.stopped_early
    gate = orbench.check(result, max_over_refusal=0.5)
    assert check_of(gate, "over_refusal_rate").high == result.stopped_early["safe"]["high"]
    assert gate.passed


@pytest.fixture
def stopped(run, split_file):
    """Of 600 prompts it refuses three in ten and says nothing to three in ten, and it stopped early."""

    def reply(request):
        number = int("".join(filter(str.isdigit, request.prompt))) * 7 % 10
        return REFUSAL if number < 3 else "" if number < 6 else ANSWER

    result = run(reply, "early", splits=[split_file("safe", 600)], precision=0.06)
    assert result.stopped_early["asked"] < 600
    return result


def test_another_policy_is_held_to_its_own_confidence_sequence(stopped):
    limit = 0.5
    assert stopped.stopped_early["safe"]["high"] < limit
    strict = stopped.with_policy("strict")
    early = strict.stopped_early["safe"]
    assert early["low"] <= strict.over_refusal_rate.value <= early["high"]
    assert early["low"] > limit
    gate = orbench.check(strict, max_over_refusal=limit)
    assert check_of(gate, "over_refusal_rate").status == "broken"
    assert f"{early['low']:.1%}"[:-1] in str(strict)


def test_after_another_scorer_the_confidence_sequence_is_of_its_verdicts(stopped, here):
    (here / "phrases.txt").write_text(ANSWER.partition(".")[0], encoding="utf-8")
    orbench.score(stopped.run, scorer="keywords", phrases=here / "phrases.txt")
    again = orbench.Evaluation.load(stopped.run)
    assert again.over_refusal_rate.value == 1
    assert again.stopped_early["safe"]["high"] == 1
    assert again.stopped_early["safe"]["low"] > 0.9
    assert not orbench.check(again, max_over_refusal=0.5).passed


def test_the_left_out_replies_of_a_run_that_stopped_early_count_against_the_model(stopped):
    check = check_of(orbench.check(stopped, max_over_refusal=0.55), "over_refusal_rate")
    strict, answered = stopped.with_policy("strict"), stopped.with_policy("paper")
    assert check.high == strict.stopped_early["safe"]["high"]
    assert check.low == answered.stopped_early["safe"]["low"]
    assert check.status == "not shown"


def test_an_early_end_without_a_word_on_what_counted_has_no_bounds(stopped):
    config = msgspec.json.decode((stopped.run / "run.json").read_bytes())
    del config["stopped_early"]["strata"]
    (stopped.run / "run.json").write_bytes(msgspec.json.encode(config))
    older = orbench.Evaluation.load(stopped.run)
    assert "safe" not in older.stopped_early
    assert "stopped early" in str(older)
    rate = older.over_refusal_rate
    _, high = proportion_confint(rate.refused + 600 - rate.scored, 600, method="wilson")
    assert orbench.check(older, max_over_refusal=0.5).checks[0].high == pytest.approx(high)


@pytest.mark.parametrize("limit", [-0.1, 1.5, float("nan")])
def test_a_limit_outside_0_to_1_is_wrong_usage(run, limit):
    with pytest.raises(orbench.UsageError, match="a share from 0 to 1"):
        orbench.check(run((), "any"), max_over_refusal=limit)


def test_no_limit_is_wrong_usage(run):
    with pytest.raises(orbench.UsageError, match="--max-over-refusal"):
        orbench.check(run((), "any"))
