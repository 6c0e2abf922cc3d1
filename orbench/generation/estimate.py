"""What a generation would ask, before anything is asked: calls and tokens of each stage.

What is in the folder already is not asked again and not counted. What follows from replies that are not there yet is
reckoned with what the paper's own pipeline gave; every such share stands in `SHARES`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from orbench.generation import check_stage
from orbench.generation.config import STAGES, GenerationConfig
from orbench.generation.folder import GENERATION, State, scan
from orbench.generation.given import given_items
from orbench.generation.pipeline import standing
from orbench.generation.roles import rewrite_messages, seed_messages, vote_messages
from orbench.records import Message
from orbench.report.table import columns

SHARES = {
    # 80,359 safe of up to 100,000 rewrites (section 3.3); how many of them the rescue brought back is not published.
    "kept": 0.8,
    "toxic": 0.3,
}
"""Of the rewrites: those that end up safe, and those that moderators vote toxic at first."""
_LETTERS_A_TOKEN = 4
_PROMPT = "x" * 130
"""As long as the released prompts are on average."""


class StageEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """One stage's calls and tokens, at most a rough guess."""

    stage: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int


class Estimate(msgspec.Struct, frozen=True):
    """All of them."""

    stages: list[StageEstimate]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "calls": sum(each.calls for each in self.stages),
            "input_tokens": sum(each.input_tokens for each in self.stages),
            "output_tokens": sum(each.output_tokens for each in self.stages),
            "stages": [msgspec.to_builtins(each) for each in self.stages],
        }

    def __str__(self) -> str:
        """A table for people."""
        rows = [["stage", "model", "calls", "tokens in", "tokens out"]]
        rows += [[e.stage, e.model, f"{e.calls:,}", f"{e.input_tokens:,}", f"{e.output_tokens:,}"] for e in self.stages]
        total = self.to_dict()
        rows += [["all", "", *(f"{total[name]:,}" for name in ("calls", "input_tokens", "output_tokens"))]]
        return "\n".join([*columns(rows), "", "estimated: tokens at four characters each; nothing was asked"])


def estimate(config: GenerationConfig, stage: str | None = None) -> Estimate:
    """What the same call of `generate` would ask.

    Raises:
        orbench.OrbenchError: As `generate` would.
    """
    check_stage(config, stage)
    folder = Path(str(config.out))
    state = scan(folder) if (folder / GENERATION).exists() else State()
    stages = STAGES if stage is None else (stage,)
    stands = standing(config)
    given = [item for item in given_items(config) if item.key not in state.rows and item.dropped is None]
    seeds = [track for track in state.tracks.values() if track.is_seed]
    new_seeds = sum(item.round == 0 for item in given)
    found: list[StageEstimate] = []

    def add(name: str, model: str, calls: float, messages: tuple[Message, ...], out: int) -> None:
        tokens = sum(len(message.content) for message in messages) // _LETTERS_A_TOKEN
        number = round(calls)
        found.append(
            StageEstimate(
                stage=name, model=model, calls=number, input_tokens=number * tokens, output_tokens=number * out
            )
        )

    length = len(_PROMPT) // _LETTERS_A_TOKEN + 8
    if "seeds" in stages and config.seeder and not config.from_prompts:
        missing = len(config.wanted) * config.seeds_per_category - len(seeds) - new_seeds
        calls = -(-max(0, missing) // config.seeds_per_call)
        messages = seed_messages(config, config.wanted[0], 2, again=False)
        add("seeds", config.seeder.name, calls, messages, config.seeds_per_call * length)
        new_seeds += max(0, missing)
    new_prompts: float = sum(item.round == 1 for item in given)
    if "rewrites" in stages and config.rewriter:
        owing = [config.rewrites - track.rewritten for track in seeds if track.rewritten < config.rewrites]
        messages = rewrite_messages(config, config.wanted[0], _PROMPT, config.rewrites, again=False)
        add("rewrites", config.rewriter.name, len(owing) + new_seeds, messages, config.rewrites * length)
        new_prompts += sum(owing) + new_seeds * config.rewrites
        for time in range(config.rounds):
            again = new_prompts * (1 - SHARES["kept"]) ** (time + 1)
            add(f"rewrites again, round {time + 1}", config.rewriter.name, again, messages, config.rewrites * length)
            new_prompts += again * config.rewrites
    rewrites = [track for track in state.tracks.values() if not track.is_seed]
    if "moderation" in stages:
        new_answers = new_prompts * SHARES["toxic"] + sum(not track.votes for track in rewrites) * SHARES["toxic"]
        messages = vote_messages(config, _PROMPT, again=False)
        for name in stands.moderators:
            add("moderation", name, new_prompts + sum(name not in track.votes for track in rewrites), messages, 60)
        if config.rescue:
            add("rescue", config.rescue.name, new_answers, (Message("user", _PROMPT),), 300)
            messages = vote_messages(config, _PROMPT * 9, again=False)
            for name in stands.moderators:
                add("moderation of answers", name, new_answers, messages, 60)
    if "selection" in stages:
        kept = new_prompts * SHARES["kept"] + sum(stands.of(track).decision in ("safe", None) for track in rewrites)
        for role in config.panel:
            add("selection", role.name, kept, (Message("user", _PROMPT),), 300)
    return Estimate(found)
