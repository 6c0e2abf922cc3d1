"""A smaller set of prompts that looks like the whole: `--limit`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from orbench.errors import UsageError
from orbench.records import Prompt


def check_limit(limit: int | None) -> None:
    """Refuse a limit below 1.

    Raises:
        UsageError: The limit is below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"the limit must be at least 1 prompt, not {limit}")


def sample(prompts: Sequence[Prompt], limit: int, seed: int = 0) -> list[Prompt]:
    """Draw prompts so that each kind, and each category within it, keeps its share.

    Shares are rounded by largest remainder, so that each is less than one prompt off; but a kind that is there has
    one prompt at least where the limit allows it, since without it one of the two rates would be missing. Within a
    category
    the prompts are ranked by a hash of seed and prompt id: the sample depends on nothing else, whatever the platform
    or Python, and what a small sample holds a larger one holds too, except where a share shrinks by rounding.

    Args:
        prompts: With unique ids.
        limit: Number of prompts to draw, at least 1; all are returned if there are no more.
        seed: Any integer.

    Returns:
        `min(limit, len(prompts))` prompts in the order given.

    Raises:
        UsageError: The limit is below 1.
    """
    check_limit(limit)
    if limit >= len(prompts):
        return list(prompts)
    strata: dict[str, dict[str, list[int]]] = {}
    for index, prompt in enumerate(prompts):
        strata.setdefault(prompt.kind, {}).setdefault(prompt.category, []).append(index)

    sizes = {kind: sum(map(len, categories.values())) for kind, categories in strata.items()}
    wanted = _shares(sizes, limit)
    for kind in sorted(kind for kind, count in wanted.items() if not count)[: limit - 1]:
        wanted[max(wanted, key=lambda other: (wanted[other], other))] -= 1
        wanted[kind] = 1

    chosen: list[int] = []
    for kind, categories in strata.items():
        counts = _shares({category: len(members) for category, members in categories.items()}, wanted[kind])
        for category, members in categories.items():
            ranked = sorted(members, key=lambda index: _rank(prompts[index].id, seed))
            chosen += ranked[: counts[category]]
    return [prompts[index] for index in sorted(chosen)]


def _shares(sizes: Mapping[str, int], limit: int) -> dict[str, int]:
    """How many each name gets of `limit`, in proportion to its size; at most its size."""
    total = sum(sizes.values())
    shares = {name: divmod(limit * size, total) for name, size in sizes.items()}
    short = limit - sum(whole for whole, _ in shares.values())
    # Names break ties, so that the order of the rows cannot.
    rounded_up = sorted(shares, key=lambda name: (-shares[name][1], name))[:short]
    return {name: whole + (name in rounded_up) for name, (whole, _) in shares.items()}


def _rank(prompt_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{prompt_id}".encode()).digest()
