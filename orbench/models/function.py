"""Any Python callable as a model: `str -> str`, synchronous or not."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, cast

from orbench.engine.threads import WorkerThreads
from orbench.errors import ModelError, UsageError
from orbench.models.base import RejectedError
from orbench.records import Completion, Request

Function = Callable[[str], str] | Callable[[str], Awaitable[str]]


class FunctionModel:
    """A callable that takes the prompt and returns the reply.

    A synchronous one runs in a worker thread, one call at a time unless a concurrency is given; an asynchronous
    one runs in the event loop, many at a time. What it raises, or a reply that is no string, becomes the error of
    that prompt; the run goes on.
    """

    batch_size = 1

    def __init__(self, function: Function, name: str | None = None, concurrency: int | None = None) -> None:
        """Wrap the callable; its name is `python/module:function` unless given."""
        self.name = name or f"python/{_name_of(function)}"
        self._function = function
        self._is_async = _is_async(function)
        self.max_concurrency = concurrency if concurrency or self._is_async else 1
        self._threads = WorkerThreads(self.max_concurrency or 1)

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Call the function with each prompt."""
        for request in requests:
            if request.system_prompt is not None:
                raise ModelError(f"{self.name}: a callable takes the prompt alone; a system prompt cannot reach it")
            if self._is_async:
                reply: object = self._function(request.prompt)
            else:
                reply = await self._threads.call(self._function, request.prompt)
            if inspect.isawaitable(reply):  # also where a plain callable hands on what an asynchronous one gives
                reply = await reply
            if not isinstance(reply, str):
                raise RejectedError(f"the callable returned {type(reply).__name__}, not a string")
            yield Completion(id=request.id, text=reply)

    async def close(self) -> None:
        """Let the threads go."""
        self._threads.close()

    @property
    def digest(self) -> str:
        """Changes with the callable, so that an edited function is a new model and its run a new run.

        Covers its source, defaults, bound arguments, and the texts, floats and booleans that it closes over or that
        its object holds (model names, temperatures; not integers, which often count calls). Not what it looks up
        elsewhere.
        """
        return hashlib.sha256(repr(_traits(self._function)).encode()).hexdigest()[:12]


def load_function(spec: str) -> Function:
    """Import the callable that `module:function` names; modules of the working directory count.

    Raises:
        UsageError: Not of that form.
        ModelError: It cannot be imported or is not callable.
    """
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise UsageError(f"python/{spec}: write python/module:function")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        value: object = importlib.import_module(module_name)
    except Exception as error:
        raise ModelError(f"python/{spec}: module {module_name!r} cannot be imported: {error}") from error
    for part in attribute.split("."):
        try:
            value = getattr(value, part)
        except AttributeError:
            raise ModelError(f"python/{spec}: module {module_name!r} has no {attribute!r}") from None
    if not callable(value):
        raise ModelError(f"python/{spec}: is a {type(value).__name__}, not a callable")
    return cast("Function", value)


def _traits(function: object) -> list[object]:
    if isinstance(function, functools.partial):
        return [_traits(function.func), _settings(_numbered(function.args)), _settings(function.keywords)]
    if inspect.ismethod(function):
        return [_traits(function.__func__), _settings(getattr(function.__self__, "__dict__", {}))]
    if inspect.isfunction(function):
        values = [_numbered(function.__defaults__), function.__kwdefaults__, inspect.getclosurevars(function).nonlocals]
        return [_source(function), *(_settings(value or {}) for value in values)]
    return [_source(type(function)), _settings(getattr(function, "__dict__", {}))]


def _settings(values: Mapping[str, object]) -> list[tuple[str, object]]:
    plain = (str, float, bool)
    return [(name, value) for name, value in sorted(values.items()) if isinstance(value, plain)]


def _numbered(values: Iterable[object] | None) -> dict[str, object]:
    return {str(number): value for number, value in enumerate(values or ())}


def _source(thing: type[Any] | FunctionType) -> object:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # typed into an interpreter, or built in
        code = getattr(thing, "__code__", None)
        return _code(code) if code else thing.__qualname__


def _code(code: CodeType) -> list[object]:
    constants = [_code(constant) if inspect.iscode(constant) else constant for constant in code.co_consts]
    return [code.co_code, code.co_names, constants]


def _name_of(function: Function) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    module = getattr(function, "__module__", None) or "callable"
    return f"{module}:{getattr(function, '__qualname__', type(function).__name__)}"


def _is_async(function: Function) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
