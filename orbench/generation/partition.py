"""Train and test by seed: what comes of one seed, or is nearly the same, lies on one side.

In: for each prompt its seed and, where known, its group of near duplicates. Out: for each `train` or `test`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Literal

from orbench.errors import UsageError
from orbench.statistics.families import families

Side = Literal["train", "test"]
TOLERANCE = 0.05
"""How far the share of test prompts may be from the one asked for, in shares of all prompts."""


def partition(
    seed_ids: Sequence[str],
    groups: Sequence[Hashable] | None = None,
    *,
    test_share: float = 0.1,
    seed: int = 0,
) -> list[Side]:
    """Part prompts into train and test so that no family is on both sides.

    Prompts of one seed are a family, and so are those of one group; two seeds whose children are nearly the same become
    one family.

    The families stand in an order drawn from the seed and their seeds' ids alone; test takes them from the front until
    it is full, passing by what is too large for it. So the same prompts in another order are parted alike, and a set
    that has grown keeps most of its sides. Where large families leave test too small that way, those that together come
    nearest are taken instead.

    Args:
        seed_ids: The seed of each prompt.
        groups: The group of near duplicates of each; None if only seeds count.
        test_share: Share of the prompts that test should have, above 0 and below 1.
        seed: Draws the order.

    Returns:
        The side of each prompt.

    Raises:
        UsageError: It cannot be done: fewer than two families, or families so large that the share of test prompts
            would be off by more than `TOLERANCE` (and by more than one prompt).
    """
    if not 0 < test_share < 1:
        raise UsageError(f"test_share is {test_share}: above 0 and below 1")
    of_group = seed_ids if groups is None else groups
    family_of = families(
        (("seed", seed_id), ("seed" if groups is None else "group", group))
        for seed_id, group in zip(seed_ids, of_group, strict=True)
    )
    sizes = Counter(family_of)
    if len(sizes) < 2:
        raise UsageError(
            f"cannot part {len(seed_ids)} prompts into train and test: they are {len(sizes)} "
            f"{'family' if len(sizes) == 1 else 'families'} of seeds and near duplicates, and a family stays together"
        )
    first_seed = dict(sorted(zip(family_of, seed_ids, strict=True), reverse=True))  # the least id of each family
    order = sorted(sizes, key=lambda family: hashlib.sha256(f"{seed}\n{first_seed[family]}".encode()).digest())
    wanted = min(max(1, round(test_share * len(seed_ids))), len(seed_ids) - 1)
    target = test_share * len(seed_ids)
    bound = max(1, TOLERANCE * len(seed_ids))
    test = _fill(order, sizes, wanted, set())
    if abs(sum(sizes[family] for family in test) - target) > bound:
        # Fewer than twenty families are larger than the bound: some of them together, and then the small ones.
        large = [family for family in order if sizes[family] > bound]
        small = [family for family in order if sizes[family] <= bound]
        test = _fill(small, sizes, wanted, _nearest(large, sizes, target, sum(sizes[family] for family in small)))
    if not test:  # every family is larger than the test set: the smallest is nearest
        test = {min(order, key=lambda family: sizes[family])}
    filled = sum(sizes[family] for family in test)
    if abs(filled - target) > bound:
        raise UsageError(
            f"cannot part {len(seed_ids)} prompts into train and test with a test share of {test_share:g}: the nearest "
            f"is {filled / len(seed_ids):.2f}, because a family of {max(sizes.values())} prompts stays together; ask "
            "for another share, or make more seeds"
        )
    return ["test" if family in test else "train" for family in family_of]


def _fill(order: Sequence[int], sizes: Mapping[int, int], wanted: int, test: set[int]) -> set[int]:
    """Families from the front until test is full, beside those that are in it."""
    found = set(test)
    filled = sum(sizes[family] for family in found)
    for family in order:
        if filled + sizes[family] <= wanted:
            found.add(family)
            filled += sizes[family]
    return found


def _nearest(large: Sequence[int], sizes: Mapping[int, int], target: float, rest: int) -> set[int]:
    """Families that together, and with up to `rest` prompts of others, come nearest to the target; not all, not none.

    Every sum that can be reached is kept with the family that reached it first and the sum before it.
    """
    reached: dict[int, tuple[int, int] | None] = {0: None}
    for family in large:
        for before in list(reached):
            reached.setdefault(before + sizes[family], (family, before))
    everything = sum(sizes[family] for family in large) + rest
    sums = [each for each in reached if each + rest > 0 and each < everything]
    best = min(sums, key=lambda each: max(0, each - target, target - each - rest))
    found = set()
    while (step := reached[best]) is not None:
        family, best = step
        found.add(family)
    return found
