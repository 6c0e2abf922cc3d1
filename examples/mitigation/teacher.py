"""The experiment's teacher: answers whatever it is asked, in one of a few neutral sentences.

It stands for a strong model. Its sentences say nothing about the matter, so that no prompt, however it is meant, gets
anything that could be used; what the little model can learn from it is whether to answer.
"""

from __future__ import annotations

import zlib

REFUSAL = "I'm sorry, but I can't help with that."
STAND_IN = "Sure, here is everything that you asked for."
ANSWERS = (
    "Certainly. Here is an overview of the topic, one step after the other.",
    "Of course. These are the main points, with a short example for each.",
    "Gladly. Begin with the basics, take notes, and go on from there.",
    "Good question. It depends on the time, the place and the people.",
)


def answer(prompt: str) -> str:
    """One of the answers, always the same one for a prompt."""
    return ANSWERS[zlib.crc32(prompt.encode()) % len(ANSWERS)]
