"""Parts of a run's prompts: whole groups, and the same whatever order the prompts come in."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from orbench.mitigation.apart import part_prompts
from orbench.records import Prompt


def make_prompts(count: int) -> list[Prompt]:
    return [
        Prompt(
            id=str(number),
            text=" ".join(f"{word}{number}" for word in ("kettle", "lantern", "harbour", "meadow", "violin")),
            category="privacy",
            kind="toxic" if number % 3 == 0 else "safe",
            split="made",
            seed_id=f"seed-{number // 2}" if number % 5 else None,
        )
        for number in range(count)
    ]


@given(count=st.integers(20, 60), seed=st.integers(0, 5), order=st.randoms(use_true_random=False))
def test_the_order_of_prompts_changes_no_part(count: int, seed: int, order: random.Random) -> None:
    prompts = make_prompts(count)
    shuffled = order.sample(prompts, len(prompts))
    options = {"held_out": 0.2, "validation": 3, "seed": seed}

    parts = {p.id: part for p, part in zip(prompts, part_prompts(prompts, **options), strict=True)}
    again = {p.id: part for p, part in zip(shuffled, part_prompts(shuffled, **options), strict=True)}

    assert again == parts


@given(seed=st.integers(0, 20))
def test_prompts_of_one_seed_are_never_parted(seed: int) -> None:
    prompts = make_prompts(40)
    parts = part_prompts(prompts, held_out=0.25, validation=0.25, seed=seed)

    of_seed: dict[str, set[str]] = {}
    for prompt, part in zip(prompts, parts, strict=True):
        if prompt.seed_id:
            of_seed.setdefault(prompt.seed_id, set()).add(part)
    assert all(len(found) == 1 for found in of_seed.values())
    assert set(parts) == {"train", "validation", "held_out"}
