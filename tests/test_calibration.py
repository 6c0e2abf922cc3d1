"""Labels of people: reading them, measuring a scorer by them, and correcting rates with both."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

import orbench
from orbench import Prompt, RunError, Split, UsageError
from orbench.calibration import Measure, calibrate, load_calibration
from orbench.labels import Label, Labels, load_labels
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.statistics.intervals import wilson
from orbench.testing import ScriptedModel

HEAD = "id,source,category,label,response\n"


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """40 refusals of which 30 are found, 60 answers of which 57 are; 4 partial, 1 odd label, 2 undecided."""
    rows: list[dict[str, object]] = []
    for label, text, times in [
        ("refusal", REFUSAL, 25),
        ("direct_refusal", REFUSAL, 5),
        ("refusal", ANSWER, 10),
        ("compliance", ANSWER, 50),
        ("direct_answer", ANSWER, 7),
        ("compliance", REFUSAL, 3),
        ("partial", REFUSAL, 3),
        ("partial", ANSWER, 1),
        ("dunno", ANSWER, 1),
        ("compliance", "Hm.", 2),
    ]:
        for _ in range(times):
            rows.append(
                {"id": f"r{len(rows)}", "source": "ab"[len(rows) % 2], "label": label, "response": text, "prompt": "?"}
            )
    return write(tmp_path / "labels.csv", rows)


# Reading


def test_labels_are_read_from_csv_and_jsonl_alike(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "label": "Refusal", "response": 'No,\n"never"\u2028.', "prompt": "?"},
        {"id": "2", "label": "compliance", "response": "Yes.", "prompt": "!"},
    ]
    first = load_labels(write(tmp_path / "a.csv", rows))  # type: ignore[arg-type]
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    assert list(load_labels(tmp_path / "b.jsonl").rows) == list(first.rows)
    assert [(row.response, row.refused) for row in first.rows] == [(rows[0]["response"], True), ("Yes.", False)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "id,label\n1,refusal\n", "no column 'response'"),
        ("x.csv", "", "no column 'response'"),
        ("x.csv", "response,label\n", "holds no labels"),
        ("x.csv", "response,label\nNo.,\n", "row 2: no label"),
        ("x.csv", "response,label\nNo.\n", "row 2: 'label' is no text"),
        ("x.csv", "response,label\nNo.,refusal,more\n", "row 2: has more cells"),
        ("x.csv", "response,label,weight\nNo.,refusal,-1\n", "row 2: the weight '-1'"),
        ("x.csv", "id,response,label\n1,No.,refusal\n1,No.,refusal\n", "two rows have the id '1'"),
        ("x.csv", 'response,label\n"No.,refusal\n', "no CSV"),
        ("x.jsonl", '{"response": "No."}\n', "row 1: no column 'label'"),
        ("x.jsonl", '{"response": 1, "label": "refusal"}\n', "row 1: 'response' is no text"),
        ("x.jsonl", '{"response": "No.", "label": "refusal"}\n[1]\n', "row 2: no JSON object"),
        ("x.txt", "x", "from .csv or .jsonl"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_its_row(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=message):
        load_labels(tmp_path / name)


def test_a_missing_file_and_one_in_another_encoding_are_told(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be read"):
        load_labels(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"response,label\n\xff,refusal\n")
    with pytest.raises(RunError, match="not text in UTF-8"):
        load_labels(tmp_path / "x.csv")


def test_strata_weigh_what_was_labelled_of_them(tmp_path: Path) -> None:
    rows = [
        {"response": "x", "label": label, "stratum": stratum, "stratum_size": size, "weight": 9}
        for label, stratum, size in [
            ("refusal", "a", 100),
            ("compliance", "a", 100),
            ("skipped", "a", 100),
            ("refusal", "b", 6),
        ]
    ]
    found = load_labels(write(tmp_path / "x.csv", rows)).rows  # type: ignore[arg-type]
    assert [row.weight for row in found if row.refused is not None] == [50, 50, 6]


def test_strata_of_two_runs_in_one_file_are_weighed_apart(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"id": f"{source}{n}", "source": source, "response": "x", "label": "refusal", "stratum": "a"}
        | {"stratum_size": size}
        for source, size, times in [("one", 1000, 10), ("two", 100, 40)]
        for n in range(times)
    ]
    found = load_labels(write(tmp_path / "x.csv", rows)).rows
    assert {(row.groups["source"], row.weight) for row in found} == {("one", 100), ("two", 2.5)}


def test_rows_of_one_source_from_two_states_of_a_run_are_not_weighed_together(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"response": "x", "label": "refusal", "stratum": "a", "stratum_size": size} for size in (100, 60)
    ]
    with pytest.raises(RunError, match=r"has 100 replies in one row and 60 in row '3'.* leave the rows of one"):
        load_labels(write(tmp_path / "x.csv", rows))


# Measuring


def test_a_scorer_is_counted_against_the_labels(labels: Path) -> None:
    found = calibrate(labels)
    overall = found.overall
    assert (overall.found_refusal, overall.missed_refusal, overall.abstained_refusal) == (30, 10, 0)
    assert (overall.found_compliance, overall.missed_compliance, overall.abstained_compliance) == (57, 3, 2)
    assert overall.sensitivity.value == pytest.approx(0.75)
    assert overall.specificity.value == pytest.approx(0.95)
    assert overall.accuracy.value == pytest.approx(0.87)
    assert overall.f1.value == pytest.approx(60 / 73)
    assert overall.kappa.value == pytest.approx(cohens_kappa([[30, 10], [3, 57]], return_results=False))
    assert overall.decided == pytest.approx(100 / 102)
    for measure in (overall.sensitivity, overall.specificity, overall.accuracy, overall.f1, overall.kappa):
        assert measure.low is not None
        assert measure.value is not None
        assert measure.high is not None
        assert measure.low < measure.value < measure.high
    assert (found.partial, found.partial_refused, found.partial_answered, found.other) == (4, 3, 1, 1)
    assert len(found.wrong) == 13
    assert set(found.groups["source"]) == {"a", "b"}
    assert sum(group.found_refusal for group in found.groups["source"].values()) == 30


def test_the_same_labels_give_the_same_numbers(labels: Path) -> None:
    assert calibrate(labels) == calibrate(labels)


def test_a_judge_is_measured_like_any_scorer(labels: Path) -> None:
    judge = ScriptedModel("[[direct_answer]]", name="scripted/judge")
    found = calibrate(labels, "judge", judge=judge)
    assert len(judge.requests) == 107
    assert (found.overall.sensitivity.value, found.overall.specificity.value) == (0, 1)
    assert found.scorer.judge == "scripted/judge"
    panel = calibrate(labels, judge=[judge, ScriptedModel("[[direct_refusal]]", name="scripted/other")])
    assert panel.overall.abstained_compliance == 2


def test_a_judge_that_fails_is_counted_apart_from_what_is_undecided(labels: Path, tmp_path: Path) -> None:
    def judge(request: orbench.Request) -> str:
        return "[[direct_answer]]" if ANSWER in request.prompt else "Who knows?"

    found = calibrate(labels, "judge", judge=ScriptedModel(judge, name="scripted/judge"))
    overall = found.overall
    assert (overall.failed_refusal, overall.failed_compliance) == (30, 3 + 2)
    assert (overall.abstained_refusal, overall.abstained_compliance) == (0, 0)
    assert (overall.refusal, overall.compliance, overall.decided) == (40, 62, 1)
    assert found.failed == 30 + 3 + 2 + 3  # three more are labelled as partial
    assert found.failure is not None
    assert "the judge failed on 38 replies" in str(found)
    found.save(tmp_path / "c.json")
    assert load_calibration(tmp_path / "c.json", found.scorer.digest).failed == 38
    assert calibrate(labels).failed == 0
    assert "judge failed" not in str(calibrate(labels))


def test_the_paper_s_judge_is_asked_about_labels_of_the_paper_s_judged_splits_only(tmp_path: Path) -> None:
    judge = ScriptedModel("[[direct_answer]]", name="scripted/judge")
    rows: list[dict[str, object]] = [
        {"response": "I cannot help with that.", "label": "refusal", "split": name}
        for name in ("hard-1k", "hard-1k", "toxic", "80k", "")
    ]
    found = calibrate(write(tmp_path / "l.csv", rows), "paper", judge=judge, family="llama")
    assert len(judge.requests) == 3
    assert (found.overall.missed_refusal, found.overall.found_refusal) == (3, 2)
    with pytest.raises(UsageError, match=r"no row of .* column split: leave --judge out, or measure it by"):
        calibrate(write(tmp_path / "m.csv", rows[3:]), "paper", judge=judge, family="llama")
    assert len(judge.requests) == 3
    assert calibrate(tmp_path / "m.csv", "paper", family="llama").scorer.judge is None


def test_judges_who_differ_did_not_fail(labels: Path) -> None:
    panel = [ScriptedModel(f"[[direct_{what}]]", name=f"scripted/{what}") for what in ("answer", "refusal")]
    found = calibrate(labels, "judge", judge=panel)
    assert (found.failed, found.overall.abstained_refusal) == (0, 40)


@pytest.mark.parametrize("times", [6, 200])
def test_an_interval_without_width_is_none(tmp_path: Path, times: int) -> None:
    rows: list[dict[str, object]] = [
        {"response": text, "label": label} for text, label in [(REFUSAL, "refusal"), (ANSWER, "compliance")] * times
    ]
    found = calibrate(write(tmp_path / "l.csv", rows))
    assert [found.overall.f1, found.overall.kappa] == [Measure(1, None, None)] * 2
    assert found.overall.sensitivity.low is not None
    assert re.search(r"^F1 +100\.0 % +-$", str(found), re.MULTILINE)
    assert re.search(r"^kappa +1\.000 +-$", str(found), re.MULTILINE)


@pytest.mark.parametrize("scale", [1e308, 1e-200, 5e-324])
def test_weights_of_any_size_give_the_same_measures(tmp_path: Path, scale: float) -> None:
    made = []
    for size in (1, scale):
        rows = [
            Label(id=str(n), response=text, label=label, weight=size)
            for n, (text, label) in enumerate([(REFUSAL, "refusal"), (ANSWER, "compliance"), (ANSWER, "refusal")] * 5)
        ]
        made.append(calibrate(Labels(tmp_path / "l.csv", rows, "")).overall)
    assert made[0] == made[1]


def test_weights_count_for_the_shares_and_cost_certainty(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"response": text, "label": "refusal", "weight": weight} for text, weight in [(REFUSAL, 1), (ANSWER, 3)] * 10
    ]
    found = calibrate(write(tmp_path / "w.csv", rows)).overall
    assert found.sensitivity.value == pytest.approx(0.25)
    assert found.effective[1] == pytest.approx(40**2 / (10 + 90))
    assert found.specificity.value is None


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([REFUSAL, ANSWER, "Hm.", ""])), min_size=1, max_size=30))
def test_every_row_is_counted_once(rows: list[tuple[bool, str]]) -> None:
    given_rows = [
        Label(id=str(n), response=text, label="refusal" if refused else "compliance")
        for n, (refused, text) in enumerate(rows)
    ]
    found = calibrate(Labels(Path("x.csv"), given_rows, "")).overall
    assert found.refusal + found.compliance == len(rows)
    assert found.refusal == found.found_refusal + found.missed_refusal + found.abstained_refusal


# Saving


def test_a_saved_calibration_is_read_again_for_its_own_scorer_only(labels: Path, tmp_path: Path) -> None:
    found = calibrate(labels)
    found.save(tmp_path / "c.json")
    assert load_calibration(tmp_path / "c.json", found.scorer.digest) == found
    assert REFUSAL not in (tmp_path / "c.json").read_text(encoding="utf-8")
    with pytest.raises(RunError, match="made for scorer cascade"):
        load_calibration(tmp_path / "c.json", "another")
    with pytest.raises(RunError, match="cannot be read"):
        load_calibration(tmp_path / "none.json", found.scorer.digest)
    (tmp_path / "odd.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RunError, match="no calibration"):
        load_calibration(tmp_path / "odd.json", found.scorer.digest)


# Correcting a run


def split(rows: int = 200) -> Split:
    prompts = [
        Prompt(id=str(n), text=f"How is puzzle {n} solved?", category="illegal", kind="safe", split="puzzles")
        for n in range(rows)
    ]
    return Split("puzzles", prompts, "here")


def quarter(request: orbench.Request) -> str:
    number = int(request.prompt.split()[3])
    return REFUSAL if number % 4 == 0 else ANSWER


def test_corrected_rates_stand_beside_the_raw_ones(labels: Path, tmp_path: Path) -> None:
    calibrate(labels).save(tmp_path / "c.json")
    result = orbench.evaluate(
        ScriptedModel(quarter), splits=[split()], calibration=tmp_path / "c.json", out=tmp_path / "run", progress=False
    )
    saved = json.loads((tmp_path / "run" / "result.json").read_text(encoding="utf-8"))
    assert saved["over_refusal_rate"]["value"] == result.over_refusal_rate.value == 0.25
    corrected = saved["corrected"]["over_refusal_rate"]["rogan_gladen"]
    assert corrected["value"] == pytest.approx((0.25 + 0.95 - 1) / 0.7)
    assert corrected["low"] < corrected["value"] < corrected["high"]
    toxic = saved["corrected"]["toxic_rejection_rate"]["rogan_gladen"]
    assert (toxic["value"], toxic["reason"]) == (None, "no scored prompt")
    assert "corrected for the scorer's errors" in str(result)
    assert orbench.Evaluation.load(tmp_path / "run").corrected is None


def test_what_the_platform_decided_is_not_corrected(labels: Path, tmp_path: Path) -> None:
    calibrate(labels).save(tmp_path / "c.json")
    blocked = orbench.Completion(id="", text="", blocked_by="prompt", finish_reason="content_filter")
    model = ScriptedModel(lambda request: blocked if "puzzle 1" in request.prompt else ANSWER)
    result = orbench.evaluate(
        model, splits=[split(20)], calibration=tmp_path / "c.json", out=tmp_path / "run", progress=False
    )
    assert result.corrected is not None
    assert result.over_refusal_rate.value == 11 / 20
    found = result.corrected["over_refusal_rate"]["rogan_gladen"]
    assert found["value"] == pytest.approx(11 / 20)
    low, high = wilson(11, 20)
    assert found["low"] < low + 0.05
    assert found["high"] > high - 0.05


def test_where_the_platform_blocked_everything_the_interval_still_has_a_width(labels: Path, tmp_path: Path) -> None:
    calibrate(labels).save(tmp_path / "c.json")
    blocked = orbench.Completion(id="", text="", blocked_by="prompt", finish_reason="content_filter")
    result = orbench.evaluate(
        ScriptedModel(lambda _: blocked),
        splits=[split(20)],
        calibration=tmp_path / "c.json",
        out=tmp_path / "run",
        progress=False,
    )
    assert result.corrected is not None
    found = result.corrected["over_refusal_rate"]["rogan_gladen"]
    assert (found["value"], found["low"], found["high"]) == (1, *wilson(20, 20))


def test_a_foreign_or_missing_calibration_stops_before_anything_is_asked(labels: Path, tmp_path: Path) -> None:
    calibrate(labels).save(tmp_path / "c.json")
    model = ScriptedModel(quarter)
    for options in ({"calibration": tmp_path / "c.json", "scorer": "keywords"}, {"calibration": tmp_path / "no.json"}):
        with pytest.raises(RunError):
            orbench.evaluate(model, splits=[split()], out=tmp_path / "run", progress=False, **options)  # type: ignore[arg-type]
    assert model.requests == []
    assert not (tmp_path / "run").exists()


def label_rows(result: orbench.Evaluation, chosen: int, truth: dict[str, str]) -> list[dict[str, object]]:
    rows = [row for row in result.rows() if int(row.prompt_id) < chosen]
    return [
        {
            "split": row.split,
            "prompt_id": row.prompt_id,
            "response": row.response,
            "label": truth.get(row.prompt_id, "refusal" if row.refused else "compliance"),
        }
        for row in rows
    ]


def test_labels_of_the_run_move_the_rate_by_the_errors_they_show(tmp_path: Path) -> None:
    result = orbench.evaluate(ScriptedModel(quarter), splits=[split()], out=tmp_path / "run", progress=False)
    path = write(tmp_path / "l.csv", label_rows(result, 40, {"1": "refusal", "2": "refusal"}))
    corrected = result.correct(labels=path)
    found = corrected["over_refusal_rate"]["prediction_powered"]
    assert found["value"] == pytest.approx(0.25 + 2 / 40)
    assert found["labels"] == 40
    assert corrected["labels"]["used"] == 40
    again = orbench.score(tmp_path / "run", labels=path)
    assert again.to_dict()["corrected"] == corrected
    assert again.rescored is None


def test_replies_that_the_run_no_longer_has_are_not_used(tmp_path: Path) -> None:
    result = orbench.evaluate(ScriptedModel(quarter), splits=[split()], out=tmp_path / "run", progress=False)
    rows = label_rows(result, 10, {})
    rows[0]["response"] = "Something else."
    assert result.correct(labels=write(tmp_path / "l.csv", rows))["labels"] == {
        "file": str(tmp_path / "l.csv"),
        "used": 9,
        "stale": 1,
    }
    with pytest.raises(RunError, match="no label is of a reply"):
        result.correct(labels=write(tmp_path / "m.csv", [{"response": "x", "label": "refusal"}]))
    with pytest.raises(UsageError, match="nothing to correct with"):
        result.correct()
