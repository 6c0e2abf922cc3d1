"""Replies whose answer is good and that hold something odd beside it: read once, not paid for again and again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orbench import Completion
from orbench.models import Options, open_model
from orbench.records import Usage
from orbench.testing import LoopbackServer, chat_completion, generated_content, message, response

Ask = Callable[..., Completion]
COUNTED = Usage(input_tokens=10, output_tokens=1)


def answer_to(ask: Ask, body: Any, name: str = "openai/any", **options: Any) -> Completion:
    with LoopbackServer(body) as server:
        url = server.base_url if name.startswith("openai") else server.root_url
        completion = ask(open_model(name, Options(base_url=url, **options)))
        assert len(server.requests) == 1
    return completion


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (rb"lone \ud83d", "lone \ufffd"),
        (rb"\udc00 first", "\ufffd first"),
        (rb"a pair \ud83d\ude00 and \ud83d half", "a pair \U0001f600 and \ufffd half"),
        (rb"no escape \\ud83d \ud83d", "no escape \\ud83d \ufffd"),
        (b"no \xff UTF-8", "no \ufffd UTF-8"),
    ],
)
def test_half_a_character_is_replaced_and_the_rest_kept(ask: Ask, content: bytes, text: str) -> None:
    body = b'{"choices": [{"message": {"content": "%s"}}], "usage": {"prompt_tokens": 10, "completion_tokens": 1}}'
    completion = answer_to(ask, body % content)
    assert (completion.text, completion.usage) == (text, COUNTED)


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 10.0, "completion_tokens": "1"}, COUNTED),
        ({"prompt_tokens": 10, "completion_tokens": 1, "completion_tokens_details": "none"}, COUNTED),
        ({"prompt_tokens": 12.5, "completion_tokens": 1}, Usage(input_tokens=None, output_tokens=1)),
        ({"prompt_tokens": [10], "completion_tokens": 1}, Usage(input_tokens=None, output_tokens=1)),
        ([], None),
        ("unknown", None),
    ],
)
def test_of_odd_counts_of_tokens_is_kept_what_is_a_count(ask: Ask, usage: Any, read: Usage | None) -> None:
    completion = answer_to(ask, {**chat_completion("Hello."), "usage": usage})
    assert (completion.text, completion.usage) == ("Hello.", read)


@pytest.mark.parametrize("error", ["", [], "oops", 0])
def test_an_odd_error_beside_an_answer_is_none(ask: Ask, error: Any) -> None:
    completion = answer_to(ask, {**chat_completion("Hello."), "error": error})
    assert (completion.text, completion.usage) == ("Hello.", COUNTED)


def test_a_refusal_that_is_false_is_none(ask: Ask) -> None:
    completion = answer_to(ask, chat_completion("Hello.", refusal=False))
    assert (completion.text, completion.blocked_by) == ("Hello.", None)


def test_reasoning_that_is_no_text_is_kept_as_it_came(ask: Ask) -> None:
    completion = answer_to(ask, chat_completion("Hello.", reasoning={"steps": ["They greet."]}))
    assert (completion.text, completion.reasoning) == ("Hello.", '{"steps": ["They greet."]}')


def test_the_other_formats_are_read_likewise(ask: Ask) -> None:
    for body, name, field, options in (
        (response("Hello."), "openai/any", "usage", {"api": "responses"}),
        (message("Hello."), "anthropic/any", "usage", {}),
        (generated_content("Hello."), "google/any", "usageMetadata", {}),
    ):
        body[field] = {key: float(count) if isinstance(count, int) else count for key, count in body[field].items()}
        completion = answer_to(ask, body, name, **options)
        assert (completion.text, completion.usage) == ("Hello.", COUNTED)
