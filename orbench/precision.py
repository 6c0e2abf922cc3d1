"""`--precision`: ask until both rates are known well enough, and no longer.

In: the prompts of a run and what is known of their rows. Out: an order of asking, and for each kind of prompt
whether more of it is wanted. The interval is a confidence sequence, so looking at it after every reply is fair.

A run that has ended so keeps which replies counted, not the interval: that is worked out again from the verdicts and
the policy of the day, in the same order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from orbench.errors import UsageError
from orbench.records import Kind, Prompt
from orbench.run_state import Key, RowState
from orbench.scoring.outcomes import Policy, is_refused
from orbench.statistics.sequence import confidence_sequence

T = TypeVar("T")


class Known(msgspec.Struct, kw_only=True):
    """What is known of the refused share of one kind of prompts."""

    low: float = 0.0
    """Lower end of the confidence sequence: the rate over all prompts of the kind, 95 %, all looks together."""
    high: float = 1.0
    asked: int = 0
    """Prompts whose outcome is in, counted from the beginning of the order without a gap."""
    refused: int = 0
    left_out: int = 0
    """Of these, those that the policy counts as neither refused nor answered."""
    prompts: int
    """All prompts of the kind."""

    def count(self, refused: bool | None) -> None:
        """Look at one more outcome; None is left out."""
        self.asked += 1
        self.refused += refused is True
        self.left_out += refused is None
        scored, all_scored = self.asked - self.left_out, self.prompts - self.left_out
        if all_scored:
            low, high = confidence_sequence(self.refused, scored, all_scored)
            if max(low, self.low) <= min(high, self.high):  # else this is the one time in twenty
                self.low, self.high = max(low, self.low), min(high, self.high)


class Stratum(msgspec.Struct, kw_only=True):
    """The prompts of one category of one split, and how many of them counted when a run stopped."""

    kind: Kind
    split: str
    category: str
    prompts: int
    asked: int = 0
    """Those of the beginning of the order: the first of the stratum, in its own order."""


class Stopper:
    """Follows a run and says when enough is enough.

    Only replies without a gap from the beginning of the order count: replies that arrive early are not a random part
    of all, because refusals are short and so arrive early.
    """

    def __init__(
        self, prompts: Sequence[Prompt], rows: Mapping[Key, RowState], half_width: float, policy: Policy, seed: int
    ) -> None:
        """Order the prompts.

        Args:
            prompts: All prompts of the run.
            rows: What is known of them; looked at again whenever asked.
            half_width: Half the width of the interval to reach for each rate, above 0 and below 0.5.
            policy: What counts as refused.
            seed: Seed of the order.
        """
        self.half_width = half_width
        self.order = seeded_order(prompts, seed)
        self._seed = seed
        self._strata: dict[tuple[str, str], Stratum] = {}
        for prompt in prompts:
            first = Stratum(kind=prompt.kind, split=prompt.split, category=prompt.category, prompts=0)
            self._strata.setdefault((prompt.split, prompt.category), first).prompts += 1
        self._rows, self._policy = rows, policy
        self._tried_again = {key: row for key, row in rows.items() if row.failed}
        self._owed: dict[Kind, list[Key]] = {}
        for prompt in reversed(self.order):
            self._owed.setdefault(prompt.kind, []).append((prompt.split, prompt.id))
        self.known: dict[Kind, Known] = {kind: Known(prompts=len(keys)) for kind, keys in self._owed.items()}

    def wants(self, prompt: Prompt) -> bool:
        """Whether the prompt is to be asked: its kind's rate is not known well enough, or it failed before."""
        return (prompt.split, prompt.id) in self._tried_again or not self._is_known(prompt.kind)

    def _settled(self, key: Key) -> RowState | None:
        """The row, if its outcome is final: one that failed before this run is tried again."""
        row = self._rows.get(key)
        return None if row is None or row.outcome is None or row is self._tried_again.get(key) else row

    def _is_known(self, kind: Kind) -> bool:
        found, owed = self.known[kind], self._owed[kind]
        while owed and (row := self._settled(owed[-1])) is not None:
            split, _ = owed.pop()
            assert row.outcome is not None
            found.count(is_refused(row.outcome, self._policy))
            self._strata[split, row.category].asked += 1
        return (found.high - found.low) / 2 <= self.half_width

    def to_dict(self, total: int) -> dict[str, Any] | None:
        """What `run.json` says of an early end; None if it is not reached.

        Args:
            total: Prompts that were asked.
        """
        known = [self._is_known(kind) for kind in self.known]  # each is brought up to date
        if not all(known):
            return None
        prompts = len(self.order)
        return {
            "half_width": self.half_width,
            "asked": total,
            "prompts": prompts,
            "saved": 1 - total / prompts,
            "seed": self._seed,
            "strata": msgspec.to_builtins(list(self._strata.values())),
        }


