"""Good replies with something odd beside the answer: read as far as they make sense, for they were paid for.

Half of an emoji in the text, tokens counted as `12.0`, a list where usage should be: none of it is a reason to ask, and
pay, again. What decides the outcome must fit, or the reply stays malformed.
"""

from __future__ import annotations

import json
import types
from typing import Any, Union, get_args, get_origin

import msgspec

_SIDE = frozenset({"usage", "usage_metadata", "error", "reasoning", "reasoning_content", "thinking", "summary"})
"""Fields without which a reply is as good."""
_ANSWER = frozenset({"choices", "message", "content", "text", "output", "candidates", "parts"})
"""Fields that hold the answer: nothing odd in them counts as absent, or a broken reply would be an empty answer."""


def read_oddly(content: bytes, kind: type[msgspec.Struct]) -> Any:
    """The reply as a struct of that kind, as far as it fits.

    Bytes that are no UTF-8 and halves of surrogate pairs become U+FFFD. Values that are empty (`""`, `[]`, `false`) and
    do not fit count as absent, and so do values beside the answer; a text there that is none is kept as its JSON.

    Raises:
        ValueError: It is no JSON, or the answer itself does not fit (`msgspec.ValidationError` is one).
        RecursionError: It is too deep.
    """
    value = json.loads(content.decode("utf-8", "replace"), parse_constant=lambda name: None)
    text = json.dumps(value, ensure_ascii=False)
    return _fitted(
        json.loads(text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")), kind, "", False
    )


def _fitted(value: Any, kind: Any, name: str, is_side: bool) -> Any:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError:
        pass
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    if type(None) in kinds and not value and name not in _ANSWER:
        return None
    for one in kinds:
        if isinstance(one, type) and issubclass(one, msgspec.Struct) and isinstance(value, dict):
            return _struct(value, one, is_side)
        if get_origin(one) is list and isinstance(value, list):
            return [_fitted(item, get_args(one)[0], name, is_side) for item in value]
    if is_side:
        return _side(value, kinds)
    return msgspec.convert(value, kind)  # raises, and says why


def _struct(value: dict[str, Any], kind: type[msgspec.Struct], is_side: bool) -> Any:
    found = {}
    for field in msgspec.structs.fields(kind):
        if field.encode_name in value:
            inner = value[field.encode_name]
            found[field.name] = _fitted(inner, field.type, field.name, is_side or field.name in _SIDE)
        elif field.required:
            raise msgspec.ValidationError(f"no {field.encode_name} in it")
    return kind(**found)


def _side(value: Any, kinds: tuple[Any, ...]) -> Any:
    """What is kept of a value that does not fit and need not."""
    if int in kinds:
        try:
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            return None
        return int(number) if number.is_integer() else None
    return json.dumps(value, ensure_ascii=False) if str in kinds else None
