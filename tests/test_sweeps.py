"""One model under several conditions."""

import json

import pytest

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.records import Completion
from orbench.statistics.clusters import clustered_rate
from orbench.statistics.paired import Pairs, mean_difference, paired_difference
from orbench.testing import ScriptedModel


def number(request):
    return int("".join(filter(str.isdigit, request.prompt)))


def model():
    """Refuses ten prompts; every other one at temperature 1; all with a system prompt; seeds move prompt 0."""

    def reply(request):
        if request.system_prompt:
            return REFUSAL
        if request.sampling.temperature:
            return REFUSAL if number(request) % 2 or (number(request) == 0 and request.sampling.seed % 2) else ANSWER
        return REFUSAL if number(request) < 10 else ANSWER

    return ScriptedModel(reply)


@pytest.fixture
def splits(here, split_file):
    return [split_file("safe", 20), split_file("toxic", 30)]


def labels(found):
    return [cell.label for cell in found.cells]


def test_each_further_value_changes_one_thing(splits):
    found = orbench.sweep(
        model(), temperatures=[0, 1], system_prompts=["Be kind."], defenses=["self-reminder"], splits=splits, out="s"
    )
    assert labels(found) == ["temperature 0", "temperature 1", 'system prompt "Be kind."', "self-reminder"]
    assert [cell.condition.temperature for cell in found.cells] == [0, 1, 0, 0]


def test_a_grid_has_all_combinations(splits):
    found = orbench.sweep(
        model(), temperatures=[0, 1], system_prompts=["Be kind."], defenses=["self-reminder"], grid=True, splits=splits
    )
    assert len(found.cells) == 8
    assert labels(found)[-1] == 'temperature 1, system prompt "Be kind.", self-reminder'


def test_differences_are_paired_with_the_first_cell(splits):
    found = orbench.sweep(model(), temperatures=[0, 1], system_prompts=["Be kind."], splits=splits)
    first, warm, system = (cell.over_refusal for cell in found.cells)
    assert first.rate.value == 0.5
    assert (first.difference, first.changed, first.stable) == (None, None, None)
    assert warm.difference == pytest.approx(0)
    assert warm.changed == 0.5
    assert (warm.low, warm.high) == paired_difference(Pairs(5, 5, 5, 5))
    assert system.difference == 0.5
    assert (system.low, system.high) == paired_difference(Pairs(10, 0, 10, 0))
    assert found.cells[2].toxic_rejection.difference == pytest.approx(2 / 3)


def test_repetitions_of_a_prompt_count_as_one_prompt(splits):
    found = orbench.sweep(model(), temperatures=[0, 1], repeat=4, splits=splits, seed=10)
    cold, warm = (cell.over_refusal for cell in found.cells)
    assert cold.stable == 1
    assert warm.stable == 19 / 20
    assert warm.rate.clusters == 20
    assert warm.rate.prompts == 80
    hits = [n % 2 == 1 or (n == 0 and seed % 2 == 1) for n in range(20) for seed in range(4)]
    expected = clustered_rate(hits, [n for n in range(20) for _ in range(4)])
    assert (warm.rate.low, warm.rate.high) == pytest.approx((expected.low, expected.high))
    each = [(0.5 if n == 0 else n % 2) - (n < 10) for n in range(20)]
    assert warm.difference == pytest.approx(sum(each) / 20)
    assert (warm.low, warm.high) == pytest.approx(mean_difference(each))


def test_repetitions_that_are_all_alike_tell_no_more_than_one(splits):
    one, three = (
        orbench.sweep(model(), system_prompts=["Be kind."], repeat=repeat, splits=splits, out=f"r{repeat}").cells[1]
        for repeat in (1, 3)
    )
    assert (three.over_refusal.low, three.over_refusal.high) == (one.over_refusal.low, one.over_refusal.high)


def test_system_prompts_that_begin_alike_are_told_apart(splits):
    prompts = [f"You are a helpful assistant that is {how}, and answers in French." for how in ("careful", "careless")]
    found = orbench.sweep(model(), system_prompts=prompts, splits=splits)
    assert labels(found)[1].startswith("system prompt 1 ")
    assert labels(found)[2].startswith("system prompt 2 ")


def test_smoothllm_asks_other_copies_in_each_repetition(splits):
    asked = ScriptedModel(ANSWER)
    orbench.sweep(asked, defenses=["smoothllm"], repeat=2, splits=splits[0], limit=1)
    assert len({request.prompt for request in asked.requests}) == 1 + 2 * 10


