"""`--shard` and `orbench.merge`: the parts of a run make the run."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.records import Completion, Prompt, Usage
from orbench.shards import Shard, parse_shard, take
from orbench.splits import Split
from orbench.testing import ScriptedModel


def lines(path):
    """Lines of a file without what differs by time, in any order."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return sorted(json.dumps({k: v for k, v in row.items() if k not in ("received_at", "latency_s")}) for row in rows)


@pytest.fixture
def shards(run):
    """Evaluates all shards of a run; refused are the prompts with the given numbers."""

    def evaluate(count, refused=range(5), **options):
        for index in range(1, count + 1):
            run(refused, "m", out=f"shard-{index}", shard=f"{index}/{count}", **options)
        return [f"shard-{index}" for index in range(1, count + 1)]

    return evaluate


@pytest.fixture
def run(here, split_file):
    splits = [split_file("safe", 40), split_file("toxic", 30)]

    def evaluate(refused, name, *, out=None, **options):
        def reply(request):
            return REFUSAL if int("".join(filter(str.isdigit, request.prompt))) in refused else ANSWER

        model = ScriptedModel(refused if callable(refused) else reply, name=f"scripted/{name}")
        return orbench.evaluate(model, **{"splits": splits, "out": out or name, **options})

    return evaluate


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_merged_shards_hold_what_one_run_holds(run, shards, count):
    whole = run(range(5), "m", out="whole")
    merged = orbench.merge(shards(count)[::-1], "merged")
    for name in ("responses.jsonl", "verdicts.jsonl"):
        assert lines(f"merged/{name}") == lines(f"whole/{name}")
    expected, found = whole.to_dict(), orbench.Evaluation.load("merged").to_dict()
    assert found | {"run": "whole"} == expected
    assert merged.to_dict() == found
    assert merged.config["digest"] == whole.config["digest"]


def test_a_merged_run_goes_on_as_the_whole_run_would(run, shards):
    def reply(request):
        if "7" in request.prompt:
            raise orbench.RejectedError("not today")
        return ANSWER

    orbench.merge(shards(2, reply), "merged")
    asked = []

    def answer(request):
        asked.append(request.prompt)
        return ANSWER

    result = run(answer, "m", out="merged")
    assert asked
    assert all("7" in prompt for prompt in asked)
    assert not result.open


def test_a_shard_that_was_stopped_is_not_merged(run, shards):
    folders = shards(2)
    whole = Path("shard-2/responses.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    Path("shard-2/responses.jsonl").write_text("".join(whole[:-3]), encoding="utf-8")
    with pytest.raises(orbench.RunError, match="shard-2: not finished, 3 prompts are owed"):
        orbench.merge(folders, "merged")
    assert not Path("merged").exists()
    run(range(5), "m", out="shard-2", shard="2/2")
    assert orbench.merge(folders, "merged").prompts == 70


def test_a_missing_or_repeated_shard_is_named(shards):
    folders = shards(3)
    with pytest.raises(orbench.RunError, match="shard 2/3 of scripted/m is missing"):
        orbench.merge([folders[0], folders[2]], "merged")
    with pytest.raises(orbench.RunError, match="shard-1: shard 1/3 again, after shard-1"):
        orbench.merge([*folders, folders[0]], "merged")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"temperature": 0.5}, "sampling"),
        ({"system_prompt": "Be kind."}, "system prompt"),
        ({"scorer": "keywords"}, "scorer"),
        ({"policy": "strict"}, "policy"),
        ({"limit": 20}, "splits"),
        ({"shard": "2/3"}, "count"),
    ],
)
def test_shards_of_different_runs_are_refused_and_the_difference_named(run, options, what):
    run((), "m", out="one", shard="1/2")
    run((), "m", out="two", **{"shard": "2/2", **options})
    with pytest.raises(orbench.RunError, match=f"two: part of another run than one: its {what} differ"):
        orbench.merge(["one", "two"], "merged")


def test_shards_of_two_models_are_refused(run):
    run((), "m", out="one", shard="1/2")
    run((), "n", out="two", shard="2/2")
    with pytest.raises(orbench.RunError, match="its model differs"):
        orbench.merge(["one", "two"], "merged")


def test_a_whole_run_is_no_shard(run, shards):
    run((), "m", out="whole")
    with pytest.raises(orbench.RunError, match="whole: a whole run"):
        orbench.merge(["whole"], "merged")


def test_a_folder_that_is_there_is_never_touched(shards):
    folders = shards(2)
    Path("mine").mkdir()
    with pytest.raises(orbench.RunError, match="mine: is there already"):
        orbench.merge(folders, "mine")
    assert list(Path("mine").iterdir()) == []