def known_of(
    stopped: Mapping[str, Any], rows: Mapping[Key, RowState], policy: Policy, left_out: bool | None = None
) -> dict[Kind, Known]:
    """What the replies that counted when a run stopped say under these verdicts and this policy.

    Valid for another scorer or policy than those that stopped the run too: a confidence sequence holds at every look,
    however it was chosen, and what counts as refused is settled before a prompt's turn comes.

    Args:
        stopped: `stopped_early` of `run.json`.
        rows: The run's rows as they are now.
        policy: What counts as refused.
        left_out: Count the replies that the policy leaves out as refused (True) or answered (False); by default as no
            prompts.

    Returns:
        Kind to what is known; empty for a run that does not say which replies counted.
    """
    strata = {(s.split, s.category): s for s in msgspec.convert(stopped.get("strata", []), list[Stratum])}
    members: dict[tuple[str, str], list[tuple[int, Key]]] = {key: [] for key in strata}
    for key, row in rows.items():
        if (name := (key[0], row.category)) in members:
            members[name].append((_number_of(stopped["seed"], *key), key))
    known: dict[Kind, Known] = {}
    placed: list[tuple[float, int, Key]] = []
    for name, stratum in strata.items():
        known.setdefault(stratum.kind, Known(prompts=0)).prompts += stratum.prompts
        first = sorted(members[name])[: stratum.asked]
        placed += _place([number for number, _ in first], [key for _, key in first], stratum.prompts)
    for _, _, key in sorted(placed):
        row = rows[key]
        refused = None if row.outcome is None else is_refused(row.outcome, policy)
        known[row.kind].count(left_out if refused is None else refused)
    return known


def check_precision(half_width: float | None) -> None:
    """Refuse what cannot be a half width.

    Raises:
        UsageError: Not above 0 and below 0.5.
    """
    if half_width is not None and not 0 < half_width < 0.5:
        raise UsageError(
            f"precision is {half_width}: half the width of an interval, such as 0.02, above 0 and below 0.5"
        )


def seeded_order(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """Prompts in random order, of which every beginning keeps the proportions of kinds, splits and categories.

    The prompts of each category are shuffled and spread over the whole, the n-th of N somewhere in the n-th of N
    equal parts. It depends on nothing but the seed and the ids of the prompts.
    """
    strata: dict[tuple[str, str, str], list[tuple[int, Prompt]]] = {}
    for prompt in prompts:
        key = (prompt.kind, prompt.split, prompt.category)
        strata.setdefault(key, []).append((_number_of(seed, prompt.split, prompt.id), prompt))
    placed = []
    for members in strata.values():
        members.sort(key=lambda member: member[0])
        placed += _place([number for number, _ in members], [prompt for _, prompt in members], len(members))
    return [prompt for _, _, prompt in sorted(placed, key=lambda entry: entry[:2])]


def _place(numbers: Sequence[int], members: Sequence[T], of: int) -> list[tuple[float, int, T]]:
    """Where the first members of a stratum of that size stand in the order: a place from 0 to 1, and their number."""
    within = (_number(f"{number}") / 2**64 for number in numbers)
    return [
        ((place + part) / of, number, member)
        for place, (part, number, member) in enumerate(zip(within, numbers, members, strict=True))
    ]


def _number_of(seed: int, split: str, prompt_id: str) -> int:
    return _number(f"{seed}\0{split}\0{prompt_id}")


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
