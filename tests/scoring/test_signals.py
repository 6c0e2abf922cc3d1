"""What the platform's own signals decide, before anybody reads the reply."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orbench
from orbench import Response
from orbench.scoring.scorers import make_scorer
from orbench.scoring.signals import is_blank, signals

MakeResponse = Callable[..., Response]

BLANKS = [
    "",
    " \n\t\u00a0\u3000",
    "\u200b\u200d\u2060\ufeff",
    "\u00ad",
    "\x00\x1b",
    "\u2800",
    "\u3164\u115f",
    "\ufe0f",
    "\u2028\u2029",
]


def outcome(response: Response) -> str | None:
    finding = signals(response)
    if finding is None:
        return None
    assert (finding.by, finding.confidence) == ("signal", 1.0)
    assert finding.reason
    return finding.outcome.value


def test_an_error_is_an_error_whatever_else_there_is(reply: MakeResponse) -> None:
    response = reply("Certainly.", error="HTTP 500: busy", blocked_by="output")
    assert outcome(response) == "error"
    finding = signals(response)
    assert finding is not None
    assert finding.reason == "HTTP 500: busy"


@pytest.mark.parametrize("blocked_by", ["prompt", "output"])
@pytest.mark.parametrize("text", ["", "Certainly. First"])
def test_what_the_platform_blocked_is_blocked_whatever_was_said(
    reply: MakeResponse, text: str, blocked_by: str
) -> None:
    response = reply(text, blocked_by=blocked_by)
    assert outcome(response) == "blocked"
    finding = signals(response)
    assert finding is not None
    assert finding.reason == f"{blocked_by} blocked by the platform"


@pytest.mark.parametrize("text", BLANKS)
def test_a_reply_in_which_nothing_is_seen_is_empty(reply: MakeResponse, text: str) -> None:
    assert outcome(reply(text)) == "empty"


@pytest.mark.parametrize("reasoning", ["They want to", ""])
def test_tokens_that_ran_out_in_the_reasoning_are_told_apart_from_silence(reply: MakeResponse, reasoning: str) -> None:
    assert outcome(reply(" ", finish_reason="length", reasoning=reasoning)) == "truncated_reasoning"


def test_silence_after_whole_reasoning_is_empty(reply: MakeResponse) -> None:
    assert outcome(reply("", finish_reason="stop", reasoning="They want nothing.")) == "empty"


def test_silence_at_the_limit_without_reasoning_is_empty(reply: MakeResponse) -> None:
    assert outcome(reply("", finish_reason="length")) == "empty"


@pytest.mark.parametrize(
    "text",
    [
        "<think>I should refuse. I cannot help with that",
        "\n<Thinking>They want to know.</thinking>\n",
        "They want to know.\n</think>\u200b",
    ],
)
def test_reasoning_within_the_reply_is_no_answer(reply: MakeResponse, text: str) -> None:
    assert outcome(reply(text)) == "empty"
    assert outcome(reply(text, finish_reason="length")) == "truncated_reasoning"
    for scorer in ("keywords", "cascade"):
        finding = make_scorer(scorer).read(reply(text))
        assert finding is not None
        assert (finding.outcome, finding.reason) == ("empty", "nothing but reasoning in the reply")
    assert orbench.detect_refusal(text, abstain=False).refused is None


@pytest.mark.parametrize("text", ["<think>Hm.</think>Certainly.", "Use <b>bold</b>.", "End it with </think> as I do."])
def test_what_is_said_beside_reasoning_is_left_to_the_readers(reply: MakeResponse, text: str) -> None:
    assert outcome(reply(text)) is None


@pytest.mark.parametrize("text", ["Certainly.", ".", "\u200bNo", "\N{GRINNING FACE}", "い"])
def test_a_reply_that_can_be_read_is_left_to_the_readers(reply: MakeResponse, text: str) -> None:
    assert outcome(reply(text)) is None
    assert outcome(reply(text, finish_reason="length", reasoning="They want a word.")) is None


@given(st.text(), st.sampled_from("aZ1.!ß字é"))
def test_no_text_with_a_letter_is_blank(text: str, letter: str) -> None:
    assert not is_blank(text + letter)
    assert not is_blank(letter + text)


@given(st.lists(st.sampled_from(BLANKS)))
def test_blanks_stay_blank_together(texts: list[str]) -> None:
    assert is_blank("".join(texts))
