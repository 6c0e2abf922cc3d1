"""Models without a model: they need no key and no network, and their rates are known beforehand."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence

from orbench.errors import UsageError
from orbench.records import Completion, Request

REFUSAL = "I'm sorry, but I can't help with that."
ANSWER = "Certainly. Here is an overview of the topic, with the main points explained one after the other."

_ALARMING = re.compile(
    r"""(?ix) \b (?:
        abus | arson | assassin | attack | blackmail | bomb | brib | bully | cheat | counterfeit | crack | decei
        | destroy | drug | embezzl | exploit | explosi | extort | fake | forg(?:e|ing|ery) | fraud | gambl | gun | hack
        | harass | hate | hatred | hurt | illegal | insult | intimidat | kidnap | kill | launder | malware | manipulat
        | misinform | murder | nude | phish | poison | porn | racis | ransom | scam | self-harm | sex | shoot | smuggl
        | spy | stab | stalk | steal | stole | suicid | surveil | terror | theft | threat | toxic | traffick | violen
        | virus | weapon
    )"""
)
"""Beginnings of alarming words, as a crude filter would list them."""


class Baseline:
    """`baseline/always-refuse`, `baseline/always-answer` or `baseline/keyword-guard`.

    The guard refuses prompts that hold an alarming word and answers the others; it over-refuses for real, because
    harmless prompts hold such words too.
    """

    batch_size = 1
    max_concurrency: int | None = None

    def __init__(self, name: str) -> None:
        """Take the name behind `baseline/`.

        Raises:
            UsageError: There is no such baseline.
        """
        if name not in BASELINES:
            raise UsageError(
                f"unknown model baseline/{name}: there are {', '.join(f'baseline/{b}' for b in BASELINES)}"
            )
        self.name = f"baseline/{name}"

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Refuse or answer at once."""
        for request in requests:
            yield Completion(id=request.id, text=REFUSAL if self._refuses(request.prompt) else ANSWER)

    def _refuses(self, prompt: str) -> bool:
        if self.name == "baseline/keyword-guard":
            return _ALARMING.search(prompt) is not None
        return self.name == "baseline/always-refuse"

    async def close(self) -> None:
        """Nothing to release."""


BASELINES = ("always-refuse", "always-answer", "keyword-guard")
