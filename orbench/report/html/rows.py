"""The rows of a report: which prompts go into the page, how long their texts may be, and how they lie in it.

In: results. Out: columns for the page's script and sentences that say what was left out or cut. States are in memory;
texts are read from the folders once, a line at a time, and only those of chosen rows are kept.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import msgspec

from orbench.records import KINDS, Kind
from orbench.results import Evaluation
from orbench.run_state import Key
from orbench.scoring.outcomes import Outcome, is_refused
from orbench.statistics.triggers import Triggers, find_triggers

ROWS = 20_000
"""Replies in a page unless told otherwise; prompts are shared by the runs."""
_LIMITS = (8000, 6000, 5000, 4000, 3000, 2500, 2000, 1500, 1200, 1000, 800, 600, 500, 400, 300, 200, 150, 100)
"""Lengths that texts may be cut to, in characters."""
_LEAST_BYTES = 2_200_000
"""Room for texts; with the page around them, 1,974 rows stay below 3 MB."""
_BYTES_A_ROW = 400
"""Room that each further row brings."""
_SHORT = 300
"""Characters of an id or a verdict's reason."""
_TRIGGERS = 15

PromptKey = tuple[str, str, str]
"""Split, its fingerprint, prompt id: prompts of other fingerprints are other prompts."""


class Rows(msgspec.Struct):
    """What the page's table shows."""

    columns: dict[str, Any]
    """For the script: plain lists, one entry a prompt."""
    shown: int
    """Prompts in the page."""
    prompts: int
    """Prompts with a verdict in any run."""
    notes: list[str]
    """What is not in the page, in sentences."""
    triggers: list[dict[Kind, Triggers]]
    """For each run its triggers by kind, over all its prompts."""


class _Text(msgspec.Struct, gc=False):
    """A text cut to the longest limit, and how long it was."""

    text: str
    length: int


class _Reply(msgspec.Struct, gc=False):
    text: _Text
    note: str


