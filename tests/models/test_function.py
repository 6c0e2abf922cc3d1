"""Any callable as a model."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orbench import Completion, Model, ModelError, RejectedError, UsageError
from orbench.models import Options, open_model
from orbench.models.function import FunctionModel

Ask = Callable[..., Completion]


def shout(prompt: str) -> str:
    return prompt.upper()


async def shout_later(prompt: str) -> str:
    return prompt.upper()


class Shouter:
    def __init__(self, mark: str = "!") -> None:
        self.mark = mark
        self.calls = 0

    def __call__(self, prompt: str) -> str:
        self.calls += 1
        return prompt.upper() + self.mark

    def shout(self, prompt: str) -> str:
        return self(prompt)


class LaterShouter:
    async def __call__(self, prompt: str) -> str:
        return prompt.upper()


def digest(function: Any) -> str:
    model = open_model(function)
    assert isinstance(model, FunctionModel)
    return model.digest


@pytest.mark.parametrize(
    "function",
    [
        shout,
        shout_later,
        Shouter(""),
        Shouter("").shout,
        LaterShouter(),
        functools.partial(shout),
        functools.partial(shout_later),
        lambda prompt: prompt.upper(),
        lambda prompt: shout_later(prompt + ""),
        str.upper,
    ],
)
def test_every_kind_of_callable_is_a_model(ask: Ask, function: Any) -> None:
    model = open_model(function)
    assert isinstance(model, Model)
    assert ask(model, "hello").text == "HELLO"


def test_a_plain_callable_runs_in_one_thread_of_its_own(ask: Ask) -> None:
    seen: list[int] = []

    def note(prompt: str) -> str:
        seen.append(threading.get_ident())
        return prompt

    model = open_model(note)
    ask(model)
    assert model.max_concurrency == 1
    assert seen != [threading.get_ident()]


def test_a_given_concurrency_is_kept() -> None:
    assert open_model(shout, Options(concurrency=7)).max_concurrency == 7
    assert open_model(shout_later, Options(concurrency=7)).max_concurrency == 7
    assert open_model(shout_later).max_concurrency is None


def test_what_a_callable_raises_comes_through(ask: Ask) -> None:
    def fail(prompt: str) -> str:
        raise ZeroDivisionError("no luck")

    with pytest.raises(ZeroDivisionError, match="no luck"):
        ask(open_model(fail))


@pytest.mark.parametrize("value", [None, 7, b"bytes"])
def test_a_reply_that_is_no_string_is_rejected(ask: Ask, value: object) -> None:
    with pytest.raises(RejectedError, match=f"returned {type(value).__name__}, not a string"):
        ask(open_model(lambda prompt: value))


def test_a_system_prompt_that_cannot_reach_the_callable_stops_the_run(ask: Ask) -> None:
    with pytest.raises(ModelError, match="a system prompt cannot reach it"):
        ask(open_model(shout), system="Be brief.")


def test_a_callable_is_named_after_its_module_and_itself() -> None:
    assert open_model(shout).name == f"python/{__name__}:shout"
    assert open_model(Shouter()).name == f"python/{__name__}:Shouter"
    assert open_model(functools.partial(shout)).name == f"python/{__name__}:shout"


def test_the_digest_changes_with_the_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    digests: set[str] = set()
    for text in ("Yes.", "No."):
        (tmp_path / f"own_model_{len(digests)}.py").write_text(f"def reply(prompt):\n    return {text!r}\n")
        model = open_model(f"python/own_model_{len(digests)}:reply")
        assert isinstance(model, FunctionModel)
        digests.add(model.digest)
    assert len(digests) == 2


def test_the_digest_changes_with_what_a_callable_closes_over() -> None:
    def make(name: str) -> Callable[[str], str]:
        return lambda prompt: f"{name}: {prompt}"

    assert digest(make("small")) == digest(make("small"))
    assert digest(make("small")) != digest(make("large"))


def test_the_digest_changes_with_bound_arguments_and_defaults() -> None:
    def reply(prompt: str, name: str, warmth: float = 0.0) -> str:
        return f"{name} {warmth}: {prompt}"

    bound = functools.partial(reply, name="small")
    assert digest(bound) == digest(functools.partial(reply, name="small"))
    assert digest(bound) != digest(functools.partial(reply, name="large"))
    assert digest(bound) != digest(functools.partial(reply, name="small", warmth=0.7))
    assert len({digest(lambda prompt, name=name: name + prompt) for name in ("small", "large")}) == 2


def test_the_digest_changes_with_an_object_s_settings_but_not_with_its_counters() -> None:
    used = Shouter()
    used("hello")
    assert digest(used) == digest(Shouter())
    assert digest(used) != digest(Shouter("?"))
    assert digest(used.shout) == digest(Shouter().shout)
    assert digest(used.shout) != digest(Shouter("?").shout)
    assert digest(used) != digest(LaterShouter())


def test_the_digest_of_a_callable_without_source_follows_its_code() -> None:
    def made(text: str) -> Any:
        names: dict[str, Any] = {}
        exec(f"def reply(prompt):\n    return [{text!r} for _ in '1'][0]", names)
        return names["reply"]

    assert digest(made("Yes.")) == digest(made("Yes."))
    assert digest(made("Yes.")) != digest(made("No."))
    assert digest(str.upper) == digest(str.upper)


def test_a_function_is_found_by_module_and_name_in_the_working_directory(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models.py").write_text("class Box:\n    @staticmethod\n    def reply(p):\n        return p + '!'\n")
    model = open_model("python/my_models:Box.reply")
    assert model.name == "python/my_models:Box.reply"
    assert ask(model, "hello").text == "hello!"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("no_such_module:reply", "module 'no_such_module' cannot be imported: No module named"),
        ("math:no_such_function", "module 'math' has no 'no_such_function'"),
        ("math:pi", "is a float, not a callable"),
    ],
)
def test_a_function_that_cannot_be_had_says_why(spec: str, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        open_model(f"python/{spec}")
    assert f"python/{spec}" in str(caught.value)


@pytest.mark.parametrize("spec", ["math", ":sqrt", "math:"])
def test_a_name_of_another_form_is_wrong_usage(spec: str) -> None:
    with pytest.raises(UsageError, match=f"python/{spec}: write python/module:function"):
        open_model(f"python/{spec}")


def test_a_module_that_fails_when_imported_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_models.py").write_text("raise RuntimeError('no luck')\n")
    with pytest.raises(ModelError, match="cannot be imported: no luck"):
        open_model("python/broken_models:reply")
