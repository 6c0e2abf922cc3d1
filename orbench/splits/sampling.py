"""A smaller set of prompts that looks like the whole: `--limit`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

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
    """Draw prompts so that each (kind, category) keeps its share.

    Shares are rounded by largest remainder, so that each is less than one prompt off. Within a (kind, category)
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
    strata: dict[tuple[str, str], list[int]] = {}
    for index, prompt in enumerate(prompts):
        strata.setdefault((prompt.kind, prompt.category), []).append(index)

    shares = {key: divmod(limit * len(members), len(prompts)) for key, members in strata.items()}
    short = limit - sum(whole for whole, _ in shares.values())
    # Names break ties, so that the order of the rows cannot.
    rounded_up = set(sorted(shares, key=lambda key: (-shares[key][1], key))[:short])

    chosen: list[int] = []
    for key, members in strata.items():
        ranked = sorted(members, key=lambda index: _rank(prompts[index].id, seed))
        chosen += ranked[: shares[key][0] + (key in rounded_up)]
    return [prompts[index] for index in sorted(chosen)]


def _rank(prompt_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\0{prompt_id}".encode()).digest()
