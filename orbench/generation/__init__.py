"""Generation of splits: seeds -> rewrites -> moderation -> selection, one folder a data set.

    config.py     what a generation is told            formats.py    what models' replies are read as
    given.py      rows of a user's file                rules.py      votes to decisions
    roles.py      what each model is asked             records.py    the rows of the files
    folder.py     the files, and their state           flow.py       models at work side by side
    pipeline.py   seeds to decided prompts             selection.py  decided prompts to splits
    panel.py      who refuses what was kept            facts.py, dataset.py, writing.py, card.py   what came of it

Source: OR-Bench (arXiv 2405.20947), sections 3.2 and 3.3; docs/generation.md says where we differ and why.
"""

from __future__ import annotations

import datetime
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orbench
from orbench import templates
from orbench.engine.threads import run_sync
from orbench.errors import OrbenchWarning, RunError, UsageError
from orbench.generation import analysis, facts
from orbench.generation.bertscore import check_installed
from orbench.generation.config import STAGES, AnyConfig, GenerationConfig, make_config
from orbench.generation.dataset import Dataset
from orbench.generation.describe import describe
from orbench.generation.folder import (
    APPENDED,
    AUDIT,
    CARD,
    DROPS,
    GENERATION,
    OVERLAP,
    REVIEW,
    SPLIT_NAMES,
    SPLITS,
    OpenFolder,
    State,
    check_order,
    read_generation,
    scan,
)
from orbench.generation.given import check_origin, file_digest, given_items, other_prompts
from orbench.generation.language import check_language, forget
from orbench.generation.money import Money
from orbench.generation.panel import Panel, ask_panel
from orbench.generation.partition import partition
from orbench.generation.pipeline import Pipeline
from orbench.generation.records import Item
from orbench.generation.review import check_labels, is_labelled, write_review
from orbench.generation.roles import TEMPLATES, shown
from orbench.generation.selection import Pools, Row, draw, hard, pool, prompts, undrawn
from orbench.generation.standing import Standing, standing
from orbench.generation.writing import write_audit, write_drops, write_overlap, write_split, write_text
from orbench.splits import fingerprint

_MANY = 20_000
"""Prompts from which memory is worth a second."""

__all__ = ["Dataset", "GenerationConfig", "generate", "make_config"]


