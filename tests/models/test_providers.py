"""From a name to a model: one table."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from orbench import Completion, MissingExtraError, Model, ModelError, UsageError
from orbench.models import PROVIDERS, find_provider, has_key, make_options, open_model
from orbench.testing import ScriptedModel

Ask = Callable[..., Completion]


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Make the modules look as if they were not installed."""
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in modules else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


@pytest.mark.parametrize(
    ("model", "nearest"),
    [
        ("opneai/gpt-4o", "did you mean openai/gpt-4o?"),
        ("OpenAI/gpt-4o", "did you mean openai/gpt-4o?"),
        ("baselines/keyword-guard", "did you mean baseline/keyword-guard?"),
        ("meta-llama/Llama-3-8b", "known are baseline, openai,"),
        ("/gpt-4o", "known are baseline,"),
    ],
)
def test_an_unknown_provider_names_the_nearest(model: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_model(model)
    assert nearest in str(caught.value)


@pytest.mark.parametrize(
    ("model", "example"),
    [
        ("gpt-4o", "openai/gpt-4o-mini"),
        ("", "openai/gpt-4o-mini"),
        ("openai", "openai/MODEL"),
        ("baseline/", "baseline/keyword-guard"),
    ],
)
def test_a_name_without_provider_or_model_is_shown_how_to_write_it(model: str, example: str) -> None:
    with pytest.raises(UsageError, match=f"write provider/name, such as {example}"):
        open_model(model)


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "torch")
    with pytest.raises(MissingExtraError, match=r"hf/tiny needs the extra `hf`: pip install 'orbench\[hf\]'"):
        open_model("hf/tiny")


def test_a_broken_base_install_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "openai", "aiohttp")
    with pytest.raises(ModelError, match="needs openai, aiohttp: pip install"):
        open_model("openai/gpt-4o")


def test_a_key_is_seen_without_being_read_out(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = find_provider("openai/gpt-4o")
    assert has_key(provider) is False
    monkeypatch.setenv("OPENAI_API_KEY", "")
    assert has_key(provider) is False
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert has_key(provider) is True
    assert has_key(find_provider("ollama/llama3")) is None


def test_every_row_s_example_finds_its_row() -> None:
    for name, provider in PROVIDERS.items():
        assert find_provider(provider.example) is provider
        assert provider.name == name


def test_a_model_is_taken_as_it_is() -> None:
    model = ScriptedModel("Certainly.")
    assert open_model(model) is model


@pytest.mark.parametrize("thing", [None, 7, {"model": "openai/gpt-4o"}])
def test_what_is_no_model_is_wrong_usage(thing: Any) -> None:
    with pytest.raises(UsageError, match=f"not a {type(thing).__name__}"):
        open_model(thing)


def test_a_baseline_is_a_model(ask: Ask) -> None:
    model = open_model("baseline/always-answer")
    assert isinstance(model, Model)
    assert (model.name, model.batch_size, model.max_concurrency) == ("baseline/always-answer", 1, None)


@pytest.mark.parametrize(
    ("option", "choices"),
    [
        ("api", "chat or responses"),
        ("google_sdk", "genai or legacy"),
        ("google_safety", "block-none or vendor"),
    ],
)
def test_an_option_that_is_no_choice_names_the_choices(option: str, choices: str) -> None:
    with pytest.raises(UsageError, match=f"^{option} is 'foo': {choices}$"):
        make_options(None, None, {option: "foo"})
