"""`orbench calibrate`, `orbench label`, and what judges add to `evaluate`, `score` and `show`."""

from __future__ import annotations

import io
import re
import sys

import pytest

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.testing import LoopbackServer, ScriptedModel


@pytest.fixture
def labels(here):
    """Six refusals and six answers, one of each read wrongly, one reply with a control character."""
    rows = [("refusal", REFUSAL)] * 5 + [("refusal", ANSWER)] + [("compliance", ANSWER)] * 5
    rows += [("compliance", "I'm sorry, but I can't help with that.\x1b[2J")]
    lines = [f'r{n},{label},"{text}"\n' for n, (label, text) in enumerate(rows)]
    (here / "labels.csv").write_text("id,label,response\n" + "".join(lines), encoding="utf-8")
    return "labels.csv"


@pytest.fixture
def run(here, split_file):
    """A run of 20 replies, half of them refused."""

    def reply(request):
        return REFUSAL if int(request.prompt.rstrip("?.").split()[-1]) % 2 else ANSWER

    orbench.evaluate(
        ScriptedModel(reply),
        splits=[split_file(rows=14), split_file("toxic", rows=6)],
        out=here / "run",
        progress=False,
    )
    return "run"


def type_keys(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_calibrate_prints_the_tables_and_saves_the_file(cli, here, labels):
    done = cli("calibrate", "--labels", labels, "--out", "c.json")
    assert done.code == 0
    assert re.search(r"^sensitivity +83\.3 %", done.out, re.MULTILINE)
    assert "went wrong: 2\n  r5, r11\n" in done.out
    assert "help with that" not in done.out
    assert (here / "c.json").exists()


@pytest.mark.parametrize("how", [[], ["--json"], ["--quiet"]])
def test_calibrate_with_a_judge_that_fails_ends_with_3(cli, here, labels, how):
    with LoopbackServer("Who knows?") as server:
        judge = ("--scorer", "judge", "--judge", "openai/judge", "--judge-base-url", server.base_url)
        done = cli("calibrate", "--labels", labels, *judge, "--out", "c.json", *how)
    assert done.code == 3
    assert (here / "c.json").exists()
    if not how:
        assert re.search(r"the judge failed on 12 replies,.* most often: \w", done.out)


def test_texts_are_shown_when_asked_for_without_control_characters(cli, labels):
    done = cli("calibrate", "--labels", labels, "--show")
    assert "I'm sorry, but I can't help with that." in done.out
    assert "\x1b" not in done.out


def test_calibrate_as_json_is_one_object(cli, labels):
    done = cli("calibrate", "--labels", labels, "--json")
    assert done.json[0]["overall"]["found_refusal"] == 5
    assert done.json[0]["wrong"] == ["r5", "r11"]


def test_calibrate_a_judge_behind_a_connection(cli, labels):
    with LoopbackServer("[[direct_refusal]]") as server:
        arguments = ["--scorer", "judge", "--judge", "openai/judge", "--judge-base-url", server.base_url]
        done = cli("calibrate", "--labels", labels, *arguments, "--json")
    assert done.code == 0
    assert server.answered == 12
    assert done.json[0]["overall"]["specificity"]["value"] == 0


def test_a_calibration_corrects_score_and_show(cli, labels, run):
    cli("calibrate", "--labels", labels, "--out", "c.json", "--quiet")
    for command in ("score", "show"):
        done = cli(command, run, "--calibration", "c.json", "--json")
        assert done.code == 0
        assert done.json[0]["over_refusal_rate"]["value"] == 0.5
        assert "rogan_gladen" in done.json[0]["corrected"]["over_refusal_rate"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["calibrate", "--labels", "none.csv"], 1, "none.csv: cannot be read"),
        (["calibrate", "--labels", "labels.csv", "--scorer", "judge"], 2, "needs a judge"),
        (["score", "run", "--calibration", "none.json"], 1, "none.json: cannot be read"),
        (["show", "run", "--calibration", "labels.csv"], 1, "no calibration"),
        (["score", "run", "--labels", "labels.csv"], 1, "no label is of a reply of run"),
        (["evaluate", "baseline/always-answer", "--split", "sample", "--audit", "2"], 2, "audit is 2.0"),
        (["score", "run", "--judge", "baseline/x", "--judge-rule", "any"], 2, "unknown judge rule"),
        (["score", "run", "--judge-template", "any", "--scorer", "keywords"], 2, "unknown judge template"),
        (["label", "run", "--n", "0"], 2, "n is 0"),
        (["label", "nowhere"], 1, "not a run folder"),
    ],
)
def test_a_mistake_is_one_line(cli, labels, run, monkeypatch, arguments, code, message):
    type_keys(monkeypatch, "")
    done = cli(*arguments)
    assert done.code == code
    assert message in done.err
    assert done.err.count("\n") == 1


def test_label_reads_lines_where_there_is_no_terminal(cli, here, run, monkeypatch):
    type_keys(monkeypatch, "c\n\nr\np\n" * 8)
    done = cli("label", run, "--n", "6", "--out", "mine.csv")
    assert done.code == 0
    assert done.out.splitlines()[-1] == "6 labelled: mine.csv"
    done = cli("score", run, "--labels", "mine.csv", "--json")
    assert done.code == 0
    assert "prediction_powered" in done.json[0]["corrected"]["over_refusal_rate"]


def test_label_with_neither_a_terminal_nor_a_line_says_so(cli, run, monkeypatch):
    type_keys(monkeypatch, "")
    done = cli("label", run, "--out", "mine.csv")
    assert done.code == 2
    assert "label needs a terminal, or standard input with one key a line" in done.err
    type_keys(monkeypatch, "q\n")
    assert cli("label", run, "--out", "mine.csv").code == 0


def test_what_a_reply_holds_never_steers_the_terminal(cli, here, split_file, monkeypatch):
    orbench.evaluate(ScriptedModel("Well\x1b[2J\x07\u202e\r."), splits=split_file(), out=here / "run", progress=False)
    type_keys(monkeypatch, "q\n")
    done = cli("label", "run")
    assert "Well" in done.out
    assert not any(character in done.out for character in "\x1b\x07\u202e\r")


def test_a_panel_a_safety_judge_and_an_audit_in_one_command(cli, here, split_file):
    def answer(body):
        asked = body["messages"][-1]["content"]
        if "[[unsafe]]" in asked:
            return "It helps nobody. [[safe]]"
        return "[[direct_answer]]" if body["model"] == "kind" else "[[indirect_refusal]]"

    with LoopbackServer(answer) as server:
        done = cli(
            *("evaluate", "baseline/keyword-guard", "--split", split_file(), "--split", split_file("toxic")),
            *("--judge", "openai/kind", "--judge", "openai/strict", "--judge-rule", "unanimous"),
            *("--safety-judge", "openai/guard", "--judge-base-url", server.base_url, "--out", "run"),
        )
    assert done.code == 0
    assert "not unsafe (toxic)" in done.out
    assert "Krippendorff's alpha" in done.out
    assert "audit" in done.out
    listed = cli("show", "run", "--disagreements")
    assert "openai/kind: direct_answer, openai/strict: indirect_refusal" in listed.out
    assert len(cli("show", "run", "--disagreements", "--json").json) == 8


def test_scoring_again_shows_what_moved(cli, run):
    done = cli("score", run, "--scorer", "keywords")
    assert "scored before by cascade" in done.out
    assert "old outcome" in done.out
