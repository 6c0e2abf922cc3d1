"""Thinking aloud and answer in one text are told apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.models.reasoning import has_reasoning, split_reasoning

TAGS = st.sampled_from(["think", "thinking", "reasoning", "THINK", "Think"])
WITHOUT_TAGS = st.text().filter(lambda text: "<" not in text)


@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        ("Hello.", "Hello.", None),
        ("", "", None),
        ("<think>They greet.</think>\n\nHello.", "Hello.", "They greet."),
        ("\n <thinking>They greet.</thinking>Hello.", "Hello.", "They greet."),
        ("<reasoning>They greet.</reasoning>Hello.", "Hello.", "They greet."),
        ("<THINK>They greet.</think>Hello.", "Hello.", "They greet."),
        ("<think></think>Hello.", "Hello.", ""),
        ("<think>They greet. So I", "", "They greet. So I"),
        ("<think>", "", ""),
        ("They greet.</think>\nHello.", "Hello.", "They greet."),
        ("<think>One.</think>Two.</think>Three.", "Two.</think>Three.", "One."),
        ("<think>İn İzmir.</think>Hello.", "Hello.", "İn İzmir."),
        ("İİİ</think>Hello.", "Hello.", "İİİ"),
        ("[THINK]They greet.[/THINK]Hello.", "Hello.", "They greet."),
        ("<seed:think>They greet.</seed:think>Hello.", "Hello.", "They greet."),
        ("<|channel>thought\nThey greet.\n<channel|>Hello.", "Hello.", "They greet."),
        ("<|channel>thought\n<channel|>Hello.", "Hello.", ""),
        ("<|channel>thought\nThey gr", "", "They gr"),
        (
            "<|channel|>analysis<|message|>They greet.<|end|><|start|>assistant"
            "<|channel|>final<|message|>Hello.<|return|>",
            "Hello.",
            "They greet.",
        ),
        ("<|channel|>analysis<|message|>They gr", "", "They gr"),
        ("<|channel|>final <|constrain|>JSON<|message|>{}<|return|>", "{}", None),
    ],
)
def test_a_leading_block_is_reasoning(text: str, answer: str, reasoning: str | None) -> None:
    assert split_reasoning(text) == (answer, reasoning)


@pytest.mark.parametrize(
    "text",
    [
        "Some models write <think>so</think> before they answer.",
        "Some models write <THINK>so</THINK> before they answer.",
        "The tag is called <think>.",
        "I think</b> so.",
        "See <thinker>here</thinker>.",
    ],
)
def test_an_answer_that_speaks_of_such_blocks_stays_whole(text: str) -> None:
    assert split_reasoning(text) == (text, None)


@given(TAGS, WITHOUT_TAGS, WITHOUT_TAGS)
def test_what_was_put_together_is_taken_apart(tag: str, reasoning: str, answer: str) -> None:
    assert split_reasoning(f"<{tag}>{reasoning}</{tag}>{answer}") == (answer.lstrip(), reasoning.strip())


@given(TAGS, WITHOUT_TAGS)
def test_a_block_without_end_leaves_no_answer(tag: str, reasoning: str) -> None:
    assert split_reasoning(f"<{tag}>{reasoning}") == ("", reasoning.strip())


@given(WITHOUT_TAGS)
def test_a_text_without_tags_is_the_answer_as_it_is(text: str) -> None:
    assert split_reasoning(text) == (text, None)


@pytest.mark.parametrize(
    ("template", "knows"),
    [
        ("<|{{ role }}|>{{ content }}<|end|><|start|>", False),
        ("{{ content }}<think>", True),
        ("[THINK]{{ thinking }}[/THINK]", True),
        ("<|start|>assistant<|channel|>analysis<|message|>", True),
        ("<|channel>thought", True),
    ],
)
def test_a_template_that_knows_of_reasoning_is_told_from_one_with_mere_turns(template: str, knows: bool) -> None:
    assert has_reasoning(template) is knows
