"""`orbench show --statistics` and `--format`."""

import json

import orbench
from orbench.models.baseline import ANSWER


def test_a_category_without_a_verdict_has_no_rate(cli, run, here):
    run({1}, "a")
    lines = (here / "a" / "verdicts.jsonl").read_text().splitlines(keepends=True)
    (here / "a" / "verdicts.jsonl").write_text(lines[0])
    done = cli("show", "a", "--statistics")
    assert "nan" not in done.out.lower()
    found = cli("show", "a", "--statistics", "--json").json[0]
    assert [finding["value"] is None for finding in found["categories"]] == [False, True, True, True]
    assert "nan" not in json.dumps(found).lower()


def test_the_command_prints_it(cli, run):
    run(range(10), "a")
    done = cli("show", "a", "--statistics")
    assert "Both at once, with 95 % confidence: over-refusal" in done.out
    assert "over-refusal     25.0 %    14.2-40.2 %  14.2-40.2 %       40      40    1.00" in done.out
    assert all(len(line) <= 80 for line in done.out.splitlines())


def test_show_gives_the_same(cli, run):
    run(range(10), "a")
    assert cli("show", "a", "--format", "csv").out == orbench.Evaluation.load("a").to_csv()
    assert cli("show", "a", "--format", "nope").code == 2


def test_a_rate_that_is_not_there_is_said_in_words(cli, run, split_file):
    run({1}, "a", splits=split_file("safe", 5))
    said = cli("show", "a", "--statistics").out
    assert "No toxic rejection rate: no toxic prompt has an outcome that counts." in said
    assert "No over-refusal" not in said


def test_a_category_without_a_scored_prompt_is_said_in_words(cli, run):
    def reply(request):
        return "" if int(request.prompt.split()[-1][:-1]) % 2 else ANSWER

    run(reply, "a")
    said = " ".join(cli("show", "a", "--statistics").out.split())
    assert "No over-refusal rate of privacy: no prompt has an outcome that counts." in said
    assert "privacy -" not in said


def test_a_run_without_any_outcome_has_no_empty_tables(cli, run):
    run(lambda request: "", "a")
    said = cli("show", "a", "--statistics").out
    assert "No over-refusal rate: no safe prompt has an outcome that counts." in said
    assert "0/0" not in said
    assert "Holm" not in said
