"""Models by name: one table that maps `provider/name` to the file that knows it."""

from __future__ import annotations

import difflib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec

from orbench.errors import MissingExtraError, ModelError, UsageError
from orbench.models.base import Model
from orbench.models.ray import RayModel, RayOptions
from orbench.models.services import SERVICES


class Options(msgspec.Struct, frozen=True):
    """What a provider may need besides the model's name; each provider takes what concerns it."""

    base_url: str | None = None
    concurrency: int | None = None
    api: Literal["chat", "responses"] | None = None
    """Which of OpenAI's formats; by default chat completions, or the Responses API where the model needs it."""
    google_sdk: Literal["genai", "legacy"] | None = None
    """Google's package: `google-genai`, or the older `google-generativeai` (extra `google-legacy`)."""
    google_safety: Literal["block-none", "vendor"] | None = None
    """Gemini's adjustable filters: at BLOCK_NONE as in the paper (default), or as the vendor sets them."""
    timeout_s: float | None = None
    """Seconds after which a call is given up and tried again; 300 by default."""
    engine: dict[str, Any] = {}
    """What a local engine (`hf`, `vllm`) is given besides the model, such as `{"dtype": "bfloat16"}`."""
    ray: RayOptions | None = None
    """Run local models on a Ray cluster; `{}` for one on this machine with what suits it (docs/scale.md)."""


_NO_OPTIONS = Options()


def make_options(base_url: str | None, concurrency: int | None, more: Mapping[str, Any] | None) -> Options:
    """Options of the providers, those that concern only some of them by name.

    Raises:
        UsageError: No such option, or a value that it does not take.
    """
    given = {name: value for name, value in (more or {}).items() if value is not None}
    known = set(Options.__struct_fields__) - {"base_url", "concurrency"}
    if unknown := sorted(set(given) - known):
        raise UsageError(f"unknown model option {unknown[0]!r}: there are {', '.join(sorted(known))}")
    try:
        options = msgspec.convert({"base_url": base_url, "concurrency": concurrency, **given}, Options)
    except msgspec.ValidationError as error:
        for name, kind in get_type_hints(Options).items():
            choices = [choice for one in get_args(kind) if get_origin(one) is Literal for choice in get_args(one)]
            if choices and name in given and given[name] not in choices:
                raise UsageError(f"{name} is {given[name]!r}: {' or '.join(choices)}") from None
        raise UsageError(f"model options: {error}") from None
    if options.base_url is not None and not options.base_url.strip():
        raise UsageError("the base URL is empty: write it as http://host:port/v1, or leave it out")
    check_concurrency(concurrency)
    if options.timeout_s is not None and not 0 < options.timeout_s < 86_400:
        raise UsageError(f"timeout_s is {options.timeout_s}: more than 0, and at most a day")
    return options


def check_concurrency(concurrency: int | None) -> None:
    """Refuse a number that would open no call.

    Raises:
        UsageError: Below 1.
    """
    if concurrency is not None and concurrency < 1:
        raise UsageError(f"concurrency is {concurrency}: at least 1")


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
    key_variables: tuple[str, ...] = ()
    """Environment variables that may hold its key; the first that is set counts."""
    needs_key: bool = True
    """False where a server may run without one."""
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

    return _where(HuggingFaceModel(name, **options.engine), options)


def _vllm(name: str, options: Options) -> Model:
    from orbench.models.vllm import VllmModel

    return _where(VllmModel(name, **options.engine), options)


def _where(model: Model, options: Options) -> Model:
    """The model on this machine, or on Ray's workers."""
    if options.ray is None:
        return model
    if not is_installed("ray.data"):
        raise MissingExtraError(f"{model.name} with --engine ray", "ray")
    from orbench.models.chat import plain_options

    return RayModel(model, plain_options(model.name, options.engine), options.ray)


def _service(service: str) -> Callable[[str, Options], Model]:
    def open_model(name: str, options: Options) -> Model:
        from orbench.models.openai import OpenAIModel

        return OpenAIModel(SERVICES[service], name, options.base_url, api=options.api, timeout_s=options.timeout_s)

    return open_model


def _anthropic(name: str, options: Options) -> Model:
    from orbench.models.anthropic import AnthropicModel

    return AnthropicModel(name, options.base_url, timeout_s=options.timeout_s)


def _google(name: str, options: Options) -> Model:
    safety = options.google_safety or "block-none"
    if options.google_sdk == "legacy":
        if not is_installed("google.generativeai"):
            raise MissingExtraError(f"google/{name} with --google-sdk legacy", "google-legacy")
        from orbench.models.google_legacy import GoogleLegacyModel

        return GoogleLegacyModel(
            name, options.base_url, safety=safety, timeout_s=options.timeout_s, concurrency=options.concurrency
        )
    from orbench.models.google import GoogleModel

    return GoogleModel(name, options.base_url, safety=safety, timeout_s=options.timeout_s)


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
                key_variables=(service.key_variable,) if service.key_variable else (),
                needs_key=service.needs_key,
                takes_base_url=True,
            )
            for service in SERVICES.values()
        ),
        Provider(
            "anthropic",
            _anthropic,
            "anthropic/MODEL",
            needs=("anthropic", "aiohttp"),
            key_variables=("ANTHROPIC_API_KEY",),
            takes_base_url=True,
        ),
        Provider(
            "google",
            _google,
            "google/MODEL",
            needs=("google.genai", "aiohttp"),
            key_variables=("GOOGLE_API_KEY", "GEMINI_API_KEY"),
            takes_base_url=True,
        ),
        Provider("hf", _huggingface, "hf/PATH_OR_ID", needs=("torch", "transformers"), extra="hf"),
        Provider("vllm", _vllm, "vllm/PATH_OR_ID", needs=("vllm",), extra="vllm"),
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
        missing = [module for module in provider.needs if not is_installed(module)]
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


def is_installed(module: str) -> bool:
    """Whether a module could be imported; nothing but the packages above it is imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it would be in
        return False


def has_key(provider: Provider) -> bool | None:
    """Whether the provider's key is set; None if it has none. The key itself is never looked at further."""
    return any(os.environ.get(name) for name in provider.key_variables) if provider.key_variables else None
