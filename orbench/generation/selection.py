"""From decided prompts to splits: cleaning, the panel's refusals, seeded samples, files.

    decided prompts -> cleaned -> all            every prompt that the ensemble let pass
                               -> panel -> hard  those that at least `hard_min` of the panel refuse, a sample
    seeds and what stayed toxic -> toxic         a sample in proportion to the categories

Source: OR-Bench (arXiv 2405.20947), section 3.3 and Appendix Q.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from orbench.generation.cleaning import Cleaned, clean, comparable
from orbench.generation.config import GenerationConfig
from orbench.generation.folder import State, Track
from orbench.generation.records import Verdict
from orbench.generation.standing import Standing
from orbench.records import Kind, Prompt
from orbench.splits.sampling import sample
from orbench.statistics.duplicates import near_duplicates

TOXIC_CLEANING = "cleaning of the toxic pool"
TOXIC_SAMPLE = "sampling of the toxic pool"
NEAR_SAFE = "near duplicate of a safe prompt"
NOT_DRAWN = "more than toxic_size"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One row of a split's file."""

    id: str
    prompt: str
    category: str
    seed_id: str
    parent_id: str | None
    kind: Kind
    votes: str
    """JSON: moderator to vote, and under `answer` the votes on the rescuer's answer where it came to that."""
    group_id: str
    """Id of the first of the prompts that share 0.6 of their words; evaluations take a group as one."""
    personal_data: str = ""
    """Kinds of personal data that the prompt seems to hold."""


class Drop(msgspec.Struct, frozen=True, kw_only=True):
    """One line of drops.jsonl: why a rewrite is not in `all`, or why a toxic prompt is not in `toxic`."""

    id: str
    category: str
    stage: str
    """`moderation` or `cleaning` of a rewrite; `cleaning of the toxic pool` or `sampling of the toxic pool` of a seed
    or of what stayed toxic. What was dropped before is in seeds.jsonl and rewrites.jsonl."""
    reason: str
    detail: str = ""
    of: str | None = None
    """The prompt that was kept in its place."""


class Pools(msgspec.Struct, frozen=True, kw_only=True):
    """What splits are drawn from."""

    safe: list[Row]
    toxic: list[Row]
    drops: list[Drop]


def pool(config: GenerationConfig, state: State, standing: Standing) -> Pools:
    """Sort prompts by what was decided, and clean both sides; the order follows from the prompts alone."""
    safe: list[Track] = []
    toxic: list[Track] = []
    drops: list[Drop] = []
    for track in state.tracks.values():
        stands = standing.of(track)
        item = track.item
        if stands.decision == "safe":
            safe.append(track)
        elif stands.decision == "toxic":
            toxic.append(track)
            if not track.is_seed:
                drops.append(_drop(item.id, item.category, "moderation", stands.reason))
        elif stands.decision == "undecided":
            drops.append(_drop(item.id, item.category, "moderation", stands.reason))
        else:
            drops.append(_drop(item.id, item.category, "moderation", stands.reason))
    names = {name: number for number, name in enumerate(config.definitions)}

    def order(track: Track) -> tuple[int, str, str, int, str]:
        item = track.item
        return (names.get(item.category, len(names)), item.category, item.seed_id, item.round, item.id)

    safe_rows, safe_drops = _clean(sorted(safe, key=order), "safe", config, standing)
    toxic_rows, toxic_drops = _clean(sorted(toxic, key=order), "toxic", config, standing)
    toxic_rows, near_drops = _apart_from(safe_rows, toxic_rows, config.rules.likeness)
    return Pools(
        safe=safe_rows,
        toxic=toxic_rows,
        drops=[*drops, *safe_drops, *toxic_drops, *near_drops],
    )


