"""Agreement of moderators, what each decides, and the paper's Table 12."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.errors import UsageError
from orbench.generation.agreement import (
    accuracies,
    alpha,
    leave_one_out,
    moderator_yields,
    pairs,
    share,
    yields,
)
from orbench.statistics.intervals import wilson


def votes(**rows):
    """`a="ssta-"`: moderator a's votes on prompts 0, 1, 2...; `-` is none."""
    words = {"s": "safe", "t": "toxic", "a": "abstained"}
    return {
        name: {str(prompt): words[letter] for prompt, letter in enumerate(row) if letter != "-"}
        for name, row in rows.items()
    }


def majority(names):
    if len(names) < 2:
        raise UsageError("too few moderators")

    def decide(own):
        for verdict in ("safe", "toxic"):
            if 2 * sum(own.get(name) == verdict for name in names) > len(names):
                return verdict
        return "undecided"

    return decide


def test_a_pair_agrees_over_what_both_voted_on():
    [pair] = pairs(votes(a="sssttta-", b="sstttssa"))
    assert pair.agreement == share(4, 6)
    assert (pair.only_first_toxic, pair.only_second_toxic) == (1, 1)
    assert pair.kappa == pytest.approx((4 / 6 - 0.5) / 0.5)  # each says toxic three times in six


def test_a_pair_without_a_prompt_in_common_agrees_about_nothing():
    [pair] = pairs(votes(a="s-", b="at"))
    assert pair.agreement.value is None
    assert pair.kappa is None


def test_alpha_counts_abstentions_as_no_label():
    assert alpha(votes(a="ssttt", b="sstta", c="sstt-")) == 1
    assert alpha(votes(a="st", b="ts")) == pytest.approx(-0.5)
    assert alpha(votes(a="ss", b="ss")) is None


def test_leaving_one_out_shows_what_it_decides():
    # All three: safe, toxic, toxic, safe, undecided.
    table = leave_one_out(votes(a="sttsa", b="stsss", c="stttt"), majority)
    assert [(row.moderator, row.flips, row.decided) for row in table] == [
        ("a", {"safe -> undecided": 1, "toxic -> undecided": 1}, 2),
        ("b", {"safe -> undecided": 1}, 1),
        ("c", {"toxic -> undecided": 1}, 1),
    ]


def test_a_rule_that_cannot_be_without_a_moderator_says_so():
    [row, _] = leave_one_out(votes(a="st", b="ss"), majority)
    assert row.flips is None
    assert row.why_not == "too few moderators"


def test_table_12_of_the_paper_comes_out():
    # Three workers, the expert and the ensemble on 75 safe and 25 toxic prompts, as the paper's shares say.
    right = {"worker 1": (55, 20), "worker 2": (58, 20), "worker 3": (54, 17), "expert": (71, 23), "ensemble": (72, 21)}
    labels = {name: {} for name in right}
    for start, size, place, truth, other in ((0, 75, 0, "safe", "toxic"), (75, 25, 1, "toxic", "safe")):
        at = 0
        for name, counts in right.items():
            wrong = {start + (at + step) % size for step in range(size - counts[place])}
            at += size - counts[place]  # one after the other, so that at most two are wrong about one prompt
            labels[name] |= {str(n): other if n in wrong else truth for n in range(start, start + size)}
    table = accuracies(labels)
    assert (table.safe, table.toxic, table.without_majority) == (75, 25, 0)
    shown = {
        row.labeller: tuple(
            round(100 * cell.value, 1)
            for cell in (
                row.true_positives,
                row.false_negatives,
                row.true_negatives,
                row.false_positives,
                row.accuracy,
            )
        )
        for row in table.rows
    }
    assert shown == {
        "worker 1": (73.3, 26.7, 80.0, 20.0, 75.0),
        "worker 2": (77.3, 22.7, 80.0, 20.0, 78.0),
        "worker 3": (72.0, 28.0, 68.0, 32.0, 71.0),
        "expert": (94.7, 5.3, 92.0, 8.0, 94.0),
        "ensemble": (96.0, 4.0, 84.0, 16.0, 93.0),
    }
    ensemble = table.rows[-1].accuracy
    assert (ensemble.low, ensemble.high) == wilson(93, 100)


def test_against_the_others_nobody_judges_himself():
    labels = votes(a="ssst", b="stts", c="sstt")
    assert [row.accuracy.count for row in accuracies(labels).rows] == [3, 2, 4]
    others = accuracies(labels, of_others=True)
    assert [(row.accuracy.count, row.accuracy.of) for row in others.rows] == [(1, 2), (1, 3), (1, 1)]


def test_abstentions_are_neither_right_nor_wrong_and_ties_are_no_truth():
    table = accuracies(votes(a="ssa", b="sts", c="as-"))
    assert (table.safe, table.toxic, table.without_majority) == (3, 0, 0)
    assert [(row.accuracy.count, row.accuracy.of, row.abstained) for row in table.rows] == [
        (2, 2, 1),
        (2, 3, 0),
        (1, 1, 2),
    ]
    assert accuracies(votes(a="s", b="t")).without_majority == 1
    assert accuracies(votes(a="s", b="t")).rows[0].accuracy.value is None


LETTERS = st.text(st.sampled_from("sta-"), min_size=6, max_size=6)


@given(st.lists(LETTERS, min_size=2, max_size=5))
def test_the_sums_hold_for_any_votes(rows):
    labels = votes(**{f"m{n}": row for n, row in enumerate(rows)})
    prompts = {prompt for own in labels.values() for prompt in own}
    table = accuracies(labels)
    assert table.safe + table.toxic + table.without_majority == len(prompts)
    for row in table.rows:
        assert row.accuracy.of + row.abstained == table.safe + table.toxic
        assert row.true_positives.of + row.true_negatives.of == row.accuracy.of
    for left in leave_one_out(labels, majority):
        assert left.decided <= left.prompts == len(prompts)


def test_yields_are_shares_of_what_was_made():
    assert yields([("a", True), ("b", False), ("a", False)]) == {"a": share(1, 2), "b": share(0, 1)}
    assert moderator_yields(votes(a="sta-", b="a")) == {"a": share(1, 2), "b": share(0, 0)}
