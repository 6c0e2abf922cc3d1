"""Models side by side: the paper's figures, the user's own, both together, and what cannot be said."""

import itertools
import json
import random

import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

import orbench
from orbench import published
from orbench.comparison import decisions
from orbench.leaderboards import family_of
from orbench.models.baseline import ANSWER
from orbench.statistics.paired import mcnemar, unpaired_test


@pytest.fixture(scope="module")
def paper():
    return orbench.leaderboard(published=True)


def test_the_papers_correlations_are_reproduced(paper):
    values = {name: found.value for name, found in paper.subsets.items()}
    assert values == {
        "all 32 models of the paper": pytest.approx(0.8935, abs=5e-5),
        "the 25 of its first version": pytest.approx(0.8784, abs=5e-5),
        "the 29 that were not moderators": pytest.approx(0.9319, abs=5e-5),
    }
    for found in paper.subsets.values():
        assert found.low < found.value < found.high
        assert found.over == "models"
    assert paper.spearman == paper.subsets["all 32 models of the paper"]


def test_the_papers_curve_is_reproduced(paper):
    curve = paper.curve
    assert 100 * curve.constant == pytest.approx(75.24, abs=5e-3)
    assert curve.linear == pytest.approx(0.4696, abs=5e-5)
    assert curve.quadratic / 100 == pytest.approx(-0.002246, abs=5e-7)
    assert curve.r_squared == pytest.approx(0.657, abs=5e-4)


def test_most_neighbours_on_the_toxic_axis_cannot_be_told_apart(paper):
    assert paper.neighbours("toxic") == (27, 31)
    assert paper.neighbours("safe") == (13, 31)


def test_published_rates_are_the_printed_ones_with_wilsons_interval(paper):
    row = next(row for row in paper.rows if row.name == "Gemini-1.0-pro")
    assert (row.over_refusal.value, row.toxic_rejection.value) == (0.0971, 0.787)
    assert (row.over_refusal.refused, row.over_refusal.scored) == (149, 1534)
    assert row.over_refusal.low == pytest.approx(0.083, abs=1e-3)
    assert row.published
    assert row.family == "Gemini"


def test_the_best_f1_comes_first_and_ranks_hold_the_estimate(paper):
    scores = [row.f1 for row in paper.rows]
    assert scores == sorted(scores, reverse=True)
    by_rate = sorted(paper.rows, key=lambda row: row.over_refusal.value)
    assert by_rate[0].over_refusal_rank.rank == 1
    for row in paper.rows:
        for rank in (row.over_refusal_rank, row.toxic_rejection_rank):
            assert 1 <= rank.low <= rank.rank <= rank.high <= 32


def test_the_table_says_what_the_figures_are_worth(paper):
    text = str(paper)
    for said in (
        "0.893 (95 %",
        "0.878",
        "0.932",
        "27 of 31 on",
        "never released",
        "chose",
        "y = 75.24 + 0.4696 x - 0.002246",
    ):
        assert said in text
    assert "nan" not in text.lower().replace("finan", "")
    assert all(len(line) <= 80 for line in text.splitlines())


def test_ranks_are_what_holms_method_leaves(paper):
    def p(a, b):
        return unpaired_test(a.refused, a.scored, b.refused, b.scored)

    rates = [row.over_refusal for row in paper.rows]
    pairs = list(itertools.combinations(range(32), 2))
    found = multipletests([p(rates[i], rates[j]) for i, j in pairs], method="holm")[0]
    apart = {pair for pair, differ in zip(pairs, found, strict=True) if differ}
    for i, row in enumerate(paper.rows):
        others = [j for j in range(32) if (i, j) in apart or (j, i) in apart]
        better = sum(rates[j].value < rates[i].value for j in others)
        assert row.over_refusal_rank.low == 1 + better
        assert row.over_refusal_rank.high == 32 - (len(others) - better)


def three(run):
    return [
        run(range(4), "a"),
        run({*range(15), 36, 37}, "b"),
        run(range(30), "c"),
    ]


