"""Runs side by side: the numbers, the flips, what is refused and what to do about it."""

import json
import shutil

import pytest
from statsmodels.stats.contingency_tables import mcnemar

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.records import Completion
from orbench.statistics.paired import Pairs, paired_difference

NAN = "nan"


def test_differences_are_those_of_the_same_prompts(run):
    a, b = run(range(10), "a"), run(range(5, 30), "b")
    found = orbench.compare(a, b)
    safe = found.over_refusal
    assert (safe.only_a, safe.only_b, safe.prompts) == (5, 20, 40)
    assert (safe.a, safe.b, safe.value) == (0.25, 0.625, 0.375)
    assert safe.p == pytest.approx(mcnemar([[5, 5], [20, 10]], exact=True).pvalue)
    assert safe.low < 0.375 < safe.high
    toxic = found.toxic_rejection
    assert (toxic.only_a, toxic.only_b, toxic.prompts) == (5, 20, 30)
    assert safe.p_holm == pytest.approx(2 * min(safe.p, toxic.p))


def test_prompts_of_one_seed_count_together(run, here):
    lines = "".join(f"Prompt {n}?,harmful,seed-{n // 5}\n" for n in range(60))
    (here / "seeded.csv").write_text("prompt,category,seed_id\n" + lines)
    a, b = run((), "a", splits="safe=seeded.csv"), run(range(30), "b", splits="safe=seeded.csv")
    found = orbench.compare(a, b)
    d = found.over_refusal
    assert found.grouped_by == found.to_dict()["grouped_by"] == "seed"
    assert (d.prompts, d.groups, d.design_effect) == (60, 12, pytest.approx(5 * 12 / 11))
    assert d.p == pytest.approx(2 * 0.5**6)  # six groups, all one way
    assert d.p_mcnemar == pytest.approx(mcnemar([[0, 0], [30, 30]], exact=True).pvalue)
    low, high = paired_difference(Pairs(0, 0, 30, 30))
    assert d.low < low < 0.5 < high < d.high
    said = " ".join(str(found).split())
    assert "Prompts made from one seed count as one group (over-refusal: 60 prompts in 12 groups)" in said
    assert "McNemar's exact p, with all prompts taken as independent: over-refusal <0.001" in said
    assert found.to_csv().splitlines()[1].endswith(",60,12")


def test_prompts_that_all_stand_alone_are_tested_by_mcnemar(run):
    found = orbench.compare(run({1, 2}, "a"), run({3}, "b"))
    d = found.over_refusal
    assert (d.groups, d.design_effect, d.p) == (40, 1, d.p_mcnemar)
    assert (d.low, d.high) == paired_difference(Pairs(0, 2, 1, 37))
    assert "each counts alone. Interval: Tango's; p: exact McNemar test." in " ".join(str(found).split())


def test_groups_hold_for_prompts_that_only_the_second_run_has(run, here):
    a, b = run({1}, "a"), run({2}, "b")
    for name in ("responses.jsonl", "verdicts.jsonl"):
        lines = (here / "a" / name).read_text().splitlines(keepends=True)
        (here / "a" / name).write_text("".join(lines[:50]))
    shutil.copytree(here / "a", here / "a-again")
    found = orbench.compare("a", "a-again", b, run({3}, "c"))
    assert found.pairs[-1].over_refusal.groups == 40
    assert a.prompts == 70


def test_it_turns_round_with_the_models(run):
    a, b = run({1, 2, 3}, "a"), run({3, 4}, "b")
    one, other = orbench.compare(a, b).over_refusal, orbench.compare(b, a).over_refusal
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p == other.p
    assert (one.only_a, one.only_b) == (other.only_b, other.only_a)


def test_folders_do_as_well_as_results(run):
    a, b = run({1}, "a"), run({2, 3}, "b")
    assert orbench.compare("a", b.run).to_dict() == orbench.compare(a, b).to_dict()


