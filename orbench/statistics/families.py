"""What belongs together: linked by a name in common, or through others that are.

In: the names of each thing, such as the seed of a prompt and its group of near duplicates. Out: its family's number.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


class Links(Generic[T]):
    """Which names are linked, directly or through others."""

    def __init__(self) -> None:
        """No links yet: each name stands alone."""
        self._above: dict[T, T] = {}

    def root(self, name: T) -> T:
        """One name of all that are linked to this one, the same for each of them."""
        above = self._above
        while (next_ := above.get(name, name)) != name:
            above[name] = name = above.get(next_, next_)
        return name

    def link(self, one: T, other: T) -> None:
        """From now on they belong together."""
        self._above[self.root(other)] = self.root(one)

    def number(self, names: Iterable[T]) -> list[int]:
        """For each name the number of what it is linked to, counted from 0 in the order of first appearance."""
        numbers: dict[T, int] = {}
        return [numbers.setdefault(self.root(name), len(numbers)) for name in names]


def families(names: Iterable[Sequence[Hashable]]) -> list[int]:
    """Number families of things that share a name, directly or through others.

    Args:
        names: The names of each thing; one without any is a family of its own.

    Returns:
        For each thing the number of its family, counted from 0 in the order of first appearance.
    """
    links = Links[Hashable]()
    firsts: list[Hashable] = []
    for own in names:
        first, *others = own or (object(),)
        for other in others:
            links.link(first, other)
        firsts.append(first)
    return links.number(firsts)
