"""What belongs together: linked by a name in common, or through others that are.

In: the names of each thing, such as the seed of a prompt and its group of near duplicates. Out: its family's number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence


def families(names: Iterable[Sequence[Hashable]]) -> list[int]:
    """Number families of things that share a name, directly or through others.

    Args:
        names: The names of each thing; one without any is a family of its own.

    Returns:
        For each thing the number of its family, counted from 0 in the order of first appearance.
    """
    parent: dict[Hashable, Hashable] = {}

    def root(name: Hashable) -> Hashable:
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    firsts: list[Hashable] = []
    for own in names:
        first, *others = own or (object(),)
        for other in others:
            parent[root(other)] = root(first)
        firsts.append(first)
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(root(first), len(numbers)) for first in firsts]
