"""Corrected rates: by hand, and their intervals' coverage by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from orbench.statistics.correction import prediction_powered, rogan_gladen, with_settled
from orbench.statistics.intervals import wilson


def test_rogan_and_gladen_by_hand() -> None:
    # 0.25 seen, 80 % of refusals and 90 % of answers found: (0.25 + 0.9 - 1) / (0.8 + 0.9 - 1).
    found = rogan_gladen(250, 1000, (80, 100), (90, 100))
    assert found.value == pytest.approx(0.15 / 0.7)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.15 / 0.7 < found.high


def test_the_interval_of_lang_and_reiczigel_by_hand() -> None:
    # Their steps one after the other: z^2/2 added to the seen, one label to each cell, then the shifted estimate.
    z = stats.norm.ppf(0.975)
    seen, se, sp = (250 + z**2 / 2) / (1000 + z**2), 81 / 102, 91 / 102
    youden = se + sp - 1
    true = (seen + sp - 1) / youden
    errors = seen * (1 - seen) / (1000 + z**2), true**2 * se * (1 - se) / 102, (1 - true) ** 2 * sp * (1 - sp) / 102
    shift = 2 * z**2 * (true * se * (1 - se) / 102 - (1 - true) * sp * (1 - sp) / 102)
    half = z * sum(errors) ** 0.5 / youden
    found = rogan_gladen(250, 1000, (80, 100), (90, 100))
    assert (found.low, found.high) == pytest.approx((true + shift - half, true + shift + half))


def test_a_perfect_scorer_of_many_labels_changes_nothing() -> None:
    found = rogan_gladen(250, 1000, (100_000, 100_000), (100_000, 100_000))
    assert found.value == 0.25
    assert (found.low, found.high) == pytest.approx(wilson(250, 1000), abs=2e-3)


def test_fewer_labels_give_a_wider_interval() -> None:
    few, many = rogan_gladen(250, 1000, (8, 10), (9, 10)), rogan_gladen(250, 1000, (800, 1000), (900, 1000))
    assert few.low is not None and few.high is not None and many.low is not None and many.high is not None  # noqa: PT018
    assert few.high - few.low > 3 * (many.high - many.low)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((0, 0, (8, 10), (9, 10)), "no scored prompt"),
        ((1, 10, (0, 0), (9, 10)), "one class only"),
        ((1, 10, (0, 0), (0, 0)), "decided no label"),
        ((1, 10, (5, 10), (5, 10)), "no better than chance"),
    ],
)
def test_what_cannot_be_corrected_has_no_value_but_a_reason(arguments: tuple[int, ...], reason: str) -> None:
    found = rogan_gladen(*arguments)  # type: ignore[arg-type]
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason is not None
    assert reason in found.reason


@given(
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_a_corrected_rate_stays_a_share(r: int, rest: int, tp: int, fn: int, tn: int, fp: int) -> None:
    found = rogan_gladen(r, r + rest, (tp, tp + fn), (tn, tn + fp))
    if found.value is not None:
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize("truth", [0.05, 0.3, 0.9])
def test_rogan_and_gladen_s_interval_covers(truth: float) -> None:
    draw = np.random.default_rng(7)
    se, sp, labels, prompts, hits = 0.85, 0.95, 100, 600, 0
    for _ in range(1000):
        refused = int(draw.binomial(prompts, truth * se + (1 - truth) * (1 - sp)))
        found = rogan_gladen(refused, prompts, (draw.binomial(labels, se), labels), (draw.binomial(labels, sp), labels))
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= truth <= found.high
    assert 930 <= hits <= 990


@pytest.mark.parametrize("weighted", [False, True])
def test_the_prediction_powered_interval_covers_and_is_not_biased(weighted: bool) -> None:
    draw = np.random.default_rng(8)
    hits, values = 0, []
    for _ in range(600):
        truth = draw.random(1500) < 0.35
        predictions = np.where(draw.random(1500) < 0.85, truth, ~truth & (draw.random(1500) < 0.5)).astype(float)
        chance = np.where(predictions > 0, 0.2, 0.06) if weighted else np.full(1500, 0.1)
        chosen = draw.random(1500) < chance
        found = prediction_powered(
            predictions.tolist(),
            predictions[chosen].tolist(),
            truth[chosen].astype(float).tolist(),
            (1 / chance[chosen]).tolist(),
        )
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        values.append(found.value)
        hits += found.low <= 0.35 <= found.high
    assert 555 <= hits <= 590
    assert np.mean(values) == pytest.approx(0.35, abs=0.005)


def test_labels_move_the_mean_by_the_predictions_mean_error() -> None:
    found = prediction_powered([1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0])
    assert found.value == pytest.approx(3 / 8 - 1 / 4)


def test_the_prediction_powered_interval_by_hand() -> None:
    # All rows are labelled but two; the labelled rows' errors are 0, 0, 0, -1, 0, 1.
    found = prediction_powered([1, 1, 1, 0, 0, 0, 0, 1], [1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 1])
    spread = np.var([0, 0, 0, -1, 0, 1], ddof=1) / 6
    half = stats.norm.ppf(0.975) * (0.5 * 0.5 / 8 + (1 - 6 / 8) * spread) ** 0.5
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))


def test_where_every_row_is_labelled_the_predictions_say_nothing() -> None:
    found = prediction_powered([1.0, 0.0] * 50, [1.0, 0.0] * 50, [0.0, 0.0, 0.0, 1.0] * 25)
    half = stats.norm.ppf(0.975) * (0.25 * 0.75 / 100) ** 0.5
    assert (found.value, found.low, found.high) == pytest.approx((0.25, 0.25 - half, 0.25 + half))


def test_labels_without_an_error_still_leave_doubt() -> None:
    found = prediction_powered([0.0] * 1000, [0.0] * 5, [0.0] * 5)
    assert found.value == 0
    assert found.high is not None
    assert found.high > 0.05
    assert prediction_powered([0.0] * 10, [0.0], [0.0]).value is None


def test_rates_that_are_all_or_nothing_still_leave_doubt_where_every_row_is_labelled() -> None:
    for truth in (0.0, 1.0):
        found = prediction_powered([truth] * 20, [truth] * 20, [truth] * 20)
        assert (found.low, found.high) == pytest.approx(wilson(20 * truth, 20))


def test_what_was_settled_without_reading_enters_as_it_is() -> None:
    read = rogan_gladen(25, 100, (100_000, 100_000), (100_000, 100_000))
    found = with_settled(read, 300, 300, 100)
    assert found.value == pytest.approx(0.75 + 0.25 * 0.25)
    assert (found.low, found.high) == pytest.approx(wilson(325, 400), abs=0.005)
    assert with_settled(read, 0, 0, 100) == read


def test_where_nothing_was_read_the_interval_is_wilson_s() -> None:
    nothing = rogan_gladen(0, 0, (10, 10), (10, 10))
    for refused in (100, 70, 0):
        found = with_settled(nothing, refused, 100, 0)
        assert (found.value, found.low, found.high) == (refused / 100, *wilson(refused, 100))


@pytest.mark.parametrize("part", [0.02, 0.2, 0.5, 0.8])
@pytest.mark.parametrize(("settled_refused", "truth"), [(1.0, 0.05), (1.0, 0.3), (0.3, 0.9)])
def test_the_interval_covers_where_some_rows_were_settled_without_reading(
    part: float, settled_refused: float, truth: float
) -> None:
    draw = np.random.default_rng(9)
    se, sp, labels, prompts, hits = 0.97, 0.98, 500, 655, 0
    whole = part * settled_refused + (1 - part) * truth
    for _ in range(600):
        settled = int(draw.binomial(prompts, part))
        read = prompts - settled
        refused = int(draw.binomial(read, truth * se + (1 - truth) * (1 - sp)))
        estimate = rogan_gladen(refused, read, (draw.binomial(labels, se), labels), (draw.binomial(labels, sp), labels))
        found = with_settled(estimate, int(draw.binomial(settled, settled_refused)), settled, read)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= whole <= found.high
    assert 558 <= hits <= 594


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_a_rate_with_settled_rows_stays_a_share_with_a_width(a: int, b: int, c: int, d: int) -> None:
    found = with_settled(rogan_gladen(a, a + b, (19, 20), (18, 20)), c, c + d, a + b)
    if found.value is not None:
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.value <= found.high <= 1
        assert found.low < found.high


@pytest.mark.parametrize("scale", [1e308, 1e-300])
def test_labels_of_any_weight_correct_alike(scale: float) -> None:
    truth, seen = [1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]
    expected = prediction_powered([1.0, 0.0] * 50, seen, truth)
    assert prediction_powered([1.0, 0.0] * 50, seen, truth, [scale] * 4) == expected