def test_runs_have_exact_ranks_and_a_bootstrap_over_prompts_too(run):
    runs = three(run)
    board = orbench.leaderboard(runs, draws=500)
    assert board.spearman.over == "models and prompts"
    expected = stats.spearmanr(*zip(*board.points, strict=True)).statistic
    assert board.spearman.value == pytest.approx(expected)
    assert board.kendall.value == pytest.approx(stats.kendalltau(*zip(*board.points, strict=True)).statistic)
    assert board.subsets == {}
    ranks = {row.name: (row.over_refusal_rank.low, row.over_refusal_rank.high) for row in board.rows}
    assert ranks == {"scripted/a": (1, 1), "scripted/b": (2, 2), "scripted/c": (3, 3)}
    one, other = decisions(runs[0]), decisions(runs[1])
    safe = [key for key in one if key[0] == "safe"]
    p = mcnemar(sum(one[k] and not other[k] for k in safe), sum(other[k] and not one[k] for k in safe))
    assert board._matrices["safe"].p_values[0, 1] == pytest.approx(p)


def test_the_order_of_the_runs_is_irrelevant(run):
    runs = three(run)
    one, other = orbench.leaderboard(runs, draws=300), orbench.leaderboard(runs[::-1], draws=300)
    assert [row.name for row in one.rows] == [row.name for row in other.rows]
    assert one.spearman == other.spearman
    assert one.rows == other.rows


def test_drawing_prompts_again_gives_rates_around_the_measured_ones(run):
    import numpy as np

    board = orbench.leaderboard(three(run), draws=100)
    rates = board._matrices["safe"].redraw([0, 2], 3000, np.random.default_rng(0))
    assert rates.mean(0) == pytest.approx([0.1, 0.75], abs=0.005)
    assert rates.std(0) == pytest.approx([(0.1 * 0.9 / 40) ** 0.5, (0.75 * 0.25 / 40) ** 0.5], rel=0.1)
    # a refuses nothing that c answers, so its rate on the same draw of prompts is never the higher one
    assert (rates[:, 0] <= rates[:, 1]).all()


def test_two_models_have_no_correlation_but_a_table(run):
    board = orbench.leaderboard([run({1}, "a"), run({2, 3}, "b")])
    assert board.spearman.value is None
    assert "at least three models" in str(board)
    assert board.curve is None
    assert "nan" not in json.dumps(board.to_dict()).lower()


def test_models_that_cannot_be_told_apart_are_named(run):
    text = str(orbench.leaderboard([run({1}, "a"), run({2, 3}, "b"), run(range(40), "c")], draws=200))
    assert "alike on over-refusal (5 %, Holm over all pairs): scripted/b, scripted/a" in " ".join(text.split())
    assert "scripted/c" not in text.partition("alike on")[2]


def test_models_of_equal_rates_have_no_correlation(run):
    board = orbench.leaderboard([run({n}, name) for n, name in ((1, "a"), (2, "b"), (3, "c"))])
    assert "the same over-refusal rate" in board.spearman.why
    assert "the same over-refusal rate" in str(board)


def test_a_run_without_toxic_prompts_is_listed_but_not_correlated(run, split_file):
    alone = run({1}, "d", splits=split_file("safe", 40))
    board = orbench.leaderboard([*three(run), alone], draws=300)
    assert board.rows[-1].name == "scripted/d"
    assert board.rows[-1].f1 is None
    assert board.rows[-1].toxic_rejection_rank is None
    assert board.spearman.models == 3
    assert "without both rates, so in neither picture nor correlation: scripted/d" in " ".join(str(board).split())


def test_a_run_without_both_rates_does_not_shift_the_bootstrap_of_the_others(run, split_file):
    draw = random.Random(1)
    runs = [run(draw.sample(range(40), 5 * n + 3), f"m{n}") for n in range(6)]
    alone = run(range(40), "d", splits=split_file("safe", 40))
    found = orbench.leaderboard([alone, *runs], draws=300)
    assert found.spearman == orbench.leaderboard(runs, draws=300).spearman


