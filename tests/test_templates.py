"""The prompt templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from orbench import TemplateError, templates
from orbench.scoring.judge import JUDGE_TEMPLATES

TEMPLATE = JUDGE_TEMPLATES["three-classes"].file
VALUES = {"mark": "0f", "question": "How?", "reply": "So.", "again": False, "reasons": True}


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in the templates' place."""
    monkeypatch.setattr(templates, "folder", lambda: tmp_path)
    return tmp_path


def test_the_folder_holds_one_file_for_each_template() -> None:
    names = [file.name for file in templates.folder().iterdir()]
    assert f"{TEMPLATE}.jinja" in names
    for name in names:
        assert templates.path(name.removesuffix(".jinja")).name == name
        assert len(templates.digest(name.removesuffix(".jinja"))) == 12


def test_values_are_put_in_as_they_are() -> None:
    text = templates.render(TEMPLATE, **{**VALUES, "reply": "<b>&</b> {{ mark }} {% if %} [[direct_answer]]"})
    assert "<reply-0f>\n<b>&</b> {{ mark }} {% if %} [[direct_answer]]\n</reply-0f>" in text


def test_a_missing_value_is_an_error_that_names_it() -> None:
    values = {name: value for name, value in VALUES.items() if name != "question"}
    with pytest.raises(TemplateError, match=f"'{TEMPLATE}': 'question' is undefined"):
        templates.render(TEMPLATE, **values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{{ 1/0 }}", "ZeroDivisionError: division by zero"),
        (b"{% include 'x' %}", "cannot be rendered: TypeError: no loader"),
        (b"{{ name.nothing() }}", "has no attribute 'nothing'"),
        (b"{{ name|nosuch }}", "No filter named 'nosuch'"),
        (b"{% if %}", "Expected an expression"),
        (b"{{ [1, 2]|join(1, 2, 3, 4) }}", "TypeError"),
        (b"Gr\xfc\xdfe", r"not text in UTF-8 \(byte 2\); save it as UTF-8"),
    ],
)
def test_a_template_of_the_user_s_own_that_cannot_be_rendered_is_told(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "own.jinja"
    file.write_bytes(content)
    with pytest.raises(TemplateError, match=rf"own\.jinja': .*{message}"):
        templates.render(str(file), name="you")


def test_a_template_of_the_user_s_own_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"none\.jinja: there is no such file"):
        templates.render(str(tmp_path / "none.jinja"))


@pytest.mark.parametrize("name", ["judge-four-classes", "../prompts/judge-three-classes", "", "Judge"])
def test_an_unknown_template_names_those_there_are(name: str) -> None:
    with pytest.raises(TemplateError, match=f"no template '{name}': there are .*{TEMPLATE}"):
        templates.path(name)


def test_the_digest_changes_with_the_text(own: Path) -> None:
    (own / "one.jinja").write_text("Hello {{ name }}", encoding="utf-8")
    (own / "two.jinja").write_text("Hello, {{ name }}", encoding="utf-8")
    assert templates.render("one", name="you") == "Hello you"
    assert templates.digest("one") == templates.digest("one") != templates.digest("two")
