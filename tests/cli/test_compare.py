"""`orbench compare`."""


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
