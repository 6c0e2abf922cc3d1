"""Rows of a user's file: given seeds, or prompts that are to be moderated as they are."""

from __future__ import annotations

import difflib
import hashlib
import warnings
from pathlib import Path

from orbench.errors import OrbenchWarning, UsageError
from orbench.generation.config import GenerationConfig
from orbench.generation.records import GIVEN, Item, text_id
from orbench.records import Kind
from orbench.splits.files import read_table
from orbench.splits.prompts import to_prompts

OTHER_CATEGORY = "category not asked for"


def given_items(config: GenerationConfig) -> list[Item]:
    """The rows of `seeds` or `from_prompts`, in the file's order; none where neither is given.

    Raises:
        UsageError: Both are given, or a category is near to a known one but is none.
        orbench.SplitError: The file cannot be read; names row and column.
    """
    if config.seeds and config.from_prompts:
        raise UsageError("seeds and from_prompts exclude each other: seeds are rewritten, prompts are only moderated")
    name = config.seeds or config.from_prompts
    if name is None:
        return []
    kind: Kind = "toxic" if config.seeds else "safe"
    path = Path(name)
    table = read_table(path, config.columns)
    table.columns.pop("kind", None)  # what the file says of them is what moderators are to find out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OrbenchWarning)  # own categories
        prompts = to_prompts(table, path.stem, kind)
    call = f"{GIVEN}:{file_digest(path)[:16]}"
    items = []
    for place, prompt in enumerate(prompts):
        id = text_id(prompt.text)
        if config.seeds:
            _check(prompt.category, config, path)
        unwanted = bool(config.seeds and config.categories and prompt.category not in config.wanted)
        items.append(
            Item(
                id=id,
                prompt=prompt.text,
                category=prompt.category,
                seed_id=id if config.seeds else (prompt.seed_id or id),
                parent_id=None,
                round=0 if config.seeds else 1,
                model=GIVEN,
                call=call,
                place=place,
                dropped=OTHER_CATEGORY if unwanted else None,
            )
        )
    return items


def other_prompts(config: GenerationConfig) -> list[str]:
    """The prompts of `overlap_with`; none where it is not given.

    Raises:
        orbench.SplitError: The file cannot be read; names row and column.
    """
    if config.overlap_with is None:
        return []
    table = read_table(Path(config.overlap_with))
    table.columns.pop("kind", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OrbenchWarning)  # their categories do not matter here
        return [prompt.text for prompt in to_prompts(table, "others", "safe")]


def file_digest(path: Path) -> str:
    """Sha256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _check(category: str, config: GenerationConfig, path: Path) -> None:
    if category in config.definitions:
        return
    near = difflib.get_close_matches(category, config.definitions, n=1, cutoff=0.8)
    if near:
        raise UsageError(f"{path}: category {category!r}: did you mean {near[0]!r}?")
