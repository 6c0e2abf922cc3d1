"""The scripted model, which users' own tests rely on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

import orbench
from orbench import Completion, Message, Model, Request, RetryableError
from orbench.testing import ScriptedModel


def ask(model: Model, *prompts: str) -> list[Completion]:
    async def main() -> list[Completion]:
        requests = [Request(id=f"r{n}", messages=(Message("user", prompt),)) for n, prompt in enumerate(prompts)]
        try:
            return [completion async for completion in model.generate(requests)]
        finally:
            await model.close()

    return asyncio.run(main())


def texts(model: Model, *prompts: str) -> list[str]:
    return [completion.text for completion in ask(model, *prompts)]


def test_one_reply_for_every_prompt() -> None:
    assert texts(ScriptedModel("Certainly."), "one", "two") == ["Certainly.", "Certainly."]


def test_replies_by_prompt() -> None:
    assert texts(ScriptedModel({"one": "1", "two": "2"}), "two", "one") == ["2", "1"]
    assert texts(ScriptedModel({"one": "1"}, default="?"), "two", "one") == ["?", "1"]


def test_replies_in_the_order_of_asking() -> None:
    model = ScriptedModel(["1", "2"], default="?")
    assert texts(model, "a") == ["1"]
    assert texts(model, "b", "c") == ["2", "?"]


def test_replies_by_a_function_of_the_request() -> None:
    assert texts(ScriptedModel(lambda request: request.prompt.upper()), "one", "two") == ["ONE", "TWO"]


@pytest.mark.parametrize("replies", [Completion(id="", text="", blocked_by="output"), [Completion(id="x", text="")]])
def test_a_whole_completion_gets_the_request_s_id(replies: Completion | Sequence[Completion]) -> None:
    (completion,) = ask(ScriptedModel(replies), "one")
    given = replies if isinstance(replies, Completion) else replies[0]
    assert completion == Completion(id="r0", text="", blocked_by=given.blocked_by)


def test_an_exception_is_raised() -> None:
    with pytest.raises(RetryableError, match="busy"):
        ask(ScriptedModel({"one": RetryableError("busy")}), "one")
    with pytest.raises(RetryableError, match="busy"):
        ask(ScriptedModel(RetryableError("busy")), "one")


def test_what_the_script_lacks_is_an_error_of_the_test() -> None:
    with pytest.raises(KeyError, match="no scripted reply to 'two'"):
        ask(ScriptedModel({"one": "1"}), "two")
    with pytest.raises(IndexError, match="no scripted reply number 2"):
        ask(ScriptedModel(["1"]), "one", "two")


def test_it_keeps_what_it_was_asked_failures_too() -> None:
    model = ScriptedModel(["1", ValueError("no")])
    with pytest.raises(ValueError, match="no"):
        ask(model, "one", "two")
    assert [request.prompt for request in model.requests] == ["one", "two"]


def test_it_is_a_model_of_the_wanted_kind() -> None:
    model = ScriptedModel("1", name="mine/model", batch_size=None, max_concurrency=3)
    assert isinstance(model, Model)
    assert (model.name, model.batch_size, model.max_concurrency) == ("mine/model", None, 3)


@pytest.mark.parametrize("batch_size", [1, None])
def test_it_can_be_evaluated(tmp_path: Path, batch_size: int | None) -> None:
    model = ScriptedModel("I'm sorry, but I can't help with that.", batch_size=batch_size)
    result = orbench.evaluate(model, splits="sample", out=tmp_path / "run", progress=False)
    assert result.over_refusal_rate.value == result.toxic_rejection_rate.value == 1.0
    assert len(model.requests) == result.prompts
