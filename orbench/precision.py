"""`--precision`: ask until both rates are known well enough, and no longer.

In: the prompts of a run and what is known of their rows. Out: an order of asking, and for each kind of prompt
whether more of it is wanted. The interval is a confidence sequence, so looking at it after every reply is fair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orbench.errors import UsageError
from orbench.records import Kind, Prompt
from orbench.results import Key, RowState
from orbench.scoring.outcomes import Policy, is_refused
from orbench.statistics.sequence import confidence_sequence


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
            owed.pop()
            assert row.outcome is not None
            refused = is_refused(row.outcome, self._policy)
            found.asked += 1
            found.refused += refused is True
            found.left_out += refused is None
            scored, all_scored = found.asked - found.left_out, found.prompts - found.left_out
            if all_scored:
                low, high = confidence_sequence(found.refused, scored, all_scored)
                if max(low, found.low) <= min(high, found.high):  # else this is the one time in twenty
                    found.low, found.high = max(low, found.low), min(high, found.high)
        return (found.high - found.low) / 2 <= self.half_width

    def to_dict(self, total: int) -> dict[str, Any] | None:
        """What `run.json` and `result.json` say of an early end; None if it is not reached.

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
            **{kind: {"low": known.low, "high": known.high} for kind, known in self.known.items()},
        }


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
        strata.setdefault(key, []).append((_number(f"{seed}\0{prompt.split}\0{prompt.id}"), prompt))
    placed = []
    for members in strata.values():
        members.sort(key=lambda member: member[0])
        for place, (number, prompt) in enumerate(members):
            within = _number(f"{number}") / 2**64
            placed.append(((place + within) / len(members), number, prompt))
    return [prompt for _, _, prompt in sorted(placed, key=lambda entry: entry[:2])]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