def test_a_damaged_shard_leaves_nothing_behind(shards):
    folders = shards(2)
    with Path("shard-2/verdicts.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    with pytest.raises(orbench.RunError, match=r"verdicts\.jsonl, line"):
        orbench.merge(folders, "merged")
    assert not [path for path in Path().iterdir() if "merged" in path.name]


def test_the_tokens_of_all_shards_add_up(here, split_file):
    def reply(request):
        return Completion(id=request.id, text=ANSWER, usage=Usage(input_tokens=3, output_tokens=2))

    splits = [split_file("safe", 5)]
    for index in (1, 2):
        model = ScriptedModel(reply, name="scripted/m")
        orbench.evaluate(model, splits=splits, out=f"shard-{index}", shard=f"{index}/2")
    usage = orbench.merge(["shard-1", "shard-2"], "merged").to_dict()["usage"]
    assert (usage["requests"], usage["input_tokens"], usage["output_tokens"]) == (5, 15, 10)


def test_shards_have_folders_of_their_own_by_default(here, split_file):
    splits = [split_file("safe", 5)]
    runs = {orbench.evaluate("baseline/always-answer", splits=splits, shard=f"{n}/2").run for n in (1, 2)}
    assert len(runs) == 2


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=3), count=st.integers(1, 8))
def test_every_prompt_is_in_exactly_one_shard(sizes, count):
    splits = [
        Split(
            f"s{n}",
            [Prompt(id=str(i), text=f"{n} {i}", category="c", kind="safe", split=f"s{n}") for i in range(m)],
            "",
        )
        for n, m in enumerate(sizes)
    ]
    found = []
    lengths = {split.name: [] for split in splits}
    for index in range(1, count + 1):
        try:
            parts = take(splits, Shard(index, count))
        except orbench.UsageError:
            assert max(sizes) < index
            continue
        for part in parts:
            found += [prompt.text for prompt in part]
            lengths[part.name].append(len(part))
    assert sorted(found) == sorted(prompt.text for split in splits for prompt in split)
    assert all(max(each) - min(each) <= 1 for each in lengths.values())


@pytest.mark.parametrize("text", ["", "3", "0/2", "3/2", "-1/2", "1/0", "a/b", "1/2/3", "1.0/2", "²/3"])
def test_what_is_no_shard_is_wrong_usage(text):
    with pytest.raises(orbench.UsageError, match="write K/N"):
        parse_shard(text)


def test_a_shard_cannot_stop_early(run):
    with pytest.raises(orbench.UsageError, match="exclude each other"):
        run((), "m", shard="1/2", precision=0.1)


def test_a_shard_without_prompts_is_wrong_usage(run):
    with pytest.raises(orbench.UsageError, match="no prompt is left"):
        run((), "m", shard="90/90")


def change(folder, **values):
    """Say something else in a shard's run.json."""
    path = Path(folder) / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(("what", "says"), [("chat_template", "chat template"), ("dtype", "dtype")])
def test_shards_that_an_engine_made_in_other_ways_are_refused(shards, what, says):
    folders = shards(2)
    for folder, value in zip(folders, ("one", "two"), strict=True):
        change(folder, engine={"chat_template": "t", "dtype": "float32", what: value})
    with pytest.raises(orbench.RunError, match=f"shard-2: made with another {says} than shard-1"):
        orbench.merge(folders, "merged")


def test_other_versions_of_an_engine_are_warned_of(shards):
    folders = shards(2)
    for folder, version in zip(folders, ("2.1", "2.2"), strict=True):
        change(folder, engine={"torch": version})
    with pytest.warns(orbench.OrbenchWarning, match="several versions of torch: 2.1 in shard-1, 2.2 in shard-2"):
        orbench.merge(folders, "merged")


ONE, TWO = ({"input": number, "output": number} for number in (1, 2))


@pytest.mark.parametrize("turn", [1, -1])
def test_what_is_said_of_the_whole_run_is_said_of_all_shards(shards, turn):
    folders = shards(3)
    cut = "prompts cut to the model's context"
    change(folders[0], prices={"a": ONE}, adaptations=[f"2 {cut}"], base_url="http://one")
    change(folders[1], prices={"a": ONE, "b": TWO}, adaptations=["seed not sent", f"3 {cut}"])
    change(folders[1], judge_adaptations={"b": ["schema not sent"]}, base_url="http://one")
    change(folders[2], judge_adaptations={"b": ["schema not sent"]}, base_url="http://two")
    config = orbench.merge(folders[::turn], "merged").config
    assert config["prices"] == {"a": ONE, "b": TWO}
    assert sorted(config["adaptations"]) == [f"5 {cut}", "seed not sent"]
    assert config["judge_adaptations"] == {"b": ["schema not sent"]}
    assert (config["base_url"], config["earlier_base_urls"]) == ("http://one", ["http://two"])


def test_shards_at_other_prices_are_refused(shards):
    folders = shards(2)
    for folder, price in zip(folders, (1, 2), strict=True):
        change(folder, prices={"scripted/m": {"input": price, "output": price}})
    with pytest.raises(orbench.RunError, match="shard-2: another price of scripted/m than in shard-1"):
        orbench.merge(folders, "merged")


def test_all_shards_together_audit_what_a_run_audits_at_least(shards):
    judge = ScriptedModel("[[direct_refusal]]", name="scripted/judge")
    result = orbench.merge(shards(2, range(70), judge=judge, audit=0.01), "merged")
    assert result.to_dict()["audit"]["audited"] == 50
