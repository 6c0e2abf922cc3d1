"""The dataset card."""

import re

import pytest
import yaml

from orbench.errors import UsageError
from orbench.generation.agreement import accuracies, alpha, leave_one_out, pairs
from orbench.generation.card import render_card, size_category
from orbench.generation.diversity import diversity

VOTES = {
    "openai/a": {"1": "safe", "2": "toxic", "3": "safe", "4": "abstained"},
    "openai/b": {"1": "safe", "2": "toxic", "3": "toxic", "4": "safe"},
}
LEAST = {"name": "Mild", "language": "en", "splits": {"all": 1200}, "version": "0.1.0"}
FULL = LEAST | {
    "license": "cc-by-4.0",
    "splits": {"all": 1200, "hard": 90, "toxic": 60},
    "counts": {"seeds": 400, "rewrites": 2000, "kept": 1200},
    "categories": {"harmful": {"seeds": 200, "rewrites": 1000, "kept": 700}, "medical": {"seeds": 200}},
    "definitions": {"medical": "advice that only a doctor should give"},
    "usage": {
        "seeder mistral/x": {"requests": 20, "input_tokens": 1000, "output_tokens": 2345, "cost_usd": None},
        "moderator openai/a": {"requests": 9, "input_tokens": 1, "output_tokens": 1, "cost_usd": 0.0012},
    },
    "rule": "safe if at least 2 of 3 moderators say so",
    "rescue": "mistral/7b",
    "moderators": {"openai/a": {"safe": 2, "toxic": 1, "abstained": 1}},
    "pairs": pairs(VOTES),
    "alpha": alpha(VOTES),
    "left_out": leave_one_out(VOTES, lambda names: lambda own: own.get(names[-1], "undecided")),
    "yields": {"rewriter mistral/x": {"prompts": 2000, "let_through": 1200}},
    "panel": ["openai/p", "google/q", "anthropic/r"],
    "hard_min": 2,
    "drops": {"cleaning": {"near duplicate": 17, "too long": 0}},
    "overlap": {"hard-1k": {"exact": 3, "near": 2, "run of words": 1}},
    "diversity": diversity(["How do I stop a fox?", "How do I stop an owl?"], ["harmful"] * 2),
    "review": accuracies(VOTES),
    "digests": {"template generate-seeds": "abc123"},
    "command": "orbench generate --out mild",
    "seed": 7,
}


def header(card):
    return yaml.safe_load(re.match(r"---\n(.*?)^---\n", card, re.DOTALL | re.MULTILINE)[1])


def tables(card):
    """Every row of every table as its cells; rows of one table must have as many cells as its head."""
    rows = []
    for block in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        cells = [[cell.strip() for cell in line.strip("\n")[1:-1].split("|")] for line in block.strip().split("\n")]
        assert {len(row) for row in cells} == {len(cells[0])}, block
        assert set("".join(cells[1])) == {"-"}, block
        rows += [cells[0], *cells[2:]]
    return rows


def test_the_header_is_what_the_hub_reads():
    found = header(render_card(FULL))
    assert found["license"] == "cc-by-4.0"
    assert found["language"] == ["en"]
    assert found["size_categories"] == ["1K<n<10K"]
    assert found["configs"] == [
        {"config_name": "all", "data_files": "splits/all.parquet", "default": True},
        {"config_name": "hard", "data_files": "splits/hard.parquet"},
        {"config_name": "toxic", "data_files": "splits/toxic.parquet"},
    ]
    assert "over-refusal" in found["tags"]


@pytest.mark.parametrize("name", ["a: b", "- x", "[x]", "---\nlicense: mit", "# x", "'", "yes", "\u2028", "null"])
def test_no_name_breaks_the_header(name):
    found = header(render_card({**FULL, "name": name}))
    assert found["pretty_name"] == name
    assert found["license"] == "cc-by-4.0"


def test_every_fact_is_in_a_table():
    found = tables(render_card(FULL))
    for row in (
        ["hard", "90", "those safe prompts that the panel refuses"],
        ["harmful", "200", "1,000", "700"],
        ["medical", "200", "0", "0"],
        ["all", "400", "2,000", "1,200"],
        ["seeder mistral/x", "20", "1,000", "2,345", "unknown"],
        ["moderator openai/a", "9", "1", "1", "&#60;0.01"],
        ["rewriter mistral/x", "2,000", "1,200", "60.0 %"],
        ["openai/a", "2", "1", "1", "66.7 %"],
        ["openai/a and openai/b", "3", "66.7 %", "20.8-93.9 %", "0.400"],
        ["cleaning", "near duplicate", "17"],
        ["hard-1k", "3", "2", "1"],
        ["template generate-seeds", "abc123"],
    ):
        assert row in found
    assert not [row for row in found if "too long" in row]


def test_the_panel_is_named_with_its_bias():
    card = render_card(FULL)
    assert "at least 2 of these models refuse:\n- openai/p\n- google/q\n- anthropic/r\n" in card
    assert "biased upwards" in card
    assert "biased" not in render_card(LEAST)


def test_what_is_not_known_is_not_mentioned():
    card = render_card(LEAST)
    assert "license" not in header(card)
    assert re.findall("^## (.*)", card, re.MULTILINE) == ["How it was made", "Limits"]
    tables(card)


def test_text_of_models_has_no_meaning_to_markdown_or_html():
    evil = '<img src=x onerror="alert(1)"> | **b** [x](http://y)\n# T'
    card = render_card({**FULL, "categories": {evil: {"seeds": 1}}, "rule": evil, "definitions": {evil: evil}})
    for piece in ("<img", "**b**", "](http", "\n# T"):
        assert piece not in card
    tables(card)


@pytest.mark.parametrize("facts", [{**LEAST, "licence": "mit"}, {**LEAST, "splits": 3}, {"name": "x"}])
def test_facts_of_another_shape_are_refused(facts):
    with pytest.raises(UsageError, match="facts of the card"):
        render_card(facts)


@pytest.mark.parametrize(
    ("rows", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (80_359, "10K<n<100K"), (2_000_000, "1M<n<10M")]
)
def test_sizes_are_the_hubs(rows, name):
    assert size_category(rows) == name
