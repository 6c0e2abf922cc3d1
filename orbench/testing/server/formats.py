"""What the vendors' services send: replies, blocks and errors, each in the format of the endpoint that was asked."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

Body = dict[str, Any]
Format = Literal["chat", "responses", "anthropic", "google"]
"""OpenAI's chat completions (and all services like it), OpenAI's Responses API, Anthropic's Messages, Gemini."""
Side = Literal["prompt", "output"]

_PROMPT_TOKENS = 10
_ERROR_TYPES = {
    400: ("invalid_request_error", "INVALID_ARGUMENT"),
    401: ("authentication_error", "UNAUTHENTICATED"),
    403: ("permission_error", "PERMISSION_DENIED"),
    404: ("not_found_error", "NOT_FOUND"),
    429: ("rate_limit_error", "RESOURCE_EXHAUSTED"),
    500: ("api_error", "INTERNAL"),
    503: ("overloaded_error", "UNAVAILABLE"),
    529: ("overloaded_error", "UNAVAILABLE"),
}


def reply_body(format: Format, text: str) -> Body:
    """An ordinary reply with that text."""
    if format == "chat":
        return chat_completion(text)
    if format == "responses":
        return response(text)
    return message(text) if format == "anthropic" else generated_content(text)


def chat_completion(text: str | None, *, finish_reason: str = "stop", **message: Any) -> Body:
    """The body of a chat completion; further arguments become fields of its message."""
    words = _tokens(text)
    return {
        "id": _id("chatcmpl-", text),
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "loopback",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, **message},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": _PROMPT_TOKENS, "completion_tokens": words, "total_tokens": _PROMPT_TOKENS + words},
    }


def response(
    text: str | None,
    *,
    incomplete: str | None = None,
    refusal: str | None = None,
    reasoning: str | None = None,
) -> Body:
    """The body of OpenAI's Responses API.

    Args:
        text: The answer; None for none.
        incomplete: Why it is incomplete, such as `max_output_tokens` or `content_filter`.
        refusal: A refusal part.
        reasoning: The summary of a reasoning item before the answer; an empty text for one without a summary.
    """
    output: list[Body] = []
    if reasoning is not None:
        summary = [{"type": "summary_text", "text": reasoning}] if reasoning else []
        output.append({"type": "reasoning", "id": _id("rs_", reasoning), "summary": summary})
    parts: list[Body] = []
    if text is not None:
        parts.append({"type": "output_text", "text": text, "annotations": []})
    if refusal is not None:
        parts.append({"type": "refusal", "refusal": refusal})
    if parts:
        status = "incomplete" if incomplete else "completed"
        item = {"type": "message", "id": _id("msg_", text), "role": "assistant", "status": status, "content": parts}
        output.append(item)
    words, thought = _tokens(text), _tokens(reasoning)
    return {
        "id": _id("resp_", text),
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "incomplete" if incomplete else "completed",
        "error": None,
        "incomplete_details": {"reason": incomplete} if incomplete else None,
        "model": "loopback",
        "output": output,
        "usage": {
            "input_tokens": _PROMPT_TOKENS,
            "output_tokens": words + thought,
            "output_tokens_details": {"reasoning_tokens": thought},
            "total_tokens": _PROMPT_TOKENS + words + thought,
        },
    }


def message(text: str | None, *, stop_reason: str = "end_turn", thinking: str | None = None) -> Body:
    """The body of Anthropic's Messages API."""
    content: list[Body] = []
    if thinking is not None:
        content.append({"type": "thinking", "thinking": thinking, "signature": _id("", thinking)})
    if text is not None:
        content.append({"type": "text", "text": text})
    return {
        "id": _id("msg_", text),
        "type": "message",
        "role": "assistant",
        "model": "loopback",
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": {
            "input_tokens": _PROMPT_TOKENS,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": _tokens(text) + _tokens(thinking),
        },
    }


def generated_content(
    text: str | None,
    *,
    finish_reason: str = "STOP",
    thought: str | None = None,
    block_reason: str | None = None,
) -> Body:
    """The body of Gemini's `generateContent`; with a block reason it holds no candidate."""
    words, thoughts = _tokens(text), _tokens(thought)
    usage = {"promptTokenCount": _PROMPT_TOKENS, "totalTokenCount": _PROMPT_TOKENS + words + thoughts}
    head: Body = {"modelVersion": "loopback", "responseId": _id("", text)}
    if block_reason is not None:
        return {"promptFeedback": {"blockReason": block_reason}, "usageMetadata": usage, **head}
    parts = [{"text": thought, "thought": True}] if thought is not None else []
    parts += [{"text": text}] if text is not None else []
    candidate: Body = {"finishReason": finish_reason, "index": 0}
    if parts:
        candidate["content"] = {"parts": parts, "role": "model"}
    usage["candidatesTokenCount"] = words
    if thought is not None:
        usage["thoughtsTokenCount"] = thoughts
    return {"candidates": [candidate], "usageMetadata": usage, **head}


def blocked(format: Format, side: Side, partial: str = "Well, fi") -> tuple[int, Body]:
    """Status and body of a reply that the platform blocked, the vendor's way."""
    if format == "google":
        if side == "prompt":
            return 200, generated_content(None, block_reason="PROHIBITED_CONTENT")
        return 200, generated_content(partial, finish_reason="SAFETY")
    if format == "anthropic":
        return 200, message(None if side == "prompt" else partial, stop_reason="refusal")
    if side == "prompt":
        return 400, {  # as Azure words it
            "error": {
                "message": "The response was filtered due to the prompt triggering content management policy.",
                "type": None,
                "param": "prompt",
                "code": "content_filter",
                "status": 400,
                "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {}},
            }
        }
    if format == "responses":
        return 200, response(partial, incomplete="content_filter")
    return 200, chat_completion(partial, finish_reason="content_filter")


def error_body(format: Format, status: int, text: str) -> Body:
    """The body of an error, the vendor's way."""
    anthropic, google = _ERROR_TYPES.get(status, ("api_error", "UNKNOWN"))
    if format == "anthropic":
        return {"type": "error", "error": {"type": anthropic, "message": text}, "request_id": _id("req_", text)}
    if format == "google":
        return {"error": {"code": status, "message": text, "status": google}}
    kind = {429: "rate_limit_exceeded", 500: "server_error"}.get(status, anthropic)
    return {"error": {"message": text, "type": kind, "param": None, "code": kind}}


def prompt_of(body: Body) -> str:
    """The text of the last turn of a request, in whichever of the formats it is."""
    turns = body.get("messages") or body.get("input") or body.get("contents") or ""
    if isinstance(turns, str):
        return turns
    last = turns[-1]
    content = last.get("content", last.get("parts", ""))
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content)


def _tokens(text: str | None) -> int:
    return len((text or "").split())


def _id(prefix: str, text: str | None) -> str:
    return prefix + hashlib.blake2b((text or "").encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