def collect(results: Sequence[Evaluation], rows: int = ROWS) -> Rows:
    """Choose the rows, read their texts, and find each run's triggers on the way.

    Args:
        results: The runs, at least one.
        rows: At most so many replies in the page.
    """
    order, special = _order(results)
    chosen, notes = _choose(order, special, rows // len(results), results)
    numbers = {key: number for number, key in enumerate(chosen)}
    prompts: list[_Text | None] = [None] * len(chosen)
    replies: list[list[_Reply | None]] = [[None] * len(chosen) for _ in results]
    triggers = [_read(result, numbers, prompts, replies[n]) for n, result in enumerate(results)]
    limit, cut = _limit([text for text in (*prompts, *(r.text for own in replies for r in own if r)) if text])
    if cut:
        texts = "1 prompt or reply is" if cut == 1 else f"{cut:,} prompts and replies are"
        notes.append(f"{texts} longer than {limit:,} characters and cut there; the run folder holds them whole.")
    columns = _columns(results, chosen, order, prompts, replies, limit)
    return Rows(columns, len(chosen), len(order), notes, triggers)


def _order(results: Sequence[Evaluation]) -> tuple[dict[PromptKey, tuple[Kind, str]], set[PromptKey]]:
    """All prompts with a verdict, and those that a reader looks for first."""
    order: dict[PromptKey, tuple[Kind, str]] = {}
    special: set[PromptKey] = set()
    decisions: dict[PromptKey, bool] = {}
    for result in results:
        for key, row in result.states.items():
            if row.outcome is None:
                continue
            prompt = _prompt_key(result, key)
            order.setdefault(prompt, (row.kind, row.category))
            refused = is_refused(row.outcome, result.policy)
            wrong = refused is (row.kind == "safe")
            if refused is None or wrong or decisions.setdefault(prompt, refused) is not refused:
                special.add(prompt)
    return order, special


def _prompt_key(result: Evaluation, key: Key) -> PromptKey:
    split = result.splits.get(key[0])
    return (key[0], split.fingerprint if split else "", key[1])


def _choose(
    order: dict[PromptKey, tuple[Kind, str]], special: set[PromptKey], room: int, results: Sequence[Evaluation]
) -> tuple[list[PromptKey], list[str]]:
    room = max(room, 1)
    if len(order) <= room:
        return list(order), []
    rng = random.Random(0)
    first = [key for key in order if key in special]
    others = [key for key in order if key not in special]
    kept_first = set(first if len(first) <= room else rng.sample(first, room))
    kept = kept_first | set(rng.sample(others, room - len(kept_first)))
    what = "refused safe prompts, answered toxic ones and those left out"
    what += ", by any of the models" if len(results) > 1 else ""
    told = f"{len(kept):,} of {len(order):,} prompts are in this page: "
    if len(first) > room:
        told += f"a random {room:,} of the {len(first):,} of most interest ({what}), and none of the others"
    else:
        more = len(kept) - len(first)
        told += f"all {len(first):,} of most interest ({what}) and a random {more:,} of the {len(others):,} others"
    told += (
        f". Every number above counts all of them; orbench report --rows {len(order) * len(results)} puts all into "
        "the page, and orbench show lists them."
    )
    return [key for key in order if key in kept], [told]


def _read(
    result: Evaluation, numbers: dict[PromptKey, int], prompts: list[_Text | None], replies: list[_Reply | None]
) -> dict[Kind, Triggers]:
    texts: dict[Kind, list[str]] = {"safe": [], "toxic": []}
    refused: dict[Kind, list[bool]] = {"safe": [], "toxic": []}
    for row in result.rows():
        if row.refused is not None:
            texts[row.kind].append(row.prompt)
            refused[row.kind].append(row.refused)
        number = numbers.get(_prompt_key(result, (row.split, row.prompt_id)))
        if number is None:
            continue
        if prompts[number] is None:
            prompts[number] = _text(row.prompt)
        by = " ".join(filter(None, (row.by or "nobody", row.judge)))
        note = f"{by}: {row.reason}" if row.reason else by
        if row.confidence is not None:
            note += f" (confidence {row.confidence:.2f})"
        said = f"No reply: {row.error}" if row.error else row.response
        replies[number] = _Reply(_text(said), _shorten(note))
    return {kind: find_triggers(texts[kind], refused[kind], kind=kind, top=_TRIGGERS) for kind in KINDS}


def _text(text: str) -> _Text:
    return _Text(text[: _LIMITS[0]], len(text))


def _shorten(text: str) -> str:
    return text if len(text) <= _SHORT else text[: _SHORT - 1] + "…"


def _limit(texts: Sequence[_Text]) -> tuple[int, int]:
    """The longest limit with which the texts fit, and how many it cuts."""
    room = max(_LEAST_BYTES, _BYTES_A_ROW * len(texts) // 2)
    sizes = [(len(t.text), len(t.text.encode("utf-8", "replace"))) for t in texts]
    limit = _LIMITS[-1]
    for candidate in _LIMITS:
        if sum(size if length <= candidate else size * candidate // length for length, size in sizes) <= room:
            limit = candidate
            break
    return limit, sum(text.length > limit for text in texts)


def _columns(
    results: Sequence[Evaluation],
    chosen: Sequence[PromptKey],
    order: dict[PromptKey, tuple[Kind, str]],
    prompts: Sequence[_Text | None],
    replies: Sequence[Sequence[_Reply | None]],
    limit: int,
) -> dict[str, Any]:
    splits: dict[tuple[str, str], int] = {}
    kinds: list[Kind] = []
    categories: dict[str, int] = {}
    for name, fingerprint, _ in chosen:
        if (name, fingerprint) not in splits:
            splits[name, fingerprint] = len(splits)
            kinds.append(next(order[key][0] for key in chosen if key[:2] == (name, fingerprint)))
    names = [name for name, _ in splits]
    outcomes = list(Outcome)
    notes: dict[str, int] = {}
    return {
        "limit": limit,
        "splits": [
            {"name": f"{name} ({fingerprint[:8]})" if names.count(name) > 1 else name, "kind": kind}
            for (name, fingerprint), kind in zip(splits, kinds, strict=True)
        ],
        "split": [splits[name, fingerprint] for name, fingerprint, _ in chosen],
        "category": [categories.setdefault(order[key][1], len(categories)) for key in chosen],
        "categories": list(categories),
        "id": [_shorten(key[2]) for key in chosen],
        "prompt": [text.text[:limit] if text else "" for text in prompts],
        "long": {n: text.length for n, text in enumerate(prompts) if text and text.length > limit},
        "outcomes": outcomes,
        "runs": [
            {
                "counts": [is_refused(outcome, result.policy) for outcome in outcomes],
                "outcome": [_outcome(result, key, outcomes) for key in chosen],
                "reply": [reply.text.text[:limit] if reply else "" for reply in own],
                "long": {n: r.text.length for n, r in enumerate(own) if r and r.text.length > limit},
                "note": [notes.setdefault(reply.note if reply else "", len(notes)) for reply in own],
            }
            for result, own in zip(results, replies, strict=True)
        ],
        "notes": list(notes),
    }


def _outcome(result: Evaluation, key: PromptKey, outcomes: list[Outcome]) -> int:
    """Its number, or -1 where the run has no verdict on that prompt."""
    row = result.states.get((key[0], key[2]))
    if row is None or row.outcome is None or _prompt_key(result, (key[0], key[2])) != key:
        return -1
    return outcomes.index(row.outcome)
