"""Replies that another tool got, in orbench's own records: what every reader of a foreign file gives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from orbench.errors import SplitError
from orbench.records import Prompt, Response, Sampling
from orbench.scoring.outcomes import Verdict
from orbench.splits import Split


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What one file holds."""

    model: str
    """Who replied."""
    splits: Sequence[Split]
    """The prompts, each split of one kind."""
    described: Sequence[dict[str, Any]] | None = None
    """The splits as `run.json` describes them, where the file says so itself: its rows may stand in another order."""
    responses: Sequence[Response]
    """One for each prompt that has a reply or an error."""
    sampling: Sampling = Sampling()
    system_prompt: str | None = None
    origin: dict[str, Any]
    """For `run.json`: the tool, its version and task, as far as the file says."""
    verdicts: Sequence[Verdict] = ()
    """One for each response, where the file has those of one orbench scorer; else none."""
    scorer: dict[str, Any] | None = None
    """That scorer, as in `run.json`."""
    unusable: str | None = None
    """Why the file's own verdicts cannot be taken, although it has some; the replies can still be read anew."""
    policy: str | None = None
    """The policy under which the tool read them."""


def reply_to(prompt: Prompt, response: str, **fields: Any) -> Response:
    """The reply to a prompt; fields as in `Response`."""
    return Response(
        prompt_id=prompt.id,
        split=prompt.split,
        category=prompt.category,
        kind=prompt.kind,
        prompt=prompt.text,
        response=response,
        seed_id=prompt.seed_id,
        group_id=prompt.group_id,
        **fields,
    )


def splits_of(path: Path, prompts: Sequence[Prompt]) -> list[Split]:
    """The prompts of one file by the split that each names, in order.

    Raises:
        orbench.SplitError: A split with safe and toxic prompts, which has no one rate.
    """
    names = dict.fromkeys(prompt.split for prompt in prompts)
    splits = [Split(name, [prompt for prompt in prompts if prompt.split == name], str(path)) for name in names]
    for split in splits:
        if split.kind is None:
            raise SplitError(f"{path}: the split {split.name!r} holds safe and toxic prompts; give the two two names")
    return splits
