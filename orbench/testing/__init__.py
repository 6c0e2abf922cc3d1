"""Doubles for tests, of orbench and of those who use it: no network, no key, no surprise."""

from __future__ import annotations

from orbench.testing.generation import ScriptedGeneration
from orbench.testing.hub import LoopbackHub
from orbench.testing.scripted import ScriptedModel
from orbench.testing.server import LoopbackServer
from orbench.testing.server.faults import Faults, refusing
from orbench.testing.server.formats import chat_completion, generated_content, message, prompt_of, response
from orbench.testing.tiny_model import make_tiny_model

__all__ = [
    "Faults",
    "LoopbackHub",
    "LoopbackServer",
    "ScriptedGeneration",
    "ScriptedModel",
    "chat_completion",
    "generated_content",
    "make_tiny_model",
    "message",
    "prompt_of",
    "refusing",
    "response",
]