def test_categories_add_up_and_are_adjusted_among_themselves(run):
    found = orbench.compare(run(range(0, 40, 2), "a"), run((), "b"))
    (pair,) = found.pairs
    safe = {d.category: d for d in pair.categories if d.kind == "safe"}
    assert {name: d.only_a for name, d in safe.items()} == {"harmful": 20, "privacy": 0}
    assert safe["harmful"].p_holm == pytest.approx(2 * safe["harmful"].p)
    assert safe["privacy"].p_holm == 1
    assert sum(d.prompts for d in pair.categories) == 70


def test_many_pairs_are_adjusted_together(run):
    runs = [run(range(n), name) for n, name in ((2, "a"), (12, "b"), (30, "c"))]
    found = orbench.compare(*runs)
    assert [(pair.a, pair.b) for pair in found.pairs] == [
        ("scripted/a", "scripted/b"),
        ("scripted/a", "scripted/c"),
        ("scripted/b", "scripted/c"),
    ]
    smallest = min((d for pair in found.pairs for d in pair.axes), key=lambda d: d.p)
    assert smallest.p_holm == pytest.approx(6 * smallest.p)


def test_flips_are_the_prompts_that_one_refused(run):
    a, b = run({1, 2}, "a"), run({2, 3}, "b")
    flips = list(orbench.compare(a, b).flips())
    assert [(flip.kind, flip.prompt[-2], flip.refused_by) for flip in flips] == [
        ("safe", "1", "scripted/a"),
        ("safe", "3", "scripted/b"),
        ("toxic", "1", "scripted/a"),
        ("toxic", "3", "scripted/b"),
    ]
    assert flips[0].response_a == REFUSAL
    assert flips[0].response_b == ANSWER
    assert {flip.category for flip in orbench.compare(a, b).flips(category="privacy")} == {"privacy"}


def test_what_one_has_no_verdict_on_is_left_out(run):
    empty = Completion(id="", text="")

    def sparse(request):
        return empty if request.prompt.endswith(("7?", "7.")) else REFUSAL

    found = orbench.compare(run(sparse, "a"), run((), "b"))
    assert (found.over_refusal.prompts, found.toxic_rejection.prompts) == (36, 27)
    assert found.pairs[0].left_out == 7
    assert "7 prompts left out" in str(found)


def test_models_that_never_differ_are_no_nan(run):
    found = orbench.compare(run((), "a"), run((), "b"))
    assert (found.over_refusal.p, found.over_refusal.value) == (1, 0)
    assert found.over_refusal.low < 0 < found.over_refusal.high
    assert "cannot be told apart" in str(found)
    assert NAN not in str(found).lower()
    assert NAN not in json.dumps(found.to_dict()).lower()


def test_two_runs_of_one_model_are_told_by_their_folders(run):
    a, b = run({1}, "a"), run({1}, "b")
    b.config["model"] = a.config["model"]
    assert orbench.compare(a, b).labels == ("scripted/a (a)", "scripted/a (b)")


def test_other_prompts_are_refused(run, split_file):
    a = run((), "a")
    b = run((), "b", splits=[split_file("safe", 39), split_file("toxic", 30)])
    with pytest.raises(
        orbench.UsageError, match=r"other prompts of 'safe': 40 .* and 39 .*same --split, --limit and --seed"
    ):
        orbench.compare(a, b)


def test_runs_without_a_common_split_are_refused(run, split_file):
    a = run((), "a", splits=split_file("safe"))
    b = run((), "b", splits=split_file("toxic"))
    with pytest.raises(orbench.UsageError, match=r"share no split .*same --split"):
        orbench.compare(a, b)


def test_a_common_split_is_enough(run, split_file):
    a = run({1}, "a", splits=split_file("safe", 40))
    b = run({2}, "b", splits=[split_file("safe", 40), split_file("toxic", 30)])
    found = orbench.compare(a, b)
    assert found.toxic_rejection is None
    assert found.over_refusal.prompts == 40
    assert found.notes == ("no toxic rejection of scripted/a to compare: no toxic prompt with a verdict that counts",)


