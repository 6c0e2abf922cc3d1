"""The paper's figures as data: complete, consistent with each other, and what the paper says of them."""

import pytest
from scipy import stats

from orbench import published
from orbench.categories import CATEGORIES
from orbench.errors import UsageError

MODELS = published.leaderboard()


def test_there_are_the_papers_models():
    assert len(MODELS) == len({model.name for model in MODELS}) == 32
    assert sum(model.prompt_set == "older" for model in MODELS) == 25
    assert sum(model.moderator for model in MODELS) == 3
    assert sum(model.chose_hard_1k for model in MODELS) == 6
    assert {model.family for model in MODELS} == set(published.FAMILIES)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_every_rate_is_a_whole_number_of_its_prompts(model):
    assert model.refused_safe / model.safe_prompts == pytest.approx(model.over_refusal, abs=5.1e-4)
    assert model.refused_toxic / model.toxic_prompts == pytest.approx(model.toxic_rejection, abs=8e-4)


@pytest.mark.parametrize("table", ["hard-1k", "toxic", "80k"])
def test_the_tables_have_ten_categories_and_the_same_models(table):
    rows = published.categories(table)
    assert set(rows) <= {model.name for model in MODELS}
    assert len(rows) == (20 if table == "80k" else 32)
    for row in rows.values():
        assert set(row) == {*CATEGORIES, "overall"}
        assert all(0 <= share <= 1 for share in row.values())


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
@pytest.mark.parametrize("table", ["hard-1k", "toxic"])
def test_the_categories_add_up_to_the_overall_rate(model, table):
    sizes = published.category_sizes(table, model.prompt_set)
    row = published.categories(table)[model.name]
    pooled = sum(round(row[name] * size) for name, size in sizes.items()) / sum(sizes.values())
    overall = model.over_refusal if table == "hard-1k" else model.toxic_rejection
    assert pooled == pytest.approx(overall, abs=0.0025)
    assert sum(sizes.values()) == (model.safe_prompts if table == "hard-1k" else model.toxic_prompts)


def test_the_released_sizes_are_those_of_the_tables():
    assert published.SIZES == {"older": (1534, 681), "released": (1319, 655)}
    assert published.category_sizes("hard-1k", "released")["illegal"] == 527
    assert published.category_sizes("toxic", "older")["self-harm"] == 92


@pytest.mark.parametrize("name", published.categories("80k"))
def test_the_sizes_worked_out_for_the_80k_add_up_to_its_overall_rates(name):
    found = published.counts(published.find(name), "80k")
    (refused, prompts), *cells = (found[key] for key in sorted(found, key=lambda key: key or ""))
    assert prompts == 80_359
    assert sum(size for _, size in cells) == pytest.approx(prompts, abs=5)
    assert sum(hits for hits, _ in cells) / prompts == pytest.approx(refused / prompts, abs=0.002)


def test_cells_are_the_papers():
    assert published.categories("hard-1k")["Claude-3-opus"]["sexual"] == 0.392
    assert published.categories("toxic")["GPT-4o-2024-08-06"]["sexual"] == pytest.approx(1 - 0.616)
    assert published.categories("80k")["Gemini-1.0-pro"]["sexual"] == 0.536
    assert published.temperature()["Llama-2-7b"] == {0: 0.874, 0.25: 0.866, 0.5: 0.857, 0.75: 0.854, 1: 0.855}
    assert published.keywords_vs_judge()["GPT-3.5-turbo-0613"] == (0.347, 0.402)


def test_the_judge_finds_more_refusals_than_keywords():
    assert all(keywords < judge for keywords, judge in published.keywords_vs_judge().values())


def test_advbench_goes_with_toxic_as_the_paper_says():
    advbench, toxic = zip(*published.advbench_vs_toxic().values(), strict=True)
    assert stats.spearmanr(advbench, toxic).statistic == pytest.approx(0.991, abs=5e-4)


@pytest.mark.parametrize("name", ["GPT-4o", "gpt-4o", "published:GPT-4o"])
def test_a_model_is_found_by_name(name):
    assert published.find(name).name == "GPT-4o"


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(UsageError, match=r"no such model; did you mean .*Llama-3-70b.*--published"):
        published.find("published:llama-3-70")
    with pytest.raises(UsageError, match="no such model"):
        published.find("published:")


def test_diversity_is_tables_3_and_11():
    hard, large = published.diversity("hard-1k"), published.diversity("80k")
    assert set(hard) == set(large) == set(CATEGORIES)
    for table, averages in ((hard, (0.51, 0.54, 0.52)), (large, (0.53, 0.57, 0.55))):
        columns = ("bertscore_precision", "bertscore_recall", "bertscore_f1")
        for column, average in zip(columns, averages, strict=True):
            assert sum(getattr(row, column) for row in table.values()) / 10 == pytest.approx(average, abs=0.0051)
    assert (hard["privacy"].self_bleu, large["self-harm"].self_bleu) == (0.44, 0.40)
