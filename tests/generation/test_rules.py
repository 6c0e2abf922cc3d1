"""Votes to decisions: each rule, and what abstentions do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orbench
from orbench.generation.rules import make_rule

NAMES = ["a", "b", "c"]
VOTES = {"s": "safe", "t": "toxic", "-": "abstained"}


def decide(rule, votes, weights=None):
    names = NAMES[: len(votes)] if len(votes) <= 3 else list("abcdef")[: len(votes)]
    cast = {name: VOTES[vote] for name, vote in zip(names, votes, strict=True)}
    return make_rule(rule, names, weights).decide(cast)


@pytest.mark.parametrize(
    ("rule", "votes", "decision"),
    [
        ("majority", "sst", "safe"),
        ("majority", "stt", "toxic"),
        ("majority", "ss-", "safe"),
        ("majority", "tt-", "toxic"),
        ("majority", "st-", "undecided"),
        ("majority", "s--", "undecided"),
        ("majority", "t--", "undecided"),
        ("majority", "---", "undecided"),
        ("majority", "sstt", "toxic"),
        ("paper", "sst", "safe"),
        ("unanimous", "sss", "safe"),
        ("unanimous", "sst", "toxic"),
        ("unanimous", "ss-", "undecided"),
        ("unanimous", "t--", "toxic"),
        ("at-least:1", "stt", "safe"),
        ("at-least:1", "ttt", "toxic"),
        ("at-least:1", "tt-", "undecided"),
        ("at-least:3", "ss-", "undecided"),
        ("weighted", "sst", "safe"),
    ],
)
def test_a_rule_decides(rule, votes, decision):
    assert decide(rule, votes) == decision


def test_weights_count_votes_more():
    weights = {"a": 3.0}
    assert decide("weighted", "stt", weights) == "safe"
    assert decide("weighted", "tss", weights) == "toxic"
    assert decide("weighted", "-ss", weights) == "undecided"
    assert decide("weighted", "st", {"a": 1.0, "b": 1.0}) == "toxic"  # half of the weight is not more than half


@given(
    st.lists(st.sampled_from("st-"), min_size=3, max_size=3), st.sampled_from(["majority", "unanimous", "at-least:2"])
)
def test_an_abstention_is_never_what_settles_it(votes, rule):
    decision = decide(rule, "".join(votes))
    filled = {decide(rule, "".join(votes).replace("-", vote)) for vote in "st"}
    assert decision == "undecided" or filled == {decision}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("most", "unknown rule 'most'"),
        ("at-least:4", "at-least:4: K goes from 1 to 3"),
        ("at-least:0", "at-least:0: K goes from 1 to 3"),
        ("at-least:x", "unknown rule"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(rule, message):
    with pytest.raises(orbench.UsageError, match=message):
        make_rule(rule, NAMES)


def test_weights_that_cannot_be_are_refused():
    with pytest.raises(orbench.UsageError, match="'d' is no moderator"):
        make_rule("weighted", NAMES, {"d": 1.0})
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(orbench.UsageError, match="numbers from 0 up"):
            make_rule("weighted", NAMES, {"a": weight})
    with pytest.raises(orbench.UsageError, match="for the rule `weighted`"):
        make_rule("majority", NAMES, {"a": 1.0})
    with pytest.raises(orbench.UsageError, match="no moderator given"):
        make_rule("majority", [])