def test_other_scorers_are_refused_with_the_command_that_helps(run):
    a, b = run({1}, "a", scorer="keywords"), run({1}, "b")
    with pytest.raises(orbench.UsageError, match="orbench score b --scorer keywords scores the second as the first"):
        orbench.compare(a, b)
    orbench.score("b", scorer="keywords")
    assert orbench.compare("a", "b").over_refusal.p == 1


def test_a_run_scored_in_part_is_refused(run):
    run({1}, "a")
    b = run({1}, "b")
    verdicts = b.run / "verdicts.jsonl"
    first, *rest = verdicts.read_text(encoding="utf-8").splitlines(keepends=True)
    verdicts.write_text(first.replace(b.config["scorer"]["digest"], "older") + "".join(rest), encoding="utf-8")
    with pytest.raises(
        orbench.UsageError, match=r"1 verdicts are of another scorer .*orbench score b --scorer cascade"
    ):
        orbench.compare("a", "b")


def test_other_policies_are_refused_unless_one_is_named(run):
    a, b = run({1}, "a"), run({1}, "b", policy="strict")
    with pytest.raises(orbench.UsageError, match="--policy default"):
        orbench.compare(a, b)
    assert orbench.compare(a, b, policy="strict").over_refusal.value == 0


def test_families_of_the_papers_scorer_may_stand_side_by_side(run):
    a = run({1}, "a", scorer="paper", family="gpt-4")
    b = run({1}, "b", scorer="paper", family="claude")
    assert "own family's phrases" in " ".join(orbench.compare(a, b).notes)


def test_a_run_still_going_on_is_compared_as_far_as_it_is(run, here):
    a, b = run({1}, "a"), run({2}, "b")
    lines = (here / "b" / "verdicts.jsonl").read_text().splitlines(keepends=True)
    (here / "b" / "verdicts.jsonl").write_text("".join(lines[:50]))
    found = orbench.compare(a, "b")
    assert found.over_refusal.prompts + (found.toxic_rejection.prompts if found.toxic_rejection else 0) == 50
    assert "b is not finished: 20 of 70 prompts have no outcome yet" in found.notes
    assert b.prompts == 70


def test_a_run_that_stopped_early_says_why_prompts_are_left_out(run, split_file):
    splits = [split_file("safe", 600)]
    whole, early = run(range(300), "whole", splits=splits), run(range(300), "early", splits=splits, precision=0.1)
    asked = early.stopped_early["asked"]
    (note,) = orbench.compare(whole, early).notes[:1]
    said = f"early stopped early, as --precision 0.1 asked for: {asked} of 600 prompts were asked"
    assert note.startswith(said)


def test_other_versions_are_named(run, here):
    run({1}, "a")
    b = run({2}, "b")
    b.config["orbench_version"] = "9.9"
    (note,) = orbench.compare("a", b).notes
    assert note == f"the runs were made by orbench {orbench.__version__} and 9.9; their scorers are the same"


def test_one_run_is_too_few(run):
    with pytest.raises(orbench.UsageError, match="at least two"):
        orbench.compare(run((), "a"))


@pytest.fixture
def on_orbench(run, here):
    """A run on files called hard-1k and toxic, which are not the released ones."""
    for name in ("hard-1k", "toxic"):
        (here / f"{name}.csv").write_text("prompt,category\n" + "".join(f"Prompt {n}?,harmful\n" for n in range(20)))
    with pytest.warns(orbench.OrbenchWarning):
        return run(range(5), "o", splits=["hard-1k", "toxic"], data=here)


def test_a_published_model_is_compared_as_two_shares(on_orbench):
    found = orbench.compare(on_orbench, "published:gpt-4o")
    (pair,) = found.pairs
    assert not pair.paired
    assert (pair.over_refusal.prompts, pair.over_refusal.only_a) == (None, None)
    assert pair.over_refusal.b == pytest.approx(104 / 1534)
    assert pair.over_refusal.value == pytest.approx(104 / 1534 - 0.25)
    assert [d.category for d in pair.categories] == ["harmful", "harmful"]
    said = " ".join(found.notes)
    assert "never released" in said
    assert "not prompt by prompt" in said
    assert "not the released prompts" in said
    assert "not paired" in str(found)
    with pytest.raises(orbench.UsageError, match="rates, not replies"):
        list(found.flips())