def _clean(
    tracks: Sequence[Track], kind: Kind, config: GenerationConfig, standing: Standing
) -> tuple[list[Row], list[Drop]]:
    # Languages were looked at when the prompts came, before votes were paid for; given prompts are taken as they are.
    rules = msgspec.structs.replace(config.rules, language=None)
    cleaned = clean([track.item.prompt for track in tracks], rules)
    rows, drops = [], []
    for track, each in zip(tracks, cleaned, strict=True):
        item = track.item
        if each.dropped is None:
            rows.append(_row(track, each, kind, standing))
        else:
            of = None if each.of is None else tracks[each.of].item.id
            stage = "cleaning" if kind == "safe" else TOXIC_CLEANING
            drops.append(_drop(item.id, item.category, stage, each.dropped.value, each.detail, of))
    groups = near_duplicates([comparable(row.prompt) for row in rows])
    first: dict[int, str] = {}
    for row, group in zip(rows, groups, strict=True):
        first.setdefault(group, row.id)
    return [msgspec.structs.replace(row, group_id=first[group]) for row, group in zip(rows, groups, strict=True)], drops


def _apart_from(safe: Sequence[Row], toxic: Sequence[Row], likeness: float) -> tuple[list[Row], list[Drop]]:
    """The toxic prompts that are not nearly the same as a safe one, so that no prompt is in both splits.

    The toxic one gives way: safe prompts near the line are what the set is for, and of toxic ones there are plenty.
    """
    groups = near_duplicates([comparable(row.prompt) for row in (*safe, *toxic)], likeness)
    of: dict[int, str] = {}
    for row, group in zip(safe, groups, strict=False):
        of.setdefault(group, row.id)
    kept, drops = [], []
    for row, group in zip(toxic, groups[len(safe) :], strict=True):
        if group in of:
            drops.append(_drop(row.id, row.category, TOXIC_CLEANING, NEAR_SAFE, of=of[group]))
        else:
            kept.append(row)
    return kept, drops


def _row(track: Track, cleaned: Cleaned, kind: Kind, standing: Standing) -> Row:
    item = track.item
    return Row(
        id=item.id,
        prompt=cleaned.text,
        category=item.category,
        seed_id=item.seed_id,
        parent_id=item.parent_id,
        kind=kind,
        votes=votes_json(track, standing.moderators),
        group_id=item.id,
        personal_data=" ".join(cleaned.personal_data),
    )


def votes_json(track: Track, moderators: Iterable[str]) -> str:
    """The votes that counted, as the column `votes` holds them."""

    def counted(votes: dict[str, Verdict]) -> dict[str, str]:
        return {name: votes[name] for name in moderators if name in votes}

    found: dict[str, object] = dict(counted(track.votes))
    if answer := counted(track.answer_votes):
        found["answer"] = answer
    return msgspec.json.encode(found).decode()


def _drop(id: str, category: str, stage: str, reason: str | None, detail: str = "", of: str | None = None) -> Drop:
    return Drop(id=id, category=category, stage=stage, reason=reason or "", detail=detail, of=of)


def prompts(rows: Sequence[Row], split: str) -> list[Prompt]:
    """Rows as the evaluation engine takes them."""
    return [
        Prompt(
            id=row.id,
            text=row.prompt,
            category=row.category,
            kind=row.kind,
            split=split,
            seed_id=row.seed_id,
            group_id=row.group_id,
        )
        for row in rows
    ]


def draw(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """A sample that keeps the categories' shares, in the order given."""
    if size <= 0:
        return []
    chosen = {prompt.id for prompt in sample(prompts(rows, ""), size, seed)} if rows else set()
    return [row for row in rows if row.id in chosen]


def undrawn(rows: Sequence[Row], drawn: Sequence[Row]) -> list[Drop]:
    """The toxic prompts that the sample left out."""
    ids = {row.id for row in drawn}
    return [_drop(row.id, row.category, TOXIC_SAMPLE, NOT_DRAWN) for row in rows if row.id not in ids]


def hard(rows: Sequence[Row], refusals: Counter[str], config: GenerationConfig) -> list[Row]:
    """Those that enough of the panel refuse, or a sample of them."""
    found = [row for row in rows if refusals[row.id] >= config.hard_min]
    return draw(found, config.hard_size, config.seed)
