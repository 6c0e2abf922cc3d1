"""How a reply is read before any rule: one spelling, the model's own voice, sentences, head and tail."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.scoring.text import (
    HEAD,
    HEAD_SENTENCES,
    TAIL,
    TAIL_SENTENCES,
    count_items,
    is_letter,
    normalise,
    own_voice,
    sentences,
    verse,
    view,
    voices,
)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("I CAN’T", "i can't"),
        ("I can`t", "i can't"),
        ("ｃａｎ not", "can not"),
        ("can\u00adnot\u200b do\u00a0it", "cannot do it"),
        ("**I** ~~will~~ _not_", "i will not"),
        ("# I cannot\n\n- help", "i cannot\nhelp"),
        ("[no](https://example.org/a) thanks", "no thanks"),
        ("“no” – „nein“", '"no" - "nein"'),
        ("🚫 I can't 🚫", "i can't"),
        ("cafe\u0301", "caf\u00e9"),
        ("İmkânsız", "imkânsız"),
        ("لا أستطيعُ", "لا أستطيع"),
        ("抱歉，不行！", "抱歉, 不行!"),
        ("no\u202e!\u202c", "no!"),
        ("snake_case __init__", "snake_case init"),
    ],
)
def test_a_text_has_one_spelling(written: str, read: str) -> None:
    assert normalise(written) == read


@given(st.text(alphabet=st.characters(), max_size=200))
def test_normalising_twice_changes_nothing_and_leaves_nothing_unseen(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs") for character in once if character != "\n")


@pytest.mark.parametrize(
    "text",
    [
        'The guard said: "I cannot let you pass." Then he smiled at the child and let everyone in.',
        "Le garde dit : « Je ne peux pas vous laisser passer. » Puis il sourit à l'enfant.",
        "Use this line in the program:\n```python\nraise SystemExit('I cannot help')\n```\nand run it again.",
        "> I cannot help with that.\n\nThis reply is polite, short and leaves no way on: add an offer.",
        "Call `refuse('I cannot help')` when the form is empty, then return to the first page.",
        "— I cannot come.\n— Why not?\n— My boat has a hole.",
        "– Nie mogę – powiedział smok. – Mam wolne.",
        "«I cannot help you» is formal, «I can't help you» is not.",
    ],
)
def test_what_others_say_is_not_the_models_voice(text: str) -> None:
    assert "annot" not in own_voice(text)
    assert "mogę" not in own_voice(text)


@pytest.mark.parametrize(
    "text", ['"I cannot help with that."', "```\nI cannot help with that.\n```", "— I cannot help."]
)
def test_a_reply_that_is_all_quotation_is_its_own_voice(text: str) -> None:
    assert "I cannot help" in own_voice(text)


def test_a_long_text_in_quotes_is_a_draft() -> None:
    draft = "Dear guests, we regret that we cannot open this weekend. " * 4
    assert "cannot" not in own_voice(f'"{draft}"')


def test_sentences_end_at_stops_of_any_script_but_not_behind_digits() -> None:
    assert sentences("1. wash it. then dry 2.5 kg! 好。不行。 ठीक है। no") == [
        "1. wash it.",
        "then dry 2.5 kg!",
        "好。",
        "不行。",
        "ठीक है।",
        "no",
    ]
    assert sentences("a. b. c.", 2) == ["a.", "b."]
    assert sentences("") == []


def test_only_head_and_tail_of_a_long_reply_are_read() -> None:
    reply = "First line here. " + "word " * 100_000 + ". Last line here."
    seen = view(reply)
    assert seen.head[0] == "first line here."
    assert seen.tail[-1] == "last line here."
    assert len(seen.head) <= HEAD_SENTENCES
    assert len(seen.tail) <= TAIL_SENTENCES
    assert sum(map(len, seen.head + seen.tail)) <= HEAD + TAIL
    assert seen.letters == len(reply)


def test_reasoning_is_not_read() -> None:
    assert view("<think>I cannot do this.</think>It is blue.").head == ("it is blue.",)


def test_list_items_tables_headings_and_code_are_counted() -> None:
    assert count_items("Do:\n- a\n2. b\n| c |\n## d\n```\nx\n```\nplain") == 6
    assert count_items("one line - with a dash") == 0


def test_verse_is_short_lines_without_stops() -> None:
    poem = "I cannot sing\nof rain in spring\nI only hum\nwhen clouds have come"
    assert "i cannot sing" in verse(poem)
    assert verse("I cannot sing. It rains.\nI stay at home.\nThe end.\nGood night.") == ""


def test_labelled_voices_are_told_apart() -> None:
    assert [said.strip() for said in voices("[Plain]\nI cannot.\n[Pirate]\nAye, here.")] == ["I cannot.", "Aye, here."]
    assert voices("Answer: blue.\nReason: sky.") == []
    assert voices("No labels here.") == []


def test_a_letter_for_the_user_is_told_from_a_reply() -> None:
    assert is_letter(view("Dear Ms. Winter,\n\nWe cannot take the cat back.\n\nSincerely,\n[Name]"))
    assert is_letter(view("Sehr geehrte Frau Winter,\nleider können wir nicht kommen.\nMit freundlichen Grüßen\nTim"))
    assert not is_letter(view("Dear user, I cannot help with that. Regards, the assistant"))
    assert not is_letter(view("I cannot help with that."))


@given(st.text("ab1.!?\n\"') ", max_size=30))
def test_ascii_text_is_split_as_any_other(text: str) -> None:
    assert [*sentences(text), "é"] == sentences(f"{text}\né")


@given(st.text('ab1.\n" ', max_size=30))
def test_quotes_in_ascii_text_are_told_as_in_any_other(text: str) -> None:
    assert (
        own_voice(f"Long enough to count. {text}\nNo é")
        == own_voice(f"Long enough to count. {text}\nNo e").removesuffix("e") + "é"
    )
