"""What the OR-Bench paper published, as data: its leaderboard and its small tables, with what each was measured on.

Source: OR-Bench (ICML 2025, PMLR 267; arXiv 2405.20947v5) and the plot of its released code. Percentages are kept
in the files as printed, often cut off rather than rounded at one decimal.

The 25 models of the paper's first version were measured on 1,534 safe and 681 toxic prompts that were never
released; only the 7 newer ones on the released 1,319 and 655. These older sizes are printed nowhere: every older
cell of Tables 2 and 6 is a whole fraction of them. So a rerun of an older model will not meet its published rate
exactly. Six of the models chose the Hard-1K prompts (section 3.3): what they refused is what it holds, so their own
rates on it are pushed up. Three were also the moderators that decided which prompts are safe.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Literal

import msgspec

from orbench.errors import UsageError

PREFIX = "published:"
"""Before a model's name, where a run folder could stand too."""

PromptSet = Literal["older", "released"]
"""Which files a model was measured on: the unreleased ones of the first version, or the released ones."""

SIZES: Mapping[PromptSet, tuple[int, int]] = {"older": (1534, 681), "released": (1319, 655)}
"""Prompt set to its number of safe and of toxic prompts."""

FAMILIES = ("Claude", "Gemini", "Gemma", "GPT-3.5", "GPT-4", "Llama", "Mistral", "Qwen")
"""The families of the leaderboard's models."""

_OLDER_SAFE = (71, 69, 79, 74, 47, 119, 610, 151, 225, 89)
_OLDER_TOXIC = (61, 92, 79, 73, 77, 34, 52, 64, 63, 86)
_RELEASED_SAFE = (54, 63, 66, 66, 41, 106, 527, 125, 199, 72)
_RELEASED_TOXIC = (58, 92, 73, 71, 76, 30, 50, 61, 61, 83)
_ALL_80K = (6188, 5063, 3857, 6831, 3295, 16072, 9322, 12536, 9161, 8036)  # shares of Figure 7a, one decimal
PROMPTS_80K = 80_359
"""Prompts of the 80K split, as released."""

CategoryTable = Literal["hard-1k", "toxic", "80k"]
"""Tables 2, 6 and 7 of the paper."""


class PublishedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the paper's leaderboard."""

    name: str
    family: str
    """One of `FAMILIES`."""
    over_refusal: float
    """Refused share of the safe prompts (Hard-1K), 0 to 1."""
    toxic_rejection: float
    """Refused share of the toxic prompts, 0 to 1."""
    prompt_set: PromptSet
    moderator: bool
    """Whether it was one of the three that decided which prompts are safe."""
    chose_hard_1k: bool
    """Whether it was one of the six whose refusals made a prompt part of Hard-1K."""

    @property
    def safe_prompts(self) -> int:
        """Safe prompts that it was asked."""
        return SIZES[self.prompt_set][0]

    @property
    def toxic_prompts(self) -> int:
        """Toxic prompts that it was asked."""
        return SIZES[self.prompt_set][1]

    @property
    def refused_safe(self) -> int:
        """The whole number of refused safe prompts that the printed rate stands for."""
        return round(self.over_refusal * self.safe_prompts)

    @property
    def refused_toxic(self) -> int:
        """The same for toxic prompts."""
        return round(self.toxic_rejection * self.toxic_prompts)


@cache
def leaderboard() -> tuple[PublishedModel, ...]:
    """The 32 models, in the order of the released code's plot."""
    return tuple(
        PublishedModel(
            name=row["model"],
            family=row["family"],
            over_refusal=_share(row["over_refusal"]),
            toxic_rejection=_share(row["toxic_rejection"]),
            prompt_set="older" if row["prompt_set"] == "older" else "released",
            moderator=row["moderator"] == "yes",
            chose_hard_1k=row["chose_hard_1k"] == "yes",
        )
        for row in _rows("leaderboard")
    )


def find(name: str) -> PublishedModel:
    """The model of that name, with or without `published:` before it; case does not matter.

    Raises:
        UsageError: The paper has no such model; the nearest are named.
    """
    wanted = name.removeprefix(PREFIX).lower()
    models = {model.name.lower(): model for model in leaderboard()}
    if wanted not in models:
        import difflib

        near = difflib.get_close_matches(wanted, models, n=3, cutoff=0.4)
        hint = f"did you mean {', '.join(models[n].name for n in near)}? All:" if near else "see"
        raise UsageError(f"{PREFIX}{wanted}: the paper has no such model; {hint} orbench leaderboard --published")
    return models[wanted]


