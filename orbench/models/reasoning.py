"""Tells a model's thinking aloud from its answer, where both come in one text."""

from __future__ import annotations

import re

_OPENED = re.compile(
    r"\s*(?:<(think|thinking|reasoning|seed:think)>|\[(THINK)\]|(<\|channel>thought\b))", re.IGNORECASE
)
"""How reasoning begins: tags, Mistral's brackets, Gemma's channel."""
_HARMONY = re.compile(
    r"<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>(.*?)"
    r"(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
"""One message of the harmony format of gpt-oss: its channel and what it says."""
_MARK = re.compile(r"[<\[]")
"""Whatever marks reasoning has one of these."""
_PROMPT_OPENS = re.compile(
    r"(?:<(?:think|thinking|reasoning|seed:think)>|\[THINK\]|<\|channel>thought|<\|channel\|>analysis<\|message\|>)\s*\Z"
)
_MARKER = re.compile(
    r"</?(?:think|thinking|reasoning|seed:think)>|\[/?THINK\]|<\|channel>|<channel\|>"
    r"|<\|(?:channel|message|end|return|call|start|constrain)\|>",
    re.IGNORECASE,
)


def opened_by(prompt: str) -> str:
    """What of a rendered prompt belongs to the reply, since it opens the reasoning; empty where nothing does."""
    found = _PROMPT_OPENS.search(prompt)
    return found.group() if found else ""


def is_marker(token: str) -> bool:
    """Whether a token is part of how reasoning is marked."""
    return _MARKER.fullmatch(token.strip()) is not None


def has_reasoning(template: str) -> bool:
    """Whether a chat template knows of reasoning, so that replies may begin with it."""
    return re.search(r"<(?:think|thinking|reasoning|seed:think)>|\[THINK\]|<\|channel\|?>", template) is not None


def split_reasoning(text: str) -> tuple[str, str | None]:
    """Split off the reasoning that a text begins with.

    Known are `<think>...</think>` (also thinking, reasoning, seed:think), `[THINK]...[/THINK]` (Mistral), harmony's
    channels (gpt-oss: what is said in `final` is the answer) and `<|channel>thought...<channel|>` (Gemma).

    A block that is never closed is reasoning to its end: the model ran out inside it, and the answer is empty. A
    text that starts inside the block (some chat templates open it in the prompt) ends its reasoning at `</think>`.

    Returns:
        The answer, and the reasoning or None if there is none.
    """
    if not _MARK.search(text):
        return text, None
    if text.lstrip().startswith("<|channel|>") and (messages := _HARMONY.findall(text)):
        answers = [said.strip() for channel, said in messages if channel == "final"]
        thoughts = [said.strip() for channel, said in messages if channel != "final"]
        return "\n\n".join(answers), "\n\n".join(thoughts) if thoughts else None
    opened = _OPENED.match(text)
    start = opened.end() if opened else 0
    tag, bracket, _ = opened.groups() if opened else ("think", None, None)
    end = f"</{tag}>" if tag else f"[/{bracket}]" if bracket else "<channel|>"
    closed = re.compile(re.escape(end), re.IGNORECASE).search(text, start)
    if closed is None:
        return ("", text[start:].strip()) if opened else (text, None)
    if not opened and "<think>" in text[: closed.start()].lower():  # the answer speaks of such a block
        return text, None
    return text[closed.end() :].lstrip(), text[start : closed.start()].strip()
