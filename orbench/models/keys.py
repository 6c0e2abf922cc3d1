"""Keys of the services: read from the environment, and taken out of whatever a service or a library says.

A service that refuses a key may repeat it, and a proxy in front of several may repeat another one's. So every key that
the environment holds for any provider is looked for, not only that of the model that was asked. What a model replies
is the data measured, and is left as it came.
"""

from __future__ import annotations

import functools
import os
import re

from orbench.errors import ModelError

HUB_VARIABLE = "HF_TOKEN"
"""Environment variable with the token for the Hub; never an option, which shells and process lists show."""
_SHORTEST_KEY = 8
"""Characters below which a key is a dummy for a server of one's own (`x`, `none`) and no secret, but may be a part of
any word that a service says."""


def read_key(variables: tuple[str, ...], model: str) -> str:
    """The key in the first of the variables that is set; empty if none is.

    Raises:
        ModelError: It holds characters that no header carries. The key itself is not shown.
    """
    for variable in variables:
        if key := os.environ.get(variable, "").strip():
            if not (key.isascii() and key.isprintable()):
                raise ModelError(f"{model}: {variable} holds characters that no key has; set it again")
            return key
    return ""


def hide(key: str, content: bytes) -> bytes:
    """The content without the key, also where its characters are escaped, as JSON (in JSON), a URL or HTML has them."""
    return _pattern(key).sub(b"[key]", content) if len(key) >= _SHORTEST_KEY else content


def hide_all(content: bytes) -> bytes:
    """The content without any key that the environment holds, as `hide`."""
    for key in _keys():
        content = hide(key, content)
    return content


def without_keys(text: str) -> str:
    """As `hide_all`, of a text."""
    content = text.encode("utf-8", "surrogatepass")
    hidden = hide_all(content)
    return text if hidden == content else hidden.decode("utf-8", "surrogatepass")


def _keys() -> list[str]:
    """All of them, the longest first: one may begin with another."""
    from orbench.models import PROVIDERS

    variables = [HUB_VARIABLE, *(variable for row in PROVIDERS.values() for variable in row.key_variables)]
    found = {os.environ.get(variable, "").strip() for variable in variables}
    return sorted(found, key=len, reverse=True)


@functools.lru_cache(maxsize=64)
def _pattern(key: str) -> re.Pattern[bytes]:
    """What matches the key; backslashes are bounded, so that a body of nothing else is not searched for ever."""
    ways = (
        rb"(?:\\{0,8}%s|\\{1,8}u00(?i:%02x)|%%(?i:%02x)|&#0{0,4}%d;|&#[xX]0{0,4}(?i:%x);)"
        % (re.escape(chr(code).encode()), code, code, code, code)
        for code in key.encode()
    )
    return re.compile(b"".join(ways))