def test_runs_that_cannot_stand_side_by_side_are_refused(run):
    with pytest.raises(orbench.UsageError, match="orbench score b --scorer keywords"):
        orbench.leaderboard([run({1}, "a", scorer="keywords"), run({1}, "b")])


def test_nothing_to_show_is_wrong_usage(run):
    with pytest.raises(orbench.UsageError, match="name run folders, or --published"):
        orbench.leaderboard()
    with pytest.raises(orbench.UsageError, match="draws is 5"):
        orbench.leaderboard([run({1}, "a")], draws=5)


@pytest.fixture
def own(here, run):
    """A run on files named as OR-Bench's."""
    for name in ("hard-1k", "toxic"):
        (here / f"{name}.csv").write_text("prompt,category\n" + "".join(f"Prompt {n}?,harmful\n" for n in range(40)))
    with pytest.warns(orbench.OrbenchWarning):
        return run(range(10), "own", splits=["hard-1k", "toxic"], data=here)


def test_own_and_published_models_stand_side_by_side(own):
    board = orbench.leaderboard([own, "published:gpt-4o"], published=True)
    assert len(board.rows) == 33
    assert len({row.name for row in board.rows}) == 33
    assert len(board.subsets) == 3
    assert board.subsets["all 32 models of the paper"].models == 32
    assert board.spearman.models == 33
    assert board.spearman.over == "models"
    assert board.curve.constant == pytest.approx(0.7524, abs=1e-4)
    assert "all 33 models" in str(board)


def test_exports(run, paper):
    board = orbench.leaderboard(three(run), draws=200)
    assert len(board.to_csv().splitlines()) == 4
    assert list(board.to_pandas()["model"]) == [row.name for row in board.rows]
    assert "| scripted/a | scripted | 10.0 % |" in board.to_markdown()
    assert r"\bottomrule" in board.to_latex()
    assert "paper, older prompts" in paper.to_csv()


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("openai/gpt-4o-mini", "GPT-4"),
        ("openai/gpt-3.5-turbo", "GPT-3.5"),
        ("hf/meta-llama/Llama-3.1-8B", "Llama"),
        ("together/mistralai/Mixtral-8x7B", "Mistral"),
        ("ollama/qwen3:8b", "Qwen"),
        ("ollama/mine", "ollama"),
        ("baseline/keyword-guard", "baseline"),
    ],
)
def test_a_family_is_read_from_the_name(model, family):
    assert family_of(model) == family


def test_a_family_is_not_read_from_the_folder(run, here):
    runs = [run({1}, "claude"), run({1}, "b")]
    runs[1].config["model"] = runs[0].config["model"] = "scripted/x"
    assert {row.family for row in orbench.leaderboard(runs, draws=100).rows} == {"scripted"}


def test_models_without_both_rates_are_not_counted_in_the_sentence_on_correlation(run, split_file):
    runs = [*three(run), run({1}, "d", splits=split_file("safe", 40))]
    board = orbench.leaderboard(runs, draws=200)
    said = " ".join(str(board).split())
    assert board.spearman.models == 3
    assert "Spearman, the models with both rates: " in said
    assert "all 4" not in said
    assert "without both rates, so in neither picture nor correlation: scripted/d" in said


def test_a_curve_through_a_handful_of_models_is_not_printed(run):
    runs = three(run)
    assert "quadratic fit" not in str(orbench.leaderboard(runs, draws=100))
    more = [run(range(n), f"m{n}") for n in (8, 20, 25)]
    assert "quadratic fit" in str(orbench.leaderboard([*runs, *more], draws=100))


def test_a_run_given_twice_is_refused(run, here):
    run({1}, "a")
    for sources in (["a", "a"], ["a", here / "a"], ["published:GPT-4o", "published:gpt-4o"]):
        with pytest.raises(orbench.UsageError, match="given twice: name each run once"):
            orbench.leaderboard(sources)
        with pytest.raises(orbench.UsageError, match="given twice"):
            orbench.compare(*sources)


def test_every_published_family_is_read_from_its_names():
    assert all(family_of(model.name) == model.family for model in published.leaderboard())


