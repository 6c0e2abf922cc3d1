"""What comes of overgeneration: which completions are learned, and the card of it all.

In: every completion with its scores. Out: the files of candidates, of the best of each prompt and of the control, and
`overgeneration.json`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from orbench.engine.run_folder import write_json
from orbench.errors import RunError
from orbench.mitigation.choose import Candidate, any_of, best_of, broken_off
from orbench.mitigation.files import CHOSEN, RANDOM, Example, assistant, user, write_rows

CARD = "overgeneration.json"
CANDIDATES = "candidates.jsonl"


class Overgenerated(msgspec.Struct, frozen=True, kw_only=True):
    """What `overgenerate` made; `overgeneration.json`."""

    orbench_version: str
    out: str
    teachers: list[str]
    moderators: list[str]
    helpfulness: str | None
    """Who scored it."""
    scorer: str
    judge: str | None
    temperature: float
    max_tokens: int
    system_prompt: str | None
    seed: int
    n: int
    splits: list[str]
    published: list[str]
    """Those of them that are OR-Bench's own."""
    left_out: int
    """Prompts that are held out, or of one group with such."""
    prompts: dict[str, int]
    """Kind to prompts."""
    candidates: int
    chosen: dict[str, int]
    """Kind to prompts that have a completion fit to be learned."""
    refused: dict[str, int]
    """Kind to completions that refuse."""
    not_passed: int
    """Completions that a moderator finds unsafe."""
    blocked: int
    """Completions that a platform blocked; neither they nor those cut off are taken."""
    cut_off: int
    """Completions that ended at max_tokens."""
    failed: int
    """Calls that failed or could not be read; the same command tries them again."""
    cost_usd: dict[str, float | None]
    """Role and model to what it has cost, earlier commands for the folder included; None where that is unknown."""
    usage: dict[str, Any]
    notes: list[str]


def take(
    folder: Path, candidates: list[Candidate], *, moderated: bool, failed: int, why: str | None, about: dict[str, Any]
) -> Overgenerated:
    """Choose among the completions of each prompt, and write what was chosen, the control, and the card.

    Args:
        folder: Where the files go.
        candidates: Every completion of every prompt.
        moderated: Whether moderators were asked.
        failed: Calls that failed or could not be read.
        why: What a teacher, or its judge, said when it failed.
        about: The other fields of the card.

    Raises:
        RunError: No completion is fit to be learned; everything is written all the same.
    """
    of_prompt: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in candidates:
        of_prompt.setdefault((candidate.kind, candidate.prompt_id), []).append(candidate)
    chosen = [one for group in of_prompt.values() if (one := best_of(group, moderated=moderated))]
    keys = {(one.kind, one.prompt_id) for one in chosen}
    control = [one for key, group in of_prompt.items() if key in keys and (one := any_of(group, about["seed"]))]
    write_rows(folder / CANDIDATES, candidates)
    write_rows(folder / CHOSEN, map(_example, chosen))
    write_rows(folder / RANDOM, map(_example, control))
    broken = Counter(map(broken_off, candidates))
    made = Overgenerated(
        prompts=dict(Counter(kind for kind, _ in of_prompt)),
        candidates=len(candidates),
        chosen=dict(Counter(one.kind for one in chosen)),
        refused=dict(Counter(one.kind for one in candidates if one.refused)),
        not_passed=sum(one.passed is False for one in candidates),
        blocked=broken["blocked"],
        cut_off=broken["cut_off"],
        failed=failed,
        notes=_notes(about, control, failed, why),
        **about,
    )
    write_json(folder / CARD, made)
    if not chosen:
        raise RunError(
            f"{folder}: no completion is fit to be learned: of {made.candidates:,}, {sum(made.refused.values()):,} "
            f"refuse, {made.not_passed:,} did not pass moderation, {made.cut_off:,} were cut off and {made.blocked:,} "
            f"blocked; {made.failed:,} calls failed or could not be read{_said(why)}. All are kept in {CANDIDATES}; "
            "the same command asks again what failed"
        )
    return made


def _said(why: str | None) -> str:
    """What a teacher, or its judge, said when it failed."""
    return f" ({why})" if why else ""


def _notes(about: dict[str, Any], control: Sequence[Candidate], failed: int, why: str | None) -> list[str]:
    notes = []
    if about["published"]:
        notes.append(
            f"The prompts are of published splits ({', '.join(about['published'])}): figures of the trained model on "
            "the whole of them mean nothing."
        )
    if about["left_out"]:
        notes.append(f"{about['left_out']} prompts were left out: held out, or nearly the same as one that is.")
    if unseen := sum(one.kind == "toxic" and one.refused is not True and one.passed is not True for one in control):
        notes.append(
            f"{RANDOM} is a control: {unseen} of its completions to toxic prompts are no refusals, and no moderator "
            "found them safe."
        )
    if not about["moderators"]:
        notes.append(
            "No moderator was asked: a completion chosen for a safe prompt is an answer, not known to be safe."
        )
    if failed:
        notes.append(f"{failed} calls failed or could not be read{_said(why)}; the same command tries them again.")
    return notes


def _example(candidate: Candidate) -> Example:
    return Example(
        prompt=user(candidate.prompt),
        completion=assistant(candidate.completion),
        prompt_id=candidate.prompt_id,
        kind=candidate.kind,
        seed_id=candidate.seed_id or "",
        group_id=candidate.group_id or "",
    )
