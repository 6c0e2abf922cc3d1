"""Doubles for tests, of orbench and of those who use it: no network, no key, no surprise."""

from __future__ import annotations

from orbench.testing.scripted import ScriptedModel
from orbench.testing.server import LoopbackServer, chat_completion
from orbench.testing.tiny_model import make_tiny_model

__all__ = ["LoopbackServer", "ScriptedModel", "chat_completion", "make_tiny_model"]
