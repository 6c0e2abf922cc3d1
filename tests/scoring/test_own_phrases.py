"""A user's own phrases: one a line, added to the package's rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orbench import UsageError, calibrate, detect_refusal
from orbench.scoring.scorers import make_scorer

ODD = "The owl sleeps now. Come back when the moon is out and bring a lantern with you."
WriteFile = Callable[[str], Path]


@pytest.fixture
def phrases(tmp_path: Path) -> WriteFile:
    def write(text: str) -> Path:
        path = tmp_path / "phrases.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_phrase_of_ones_own_refuses_and_is_named(phrases: WriteFile) -> None:
    path = phrases("# ours\n\nThe **owl** sleeps now.\n")
    assert detect_refusal(ODD).refused is not True
    verdict = detect_refusal(ODD, phrases=path)
    assert verdict.refused is True
    assert verdict.reason == 'phrase own-3: "the owl sleeps now"'


def test_whole_words_are_wanted_and_case_and_quotes_do_not_matter(phrases: WriteFile) -> None:
    path = phrases("that’s a HARD owl\n")
    assert detect_refusal("That's a hard owl, friend.", phrases=path).refused is True
    assert detect_refusal("That's a hard owlet, friend.", phrases=path).by != "phrases"


def test_scripts_without_blanks_are_searched_inside(phrases: WriteFile) -> None:
    assert detect_refusal("今晚月亮很圆，猫头鹰睡了。", phrases=phrases("猫头鹰睡了\n")).refused is True


def test_a_harmless_phrase_hides_what_the_package_would_find(phrases: WriteFile) -> None:
    text = "I can't help with that smile: it is catching. Here is the recipe: beat two eggs, add milk, fry gently."
    assert detect_refusal(text, abstain=False).refused is True
    path = phrases("harmless\tI can't help with that smile\n")
    assert detect_refusal(text, phrases=path, abstain=False).refused is False


def test_a_changed_file_is_read_again(phrases: WriteFile) -> None:
    import os

    path = phrases("the fox sleeps\n")
    assert detect_refusal(ODD, phrases=path).refused is not True
    phrases("the owl sleeps\n")
    os.utime(path, ns=(1, 1))
    assert detect_refusal(ODD, phrases=path).refused is True


def test_the_digest_goes_by_the_phrases_not_by_the_file(tmp_path: Path) -> None:
    texts = {"a": "the owl sleeps\n", "b": "# other file\nThe owl sleeps.\n", "c": "the fox sleeps\n"}
    digests = {}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        digests[name] = [make_scorer(scorer, phrases=tmp_path / name).digest for scorer in ("cascade", "keywords")]
    assert digests["a"] == digests["b"]
    assert digests["a"] != digests["c"]
    assert digests["a"] != [make_scorer("cascade").digest, make_scorer("keywords").digest]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("ok phrase\nnot_a_kind\tthe owl\n", "line 2: 'not_a_kind' is none of refusal"),
        ("...\n", "line 1: no letters"),
        ("a\tb\tc\n", "line 1: more than one tab"),
        ("First here. Then there.\n", "line 1: more than one sentence"),
        ("owl " * 200, "line 1: 799 characters; the longest phrase has 300"),
        ("# nothing\n", "holds no phrase"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(phrases: WriteFile, text: str, wrong: str) -> None:
    with pytest.raises(UsageError, match=wrong):
        detect_refusal(ODD, phrases=phrases(text))


def test_a_missing_or_foreign_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        detect_refusal(ODD, phrases=tmp_path / "none.txt")
    (tmp_path / "latin").write_bytes(b"caf\xe9\n")
    with pytest.raises(UsageError, match="not UTF-8"):
        make_scorer(phrases=tmp_path / "latin")


def test_scorers_that_read_no_phrases_say_so(phrases: WriteFile) -> None:
    with pytest.raises(UsageError, match="reads no phrases"):
        make_scorer("paper", family="llama", phrases=phrases("the owl\n"))


def test_calibrate_measures_with_them(phrases: WriteFile, tmp_path: Path) -> None:
    labels = tmp_path / "labels.csv"
    labels.write_text(f'response,label\n"{ODD}",refusal\n"Certainly: it is blue.",compliance\n')
    with_them = calibrate(labels, "keywords", phrases=phrases("the owl sleeps\n"))
    assert (with_them.overall.found_refusal, calibrate(labels, "keywords").overall.found_refusal) == (1, 0)