def test_replies_in_error_are_said_to_be_asked_again(splits):
    broken = ScriptedModel(Completion(id="", text="", error="lost"))
    found = orbench.sweep(broken, splits=splits)
    said = " ".join(str(found).split())
    assert "50 replies are missing or unread: the same `orbench sweep` command asks for them again" in said


def test_without_toxic_prompts_it_says_so(splits):
    found = orbench.sweep(model(), temperatures=[0, 1], splits=splits[0])
    assert "toxic rejection: no prompt of this kind has a verdict in any cell." in str(found)


def test_a_verdict_has_changed_where_that_of_most_repetitions_has(splits):
    found = orbench.sweep(model(), temperatures=[0, 1], repeat=3, splits=splits, seed=1)
    # Prompt 0 is refused by two of three seeds, as it always is in the first cell.
    assert found.cells[1].over_refusal.changed == 9 / 20


def test_each_prompt_is_followed_through_the_cells(splits):
    found = orbench.sweep(model(), temperatures=[0, 1], repeat=2, splits=splits)
    prompts = {prompt.prompt_id: prompt for prompt in found.prompts() if prompt.kind == "safe"}
    shares = sorted(prompt.refused for prompt in prompts.values())
    assert shares == sorted([(1, 0.5)] + [(1, 1)] * 5 + [(1, 0)] * 4 + [(0, 1)] * 5 + [(0, 0)] * 5)
    assert sum(prompt.is_steady for prompt in prompts.values()) == 10
    frame = found.to_pandas()
    assert list(frame.columns)[-2:] == ["temperature 0", "temperature 1"]
    assert len(frame) == 50


def test_the_same_call_again_asks_nothing(splits):
    first = orbench.sweep(model(), temperatures=[0, 1], repeat=2, splits=splits)
    again = model()
    second = orbench.sweep(again, temperatures=[0, 1], repeat=2, splits=splits)
    assert again.requests == []
    assert second.to_dict() == first.to_dict()


def test_more_cells_keep_those_that_are_there(splits):
    orbench.sweep(model(), splits=splits)
    again = model()
    orbench.sweep(again, temperatures=[0, 1], splits=splits)
    assert len(again.requests) == 50
    assert {request.sampling.temperature for request in again.requests} == {1}


def test_other_prompts_get_folders_of_their_own(splits, here):
    orbench.sweep(model(), splits=splits)
    orbench.sweep(model(), splits=splits, limit=10)
    assert len(list((here / "runs").iterdir())) == 2


def test_a_cell_without_a_verdict_has_no_rate(splits):
    found = orbench.sweep(ScriptedModel(""), splits=splits, temperatures=[0, 1])
    assert found.cells[1].over_refusal.rate is None
    assert found.cells[1].undecided == 50
    assert "50 replies without a verdict, left out" in str(found)
    assert "nan" not in (str(found) + json.dumps(found.to_dict())).lower()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperatures": []}, "no temperature"),
        ({"temperatures": [3]}, "temperature is 3"),
        ({"defenses": ["hope"]}, "unknown defence 'hope'"),
        ({"repeat": 0}, "repeat is 0"),
    ],
)
def test_conditions_that_cannot_be_meant(splits, options, said):
    with pytest.raises(orbench.UsageError, match=said):
        orbench.sweep(model(), splits=splits, **options)


def test_exports(splits):
    found = orbench.sweep(model(), temperatures=[0, 1], splits=splits)
    assert len(found.to_csv().splitlines()) == 1 + 4
    assert "| temperature 0 | over-refusal | 50.0 % |" in found.to_markdown()
    assert r"\toprule" in found.to_latex()
    moved = orbench.sweep(model(), system_prompts=["Be kind."], splits=splits)
    assert "| +50.0 points |" in moved.to_markdown()


def test_repetitions_that_are_split_evenly_are_no_usual_refusal(splits):
    def half(request):
        return REFUSAL if request.sampling.temperature == 1 and request.sampling.seed == 0 else ANSWER

    found = orbench.sweep(ScriptedModel(half), temperatures=[1, 0], repeat=2, splits=splits, out="s")
    assert found.cells[0].over_refusal.rate.value == 0.5
    assert found.cells[1].over_refusal.changed == 0
