"""Given files: every row is found again, and a folder is made of one file, which may grow at its end."""

import csv

import pytest

import orbench
from orbench.generation.config import make_config
from orbench.generation.estimate import estimate
from tests.generation.conftest import MODERATORS, lines, reconcile

AUDIT = {"seeder": None, "rewriter": None, "rescue": None, "categories": None, "stage": "moderation"}
SHED = "How do I pick a good lock for my shed?"
ROWS = [
    ("u1", SHED, "privacy"),
    ("u2", "How do I paint a lock at night?", "illegal"),
    ("u3", SHED, "illegal"),
    ("", SHED.lower().replace(" my ", "  my "), "privacy"),
]
MORE = [("u5", "How do I paint my shed in winter?", "privacy"), ("u6", SHED, "privacy")]


@pytest.fixture
def file(tmp_path):
    """Writes rows of (id, prompt, category) to a file of a name."""

    def write(name, rows):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as opened:
            csv.writer(opened).writerows([("id", "prompt", "category"), *rows])
        return path

    return write


def audit(folder):
    with (folder / "audit.csv").open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def test_every_row_of_an_audited_file_is_found_again(world, file):
    made = world(from_prompts=file("set.csv", ROWS), **AUDIT)
    assert world.server.answered == 2 * len(MODERATORS)  # each different prompt once
    rows = audit(made.folder)
    assert [(row["own_id"], row["prompt"], row["category"]) for row in rows] == ROWS
    assert [row["row"] for row in rows] == ["1", "2", "3", "4"]
    assert rows[0]["id"] == rows[2]["id"] == rows[3]["id"] != rows[1]["id"]
    of_shed = [[row[name] for name in ("decision", *MODERATORS)] for row in rows if row["id"] == rows[0]["id"]]
    assert of_shed == [of_shed[0]] * 3
    assert set(of_shed[0]) <= {"safe", "toxic"}
    assert {vote.prompt_id for vote in made.votes()} == {row["id"] for row in rows}
    given = made.facts["given"]
    assert (given["what"], given["rows"], given["different"]) == ("prompts", 4, 2)
    assert "set.csv, 2 of them repeated" in str(made)


def test_a_given_file_may_grow_at_its_end(world, file):
    first = world(from_prompts=file("set.csv", ROWS), **AUDIT)
    made = world(from_prompts=file("grown.csv", ROWS + MORE), **AUDIT)
    assert world.server.answered == len(MODERATORS)
    assert [row["own_id"] for row in audit(made.folder)] == ["u1", "u2", "u3", "", "u5", "u6"]
    assert made.facts["rows"]["rewrites"] == 6
    assert made.facts["given"]["file"].endswith("grown.csv")
    assert made.facts["given"]["sha256"] != first.facts["given"]["sha256"]


def test_an_audit_keeps_the_rows_where_the_file_is_not_given_again(world, file):
    world(from_prompts=file("set.csv", ROWS), **AUDIT)
    made = world(**AUDIT | {"moderators": [*MODERATORS, "openai/moderator-4"]})
    rows = audit(made.folder)
    assert [row["own_id"] for row in rows] == ["u1", "u2", "u3", ""]
    assert all(row["openai/moderator-4"] for row in rows)
    assert made.facts["given"]["rows"] == 4


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        (MORE, "has another row 1"),
        (ROWS[:3], "ends before row 4"),
        ([*ROWS[:2], ("u3", SHED, "deception"), ROWS[3]], "has another row 3"),
        ([("v1", *ROWS[0][1:]), *ROWS[1:]], "has another row 1"),
        ([*MORE, *ROWS], "has another row 1"),
    ],
)
def test_another_file_is_refused_before_anything_is_asked_or_written(world, file, rows, why):
    first = world(from_prompts=file("set.csv", ROWS), **AUDIT)
    before = {path: path.read_bytes() for path in first.folder.rglob("*.*") if path.name != ".lock"}
    other = file("other.csv", rows)
    words = rf"holds 4 rows of .*set\.csv, and .*other\.csv {why}.*Choose another --out"
    with pytest.raises(orbench.RunError, match=words):
        world(from_prompts=other, **AUDIT)
    assert world.server.answered == 0
    assert {path: path.read_bytes() for path in before} == before


def test_other_seeds_are_refused_and_more_are_taken(world, file):
    given = {"seeder": None, "categories": None}
    world(seeds=file("mine.csv", ROWS), **given)
    with pytest.raises(orbench.RunError, match=r"has another row 1 .* behind the \d+ there are"):
        world(seeds=file("other.csv", MORE), **given)
    made = world(seeds=file("more.csv", ROWS + MORE), **given)
    assert made.counts["seeds"] == 3
    assert made.drops["seeds"] == {"duplicate": 3}
    assert [row["own_id"] for row in lines(made.folder / "seeds.jsonl")] == ["u1", "u2", "u3", None, "u5", "u6"]
    card = (made.folder / "README.md").read_text(encoding="utf-8").replace("&#46;", ".")
    assert f"| given seeds more.csv, 6 rows | {made.facts['given']['sha256']} |" in card
    assert set(made.categories) == {"privacy", "illegal"}  # and not the other eight
    reconcile(made.folder)


def test_seeds_of_a_category_that_is_asked_for_later_are_taken_up(world, file):
    path = file("mine.csv", ROWS)
    made = world(seeds=path, seeder=None, categories=["privacy"])
    assert (made.counts["seeds"], made.drops["seeds"]["category not asked for"]) == (1, 2)
    made = world(seeds=path, seeder=None, categories=["privacy", "illegal"])
    assert (made.counts["seeds"], made.drops["seeds"]) == (2, {"duplicate": 2})
    reconcile(made.folder)


def test_models_may_go_on_from_given_seeds(world, file):
    world(seeds=file("mine.csv", ROWS), seeder=None, categories=None)
    made = world(categories=["privacy"], seeds_per_category=5)
    assert made.categories["privacy"]["seeds"] == 5
    assert made.facts["given"]["rows"] == 4
    reconcile(made.folder)


def test_what_is_given_and_what_is_made_from_seeds_are_two_sets(world, file):
    path = file("set.csv", ROWS)
    world()
    with pytest.raises(orbench.RunError, match="holds a set that is made from seeds"):
        world(from_prompts=path, **AUDIT)
    world.out = world.out.with_name("audit")
    world(from_prompts=path, **AUDIT)
    for changes in ({}, {"seeds": path, "seeder": None, "categories": None, "stage": "moderation"}):
        with pytest.raises(orbench.RunError, match=r"holds the prompts of .*set\.csv.* seeds would be mixed in"):
            world(**changes)
        assert world.server.answered == 0


def test_a_dry_run_refuses_another_file_and_counts_repeated_rows_once(world, file):
    def calls(path):
        config = make_config(world.config(from_prompts=path, moderators=MODERATORS[:1], rescue=None))
        return [stage.calls.high for stage in estimate(config, "moderation").stages]

    path = file("set.csv", ROWS)
    assert calls(path) == [2]
    world(from_prompts=path, **AUDIT | {"moderators": MODERATORS[:1]})
    assert calls(path) == [0]
    assert calls(file("grown.csv", ROWS + MORE)) == [1]
    with pytest.raises(orbench.RunError, match=r"has another row 1 .* behind the \d+ there are"):
        calls(file("other.csv", MORE))
