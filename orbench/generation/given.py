"""Rows of a user's file: given seeds, or prompts that are to be moderated as they are.

A folder is made of one file, which may grow at its end. So every prompt of a data set is of the file that
`generation.json` names, each row keeps its number, and the counts are of one set.
"""

from __future__ import annotations

import difflib
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orbench.engine.jsonl import read_lines
from orbench.errors import OrbenchWarning, RunError, UsageError
from orbench.generation.config import GenerationConfig
from orbench.generation.folder import REWRITES, SEEDS, State
from orbench.generation.records import GIVEN, Item, text_id
from orbench.records import Kind
from orbench.report.format import plural
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
    own_ids = table.columns.get("id", [None] * table.rows)
    items = []
    for place, (prompt, own_id) in enumerate(zip(prompts, own_ids, strict=True)):
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
                call=GIVEN,
                place=place,
                dropped=OTHER_CATEGORY if unwanted else None,
                own_id=prompt.id if str(own_id or "").strip() else None,
            )
        )
    return items


def check_origin(
    config: GenerationConfig, stage: str | None, items: Sequence[Item], state: State, before: Mapping[str, Any]
) -> dict[str, Any]:
    """Refuse what would mix prompts of two origins in one set, before anything is asked.

    Args:
        config: What is to be done.
        stage: As in `generate`.
        items: The rows that are given now.
        state: What the folder holds.
        before: Its `generation.json`.

    Returns:
        What generation.json is to say of the given file; as before where none is given this time.

    Raises:
        RunError: The folder is made of another file, or the rows given before are not at the head of this one, or it
            holds a set of the other sort: made from seeds, or given to be moderated as it is.
    """
    folder = Path(str(config.out))
    has_seeds = any(is_seed for is_seed, _ in state.rows.values())
    has_given = any(call == GIVEN and not is_seed for (call, _), (is_seed, _) in state.rows.items())
    if config.from_prompts and has_seeds:
        raise RunError(
            f"{folder}: holds a set that is made from seeds; the prompts of {config.from_prompts} would be mixed in. "
            "Choose another --out"
        )
    if config.from_prompts is None and has_given and (items or stage in (None, "seeds")):
        raise RunError(
            f"{folder}: holds the prompts of {_name_before(before)}, moderated as they are; seeds would be mixed in. "
            "Choose another --out, or give that file as --from-prompts"
        )
    earlier = before.get("given") or {}
    if not items:
        return dict(earlier)
    path = Path(str(config.seeds or config.from_prompts))
    digest = file_digest(path)
    if earlier.get("sha256") != digest:
        _check_rows(folder, path, items, state.places[GIVEN], before)
    return {
        "what": "seeds" if config.seeds else "prompts",
        "file": str(path),
        "sha256": digest,
        "rows": len(items),
        "different": len({item.id for item in items}),
    }


def _check_rows(folder: Path, path: Path, items: Sequence[Item], count: int, before: Mapping[str, Any]) -> None:
    """Refuse a file that does not begin with the rows that were given before."""
    if not count:
        return
    place = min(count, len(items))
    for row in read_lines(folder / (SEEDS if items[0].round == 0 else REWRITES), Item):
        now = items[row.place] if row.call == GIVEN and row.place < place else None
        if now and (now.id, now.category, now.own_id) != (row.id, row.category, row.own_id):
            place = row.place
    if place < count:
        what = (
            f"ends before row {place + 1}"
            if place == len(items)
            else f"has another row {place + 1} (or another id in it)"
        )
        raise RunError(
            f"{folder}: holds {plural(count, 'row')} of {_name_before(before)}, and {path} {what}: two files would be "
            f"mixed. Choose another --out; or, for one set of both, put the new rows behind the {count:,} there are"
        )


def _name_before(before: Mapping[str, Any]) -> str:
    config = before["config"]
    return str((before.get("given") or {}).get("file") or config.get("seeds") or config.get("from_prompts"))


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
