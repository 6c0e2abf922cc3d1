"""What a model said in inspect_ai, as orbench would have kept it: one reading for the scorer and the import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from orbench.integrations.imported import reply_to
from orbench.models.reasoning import split_reasoning
from orbench.records import FinishReason, Prompt, Response, Usage

if TYPE_CHECKING:
    from inspect_ai.model import ModelOutput

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "content_filter": "content_filter",
}


def to_response(prompt: Prompt, output: ModelOutput) -> Response:
    """The reply to a prompt; without one, a response with an error."""
    if not output.choices:
        return reply_to(prompt, "", error=output.error or "no reply in the log")
    choice = output.choices[0]
    parts = choice.message.content
    text, reasoning = split_reasoning(choice.message.text)
    finish_reason = _FINISH.get(choice.stop_reason, "other")
    if not isinstance(parts, str):
        told = [part.summary or "" if part.redacted else part.reasoning for part in parts if part.type == "reasoning"]
        reasoning = "\n".join(told) if told else reasoning
        if any(part.type == "text" and part.refusal for part in parts):
            finish_reason = "refusal"
    return reply_to(
        prompt,
        text,
        reasoning=reasoning,
        finish_reason=finish_reason,
        blocked_by="output" if finish_reason in ("content_filter", "refusal") else None,
        usage=_usage(output),
        latency_s=output.time,
    )


def _usage(output: ModelOutput) -> Usage | None:
    usage = output.usage
    if usage is None:
        return None
    cached = (usage.input_tokens_cache_read or 0) + (usage.input_tokens_cache_write or 0)
    return Usage(input_tokens=usage.input_tokens + cached, output_tokens=usage.output_tokens)
