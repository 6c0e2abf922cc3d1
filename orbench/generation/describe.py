"""generation.json to the dataset card: what of a generation's facts README.md says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orbench.generation.card import render_card
from orbench.report.format import plural


def describe(folder: Path, facts: Mapping[str, Any], language: str | None) -> str:
    """The card of a generation whose splits were drawn.

    Args:
        folder: Its folder, which gives the data set its name.
        facts: Contents of generation.json.
        language: ISO 639-1 code; None is `und`, undetermined.
    """
    config, moderation = facts["config"], facts.get("moderation", {})
    splits = {name: split["rows"] for name, split in facts["splits"].items() if split["rows"]}
    overlap = facts.get("overlap") or {}
    review = facts.get("review") or {}
    panel = facts.get("panel") or {}
    return render_card(
        {
            "name": folder.resolve().name,
            "language": language or "und",
            "splits": splits,
            "version": facts["orbench_version"],
            "counts": {name: n for name, n in facts["counts"].items() if name != "hard" or panel},
            "categories": facts["categories"],
            "definitions": config["own_categories"],
            "usage": facts["usage"]["roles"],
            "rule": facts["rule"] or "",
            "rescue": " and ".join(_rescuers(facts)) or None,
            "rescued": facts.get("rescue") or {},
            "moderators": facts["moderators"],
            "pairs": moderation.get("pairs", []),
            "alpha": moderation.get("alpha"),
            "left_out": moderation.get("leave_one_out", []),
            "yields": facts["yield"],
            "panel": list(panel.get("members", {})),
            "hard_min": panel.get("hard_min", config["hard_min"]),
            "drops": facts["drops"],
            "diversity": (facts.get("diversity") or {}).get("all", []),
            "bertscore": (facts.get("bertscore") or {}).get("all", {}),
            "overlap": {overlap["with"]: overlap["splits"]["all"]} if "all" in overlap.get("splits", {}) else {},
            "review": review.get("ensemble"),
            "moderators_review": review.get("moderators"),
            "digests": {
                **_given(facts.get("given") or {}),
                **{f"template {name}": digest for name, digest in facts["templates"].items()},
                **{f"split {name}": facts["splits"][name]["fingerprint"] for name in splits},
            },
            "seed": config["seed"],
        }
    )


def _given(given: Mapping[str, Any]) -> dict[str, str]:
    """Name and digest of the file that the set is made from."""
    if not given:
        return {}
    return {f"given {given['what']} {Path(given['file']).name}, {plural(given['rows'], 'row')}": given["sha256"]}


def _rescuers(facts: Mapping[str, Any]) -> list[str]:
    """Who gave the answers that are there, whoever is to give the next ones; nobody where they do not count."""
    if facts["config"]["rescue"] is None:
        return []
    calls = {name.partition(" ")[::2]: outcomes for name, outcomes in facts["calls"].items()}
    return [model for (role, model), outcomes in calls.items() if role == "rescue" and outcomes.get("read")]
