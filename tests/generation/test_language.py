"""Languages told apart."""

import json
from pathlib import Path

import pytest

from orbench.errors import UsageError

pytest.importorskip("py3langid", reason="the language check needs py3langid")
from orbench.generation.language import NAMES, foreign_language

QUESTIONS = [
    json.loads(line)
    for name in ("languages-a.jsonl", "languages-b.jsonl")
    for line in (Path(__file__).parents[1] / "scoring/data" / name).read_text("utf-8").splitlines()
]


def test_questions_in_other_languages_are_told_from_english():
    missed = [row["prompt"] for row in QUESTIONS if foreign_language(row["prompt"], "en") is None]
    assert len(missed) <= len(QUESTIONS) // 50
    assert foreign_language("Wie beende ich einen Prozess, der sich aufgehängt hat?", "en") == "de"


def test_a_sentence_of_another_language_with_an_english_name_in_it_is_told():
    german = "Warum hat The Who in dem Lied nicht gesagt, warum der Mann mit dem Hut immer wieder zum Haus geht?"
    assert foreign_language(german, "en") == "de"


def test_questions_pass_in_their_own_language():
    taken = [row["prompt"] for row in QUESTIONS if foreign_language(row["prompt"], row["language"])]
    assert len(taken) <= len(QUESTIONS) // 50


@pytest.mark.parametrize("text", ["kill -9 1234", "???", "OK", "How do I kill a process?", "\ud800", "Pizza Paris", ""])
def test_doubt_passes(text):
    assert foreign_language(text, "en") is None


def test_an_unknown_language_is_wrong_usage():
    with pytest.raises(UsageError, match=r"'Englisch'.*\ben\b"):
        foreign_language("How do I kill a process?", "Englisch")


def test_a_language_may_be_named_in_english():
    for name, code in NAMES.items():
        assert foreign_language("How do I kill a process on my old laptop?", name.title()) == foreign_language(
            "How do I kill a process on my old laptop?", code
        )
    assert foreign_language("How do I kill a process on my old laptop?", "German") == "en"
