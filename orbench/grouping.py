"""Which prompts of a run belong together: made from one seed, marked as nearly the same, or sharing most words.

In: results on the same prompts. Out: a group for each prompt. The intervals of one run and of a comparison ask here,
so that they speak of the same groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from orbench.engine.run_folder import read_responses
from orbench.records import Prompt, Response
from orbench.results import Evaluation
from orbench.run_state import Key
from orbench.statistics.duplicates import near_duplicates
from orbench.statistics.families import families

GroupedBy = Literal["seed", "near-duplicates", "seed, else near-duplicates"]
HOW: Mapping[GroupedBy, str] = {
    "seed": "made from one seed",
    "near-duplicates": "that share most of their words",
    "seed, else near-duplicates": "made from one seed (where none is known: that share most of their words)",
}
"""For people: what the prompts of a group have in common."""


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """The group of each prompt."""

    by: GroupedBy
    """What tells it: the seeds that prompts were made from; for those without one their words."""
    of: Mapping[Key, str]
    """(split, prompt id) to the name of its group."""


def prompt_groups(results: Iterable[Evaluation]) -> Groups:
    """The groups of all prompts that any of the results has a reply to.

    Args:
        results: Runs on the same prompts, finished or not.

    Source:
        Seeds as the splits give them (`seed_id`), and groups of near duplicates that they mark (`group_id`): what is
        linked by either is one group. Else `orbench.statistics.duplicates`.
    """
    seeds: dict[Key, tuple[tuple[str, str], ...]] = {}
    texts: dict[Key, str] = {}
    for result in results:
        if all(key in texts or key in seeds for key in result.states):
            continue
        for response in read_responses(result.run):
            if linked := _names(response):
                seeds[response.key] = linked
            else:
                texts[response.key] = response.prompt
    numbers = near_duplicates(list(texts.values()))
    by: GroupedBy = "near-duplicates" if not seeds else "seed, else near-duplicates" if texts else "seed"
    return Groups(
        by=by,
        of={
            **{key: f"seed {number}" for key, number in zip(seeds, families(seeds.values()), strict=True)},
            **{key: f"words {number}" for key, number in zip(texts, numbers, strict=True)},
        },
    )


def find_groups(prompts: Sequence[Prompt]) -> list[int]:
    """The number of each prompt's group by all that is known: seed, marked group, words in common, any of them.

    Stricter than `prompt_groups`, which trusts the seeds where there are some: what is trained on and what is measured
    on shall not even sound alike.
    """
    words = near_duplicates([prompt.text for prompt in prompts])
    return families([*_names(prompt), ("words", str(number))] for prompt, number in zip(prompts, words, strict=True))


def _names(one: Prompt | Response) -> tuple[tuple[str, str], ...]:
    """What links a prompt to others, as its file says."""
    names = (("seed", one.seed_id), ("group", one.group_id))
    return tuple((what, name) for what, name in names if name)
