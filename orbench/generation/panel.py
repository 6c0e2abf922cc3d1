"""The panel: large models whose refusals choose the Hard split, asked with the evaluation engine.

    responses/panel/prompts-1.jsonl      the prompts of a batch; a batch never changes
    responses/panel/1/MODEL/             the run folder of each model on it

Prompts that are kept later make a batch of their own, so nothing is asked twice, whatever grows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orbench.costs import Budget
from orbench.engine.jsonl import read_lines
from orbench.engine.run_folder import folder_name
from orbench.errors import OrbenchError, RunError
from orbench.generation.config import GenerationConfig, Role
from orbench.generation.folder import PANEL
from orbench.generation.roles import SAMPLING
from orbench.ledger import usage_together
from orbench.models.batch import has_batches
from orbench.records import Prompt
from orbench.results import Evaluation
from orbench.run_state import scan
from orbench.scoring.outcomes import is_refused
from orbench.splits import Split

_SPLIT = "all"


class Panel(msgspec.Struct, kw_only=True):
    """What the panel did."""

    refusals: Counter[str]
    """Prompt id to the members that refused it."""
    members: dict[str, dict[str, Any]]
    """Model to how many prompts of the batches it `refused` of those `scored`."""
    usage: dict[str, dict[str, Any]]
    """`panel MODEL`, and `panel-judge MODEL`, to requests, tokens and USD."""
    owed: int
    """Replies that failed and are asked for again by the next run."""


def ask_panel(
    config: GenerationConfig, folder: Path, kept: Sequence[Prompt], budget: Budget | None, progress: bool | None
) -> Panel:
    """Have every member answer every prompt, and count who refuses; money is spent from the budget.

    Raises:
        orbench.OrbenchError: A member that cannot be used; what the others answered is saved.
    """
    batches = _batches(folder / PANEL, kept)
    texts = {prompt.id: prompt.text for prompt in kept}
    refusals: Counter[str] = Counter()
    members: dict[str, dict[str, Any]] = {}
    usage: dict[str, dict[str, Any]] = {}
    owed = 0
    for number, batch in batches:
        counted = {prompt.id for prompt in batch if texts.get(prompt.id) == prompt.text}
        for role, found in zip(
            config.panel, _evaluate(config, batch, folder / PANEL / str(number), budget, progress), strict=True
        ):
            owed += found.open
            state = scan(found.run, found.model)
            mine = members.setdefault(role.name, {"refused": 0, "scored": 0})
            for (_, prompt_id), row in state.rows.items():
                refused = None if row.outcome is None else is_refused(row.outcome, found.policy)
                mine["refused"] += refused is True
                mine["scored"] += refused is not None
                if refused and prompt_id in counted:
                    refusals[prompt_id] += 1
            spent = found.usage
            _add(usage, f"panel {role.name}", spent)
            if config.panel_judge is not None and "judge" in spent:
                _add(usage, f"panel-judge {config.panel_judge.name}", spent["judge"])
    return Panel(refusals=refusals, members=members, usage=usage, owed=owed)


def _add(usage: dict[str, dict[str, Any]], role: str, spent: Mapping[str, Any]) -> None:
    usage[role] = usage_together([usage[role], spent] if role in usage else [spent])


def _batches(folder: Path, kept: Sequence[Prompt]) -> list[tuple[int, list[Prompt]]]:
    """The batches there are, and one of what is in none of them."""
    batches: list[tuple[int, list[Prompt]]] = []
    while (path := folder / f"prompts-{len(batches) + 1}.jsonl").exists():
        batches.append((len(batches) + 1, list(read_lines(path, Prompt))))
    known = {prompt.id: prompt.text for _, batch in batches for prompt in batch}
    new = [prompt for prompt in kept if known.get(prompt.id) != prompt.text]
    if new:
        part = path.with_suffix(".part")
        try:
            part.write_bytes(b"".join(msgspec.json.encode(prompt) + b"\n" for prompt in new))
            part.replace(path)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error.strerror}. Make room, or choose another --out") from None
        batches.append((len(batches) + 1, new))
    return batches


def _evaluate(
    config: GenerationConfig, batch: list[Prompt], folder: Path, budget: Budget | None, progress: bool | None
) -> list[Evaluation]:
    """The panel's results on a batch, in the panel's order; members with the same settings side by side."""
    from orbench.evaluation import evaluate_all

    split = Split(_SPLIT, batch, str(folder))
    groups: dict[tuple[Role, bool], list[Role]] = {}
    for role in config.panel:
        in_batches = config.batch and has_batches(role.open(config.base_url, config.concurrency))
        groups.setdefault((msgspec.structs.replace(role, model=None), in_batches), []).append(role)
    judge = config.panel_judge
    found: dict[str, Evaluation] = {}
    for (settings, in_batches), roles in groups.items():
        sampling = settings.sampling(SAMPLING["rescue"])
        results = evaluate_all(
            [role.model for role in roles],
            splits=split,
            judge=None if judge is None else judge.model,
            judge_base_url=None if judge is None else judge.base_url or config.base_url,
            base_url=settings.base_url or config.base_url,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            seed=config.seed,
            concurrency=settings.concurrency or config.concurrency,
            rpm=config.rpm,
            tpm=config.tpm,
            prices=config.prices,
            max_cost=budget,
            batch=in_batches,
            model_options={
                "api": settings.api,
                "google_safety": settings.google_safety,
                "timeout_s": settings.timeout_s,
            },
            out=folder if len(roles) > 1 else folder / folder_name(roles[0].name),
            progress=progress,
        )
        for role, result in zip(roles, results, strict=True):
            if isinstance(result, OrbenchError):
                raise result
            found[role.name] = result
    return [found[role.name] for role in config.panel]