def generate(config: AnyConfig, *, stage: str | None = None, progress: bool | None = None, **changes: Any) -> Dataset:
    """Make new splits: seeds, rewrites, moderation, selection.

    Everything is saved as it comes; the same call again goes on where it stopped and asks nothing twice.

    Args:
        config: A `GenerationConfig`, a mapping of its fields, or a YAML file of them (docs/generation.md).
        stage: `seeds`, `rewrites`, `moderation` or `selection` to do that alone; None does all, side by side.
        progress: Show progress; default: if standard error is a terminal.
        changes: Fields of the configuration that go before it.

    Returns:
        The data set, as far as it is made.

    Raises:
        orbench.UsageError: A configuration that cannot be meant.
        orbench.SplitError: A given file that cannot be read.
        orbench.ModelError: A model that cannot be used at all; what others gave is saved.
        orbench.RunError: A folder that cannot be used, or that holds nothing yet for the stage to work on.
    """
    checked = make_config(config, **changes)
    check_stage(checked, stage)
    assert checked.out is not None
    folder = Path(checked.out)
    given = given_items(checked)
    key = {"stage": stage, "config": checked.to_dict(), "files": _digests(checked), "version": orbench.__version__}
    if _is_finished(folder, key):
        found = read_generation(folder)
    else:
        created = {
            "orbench_version": orbench.__version__,
            "created_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        check_order(folder, stage, given)
        opened = OpenFolder(folder, checked, created)
        try:
            found = _work(checked, opened, given, stage, key, progress)
        finally:
            opened.close()
    for line in facts.warnings_of(found):
        warnings.warn(f"{folder}: {line}", OrbenchWarning, stacklevel=2)
    return Dataset(folder, found)


def check_stage(config: GenerationConfig, stage: str | None) -> None:
    """Refuse a generation that lacks what its stages need, or whose files cannot be used in the end.

    Raises:
        UsageError: Names what is missing and how to give it.
        orbench.SplitError: A file of labels, or of prompts to look for overlap with, cannot be read.
    """
    if config.out is None:
        raise UsageError("no folder given: add --out DIR")
    if stage is not None and stage not in STAGES:
        raise UsageError(f"unknown stage {stage!r}: choose one of {', '.join(STAGES)}")
    stages = STAGES if stage is None else (stage,)
    given = config.from_prompts is not None
    if "seeds" in stages and not given and config.seeder is None and config.seeds is None:
        raise UsageError("no seeds: add --seeder MODEL, or --seeds FILE")
    if "rewrites" in stages and not given and config.rewriter is None:
        raise UsageError("nobody rewrites the seeds: add --rewriter MODEL, or do another --stage")
    if {"moderation", "selection"} & set(stages) and not config.moderators:
        raise UsageError("no moderator given: add --moderator MODEL, once for each")
    standing(config)  # the rule and its weights
    if config.rules.language:
        check_language(config.rules.language)
    if config.bertscore and "selection" in stages:
        check_installed()
    other_prompts(config)
    check_labels(config.labels)


def _work(
    config: GenerationConfig,
    opened: OpenFolder,
    given: Sequence[Item],
    stage: str | None,
    key: dict[str, Any],
    progress: bool | None,
) -> dict[str, Any]:
    from orbench.generation.estimate import estimate  # which needs `check_stage`

    state = scan(opened.path)
    origin = check_origin(config, stage, given, state, opened.before)
    stands = standing(config)
    money = Money(config, opened.before)
    pipeline = Pipeline(config, opened, state, stage, money, progress=progress)
    made: dict[str, Any] = {name: opened.before.get(name) for name in ("orbench_version", "created_at")}
    made["given"] = origin

    def found(selected: dict[str, Any]) -> dict[str, Any]:
        counted = facts.count(config, state, stands, money.prices)
        dry = [name for name in config.wanted if pipeline.falls_short(name) and pipeline.is_dry(name)]
        short = [name for name in config.wanted if pipeline.falls_short(name) and not pipeline.is_dry(name)]
        owed = facts.owed(config, state, stands, stage)
        owed += money.refused["seeder"] or (len(short) if pipeline.makes_seeds else 0)
        return {
            **made,
            "config": config.to_dict(),
            "rule": stands.rule.sentence if stands.rule else None,
            "templates": {name: templates.digest(name) for name in TEMPLATES},
            **counted,
            "dry": dry if config.seeder else [],
            "stage": stage,
            "unasked": owed if money.is_out else 0,
            "failing": facts.failing(state) if owed else {},
            "adaptations": {**opened.before.get("adaptations", {}), **pipeline.adaptations},
            "open": owed,
            **selected,
        }

    try:
        if stage != "selection":
            run_sync(pipeline.run(given))
        else:
            pipeline.catch_up()
    except BaseException:
        try:
            opened.write(facts.carried_over(found({}), opened.before))
        except RunError:
            pass  # such as a full disk, which is being raised already
        raise
    if len(state.tracks) > _MANY:
        forget()  # the selection needs the memory, and languages were looked at as the prompts came
    result = found({"moderation": analysis.moderation(config, state, stands)} if stands.moderators else {})
    if config.labels and stands.moderators:
        result["review"] = analysis.human_review(config, state, stands)
    earlier = facts.carried_over(result, opened.before)
    opened.write(earlier)
    if stage == "moderation" or (opened.path / AUDIT).exists():
        write_audit(opened.path / AUDIT, config, state, stands)
    if stage in (None, "selection"):
        if stage == "selection":
            money.count_spent(state, opened.path)
        money.leave_panel_to_evaluation()
        result = _select(config, opened, state, stands, result, money, progress)
        write_text(opened.path / CARD, describe(opened.path, result, config.rules.language))
    else:
        result = earlier
    if not result["open"]:
        result["finished"] = {**key, "sizes": _sizes(opened.path)}
    opened.write(result)
    money.warn_if_out(result["open"], lambda: estimate(config, stage).cost_usd)
    return result


def _select(
    config: GenerationConfig,
    opened: OpenFolder,
    state: State,
    stands: Standing,
    result: dict[str, Any],
    money: Money,
    progress: bool | None,
) -> dict[str, Any]:
    """Draw the splits, write them, and complete the counts with them."""
    pools = pool(config, state, stands)
    panel = (
        ask_panel(config, opened.path, prompts(pools.safe, "all"), money.budget, progress)
        if config.panel and pools.safe
        else None
    )
    splits: dict[str, list[Row]] = {
        "all": pools.safe,
        "hard": hard(pools.safe, panel.refusals, config) if panel else [],
        "toxic": draw(pools.toxic, config.toxic_size, config.seed),
    }
    unparted: dict[str, str] = {}
    if config.test_share:
        seeds, groups = [row.seed_id for row in pools.safe], [row.group_id for row in pools.safe]
        try:
            sides = partition(seeds, groups, test_share=config.test_share, seed=config.seed)
        except UsageError as error:  # all else is paid for, and can be used
            unparted = {"unparted": str(error)}
            warnings.warn(f"no train and test: {error}", OrbenchWarning, stacklevel=4)
        else:
            for side in ("train", "test"):
                splits[side] = [row for row, mine in zip(pools.safe, sides, strict=True) if mine == side]
    for name in SPLIT_NAMES:
        write_split(opened.path / SPLITS, name, splits.get(name, []))
    pools.drops.extend(undrawn(pools.toxic, splits["toxic"]))
    write_drops(opened.path / DROPS, pools.drops)
    _draw_for_review(config, opened.path / SPLITS / REVIEW, state, stands)
    overlap, overlapping = analysis.overlaps(config, splits)
    write_overlap(opened.path / OVERLAP, splits, overlapping)
    selected = _with_splits(result, splits, pools, panel)
    return {**selected, **unparted, **analysis.selection(config, splits), **overlap}


def _draw_for_review(config: GenerationConfig, path: Path, state: State, stands: Standing) -> None:
    """Prompts on which there is a decision, for people to label; a file that holds labels is left as it is."""
    tracks = [t for t in state.tracks.values() if not t.is_seed and stands.of(t).decision in ("safe", "toxic")]
    if not config.review_size or not tracks or is_labelled(path):
        return
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    items = [track.item for track in tracks]
    write_review(
        path,
        [item.id for item in items],
        [shown(config, item.prompt) for item in items],
        [item.category for item in items],
        size=config.review_size,
        seed=config.seed,
    )


def _with_splits(
    result: dict[str, Any], splits: dict[str, list[Row]], pools: Pools, panel: Panel | None
) -> dict[str, Any]:
    categories = {name: {**counts, "kept": 0, "hard": 0, "toxic": 0} for name, counts in result["categories"].items()}
    for name, column in (("all", "kept"), ("hard", "hard"), ("toxic", "toxic")):
        for row in splits[name]:
            categories[row.category][column] += 1
    cleaning: dict[str, dict[str, int]] = {}
    for drop in pools.drops:
        if drop.stage != "moderation":
            mine = cleaning.setdefault(drop.stage, {})
            mine[drop.reason] = mine.get(drop.reason, 0) + 1
    hard_min = result["config"]["hard_min"]
    refused = sum(panel.refusals[row.id] >= hard_min for row in pools.safe) if panel else 0
    drawn_from = {"hard": refused, "toxic": len(pools.toxic)}
    usage = result["usage"]
    if panel is not None:
        usage = facts.with_roles(usage, panel.usage)
    return {
        **result,
        "counts": {name: sum(counts[name] for counts in categories.values()) for name in facts.COUNTS},
        "categories": categories,
        "drops": {**result["drops"], "cleaning": {}, **cleaning},
        "usage": usage,
        "open": result["open"] + (panel.owed if panel else 0),
        "panel": None if panel is None else {"hard_min": hard_min, "members": panel.members},
        "splits": {
            name: {
                "rows": len(rows),
                "fingerprint": fingerprint(row.prompt for row in rows),
                "pool": drawn_from.get(name, len(pools.safe)),
            }
            for name, rows in splits.items()
        },
    }


def _is_finished(folder: Path, key: dict[str, Any]) -> bool:
    """Whether the very same was done to its end, and no file changed since."""
    if not (folder / GENERATION).exists():
        return False
    finished = read_generation(folder).get("finished") or {}
    return finished == {**key, "sizes": _sizes(folder)}


def _sizes(folder: Path) -> dict[str, int]:
    """Of all files that are appended to, and of the splits."""
    paths = [folder / name for name in (*APPENDED, DROPS)]
    paths += sorted((folder / SPLITS).glob("*.*"))
    return {str(path.relative_to(folder)): path.stat().st_size for path in paths if path.exists()}


def _digests(config: GenerationConfig) -> dict[str, str]:
    names = (config.seeds, config.from_prompts, config.overlap_with, *config.labels.values())
    return {name: file_digest(Path(name)) for name in names if name}
