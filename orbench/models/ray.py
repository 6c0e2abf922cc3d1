"""Local models over many workers and machines with Ray Data: `--engine ray`.

In: the whole list of requests. Out: each worker's completions, part after part, in whatever order they are done.
Every worker is an actor that holds one model of `hf/` or `vllm/`, made from the same name and options as without Ray;
so the replies are the same and a run may be begun with Ray and gone on with without. Ray starts a worker that
died again and gives its part to another; what a part has brought is with us and is not asked again.

`ray.data.llm` is left aside: it makes requests and replies in its own forms, while what a run keeps (reasoning,
errors of single rows, the template's digest) comes from our models.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import threading
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from orbench.engine.threads import iterate_in_thread
from orbench.errors import ModelError, OrbenchError, UsageError
from orbench.models.base import Model, RetryableError
from orbench.models.chat import first_line
from orbench.records import Completion, Request

_ROWS = {"hf": 256, "vllm": 1024}
"""Requests of one part at most: what is lost when a worker dies. vLLM plans ahead, and wants more of them."""
_PARTS = 8
"""Parts for each worker at least, so that they end at about the same time."""
_TRIES = 4
"""Times that a part is given out: Ray gives it to worker after worker, and a prompt may bring down every one."""


_JOIN_S = 120.0
"""Longest wait for a cluster that is to be joined: Ray itself tries for ever at a port where something else listens."""

_joined: list[str] = []
"""The address that this process has joined, empty for a cluster of its own."""


class RayOptions(msgspec.Struct, frozen=True):
    """Where and on how many workers."""

    address: str | None = None
    """Of a running cluster, such as `auto` or `ray://head:10001`; by default RAY_ADDRESS, else one is started here."""
    workers: int | None = None
    """Models side by side; default: one for each GPU (or group of GPUs that one model takes), else one a machine."""


class _Part(msgspec.Struct, frozen=True):
    """What a worker gives back for one part."""

    completions: list[Completion] = []
    facts: dict[str, Any] = {}
    adaptations: list[str] = []
    """Of the worker's model, from its first part to this one."""
    worker: str = ""
    count: int = 0
    """Parts that the worker has made, this one with them."""
    error: str | None = None
    """Why the model cannot be used at all."""


