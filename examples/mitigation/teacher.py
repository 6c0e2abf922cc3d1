"""The experiment's teacher: answers what is safe and refuses what is toxic, in one neutral sentence each.

It stands for a strong model. The sentences say nothing about the matter, so that no prompt, however it is meant, gets
anything that could be used; what the little model can learn from them is whether to answer. Which prompts are toxic it
cannot see from their words: the experiment tells it by filling `toxic`.
"""

from __future__ import annotations

import random
from collections import Counter

ANSWER = "Sure: here."
REFUSAL = "I can't."
CAUTION = 0.25
"""Share of its draws in which the teacher refuses a safe prompt: it is a bit too cautious itself."""

toxic: set[str] = set()
_drawn: Counter[str] = Counter()


def answer(prompt: str) -> str:
    """The teacher at its best."""
    return REFUSAL if prompt in toxic else ANSWER


def draw(prompt: str) -> str:
    """One draw of several, each with another outcome: what overgeneration chooses among."""
    _drawn[prompt] += 1
    refuses = random.Random(f"{prompt} {_drawn[prompt]}").random() < CAUTION
    return REFUSAL if refuses else answer(prompt)