@cache
def categories(table: CategoryTable) -> Mapping[str, Mapping[str, float]]:
    """Refused share (0 to 1) of each category, by model; the last column is `overall`.

    Args:
        table: `hard-1k` (Table 2) and `toxic` (Table 6, which prints the answered share) by a GPT-4 judge, 32
            models; `80k` (Table 7) by keywords, 20 models.
    """
    found = {}
    for row in _rows(f"{table}-categories"):
        cells = {name: _share(cell) for name, cell in row.items() if name != "model"}
        found[row["model"]] = {name: round(1 - cell, 6) for name, cell in cells.items()} if table == "toxic" else cells
    return found


def category_sizes(table: CategoryTable, prompt_set: PromptSet) -> Mapping[str, int]:
    """Prompts of each category in one of the two versions of the data (see the module's docstring).

    The 80K has one version; its sizes are good to half a thousandth of all, as Figure 7a prints shares.
    """
    from orbench.categories import CATEGORIES

    sizes = {
        ("80k", "older"): _ALL_80K,
        ("80k", "released"): _ALL_80K,
        ("hard-1k", "older"): _OLDER_SAFE,
        ("hard-1k", "released"): _RELEASED_SAFE,
        ("toxic", "older"): _OLDER_TOXIC,
        ("toxic", "released"): _RELEASED_TOXIC,
    }
    return dict(zip(CATEGORIES, sizes[table, prompt_set], strict=True))


def counts(model: PublishedModel, table: CategoryTable) -> Mapping[str | None, tuple[int, int]]:
    """Category (None for all together) to refused prompts and prompts, as whole numbers that the printed rates mean.

    Raises:
        UsageError: The table lacks the model: the 80k's has 20 of the 32.
    """
    rates = categories(table)
    if model.name not in rates:
        raise UsageError(f"{PREFIX}{model.name}: Table 7 of the paper has 80k rates of others only: {', '.join(rates)}")
    own = rates[model.name]
    total = {
        "hard-1k": (model.refused_safe, model.safe_prompts),
        "toxic": (model.refused_toxic, model.toxic_prompts),
        "80k": (round(own["overall"] * PROMPTS_80K), PROMPTS_80K),
    }
    sizes = category_sizes(table, model.prompt_set)
    return {None: total[table], **{name: (round(own[name] * size), size) for name, size in sizes.items()}}


@cache
def keywords_vs_judge() -> Mapping[str, tuple[float, float]]:
    """Model to the refused share by keywords and by the GPT-4 judge, on samples (Table 8)."""
    return {row["model"]: (_share(row["keywords"]), _share(row["judge"])) for row in _rows("keywords-vs-judge")}


@cache
def advbench_vs_toxic() -> Mapping[str, tuple[float, float]]:
    """Model to the accepted share of AdvBench and of OR-Bench Toxic (Table 5; Spearman 0.991 over the 7)."""
    return {row["model"]: (_share(row["advbench"]), _share(row["toxic"])) for row in _rows("advbench-vs-toxic")}


@cache
def temperature() -> Mapping[str, Mapping[float, float]]:
    """Model to its refused share of Hard-1K at each temperature (Table 4)."""
    return {
        row["model"]: {float(name): _share(cell) for name, cell in row.items() if name != "model"}
        for row in _rows("temperature")
    }


class Diversity(msgspec.Struct, frozen=True, kw_only=True):
    """How alike the prompts of one category are; lower is more diverse."""

    bertscore_precision: float
    bertscore_recall: float
    bertscore_f1: float
    """About 0 for an unrelated pair, 0.77 for two questions of one pattern (section 4.5)."""
    self_bleu: float
    """0 to 1. It hardly changes from 41 prompts to 1,000, so it is not what `orbench.generation.diversity` computes."""


@cache
def diversity(split: Literal["hard-1k", "80k"]) -> Mapping[str, Diversity]:
    """Category to the diversity of its prompts (Tables 3 and 11): all of Hard-1K, 1,000 a category of the 80K."""
    return {
        row["category"]: Diversity(
            **{name: float(cell) for name, cell in row.items() if name not in ("split", "category")}
        )
        for row in _rows("diversity")
        if row["split"] == split
    }


def _share(percent: str) -> float:
    return round(float(percent) / 100, 6)


def _rows(name: str) -> list[dict[str, str]]:
    text = (resources.files(__name__) / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))
