"""The dataset card: README.md with the Hub's YAML header, written from the facts of a generation.

In: `CardFacts`. Out: the text. The header is data and goes through a YAML writer; every text in the body is escaped,
for names and reasons may come from models and files. The wording is in card.md.jinja beside this module.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from orbench import published
from orbench.errors import UsageError
from orbench.generation.agreement import PAPER_AGREEMENT, Accuracies, LeftOut, Pair
from orbench.generation.bertscore import BertScore
from orbench.generation.diversity import DiversityRow
from orbench.report.format import NOTHING, interval, percent, score

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
"""Rows below which a data set is of a size category of the Hub."""
TAGS = ("over-refusal", "red-teaming", "safety", "not-for-all-audiences", "synthetic")
"""Tags of every generated data set; the fourth makes the Hub ask before it shows toxic prompts."""
_CENT = 0.01
_WHAT = {
    "all": "safe prompts, kept by the moderators and by cleaning",
    "hard": "those safe prompts that the panel refuses",
    "toxic": "a sample of the seeds, and of the rewrites that stayed toxic",
    "train": "safe prompts for training; no seed has prompts in the test split too",
    "test": "safe prompts for measuring; no seed has prompts in the train split too",
}


class CardFacts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a card says. All but the first four may be left out; what is left out is not mentioned."""

    name: str
    """Title of the data set."""
    language: str
    """ISO 639-1 code."""
    splits: dict[str, int]
    """Name of each split that has a file `splits/NAME.parquet` to its rows."""
    version: str
    """The orbench that made it."""
    license: str | None = None
    """The Hub's identifier; without one the header has none and `push` asks for it."""
    counts: dict[str, int] = {}
    """Stage (`seeds`, `rewrites`, `kept`, `hard`, `toxic`) to prompts."""
    categories: dict[str, dict[str, int]] = {}
    """Category to the same."""
    definitions: dict[str, str] = {}
    """Own categories to their definitions."""
    usage: dict[str, dict[str, int | float | None]] = {}
    """Role and model to `requests`, `input_tokens`, `output_tokens`, `cost_usd` (None where a price is unknown)."""
    rule: str = ""
    """The rule of moderation as a sentence."""
    rescue: str | None = None
    """The models whose answers brought prompts back."""
    rescued: dict[str, int] = {}
    """Prompts `voted_toxic` and those of them `brought_back`; all that it `answered`, and `refusals` among these."""
    moderators: dict[str, dict[str, int]] = {}
    """Moderator to its votes on prompts: `safe`, `toxic`, `abstained`."""
    pairs: list[Pair] = []
    alpha: float | None = None
    left_out: list[LeftOut] = []
    yields: dict[str, dict[str, int]] = {}
    """Author (role and model) to its `prompts`, and how many of them moderators `let_through`; cleaning comes later."""
    panel: list[str] = []
    """Models whose refusals chose `hard`."""
    hard_min: int = 3
    """How many of them must have refused a prompt."""
    drops: dict[str, dict[str, int]] = {}
    """Stage to reason to prompts."""
    diversity: list[DiversityRow] = []
    bertscore: dict[str, BertScore] = {}
    """Category, and `all`, to how alike its prompts are."""
    overlap: dict[str, dict[str, int]] = {}
    """Other set to how prompts of `all` are in it (`orbench.generation.overlap.counts`)."""
    review: Accuracies | None = None
    """People and the ensemble, as one voice each."""
    moderators_review: Accuracies | None = None
    """People and every moderator by itself, as one voice each."""
    digests: dict[str, str] = {}
    """What (a template, a split's fingerprint, the configuration) to its digest."""
    command: str = ""
    """The command that made it."""
    seed: int = 0
    """Of the samples."""


def render_card(facts: CardFacts | Mapping[str, Any]) -> str:
    """The text of README.md.

    Args:
        facts: What it says; a mapping is checked and converted.

    Raises:
        UsageError: The mapping has an unknown key or a value of another type.
    """
    if not isinstance(facts, CardFacts):
        try:
            facts = msgspec.convert(facts, CardFacts)
        except msgspec.ValidationError as error:
            raise UsageError(f"facts of the card: {error}") from None
    import jinja2
    import yaml

    environment = jinja2.Environment(  # noqa: S701 - Markdown, escaped by `finalize`
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_cell,
    )
    template = environment.from_string(Path(__file__).with_name("card.md.jinja").read_text(encoding="utf-8"))
    body = template.render(
        facts=facts,
        what=_WHAT,
        percent=percent,
        interval=interval,
        score=score,
        share=_share,
        dollars=_dollars,
        tokens=lambda count: "unknown" if count is None else count,
        papers=_papers_bertscore,
        paper=" and ".join(percent(share, 0) for share in reversed(PAPER_AGREEMENT)),
    )
    header: str = yaml.safe_dump(card_header(facts), sort_keys=False, allow_unicode=True)
    body = re.sub(r"\n{3,}", "\n\n", body)
    return f"---\n{header}---\n\n{body}"


def card_header(facts: CardFacts) -> dict[str, Any]:
    """The YAML header: licence, language, tags, size, and a configuration for each split, the first by default."""
    configs = [
        {"config_name": name, "data_files": f"splits/{name}.parquet", **({"default": True} if number == 0 else {})}
        for number, name in enumerate(facts.splits)
    ]
    return {
        "pretty_name": facts.name,
        **({"license": facts.license} if facts.license else {}),
        "language": [facts.language],
        "task_categories": ["text-generation"],
        "tags": list(TAGS),
        "size_categories": [size_category(max(facts.splits.values(), default=0))],
        "configs": configs,
    }


def size_category(rows: int) -> str:
    """The Hub's size category of a data set of that many rows."""
    return next((name for below, name in SIZES if rows < below), "1M<n<10M")


def _share(part: int, whole: int) -> str:
    return percent(part / whole) if whole else NOTHING


def _papers_bertscore(category: str) -> str | None:
    """The paper's F1 of Hard-1K and of the 80K."""
    tables = [published.diversity("hard-1k"), published.diversity("80k")]
    if any(category not in table for table in tables):
        return None
    return ", ".join(f"{table[category].bertscore_f1:.2f}" for table in tables)


def _dollars(cost: float | None) -> str | None:
    return f"<{_CENT}" if cost and cost < _CENT else "unknown" if cost is None else f"{cost:,.2f}"


def _cell(value: object) -> object:
    """A value as the body shows it: numbers grouped, nothing as a dash, text without a meaning to Markdown or HTML."""
    if value is None:
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.2f}"
    plain = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]+", " ", value).strip()
    return re.sub(r"([\\`*_{}\[\]()<>#|~!&$:@])", lambda found: f"&#{ord(found[1])};", plain)
