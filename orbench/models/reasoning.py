"""Tells a model's thinking aloud from its answer, where both come in one text."""

from __future__ import annotations

import re

_THINKING = re.compile(r"\s*<(think|thinking|reasoning)>", re.IGNORECASE)


def split_reasoning(text: str) -> tuple[str, str | None]:
    """Split off a leading `<think>...</think>` block.

    A block that is never closed is reasoning to its end: the model ran out inside it, and the answer is empty. A
    text that starts inside the block (some chat templates open it in the prompt) ends its reasoning at `</think>`.

    Returns:
        The answer, and the reasoning or None if there is none.
    """
    opened = _THINKING.match(text)
    if opened:
        tag, start = opened.group(1), opened.end()
    elif "</think>" in text:
        tag, start = "think", 0
    else:
        return text, None
    closing = f"</{tag.lower()}>"
    end = text.lower().find(closing, start)
    if end < 0:
        return "", text[start:].strip()
    return text[end + len(closing) :].lstrip(), text[start:end].strip()
