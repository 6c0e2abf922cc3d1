"""`orbench compare`."""

import csv
import io

import pytest

import orbench
from orbench.models.baseline import REFUSAL


@pytest.fixture
def on_orbench(run, here):
    """A run on files called hard-1k and toxic, which are not the released ones."""
    for name in ("hard-1k", "toxic"):
        (here / f"{name}.csv").write_text("prompt,category\n" + "".join(f"Prompt {n}?,harmful\n" for n in range(20)))
    with pytest.warns(orbench.OrbenchWarning):
        return run({1}, "own", splits=["hard-1k", "toxic"], data=here)


def test_the_command_prints_the_table(cli, run):
    run(range(3), "a")
    run(range(30), "b")
    done = cli("compare", "a", "b")
    assert done.code == 0
    assert "over-refusal: B refuses more, by 67.5 points" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())
    assert "privacy" in cli("compare", "a", "b", "--categories").out


def test_the_command_gives_json_and_other_formats(cli, run):
    run({1}, "a")
    run({2}, "b")
    (found,) = cli("compare", "a", "b", "--json").json
    assert found["runs"] == ["scripted/a", "scripted/b"]
    assert found["pairs"][0]["over_refusal"]["only_a"] == 1
    assert cli("compare", "a", "b", "--format", "csv").out.startswith("first,second,")
    assert cli("compare", "a", "b", "--format", "odt").code == 2


def test_the_command_lists_flips(cli, run):
    run({1}, "a")
    run({2}, "b")
    flips = cli("compare", "a", "b", "--flips", "--json").json
    assert [flip["refused_by"] for flip in flips] == ["scripted/a", "scripted/b"] * 2
    assert "refused by B (direct_answer / direct_refusal)" in cli("compare", "a", "b", "--flips").out
    assert cli("compare", "a", "b", "--flips", "--category", "privacy", "--json").json[0]["category"] == "privacy"
    assert cli("compare", "a", "b", "--category", "privacy").code == 2


def test_the_command_says_what_is_wrong(cli, run):
    run({1}, "a")
    assert "at least two" in cli("compare", "a").err
    assert "not a run folder" in cli("compare", "a", "nowhere").err


def test_a_list_of_flips_that_cannot_be_had_is_refused_before_the_first(cli, run, on_orbench):
    with pytest.warns(orbench.OrbenchWarning):
        run({2}, "other", splits=["hard-1k", "toxic"], data=".")
    done = cli("compare", "own", "other", "published:gpt-4o", "--flips")
    assert (done.code, done.out) == (2, "")
    assert "the paper published rates, not replies" in done.err


def test_flips_of_a_category_that_nobody_has_are_wrong_usage(cli, run):
    run({1}, "a")
    run({2}, "b")
    done = cli("compare", "a", "b", "--flips", "--category", "nonsense")
    assert (done.code, done.out) == (2, "")
    assert "unknown category 'nonsense': there are harmful, privacy" in done.err


def test_flips_for_other_programs(cli, run):
    run({1}, "a")
    run({2}, "b")
    rows = list(csv.DictReader(io.StringIO(cli("compare", "a", "b", "--flips", "--format", "csv").out)))
    assert [row["refused by"] for row in rows] == ["scripted/a", "scripted/b"] * 2
    assert rows[0]["prompt"] == "Kill process 1?"
    assert (rows[0]["reply A"], rows[0]["outcome B"]) == (REFUSAL, "direct_answer")
    assert cli("compare", "a", "b", "--flips", "--format", "markdown").out.startswith("| first |")
    assert cli("compare", "a", "b", "--flips", "--format", "odt").code == 2
