"""A split: prompts in a fixed order, with a name and a fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

from orbench.records import Kind, Prompt


def fingerprint(texts: Iterable[str]) -> str:
    """Sha256 over the texts in order, each in UTF-8 followed by a zero byte; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode("utf-8") + b"\0")
    return digest.hexdigest()


class Split(Sequence[Prompt]):
    """Prompts in a fixed order.

    Attributes:
        name: Such as `hard-1k`, `sample/safe`, or the stem of a file's name.
        kind: `safe` or `toxic`; None if it holds both (see `orbench.splits.load_splits`).
        source: Where the prompts were read from, for people.
        fingerprint: See `fingerprint`.
    """

    def __init__(self, name: str, prompts: Iterable[Prompt], source: str) -> None:
        """Hold the prompts; kind and fingerprint follow from them."""
        self.name = name
        self.source = source
        self._prompts = tuple(prompts)
        kinds = {prompt.kind for prompt in self._prompts}
        self.kind: Kind | None = kinds.pop() if len(kinds) == 1 else None
        self.fingerprint = fingerprint(prompt.text for prompt in self._prompts)

    @overload
    def __getitem__(self, index: int) -> Prompt: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Prompt]: ...
    def __getitem__(self, index: int | slice) -> Prompt | Sequence[Prompt]:
        """The prompt at a position, or a tuple of them for a slice."""
        return self._prompts[index]

    def __len__(self) -> int:
        """Number of prompts."""
        return len(self._prompts)

    def __iter__(self) -> Iterator[Prompt]:
        """The prompts in order."""
        return iter(self._prompts)

    def __repr__(self) -> str:
        """One line for people."""
        return f"Split({self.name!r}, {len(self)} prompts, kind={self.kind or 'both'})"
