"""Cleaning: every prompt is kept or dropped for one reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.errors import UsageError
from orbench.generation.cleaning import Cleaned, Dropped, Rules, clean, comparable, counts, normalised, words

QUESTION = "How do I stop a process that hangs on my old laptop without losing my open files?"


def reasons(texts, **rules):
    return [each.dropped for each in clean(texts, Rules(**rules))]


PIECES = [
    "kill",
    "a",
    "process",
    "write to ann@example.com",
    "call +1 212 555 0123",
    "Why",
    "why?",
    "猫",
    "  ",
    "x" * 30,
]


@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=8).map(" ".join), max_size=20),
    st.sampled_from(["flag", "scrub", "drop", "keep"]),
    st.sampled_from([0.5, 0.8, 1.0]),
)
def test_kept_and_reasons_add_up_to_what_came_in(texts, personal_data, likeness):
    rules = Rules(min_characters=5, max_characters=60, personal_data=personal_data, likeness=likeness)
    cleaned = clean(texts, rules)
    assert len(cleaned) == len(texts)
    assert sum(counts(cleaned).values()) == len(texts)
    for place, each in enumerate(cleaned):
        repeats = each.dropped in (Dropped.DUPLICATE, Dropped.NEAR_DUPLICATE)
        assert (each.of is not None) == repeats
        if each.of is not None:
            assert each.of < place
            assert cleaned[each.of].dropped is None
    kept = [each.text for each in cleaned if each.dropped is None]
    assert [each.dropped for each in clean(kept, rules)] == [None] * len(kept)  # clean stays clean


def test_each_reason_names_what_it_rests_on():
    texts = ["Why?", "why " * 300, f"{QUESTION} Ask ann@example.com.", QUESTION]
    cleaned = clean(texts, Rules(personal_data="drop"))
    assert [(each.dropped, each.detail) for each in cleaned] == [
        ("too short", "4 characters"),
        ("too long", "1199 characters"),
        ("personal data", "email"),
        (None, ""),
    ]
    assert counts(cleaned) == {
        "kept": 1,
        "too short": 1,
        "too long": 1,
        "other language": 0,
        "personal data": 1,
        "duplicate": 0,
        "near duplicate": 0,
    }


def test_the_same_text_in_another_dress_is_a_duplicate():
    texts = [QUESTION, f"  {QUESTION.upper()} ", QUESTION.replace("?", " !"), QUESTION.replace(" ", "\u00a0\n")]
    assert [(each.dropped, each.of) for each in clean(texts)] == [(None, None), *[("duplicate", 0)] * 3]
    assert reasons(["cafe\u0301 for two persons", "café for two persons"]) == [None, "duplicate"]


def test_near_duplicates_fall_to_the_first_of_their_group():
    other = "What is the safest way to get rid of old paint at home?"
    texts = [other, QUESTION, QUESTION.replace("old", "new"), QUESTION.replace("old", "NEW")]
    cleaned = clean(texts)
    assert [(each.dropped, each.of) for each in cleaned] == [
        (None, None),
        (None, None),
        ("near duplicate", 1),
        ("duplicate", 1),  # of the one that fell: it repeats the one that was kept
    ]


def test_the_threshold_decides_what_is_near():
    changed = QUESTION.replace("old", "new").replace("laptop", "desktop").replace("files", "letters")
    assert reasons([QUESTION, changed]) == [None, None]
    assert reasons([QUESTION, changed], likeness=0.6) == [None, "near duplicate"]
    assert reasons([QUESTION, QUESTION.replace("old", "new")], likeness=1) == [None, None]


def test_a_dropped_prompt_takes_no_other_with_it():
    long = "why " * 300
    assert reasons([long, long]) == ["too long", "too long"]
    texts = [f"{QUESTION} Ask ann@example.com.", f"{QUESTION} Ask bob@example.com."]
    assert reasons(texts, personal_data="drop") == ["personal data", "personal data"]


def test_personal_data_is_flagged_scrubbed_or_dropped():
    text = f"{QUESTION} Ask ann@example.com."
    [flagged] = clean([text])
    assert flagged == Cleaned(text=text, personal_data=("email",))
    [scrubbed] = clean([text], Rules(personal_data="scrub"))
    assert scrubbed == Cleaned(text=f"{QUESTION} Ask [email].", personal_data=("email",))
    assert clean([text], Rules(personal_data="keep")) == [Cleaned(text=text)]
    assert clean([text], Rules(personal_data="drop"))[0].dropped == "personal data"


def test_what_scrubbing_makes_alike_is_a_duplicate():
    texts = [f"{QUESTION} Ask ann@example.com.", f"{QUESTION} Ask bob@example.com."]
    assert reasons(texts, personal_data="scrub") == [None, "duplicate"]


def test_sentences_of_scripts_without_blanks_are_compared_by_their_characters():
    cat = "ノートパソコンで動かなくなったプロセスを安全に終了するにはどうすればよいですか"
    assert reasons([cat, cat.replace("安全", "確実"), "猫と犬のどちらを飼うべきか教えてください"]) == [
        None,
        "near duplicate",
        None,
    ]
    assert words("C++ and 猫犬") == ["c", "and", "猫", "犬"]
    assert comparable("Don't KILL it!") == "don't kill it"


def test_texts_without_a_word_are_compared_as_they_stand():
    assert normalised("?!") != normalised("!!")
    assert reasons(["?" * 20, "!" * 20, "?" * 20]) == [None, None, "duplicate"]


def test_another_language_is_a_reason_of_its_own():
    pytest.importorskip("py3langid", reason="the language check needs py3langid")
    texts = [QUESTION, "Wie beende ich einen Prozess, der sich auf meinem alten Rechner aufgehängt hat?"]
    [kept, dropped] = clean(texts, Rules(language="en"))
    assert kept.dropped is None
    assert (dropped.dropped, dropped.detail) == ("other language", "de")


@pytest.mark.parametrize(
    "rules", [{"min_characters": -1}, {"min_characters": 9, "max_characters": 8}, {"likeness": 0}, {"likeness": 1.1}]
)
def test_rules_that_cannot_be_meant_are_refused(rules):
    with pytest.raises(UsageError):
        Rules(**rules)
