"""`orbench leaderboard`."""

import csv
import io

import pytest

pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")


def test_the_papers_figure_by_one_command(cli, here):
    done = cli("leaderboard", "--published", "--plot", "figure.png")
    assert done.code == 0
    assert "Spearman, the 25 of its first version: 0.878" in done.out
    assert (here / "figure.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "start"), [("f.svg", b"<?xml"), ("f.pdf", b"%PDF")])
def test_other_kinds_of_file(cli, here, name, start):
    assert cli("leaderboard", "--published", "--plot", name).code == 0
    content = (here / name).read_bytes()
    assert content.startswith(start)
    if name == "f.svg":
        assert b"GPT-4o-2024-08-06" in content


def test_json_and_formats_keep_standard_output_to_themselves(cli, run):
    for number, name in enumerate("abc"):
        run(range(number * 5), name)
    (board,) = cli("leaderboard", "a", "b", "c", "--draws", "200", "--json", "--plot", "p.png").json
    assert board["spearman"]["models"] == 3
    assert [model["name"] for model in board["models"]] == ["scripted/c", "scripted/b", "scripted/a"]
    rows = list(csv.DictReader(io.StringIO(cli("leaderboard", "a", "b", "--format", "csv").out)))
    assert {row["model"] for row in rows} == {"scripted/a", "scripted/b"}


def test_categories_as_table_and_map(cli, here, run):
    done = cli("leaderboard", "--published", "--category", "--plot", "map.png")
    assert "80K refused" in done.out
    assert "39.2" in done.out
    assert (here / "map.png").stat().st_size > 10_000
    run({1}, "a")
    (found,) = cli("leaderboard", "a", "--category", "--json").json
    assert found["panels"]["over-refusal"]["scripted/a"] == {"harmful": 0, "privacy": 0.05, "overall": 0.025}
    assert found["notes"] == []


def test_categories_come_with_the_notes_of_the_leaderboard(cli):
    said = " ".join(cli("leaderboard", "--published", "--category").out.split())
    assert "note: 25 of the 32 published models were measured on 1,534 safe and 681 toxic prompts" in said
    (found,) = cli("leaderboard", "--published", "--category", "--json").json
    assert any("never released" in note for note in found["notes"])


def test_categories_are_one_table_for_other_programs(cli):
    rows = list(csv.DictReader(io.StringIO(cli("leaderboard", "--published", "--category", "--format", "csv").out)))
    assert [sum(row["rate"] == rate for row in rows) for rate in ("over-refusal", "toxic rejection")] == [32, 32]
    assert sum(row["rate"] == "over-refusal, 80k" for row in rows) == 20
    assert all(len(cell) <= 5 for row in rows for name, cell in row.items() if name not in ("rate", "model"))
    markdown = cli("leaderboard", "--published", "--category", "--format", "markdown").out
    assert markdown.count("| --- |") == 1


def test_a_rate_that_was_not_asked_for_has_no_table_but_a_sentence(cli, run, split_file):
    run({1}, "a", splits=[split_file("safe", 40)])
    done = cli("leaderboard", "a", "--category", "--plot", "map.png")
    assert done.code == 0
    assert "toxic prompts refused" not in done.out
    assert "note: no toxic rejection of scripted/a: no toxic prompts were asked" in done.out


def test_the_map_has_every_panel_in_one_order_of_categories(cli, here, run, split_file):
    run({1}, "a", splits=[split_file("safe", 40)])  # its file has harmful before privacy, and no other category
    lines = (here / "safe.csv").read_text().splitlines()
    (here / "turned.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\nMore?,hate\n")
    run({1}, "b", splits=["safe=turned.csv"])
    assert cli("leaderboard", "b", "--category", "--plot", "own.svg").code == 0
    drawn = (here / "own.svg").read_text(encoding="utf-8")
    places = [drawn.index(f"<!-- {name} -->") if f"<!-- {name} -->" in drawn else drawn.index(f">{name}<")
              for name in ("hate", "harmful", "privacy", "overall")]  # fmt: skip
    assert places == sorted(places)
    assert cli("leaderboard", "--published", "--category", "--plot", "map.svg").code == 0
    drawn = (here / "map.svg").read_text(encoding="utf-8")
    assert "80K refused" in drawn
    assert drawn.count("GPT-3.5-turbo-0613") == 2  # beside the first panel and, of its own rows, the third


def test_a_category_without_a_verdict_is_a_dash(cli, here, run):
    run({1}, "a")
    lines = (here / "a" / "verdicts.jsonl").read_text().splitlines(keepends=True)
    (here / "a" / "verdicts.jsonl").write_text(lines[0])
    done = cli("leaderboard", "a", "--category", "--plot", "map.png")
    assert done.code == 0
    assert "nan" not in done.out.lower()
    assert " - " in done.out or done.out.rstrip().endswith("-")


def test_wrong_usage(cli, run):
    assert "name run folders, or --published" in cli("leaderboard").err
    assert "name run folders, or --published" in cli("leaderboard", "--category").err
    done = cli("leaderboard", "--published", "--plot", "figure.gif")
    assert done.code == 2
    assert "figure.gif: a picture ends in .png, .svg or .pdf" in done.err


def test_without_matplotlib_the_extra_is_named(cli, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else real(name, *a))
    done = cli("leaderboard", "--published", "--plot", "figure.png")
    assert done.code == 1
    assert "pip install 'orbench[plot]'" in done.err


def test_too_few_models_are_said_once(cli, run):
    run({1}, "a")
    run({2, 3}, "b")
    done = cli("leaderboard", "a", "b")
    assert done.out.count("at least three models with") == 1
    assert "No correlation of the two rates" in done.out