class RayModel:
    """A model of `hf/` or `vllm/` on the workers of a Ray cluster.

    The workers live as long as one `generate`. A cluster that was started or joined here is left as Python ends, not
    before: references of an earlier one that Python has not yet cleared away are taken by Ray for those of the next.

    Attributes:
        name: The model's own: a run does not depend on where it is made.
        facts: What the replies were made with, once there are some.
    """

    batch_size = None
    max_concurrency = 1

    def __init__(self, model: Model, engine: Mapping[str, Any], options: RayOptions) -> None:
        """Name the model; nothing is started yet.

        Args:
            model: As it would be run on this machine; it is not loaded here.
            engine: The options that it was made with.
            options: Where and on how many workers.

        Raises:
            UsageError: Fewer than one worker.
        """
        if options.workers is not None and options.workers < 1:
            raise UsageError(f"workers is {options.workers}: at least 1")
        self.name = model.name
        self.settings = getattr(model, "settings", None)
        self.digest = getattr(model, "digest", None)
        self.facts: dict[str, Any] = {}
        self._told: dict[str, tuple[int, list[str]]] = {}
        """Worker to the parts it has made, and what it had to do to prompts in them."""
        self._provider, _, path = model.name.partition("/")
        base, plus, adapter = path.partition("+")
        if not plus or Path(path).expanduser().is_dir():  # a plus in a folder's name
            base, plus, adapter = path, "", ""
        self._spec = f"{self._provider}/{_absolute(base)}{plus}{_absolute(adapter)}"
        self._engine = {
            key: _absolute(value) if key == "chat_template" else value for key, value in dict(engine).items()
        }
        self._options = options

    @property
    def adaptations(self) -> list[str]:
        """What had to be done to prompts, by all workers together."""
        from orbench.engine.run_folder import add_remarks

        return add_remarks([remarks for _, remarks in self._told.values()])

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, those with long prompts first."""
        async with aclosing(iterate_in_thread(lambda: self._answers(requests))) as completions:
            async for completion in completions:
                yield completion

    async def close(self) -> None:
        """Nothing: the workers are gone, and the cluster is for the next model too."""

    def _answers(self, requests: Sequence[Request]) -> Iterator[Completion]:
        import ray

        self._start()
        workers, resources = self._resources(ray.nodes())
        size = max(1, min(_ROWS[self._provider], math.ceil(len(requests) / (workers * _PARTS))))
        ordered = sorted(requests, key=lambda request: len(request.prompt), reverse=True)
        parts = [
            {"number": start, "requests": msgspec.json.encode(ordered[start : start + size]).decode()}
            for start in range(0, len(ordered), size)
        ]
        try:
            with _settings():
                answers = ray.data.from_items(parts, override_num_blocks=len(parts)).map_batches(
                    _Worker,
                    fn_constructor_args=(
                        self._spec,
                        msgspec.json.encode(self._engine).decode(),
                        ray.remote(num_cpus=0)(_Tries).remote(),
                    ),
                    batch_size=None,
                    compute=ray.data.ActorPoolStrategy(size=min(workers, len(parts))),
                    **resources,
                )
                for row in answers.iter_rows():
                    part = msgspec.json.decode(row["part"], type=_Part)
                    if part.error is not None:
                        raise ModelError(part.error)
                    self.facts = {**part.facts, "ray": ray.__version__, "workers": workers}
                    if part.count > self._told.get(part.worker, (0, []))[0]:  # parts come in any order
                        self._told[part.worker] = part.count, part.adaptations
                    yield from part.completions
        except OrbenchError:
            raise
        except ray.exceptions.RayActorError as error:
            # Ray could not start a worker again after all. What has come is kept; what has not is asked of new workers.
            raise RetryableError(f"{self.name} on Ray: {first_line(error)}") from error
        except Exception as error:  # Ray's errors have no common base, and wrap those of actors and tasks
            raise ModelError(f"{self.name} on Ray: {first_line(error)}") from error

    def _start(self) -> None:
        """Join the cluster, or start one on this machine; one that this process is in already is used as it is."""
        import ray

        address = self._options.address or os.environ.get("RAY_ADDRESS", "")
        try:
            _check_listens(address)
        except OSError as error:
            raise ModelError(f"Ray at {address}: {first_line(error)}") from error
        if ray.is_initialized():
            if _joined and address not in ("", _joined[0]):
                here = _joined[0] or "a cluster of its own"
                raise UsageError(f"Ray at {address}: this process is with {here} already; ask this of another process")
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            _in_lasting_thread(
                lambda: ray.init(
                    address or "local",  # without, Ray looks for a cluster that was here once, and waits if it died
                    include_dashboard=None if address else False,
                    log_to_driver=False,
                    logging_level="ERROR",
                ),
                _JOIN_S if address else None,
            )
        except Exception as error:  # ConnectionError, ValueError, RuntimeError...
            raise ModelError(f"Ray at {address or 'this machine'}: {first_line(error)}") from error
        _joined[:] = [address]

    def _resources(self, nodes: Sequence[Mapping[str, Any]]) -> tuple[int, dict[str, float]]:
        """How many workers there are to be, and what Ray is to keep for each."""
        alive = [node["Resources"] for node in nodes if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in alive)
        if gpus:
            each = 1
            if self._provider == "vllm":
                for option in ("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"):
                    each *= int(self._engine.get(option, 1))
            workers = self._options.workers or gpus // each
            if not workers or workers * each > gpus:
                raise UsageError(
                    f"{max(1, workers)} workers of {each} GPU each do not fit: the cluster has {gpus} (see --workers)"
                )
            return workers, {"num_gpus": each, "num_cpus": 1}
        machines = [int(node.get("CPU", 0)) for node in alive if node.get("CPU", 0) >= 1]
        if not machines:
            raise ModelError("the Ray cluster has no machine with a CPU or GPU to work on")
        workers = self._options.workers or len(machines)
        if workers > sum(machines):
            raise UsageError(f"{workers} workers do not fit: the cluster has {sum(machines)} CPUs (see --workers)")
        return workers, {"num_cpus": max(1, min(machines) // math.ceil(workers / len(machines)))}


class _Tries:
    """An actor that counts how often each part was given out; it dies with its last handle."""

    def __init__(self) -> None:
        self._count: Counter[int] = Counter()

    def again(self, number: int) -> int:
        self._count[number] += 1
        return self._count[number]


class _Worker:
    """An actor with its model. What is wrong with the model is given back in words: raised, Ray would try again."""

    def __init__(self, model: str, engine: str, tries: Any) -> None:
        self._spec, self._engine, self._tries = model, engine, tries
        self._model: Model | None = None
        self._name, self._count = uuid.uuid4().hex, 0

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        parts = zip(batch["number"].tolist(), batch["requests"], strict=True)
        return {"part": [msgspec.json.encode(self._part(*part)).decode() for part in parts]}

    def _part(self, number: int, requests: str) -> _Part:
        import ray

        asked = msgspec.json.decode(requests, type=list[Request])
        if ray.get(self._tries.again.remote(number)) > _TRIES:
            error = f"{_TRIES} workers died with the {len(asked)} prompts that this one is of"
            return _Part(completions=[Completion(id=each.id, text="", error=error) for each in asked])
        try:
            return asyncio.run(self._answer(asked))
        except OrbenchError as error:
            return _Part(error=str(error))

    async def _answer(self, requests: list[Request]) -> _Part:
        from orbench.models import Options, open_model

        if self._model is None:
            self._model = open_model(self._spec, Options(engine=msgspec.json.decode(self._engine)))
        completions = [completion async for completion in self._model.generate(requests)]
        about = {key: getattr(self._model, key) for key in ("facts", "adaptations")}
        self._count += 1
        return _Part(completions=completions, **about, worker=self._name, count=self._count)


def _in_lasting_thread(start: Callable[[], object], limit_s: float | None) -> None:
    """Call it in a thread that lasts as long as Python: Linux ends Ray's processes with the thread that began them."""
    done = threading.Event()
    errors: list[Exception] = []

    def run() -> None:
        try:
            start()
        except Exception as error:
            errors.append(error)
        done.set()
        threading.Event().wait()

    threading.Thread(target=run, daemon=True, name="orbench-ray").start()
    if not done.wait(limit_s):
        raise TimeoutError(f"no Ray cluster has answered for {limit_s:g} s (a port for clients needs ray:// before it)")
    if errors:
        raise errors[0]


def _check_listens(address: str) -> None:
    """Raise OSError where nothing does: Ray itself would try for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _absolute(path_or_id: str) -> str:
    """A path as a worker finds it, whose working directory is another one."""
    path = Path(path_or_id).expanduser()
    return str(path.resolve()) if path_or_id and path.exists() else path_or_id


@contextmanager
def _settings() -> Iterator[None]:
    """Ours for Ray Data while it works for us; what its caller had set comes back.

    No bars and plans: there is one bar, ours. And a worker that dies as it starts is replaced, which Ray by itself does
    only for one that has started.
    """
    import ray

    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    ours = {
        "enable_progress_bars": False,
        "print_on_execution_start": False,
        "max_consecutive_actor_init_deaths": _TRIES,
    }
    before, level = {name: getattr(context, name) for name in ours if hasattr(context, name)}, logger.level
    for name in before:
        setattr(context, name, ours[name])
    logger.setLevel(logging.CRITICAL)  # what it says of errors is raised as well, and told by us
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        logger.setLevel(level)
