"""A finished run as a model: gives the stored reply to each prompt again, without a call."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from orbench.engine.run_folder import read_config, read_responses
from orbench.models.base import RejectedError
from orbench.records import Completion, Request, Response


class ReplayModel:
    """`replay/RUN_FOLDER`: finds replies by the prompt's text; a prompt that the run has not is an error row."""

    batch_size = 1
    max_concurrency: int | None = None

    def __init__(self, folder: str) -> None:
        """Read the replies of a run folder.

        Raises:
            orbench.RunError: The folder is no run folder or is damaged.
        """
        self.name = f"replay/{folder}"
        read_config(Path(folder))
        self._responses: dict[str, Response] = {}
        for response in read_responses(Path(folder)):
            self._responses[response.prompt] = response
        digest = hashlib.sha256()
        for prompt, response in self._responses.items():
            for text in (prompt, response.response, response.blocked_by or "", response.error or ""):
                digest.update(text.encode() + b"\0")
        self.digest = digest.hexdigest()[:12]
        """Changes with the stored replies: a run of other replies is another run."""

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Give the stored replies; a stored error stays one."""
        for request in requests:
            response = self._responses.get(request.prompt)
            if response is None:
                raise RejectedError("the replayed run holds no reply to this prompt")
            if response.error is not None:
                raise RejectedError(response.error)
            yield Completion(
                id=request.id,
                text=response.response,
                reasoning=response.reasoning,
                finish_reason=response.finish_reason or "stop",
                blocked_by=response.blocked_by,
                usage=response.usage,
            )

    async def close(self) -> None:
        """Nothing to release."""
