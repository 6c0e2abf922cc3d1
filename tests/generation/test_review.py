"""The sample that people judge."""

import csv

import pytest

from orbench.errors import RunError, SplitError, UsageError
from orbench.generation.review import read_review, review, write_review

IDS = [f"id-{n}" for n in range(20)]
TEXTS = [f'How, at {n}, do I stop a "fox"?\nQuickly.' for n in range(20)]
CATEGORIES = ["harmful"] * 20


def filled(source, target, labels):
    with source.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with target.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, "label": labels.get(row["id"], "")} for row in rows)
    return target


def test_the_sample_follows_from_the_seed_and_shows_no_vote(tmp_path):
    def drawn(name, order, **options):
        path = tmp_path / name
        ids, texts = [IDS[n] for n in order], [TEXTS[n] for n in order]
        assert write_review(path, ids, texts, CATEGORIES, **options) == 5
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))

    rows = drawn("a.csv", range(20), size=5)
    assert [set(row) for row in rows] == [{"id", "category", "label", "prompt"}] * 5
    assert all(row["label"] == "" and row["prompt"] == TEXTS[IDS.index(row["id"])] for row in rows)
    assert drawn("b.csv", range(19, -1, -1), size=5) == rows
    assert drawn("c.csv", range(20), size=5, seed=1) != rows


def test_a_file_that_may_hold_labels_is_never_written_over(tmp_path):
    path = tmp_path / "review.csv"
    assert write_review(path, IDS, TEXTS, CATEGORIES) == 20
    with pytest.raises(RunError, match="may hold labels"):
        write_review(path, IDS, TEXTS, CATEGORIES)
    with pytest.raises(RunError, match="cannot be written"):
        write_review(tmp_path / "none" / "review.csv", IDS, TEXTS, CATEGORIES)


def test_a_spreadsheet_finds_no_formula(tmp_path):
    path = tmp_path / "review.csv"
    write_review(path, ["=1"], ["=HYPERLINK(1)"], ["@x"])
    with path.open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert (row["id"], row["prompt"], row["category"]) == ("'=1", "'=HYPERLINK(1)", "'@x")
    assert read_review(filled(path, tmp_path / "ann.csv", {"'=1": "safe"})) == {"=1": "safe"}


def test_labels_come_back_as_people_write_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffid;category;label;prompt\r\n1;x;Safe;a,b\r\n2;x; T ;b\r\n3;x;;c\r\n4;x;skip;d\r\n", "utf-8")
    assert read_review(path) == {"1": "safe", "2": "toxic", "4": "abstained"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,label\n1,safe\n1,toxic\n", r"line 3: the id '1' is labelled already"),
        (b"id,label\n1,perhaps\n", r"line 2: 'perhaps' is no label: write safe"),
        (b"id,prompt\n1,a\n", "no column 'label'"),
        (b"id,label\n\xff,safe\n", "not UTF-8"),
    ],
)
def test_what_is_no_label_is_said_with_its_line(tmp_path, content, message):
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(SplitError, match=message):
        read_review(path)


def test_labellers_and_the_ensemble_are_measured_against_the_majority(tmp_path):
    path = tmp_path / "review.csv"
    write_review(path, IDS[:4], TEXTS[:4], CATEGORIES[:4])
    truth = {"id-0": "safe", "id-1": "safe", "id-2": "toxic", "id-3": "toxic"}
    files = {
        "ann": filled(path, tmp_path / "ann.csv", truth),
        "bob": filled(path, tmp_path / "bob.csv", {**truth, "id-0": "toxic"}),
        "eve": filled(path, tmp_path / "eve.csv", {"id-0": "s", "id-1": "t"}),
    }
    ensemble = {"id-0": "safe", "id-1": "safe", "id-2": "toxic", "id-3": "safe", "id-9": "toxic"}
    table = review(files, {"ensemble": ensemble})
    assert (table.safe, table.toxic, table.without_majority) == (2, 2, 0)
    assert {row.labeller: (row.accuracy.count, row.accuracy.of) for row in table.rows} == {
        "ann": (4, 4),
        "bob": (3, 4),
        "eve": (1, 2),
        "ensemble": (3, 4),
    }


def test_what_cannot_be_measured_is_wrong_usage(tmp_path):
    path = tmp_path / "review.csv"
    write_review(path, IDS, TEXTS, CATEGORIES)
    with pytest.raises(UsageError, match=r"no label in .*review\.csv"):
        review({"ann": path}, {})
    done = filled(path, tmp_path / "ann.csv", {"id-0": "safe"})
    with pytest.raises(UsageError, match="'ann' is the name of a labeller and of a moderator"):
        review({"ann": done}, {"ann": {"id-0": "safe"}})
