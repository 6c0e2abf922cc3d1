"""A model whose replies are written beforehand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import msgspec

from orbench.records import Completion, Request

Reply = str | Completion | Exception
"""A text, a whole completion (its id is filled in), or an error to raise."""


class ScriptedModel:
    """A model for tests: gives the replies it was told to give and keeps what it was asked.

        model = ScriptedModel({"How do I kill a process?": "Use `kill PID`."}, default="I can't help with that.")
        result = orbench.evaluate(model, splits="sample", out=folder)
        assert model.requests[0].sampling.temperature == 0

    Attributes:
        requests: Every request in the order of arrival, those that failed included.
    """

    def __init__(
        self,
        replies: Reply | Mapping[str, Reply] | Sequence[Reply] | Callable[[Request], Reply],
        *,
        default: Reply | None = None,
        name: str = "scripted/model",
        batch_size: int | None = 1,
        max_concurrency: int | None = None,
    ) -> None:
        """Write the script.

        Args:
            replies: One for every prompt; or by prompt; or in the order of asking, over all requests; or a function
                of the request.
            default: For prompts that the mapping lacks and calls after the sequence's end; without one they raise
                KeyError or IndexError.
            name: The model's name, which the default run folder is called after.
            batch_size: 1 to be asked one request at a time, None to get the whole list.
            max_concurrency: How many calls may be open at once.
        """
        self.name = name
        self.batch_size = batch_size
        self.max_concurrency = max_concurrency
        self.requests: list[Request] = []
        self._replies = replies
        self._default = default

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Give the scripted reply to each request, or raise it."""
        for request in requests:
            self.requests.append(request)
            reply = self._reply(request, len(self.requests) - 1)
            if isinstance(reply, Exception):
                raise reply
            if isinstance(reply, str):
                yield Completion(id=request.id, text=reply)
            else:
                yield msgspec.structs.replace(reply, id=request.id)

    async def close(self) -> None:
        """Nothing to release."""

    def _reply(self, request: Request, number: int) -> Reply:
        if isinstance(self._replies, (str, Completion, Exception)):
            return self._replies
        if callable(self._replies):
            return self._replies(request)
        if isinstance(self._replies, Mapping):
            found = self._replies.get(request.prompt, self._default)
            if found is None:
                raise KeyError(f"no scripted reply to {request.prompt!r}")
            return found
        if number < len(self._replies):
            return self._replies[number]
        if self._default is None:
            raise IndexError(f"no scripted reply number {number + 1}")
        return self._default
