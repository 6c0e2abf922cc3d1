"""Models by name: one table that maps `provider/name` to the file that knows it."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import msgspec

from orbench.errors import MissingExtraError, ModelError, UsageError
from orbench.models.base import Model
from orbench.models.services import SERVICES


class Options(msgspec.Struct, frozen=True):
    """What a provider may need besides the model's name."""

    base_url: str | None = None
    concurrency: int | None = None


_NO_OPTIONS = Options()


class Provider(msgspec.Struct, frozen=True):
    """One row of the table."""

    name: str
    open: Callable[[str, Options], Model]
    """Makes the model from the name behind the slash."""
    example: str
    needs: tuple[str, ...] = ()
    """Modules it imports beyond the standard library."""
    extra: str | None = None
    """Extra that brings them; None if the base install does."""
    key_variable: str | None = None
    """Environment variable with its key."""
    takes_base_url: bool = False


def _baseline(name: str, options: Options) -> Model:
    from orbench.models.baseline import Baseline

    return Baseline(name)


def _function(name: str, options: Options) -> Model:
    from orbench.models.function import FunctionModel, load_function

    return FunctionModel(load_function(name), f"python/{name}", options.concurrency)


def _replay(name: str, options: Options) -> Model:
    from orbench.models.replay import ReplayModel

    return ReplayModel(name)


def _huggingface(name: str, options: Options) -> Model:
    from orbench.models.huggingface import HuggingFaceModel

    return HuggingFaceModel(name)


def _service(service: str) -> Callable[[str, Options], Model]:
    def open_model(name: str, options: Options) -> Model:
        from orbench.models.openai import OpenAIModel

        return OpenAIModel(SERVICES[service], name, options.base_url)

    return open_model


PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider("baseline", _baseline, "baseline/keyword-guard"),
        *(
            Provider(
                service.name,
                _service(service.name),
                f"{service.name}/MODEL",
                needs=("openai", "aiohttp"),
                key_variable=service.key_variable,
                takes_base_url=True,
            )
            for service in SERVICES.values()
        ),
        Provider("hf", _huggingface, "hf/PATH_OR_ID", needs=("torch", "transformers"), extra="hf"),
        Provider("python", _function, "python/module:function"),
        Provider("replay", _replay, "replay/RUN_FOLDER"),
    )
}
"""Provider name to its row, in the order in which `orbench models` lists them."""


def open_model(model: str | Callable[..., Any] | Model, options: Options = _NO_OPTIONS) -> Model:
    """The model of that name, or the callable or `Model` itself made ready.

    Nothing is sent and nothing loaded yet.

    Raises:
        UsageError: Not of the form `provider/name`, or an unknown provider (the nearest is named).
        MissingExtraError: The provider's packages are not installed.
        ModelError: The model cannot be used: no key, no such folder, no such callable.
    """
    if isinstance(model, str):
        provider = find_provider(model)
        missing = [module for module in provider.needs if importlib.util.find_spec(module) is None]
        if missing:
            if provider.extra:
                raise MissingExtraError(model, provider.extra)
            raise ModelError(f"{model} needs {', '.join(missing)}: pip install --force-reinstall orbench")
        return provider.open(model.partition("/")[2], options)
    if isinstance(model, Model):
        return model
    if callable(model):
        from orbench.models.function import FunctionModel

        return FunctionModel(model, concurrency=options.concurrency)
    raise UsageError(f"a model is 'provider/name', a callable or a Model, not a {type(model).__name__}")


def find_provider(model: str) -> Provider:
    """The row for `provider/name`.

    Raises:
        UsageError: See `open_model`.
    """
    name, slash, rest = model.partition("/")
    if name in PROVIDERS and rest:
        return PROVIDERS[name]
    if name in PROVIDERS or not slash:
        example = PROVIDERS[name].example if name in PROVIDERS else "openai/gpt-4o-mini"
        raise UsageError(f"{model!r} is no model: write provider/name, such as {example}")
    near = difflib.get_close_matches(name.lower(), PROVIDERS, n=1, cutoff=0.7)
    hint = f"did you mean {near[0]}/{rest}?" if near else f"known are {', '.join(PROVIDERS)}"
    raise UsageError(f"unknown provider {name!r} in {model!r}: {hint}")


def has_key(provider: Provider) -> bool | None:
    """Whether the provider's key is set; None if it needs none. The key itself is never looked at further."""
    return bool(os.environ.get(provider.key_variable)) if provider.key_variable else None
