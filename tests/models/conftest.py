"""What tests of providers share: no proxies and no account of this machine, and a way to ask one prompt."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing

import pytest

from orbench import Completion, Message, Model, Request, Sampling

Ask = Callable[..., Completion]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.lower().endswith("_proxy") or name.startswith("OPENAI_"):
            monkeypatch.delenv(name)


@pytest.fixture
def ask() -> Ask:
    """Asks a model one prompt in an event loop of its own, then closes it."""

    def ask(
        model: Model, prompt: str = "Say hello.", *, system: str | None = None, sampling: Sampling | None = None
    ) -> Completion:
        before = () if system is None else (Message("system", system),)
        request = Request(id="r1", messages=(*before, Message("user", prompt)), sampling=sampling or Sampling())

        async def main() -> Completion:
            try:
                async with aclosing(model.generate([request])) as completions:
                    (completion,) = [completion async for completion in completions]
                    return completion
            finally:
                await model.close()

        return asyncio.run(main())

    return ask
