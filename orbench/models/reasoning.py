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
    start = opened.end() if opened else 0
    closed = re.compile(f"</{opened.group(1) if opened else 'think'}>", re.IGNORECASE).search(text, start)
    if closed is None:
        return ("", text[start:].strip()) if opened else (text, None)
    if not opened and "<think>" in text[: closed.start()].lower():  # the answer speaks of such a block
        return text, None
    return text[closed.end() :].lstrip(), text[start : closed.start()].strip()
