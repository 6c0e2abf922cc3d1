"""`orbench check`."""

from pathlib import Path
from xml.etree import ElementTree


def test_exit_code_0_says_that_every_limit_is_kept(cli, run):
    run((), "good")
    done = cli("check", "good", "--max-over-refusal", 0.2)
    assert done.code == 0
    assert done.out.startswith(
        "passed: scripted/good (good)\n  kept: over-refusal at most 20.0 %, found 0.0 % (0.0-8.8 %)"
    )


def test_one_run_that_does_not_pass_fails_the_command(cli, run):
    run((), "good")
    run(range(40), "bad")
    done = cli("check", "good", "bad", "--max-over-refusal", 0.2, "--json")
    assert done.code == 1
    assert [gate["passed"] for gate in done.json] == [True, False]
    assert done.json[1]["checks"][0]["status"] == "broken"


def test_quiet_prints_nothing(cli, run):
    run((), "good")
    assert cli("check", "good", "--max-over-refusal", 0.2, "--quiet").out == ""


def test_the_junit_file_holds_a_case_for_each_limit(cli, run):
    run((), 'a<b>&"c')
    done = cli("check", 'a<b>&"c', "--max-over-refusal", 0.2, "--min-toxic-rejection", 0.9, "--junit", "gate.xml")
    assert done.code == 1
    (suite,) = ElementTree.parse("gate.xml").getroot()
    assert suite.get("name") == 'scripted/a<b>&"c (a<b>&"c)'
    assert (suite.get("tests"), suite.get("failures")) == ("2", "1")
    kept, broken = suite
    assert kept.get("name") == "over_refusal_rate"
    assert kept.find("failure") is None
    assert "at least 90.0 %" in broken.find("failure").get("message")


def test_in_a_github_workflow_a_table_is_added_to_the_summary(cli, run, monkeypatch):
    run((), "good")
    Path("summary.md").write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    cli("check", "good", "--max-over-refusal", 0.2)
    lines = Path("summary.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "before"
    assert "| scripted/good | good | over-refusal at most 20.0 % |" in lines[3]
    assert lines[3].endswith("kept |")


def test_two_runs_of_one_model_are_told_apart(cli, run, monkeypatch):
    for name in ("monday", "tuesday"):
        run((), "good", shard="1/2").run.rename(name)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    assert cli("check", "monday", "tuesday", "--max-over-refusal", 0.5, "--junit", "gate.xml").code == 3
    suites = ElementTree.parse("gate.xml").getroot()
    assert [suite.get("name") for suite in suites] == ["scripted/good (monday)", "scripted/good (tuesday)"]
    assert "shard 1 of 2" in suites[0].find("testcase/failure").get("message")
    assert Path("summary.md").read_text(encoding="utf-8").count("| scripted/good | tuesday | finished |") == 1


def test_what_cannot_be_checked_is_one_line(cli, run):
    run((), "good")
    assert cli("check", "good").code == 2
    assert cli("check", "good", "--max-over-refusal", 15).code == 2
    assert "not a run folder" in cli("check", "nowhere", "--max-over-refusal", 0.2).err
    done = cli("check", "good", "--max-over-refusal", 0.2, "--junit", "no/such/folder.xml")
    assert done.code == 1
    assert "cannot be written" in done.err
