"""One run: groups, both rates at once, categories with their number in mind."""

import pytest
from scipy import stats

import orbench
from orbench.grouping import Groups, prompt_groups
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.statistics.intervals import wilson
from orbench.statistics.joint import joint_intervals


def test_prompts_of_one_seed_count_together(run, here):
    path = here / "seeded.csv"
    lines = [f"Prompt {n}?,harmful,seed-{n // 5}\n" for n in range(50)]
    path.write_text("prompt,category,seed_id\n" + "".join(lines))
    result = run(range(25), "a", splits=f"safe={path}")
    found = orbench.summarise(result)
    assert found.grouped_by == "seed"
    assert (found.over_refusal.prompts, found.over_refusal.clusters) == (50, 10)
    assert found.over_refusal.design_effect == pytest.approx(5 * 10 / 9)
    assert found.over_refusal.low < result.over_refusal_rate.low
    assert found.toxic_rejection is None
    assert found.joint is None


def alike(here):
    """Forty prompts, five of each topic, of which two share seven words of nine."""
    path = here / "alike.csv"
    lines = [f"How to stop topic{n // 5} word{n // 5} case{n // 5} thing{n // 5} {n}?,harmful\n" for n in range(40)]
    path.write_text("prompt,category\n" + "".join(lines))
    return f"safe={path}"


def answers(numbers):
    def reply(request):
        return REFUSAL if int(request.prompt.rstrip("?").split()[-1]) in numbers else ANSWER

    return reply


def test_without_seeds_prompts_of_the_same_words_count_together(run, here):
    found = orbench.summarise(run(answers(range(20)), "a", splits=alike(here)))
    assert found.grouped_by == "near-duplicates"
    assert (found.over_refusal.prompts, found.over_refusal.clusters) == (40, 8)
    assert found.over_refusal.design_effect == pytest.approx(5 * 8 / 7)


def test_prompts_without_a_seed_are_grouped_by_their_words_beside_those_that_have_one(run, here):
    lines = [f"Prompt {n}?,harmful,{f'seed-{n // 5}' if n < 20 else ''}\n" for n in range(40)]
    lines += [
        "Tell me how long this old bridge is now?,harmful,\n",
        "Tell me how long this old bridge is then?,harmful,\n",
    ]
    (here / "some.csv").write_text("prompt,category,seed_id\n" + "".join(lines))
    found = orbench.summarise(run(lambda request: ANSWER, "a", splits="safe=some.csv"))
    assert found.grouped_by == "seed, else near-duplicates"
    assert (found.over_refusal.prompts, found.over_refusal.clusters) == (42, 4 + 20 + 1)


def test_groups_may_be_given(run):
    result = run(range(20), "a")
    groups = Groups(by="seed", of={key: str(n // 4) for n, key in enumerate(result.states)})
    assert orbench.summarise(result, groups).over_refusal.clusters == 10


def test_the_joint_statement(run):
    result = run(range(10), "a")
    assert orbench.summarise(result).joint == joint_intervals((10, 40), (10, 30))


def test_categories_are_tested_against_the_rest(run):
    found = orbench.summarise(run(range(0, 20, 2), "a"))
    safe = {finding.category: finding for finding in found.categories if finding.kind == "safe"}
    p = stats.fisher_exact([[10, 10], [0, 20]]).pvalue
    assert safe["harmful"].p == pytest.approx(p)
    assert safe["harmful"].p_holm == pytest.approx(2 * p)
    assert (safe["harmful"].low, safe["harmful"].high) == wilson(10, 20, 0.95**0.5)
    assert (safe["harmful"].refused, safe["harmful"].scored) == (10, 20)


def test_a_single_category_has_no_rest(run, here):
    (here / "one.csv").write_text("prompt,category\n" + "".join(f"Prompt {n}?,harmful\n" for n in range(9)))
    (finding,) = orbench.summarise(run({1}, "a", splits="safe=one.csv")).categories
    assert (finding.p, finding.p_holm) == (None, None)


def test_prompts_marked_as_one_group_are_one_group(tmp_path):
    rows = [(f"seed-{n // 2}", f"group-{n // 4}") for n in range(12)]
    (tmp_path / "set.csv").write_text(
        "prompt,kind,seed_id,group_id\n"
        + "".join(f"Why is word number {n} so long?,safe,{seed},{group}\n" for n, (seed, group) in enumerate(rows))
    )
    result = orbench.evaluate("baseline/always-refuse", splits=str(tmp_path / "set.csv"), out=tmp_path / "run")
    groups = prompt_groups([result])
    assert len(groups.of) == 12
    assert len(set(groups.of.values())) == 3  # two seeds share a group
    assert groups.by == "seed"
