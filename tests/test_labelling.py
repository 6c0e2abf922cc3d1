"""A person labels replies: which are drawn, what keys do, what the file keeps."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import orbench
from orbench import Prompt, RunError, Split, UsageError
from orbench.labelling import COLUMNS, draw, label_run
from orbench.labels import load_labels
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.testing import ScriptedModel

Run = Callable[..., orbench.Evaluation]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def make(safe: int = 200, toxic: int = 0, name: str = "run") -> orbench.Evaluation:
        def reply(request: orbench.Request) -> str:
            number = int(request.prompt.split()[-1].rstrip("?"))
            return "Hm." if number % 10 == 0 else REFUSAL if number % 2 else ANSWER

        splits = [
            Split(
                kind,
                [
                    Prompt(id=str(n), text=f"A {kind} question {n}?", category="hate", kind=kind, split=kind)  # type: ignore[arg-type]
                    for n in range(rows)
                ],
                "here",
            )
            for kind, rows in (("safe", safe), ("toxic", toxic))
            if rows
        ]
        return orbench.evaluate(ScriptedModel(reply), splits=splits, out=tmp_path / name, progress=False)

    return make


def label(result: orbench.Evaluation, out: Path, keys: str, n: int = 10) -> list[str]:
    shown: list[str] = []
    label_run(result, out, n=n, seed=0, keys=iter(keys), write=shown.append)
    return shown


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_doubtful_replies_are_drawn_more_often_and_weigh_less(run: Run) -> None:
    tasks = draw(run(), 60)
    assert len(tasks) == 60
    strata = Counter(task.stratum for task in tasks)
    assert strata["safe/undecided"] / 20 > 2 * strata["safe/sure"] / 180
    assert sum(task.weight for task in tasks) == pytest.approx(200)
    assert [task.id for task in draw(run(name="run"), 60)] == [task.id for task in tasks]


def test_more_than_there_are_means_all(run: Run) -> None:
    assert len(draw(run(20), 100)) == 20
    with pytest.raises(UsageError, match="n is 0"):
        draw(run(20), 0)


def test_a_run_with_nothing_to_read_is_told(tmp_path: Path) -> None:
    prompts = [Prompt(id="0", text="How?", category="hate", kind="safe", split="s")]
    result = orbench.evaluate(ScriptedModel(""), splits=[Split("s", prompts, "here")], out=tmp_path / "e")
    with pytest.raises(RunError, match="no reply in it that can be labelled"):
        draw(result, 5)


def test_each_key_is_a_label_in_the_file_at_once(run: Run, tmp_path: Path) -> None:
    shown = label(run(), tmp_path / "l.csv", "crpsq")
    rows = read(tmp_path / "l.csv")
    assert [row["label"] for row in rows] == ["compliance", "refusal", "partial", "skipped"]
    assert tuple(rows[0]) == COLUMNS
    assert shown[-1].startswith("4 of 10 labelled")
    assert load_labels(tmp_path / "l.csv").rows[1].refused is True


def test_undo_takes_the_last_label_back_and_shows_the_reply_again(run: Run, tmp_path: Path) -> None:
    result = run()
    shown = label(result, tmp_path / "l.csv", "ucruuq")
    assert "nothing to undo" in shown
    assert sum(line.startswith("undone: ") for line in shown) == 2
    assert read(tmp_path / "l.csv") == []
    label(result, tmp_path / "l.csv", "cuc", n=1)
    assert [row["label"] for row in read(tmp_path / "l.csv")] == ["compliance"]


def test_the_same_command_goes_on_where_it_stopped(run: Run, tmp_path: Path) -> None:
    result = run()
    label(result, tmp_path / "l.csv", "cc")
    label(result, tmp_path / "l.csv", "rrq")
    shown = label(result, tmp_path / "l.csv", "pppppp")
    rows = read(tmp_path / "l.csv")
    assert [row["label"] for row in rows] == ["compliance"] * 2 + ["refusal"] * 2 + ["partial"] * 6
    assert len({row["id"] for row in rows}) == 10
    assert shown[-1].startswith("10 labelled")
    assert {task.id for task in draw(result, 10)} == {row["id"] for row in rows}


def test_replies_to_toxic_prompts_are_hidden_until_asked_for(run: Run, tmp_path: Path) -> None:
    result = run(safe=0, toxic=20)
    shown = label(result, tmp_path / "l.csv", "cq")
    assert not any("question" in line for line in shown)
    assert "show it first: space" in shown
    shown = label(result, tmp_path / "l.csv", " rs")
    assert sum("toxic question" in line for line in shown) == 1
    assert [row["label"] for row in read(tmp_path / "l.csv")] == ["refusal", "skipped"]


def test_any_other_key_gives_help_and_no_label(run: Run, tmp_path: Path) -> None:
    shown = label(run(), tmp_path / "l.csv", "x q")
    assert sum("compliance, r refusal" in line for line in shown) == 2
    assert read(tmp_path / "l.csv") == []


def test_labels_of_another_run_are_not_mixed_in(run: Run, tmp_path: Path) -> None:
    label(run(), tmp_path / "l.csv", "c")
    before = (tmp_path / "l.csv").read_bytes()
    with pytest.raises(RunError, match="holds labels of"):
        label(run(30, name="other"), tmp_path / "l.csv", "c")
    assert (tmp_path / "l.csv").read_bytes() == before


def test_the_labels_correct_the_run_they_were_made_on(run: Run, tmp_path: Path) -> None:
    result = run()
    tasks = {task.id: task for task in draw(result, 80)}
    keys = "".join("r" if task.row.response == REFUSAL else "c" for task in tasks.values())
    label(result, tmp_path / "l.csv", keys, n=80)
    found = result.correct(labels=tmp_path / "l.csv")["over_refusal_rate"]["prediction_powered"]
    assert found["value"] == pytest.approx(0.5)  # of 200: 100 refusals, 80 answers, 20 unread that are answers
    assert result.over_refusal_rate.value == pytest.approx(100 / 180)


def test_as_many_are_drawn_as_were_asked_for(run: Run) -> None:
    result = run(40, 40)
    for n in range(1, 10):
        tasks = draw(result, n)
        assert len(tasks) == n
        assert n < 4 or len({task.stratum for task in tasks}) == 4


def test_labels_of_a_run_that_was_scored_again_are_not_mixed_with_those_before(run: Run, tmp_path: Path) -> None:
    label(run(), tmp_path / "l.csv", "ccc")
    before = (tmp_path / "l.csv").read_bytes()
    again = orbench.score(
        tmp_path / "run", scorer="judge", judge=ScriptedModel("[[direct_answer]]", name="scripted/judge")
    )
    with pytest.raises(RunError, match=r"was drawn from safe/sure of 180 .* Choose another --out"):
        label(again, tmp_path / "l.csv", "c")
    assert (tmp_path / "l.csv").read_bytes() == before
    assert again.correct(labels=tmp_path / "l.csv")["labels"]["used"] == 3


def test_undo_takes_replies_of_any_length(tmp_path: Path) -> None:
    prompts = [Prompt(id=str(n), text=f"How {n}?", category="hate", kind="safe", split="s") for n in range(2)]
    model = ScriptedModel("word " * 40_000)
    result = orbench.evaluate(model, splits=[Split("s", prompts, "here")], out=tmp_path / "run", progress=False)
    label(result, tmp_path / "l.csv", "cucuq")
    with (tmp_path / "l.csv").open(encoding="utf-8") as file:
        assert file.readlines()[1:] == []
    label(result, tmp_path / "l.csv", "cc")
    assert len(load_labels(tmp_path / "l.csv").rows) == 2


@pytest.mark.parametrize("content", [b"hello\n", b"\xff\xfe\n", b"id,response,label\n1,No.,refusal\n"])
def test_a_file_of_something_else_is_left_alone(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(RunError, match="has other columns"):
        label(run(), tmp_path / "l.csv", "c")
    assert (tmp_path / "l.csv").read_bytes() == content