def test_a_published_model_that_chose_the_prompts_is_named():
    found = orbench.compare("published:Claude-3-opus", "published:Claude-3.5-sonnet")
    assert "Claude-3-opus: among the six models" in " ".join(found.notes)
    assert found.over_refusal.p < 0.001


def test_published_rates_are_of_other_prompts_than_the_users_own(run):
    with pytest.raises(orbench.UsageError, match="evaluate with --split hard-1k --split toxic"):
        orbench.compare(run((), "a"), "published:GPT-4o")


@pytest.fixture
def on_80k(run, here):
    """A run on a file called 80k that holds 20 prompts, and one called toxic."""
    for name in ("80k", "toxic"):
        (here / f"{name}.csv").write_text("prompt,category\n" + "".join(f"Prompt {n}?,harmful\n" for n in range(20)))
    with pytest.warns(orbench.OrbenchWarning):
        return run(range(5), "o", splits=["80k", "toxic"], data=here)


def test_a_run_on_the_80k_is_set_beside_the_papers_rates_of_it(on_80k):
    found = orbench.compare(on_80k, "published:Claude-2.1")
    assert found.over_refusal.b == pytest.approx(0.529, abs=1e-5)  # Table 7, not the 0.998 of Hard-1K
    harmful = {d.kind: d for d in found.pairs[0].categories}["safe"]
    assert harmful.b == pytest.approx(0.412, abs=1e-4)
    assert found.toxic_rejection.b == 1
    said = " ".join(found.notes)
    assert "of keywords" in said
    assert "681 toxic prompts that were never released" in said
    assert "not the released prompts, but others or a sample of them: o (80k), o (toxic)" in said
    assert "chose" not in said


def test_the_paper_has_80k_rates_of_some_models_only(on_80k):
    with pytest.raises(orbench.UsageError, match=r"GPT-4o: Table 7 .* of others only: Claude-2.1, "):
        orbench.compare(on_80k, "published:GPT-4o")


def test_a_run_on_the_80k_does_not_stand_beside_the_hard_1k_rates_of_the_leaderboard(on_80k):
    with pytest.raises(orbench.UsageError, match=r"'80k': evaluate with --split hard-1k .* or orbench compare o publ"):
        orbench.leaderboard([on_80k], published=True)


def test_exports(run):
    found = orbench.compare(run({1}, "a"), run({2, 3}, "b"))
    assert found.to_csv().splitlines()[1].startswith("scripted/a,scripted/b,over-refusal,all,0.025,0.05,")
    assert len(found.to_csv(categories=True).splitlines()) == 1 + 2 + 4
    assert "| scripted/a | scripted/b | over-refusal | all | 2.5 % | 5.0 % |" in found.to_markdown()
    assert r"\toprule" in found.to_latex()
    frame = found.to_pandas()
    assert list(frame["category"].isna()) == [True, True, False, False, False, False]
    assert frame.loc[0, "only_b"] == 2


def test_a_run_without_any_verdict_is_named(run):
    def broken(request):
        return orbench.RejectedError("no")

    with pytest.raises(orbench.UsageError, match=r"share no prompt .*\. b: 70 prompts to finish, by the same `orb"):
        orbench.compare(run({1}, "a"), run(broken, "b"))


def test_replies_that_the_policy_left_out_are_not_said_to_be_owed(run):
    a, b = run({1}, "a"), run(lambda request: "", "b")
    with pytest.raises(orbench.UsageError, match="the policy default leaves out its 70 empty, which --policy strict"):
        orbench.compare(a, b)
    assert orbench.compare(a, b, policy="strict").over_refusal.b == 1


def test_replies_that_no_stage_was_sure_of_are_for_a_judge(run):
    with pytest.raises(orbench.UsageError, match="sure of 70 replies, which orbench score b --judge MODEL"):
        orbench.compare(run({1}, "a"), run(lambda request: "Hm.", "b"))
