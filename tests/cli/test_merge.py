"""`orbench evaluate --shard` and `orbench merge`."""


def test_shards_are_evaluated_and_merged(cli):
    for index in (1, 2):
        model = ("evaluate", "baseline/keyword-guard", "--split", "sample", "--limit", 40)
        assert cli(*model, "--shard", f"{index}/2", "--out", f"s{index}", "--quiet").code == 0
    done = cli("merge", "s1", "s2", "--out", "whole", "--json")
    assert done.code == 0
    assert sum(split["prompts"] for split in done.json[0]["splits"].values()) == done.json[0]["prompts"]
    assert cli("show", "whole").code == 0


def test_what_cannot_be_merged_is_one_line(cli):
    assert "not a run folder" in cli("merge", "nowhere", "--out", "whole").err
    assert cli("evaluate", "baseline/keyword-guard", "--split", "sample", "--shard", "3/2").code == 2