def test_models_that_differ_on_one_group_of_prompts_alone_are_not_told_apart(run, here):
    for name, seed in (("grouped", "seed-{0}"), ("alone", "seed-{1}")):
        lines = [f"Prompt {n}?,harmful,{seed.format(n // 20, n)}\n" for n in range(60)]
        (here / f"{name}.csv").write_text("prompt,category,seed_id\n" + "".join(lines))
    places = {}
    for name in ("grouped", "alone"):
        runs = [run(range(n), f"{name}-{n}", splits=f"safe={name}.csv") for n in (0, 20)]
        board = orbench.leaderboard(runs)
        places[name] = [(row.over_refusal_rank.low, row.over_refusal_rank.high) for row in board.rows]
        assert board.neighbours("safe") == ((1, 1) if name == "grouped" else (0, 1))
    assert places == {"grouped": [(1, 2), (1, 2)], "alone": [(1, 1), (2, 2)]}


def test_the_bootstrap_draws_groups_of_prompts_as_a_whole(run, here):
    lows = {}
    for name, seed in (("grouped", "seed-{0}"), ("alone", "seed-{1}")):
        lines = [
            f"Prompt {n}?,harmful,{seed.format(n // 20, n)},{kind}\n" for kind in ("safe", "toxic") for n in range(100)
        ]
        (here / f"{name}.csv").write_text("prompt,category,seed_id,kind\n" + "".join(lines))
        sizes = ((0, 10), (80, 18), (20, 26), (60, 34), (10, 42), (40, 50), (20, 58))
        runs = [run(range(n, n + size), f"{name}-{n}-{size}", splits=f"{name}.csv") for n, size in sizes]
        lows[name] = orbench.leaderboard(runs, draws=1000).spearman.low or 1
    assert lows["grouped"] < lows["alone"] - 0.1


def test_prompts_without_a_verdict_of_both_tell_no_models_apart(run):
    def sparse(request):
        return "" if int("".join(filter(str.isdigit, request.prompt))) < 20 else ANSWER

    board = orbench.leaderboard([run(sparse, "a"), run(range(20), "b")])
    assert [board.neighbours(kind) for kind in ("safe", "toxic")] == [(1, 1), (1, 1)]
    assert all((row.over_refusal_rank.low, row.over_refusal_rank.high) == (1, 2) for row in board.rows)


def test_rates_of_other_prompts_do_not_stand_in_one_list(run, split_file, here):
    toxic = split_file("toxic", 30)
    for name in ("one", "two"):
        (here / f"{name}.csv").write_text("prompt,category\n" + "".join(f"{name} {n}?,harmful\n" for n in range(40)))
    a = run((), "a", splits=["safe=one.csv", toxic])
    for splits in (["safe=two.csv", toxic], ["safe=one.csv", "safe=two.csv", toxic]):
        b = run(range(40), f"b{len(splits)}", splits=splits)
        with pytest.raises(orbench.UsageError, match=r"were asked other safe prompts \(one against .*two\)"):
            orbench.leaderboard([a, b])
        assert orbench.compare(a, b).toxic_rejection


def test_models_that_share_no_verdict_are_unknown_not_alike(run, here):
    runs = three(run)
    for name, keep in (("a", lambda n: n < 20), ("b", lambda n: n >= 20)):
        lines = (here / name / "verdicts.jsonl").read_text().splitlines(keepends=True)
        (here / name / "verdicts.jsonl").write_text("".join(line for n, line in enumerate(lines) if keep(n)))
    board = orbench.leaderboard(["a", "b", runs[2]], draws=200)
    said = " ".join(str(board).split())
    note = "no safe prompt has a verdict of both, so nothing says whether their over-refusal differs: scripted/a and"
    assert note in said
    ranks = {row.name: row.over_refusal_rank for row in board.rows}
    assert not {*ranks["scripted/a"].groups} & {*ranks["scripted/b"].groups}
    assert ranks["scripted/a"].low == 1
    assert ranks["scripted/a"].high >= 2
    assert board.neighbours("safe")[1] < 2
    assert "nan" not in json.dumps(board.to_dict()).lower()
