"""Runs through the batch APIs: half the price, the same result, and nothing paid for twice."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import orbench
from orbench.engine.run_folder import read_responses
from orbench.models import Options, open_model
from orbench.models.batch import in_batches, refuse_under_way
from orbench.records import Message, Request
from orbench.testing import Faults, LoopbackServer, message, prompt_of, refusing

ANSWER = refusing(0)({})
Batched = Callable[..., orbench.Evaluation]
Address = Callable[[LoopbackServer], str]


def final(folder: Path) -> dict[str, orbench.Response]:
    return {response.prompt: response for response in read_responses(folder)}


def sent(server: LoopbackServer) -> Counter[str]:
    """What was asked of the batch API, by endpoint."""
    return Counter(f"{method} {'/'.join(path.split('/')[2:4])}" for method, path in server.batches.calls)


def state(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.glob("batches/*/state.jsonl")
    return [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]


def test_a_batch_gives_the_result_of_single_calls(
    vendor: str, address: Address, batched: Batched, tmp_path: Path, split_file: Callable[..., str]
) -> None:
    with LoopbackServer(refusing(0.3)) as server:
        result = batched(server)
        assert server.batches.created == 1
        assert len(server.requests) == 1  # the first prompt, asked directly
        single = orbench.evaluate(
            f"{vendor}/any", base_url=address(server), splits=split_file(rows=40), out=tmp_path / "single"
        )
    assert result.outcomes == single.outcomes
    assert set(server.answers.values()) == {2}
    one, other = final(tmp_path / "run"), final(tmp_path / "single")
    assert {p: (r.response, r.finish_reason, r.error) for p, r in one.items()} == {
        p: (r.response, r.finish_reason, r.error) for p, r in other.items()
    }


def test_the_same_command_asks_nothing_again(batched: Batched) -> None:
    with LoopbackServer(refusing(0.3)) as server:
        first = batched(server)
        calls = len(server.batches.calls)
        assert batched(server).to_dict() == first.to_dict()
        assert len(server.batches.calls) == calls
    assert set(server.answers.values()) == {1}


def test_tokens_of_a_batch_are_marked_for_their_price(batched: Batched, tmp_path: Path) -> None:
    with LoopbackServer(ANSWER) as server:
        batched(server, rows=5)
    marked = [response.usage is not None and response.usage.batch for response in read_responses(tmp_path / "run")]
    assert sorted(marked) == [False] + [True] * 4  # one was asked directly
    assert msgspec.json.decode((tmp_path / "run" / "run.json").read_bytes())["batch"] is True


def test_a_batch_is_as_large_as_the_vendor_takes(
    batched: Batched, vendor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = {"openai": "OpenAIBatches", "anthropic": "AnthropicBatches"}[vendor]
    monkeypatch.setattr(f"orbench.models.batch.{vendor}.{name}.max_requests", 10)
    with LoopbackServer(ANSWER) as server:
        batched(server, rows=36)
        assert server.batches.created == 4
    assert set(server.answers.values()) == {1}
    monkeypatch.setattr(f"orbench.models.batch.{vendor}.{name}.max_bytes", 1000)
    sizes: list[int] = []
    monkeypatch.setattr(
        "orbench.testing.server.batches.Batches.add_file",
        _counting("add_file", sizes, lambda name, content: len(content)),
    )
    with LoopbackServer(ANSWER) as server:
        batched(server, rows=20, out=tmp_path / "bytes")
        assert server.batches.created > 2
    assert set(server.answers.values()) == {1}
    assert all(size <= 1000 for size in sizes)


def _counting(name: str, counts: list[int], size: Callable[..., int]) -> Callable[..., Any]:
    from orbench.testing.server.batches import Batches

    whole = getattr(Batches, name)

    def counted(self: Batches, *arguments: Any) -> Any:
        counts.append(size(*arguments))
        return whole(self, *arguments)

    return counted


def test_a_prompt_that_no_batch_can_hold_is_an_error_and_the_others_go_on(
    batched: Batched, vendor: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = {"openai": "OpenAIBatches", "anthropic": "AnthropicBatches"}[vendor]
    monkeypatch.setattr(f"orbench.models.batch.{vendor}.{name}.max_bytes", 2000)
    file = tmp_path / "long.csv"
    file.write_text("prompt\nWhat is tea?\n" + f"Why is {'so ' * 1000}?\n" + "What is rice?\n", encoding="utf-8")
    with LoopbackServer(ANSWER) as server:
        result = batched(server, splits=f"safe={file}")
    assert result.outcomes == {"direct_answer": 2, "error": 1}


@pytest.mark.parametrize("kind", ["batch_failed", "batch_expired"])
def test_what_a_batch_leaves_open_goes_into_another(kind: str, batched: Batched, tmp_path: Path) -> None:
    with LoopbackServer(refusing(0.3), faults=Faults(**{kind: 0.4}, attempts=2)) as server:  # type: ignore[arg-type]
        result = batched(server)
        assert server.batches.created > 1
    assert result.outcomes.get("error", 0) == 0
    assert set(server.answers.values()) == {1}
    assert len(final(tmp_path / "run")) == 40
    assert max(response.attempts for response in read_responses(tmp_path / "run")) > 1


def test_what_never_succeeds_ends_as_an_error_and_is_tried_again_by_the_same_command(batched: Batched) -> None:
    with LoopbackServer(ANSWER, faults=Faults(batch_failed=1.0, attempts=9)) as server:
        result = batched(server, rows=5)
        assert result.outcomes == {"direct_answer": 1, "error": 4}
        assert server.batches.created == 8
        assert batched(server, rows=5).outcomes == {"direct_answer": 5}
    assert set(server.answers.values()) == {1}


def test_a_bad_request_is_one_row_s_error(batched: Batched, tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> Any:
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": "this one is too long"}}
        return (400, error) if "process 7?" in prompt_of(body) else ANSWER

    with LoopbackServer(answer) as server:
        result = batched(server, rows=20)
        assert server.batches.created == 1
    assert result.outcomes == {"direct_answer": 19, "error": 1}
    failed = [response.error for response in final(tmp_path / "run").values() if response.error]
    assert failed == ["HTTP 400: this one is too long"]


def test_what_the_platform_blocks_in_a_batch_is_blocked(batched: Batched, vendor: str) -> None:
    with LoopbackServer(ANSWER, faults=Faults(blocked_prompt=0.3, blocked_output=0.3)) as server:
        result = batched(server)
    blocked = server.fault_counts["blocked_prompt"] + server.fault_counts["blocked_output"]
    assert result.outcomes == {"direct_answer": 40 - blocked, "blocked": blocked}
    assert server.batches.created == 1


def test_a_line_that_is_missing_garbled_or_there_twice_counts_once(batched: Batched, tmp_path: Path) -> None:
    faults = Faults(batch_missing=0.15, batch_garbled=0.15, batch_repeated=0.3, attempts=1)
    with LoopbackServer(refusing(0.3), faults=faults) as server:
        result = batched(server)
    assert result.outcomes.get("error", 0) == 0
    assert Counter(r.prompt for r in read_responses(tmp_path / "run")) == Counter(server.answers.keys())
    lost = [prompt for prompt in server.answers if faults.line_fault(prompt, 1) in ("batch_missing", "batch_garbled")]
    assert all(times == 1 for prompt, times in server.answers.items() if prompt not in lost)
    assert all(times <= 2 for times in server.answers.values())


def test_results_cut_short_are_fetched_again_not_asked_again(batched: Batched) -> None:
    with LoopbackServer(refusing(0.3), faults=Faults(batch_cut=1.0, attempts=2)) as server:
        batched(server)
        assert server.batches.created == 1
    assert set(server.answers.values()) == {1}


Lines = Callable[[dict[str, Any]], list[Any]]


def _renamed(line: dict[str, Any], name: object) -> dict[str, Any]:
    return {**line, "custom_id": name}


def _failed(line: dict[str, Any]) -> dict[str, Any]:
    if "result" in line:
        return {**line, "result": {"type": "errored", "error": {"error": {"type": "api_error", "message": "later"}}}}
    return {**line, "response": {"status_code": 500, "body": {"error": {"message": "later"}}}}


ODD_LINES: dict[str, tuple[Lines, bool]] = {
    "the id of nobody": (lambda line: [_renamed(line, "nobody")], True),
    "the id of another batch": (lambda line: [_renamed(line, "0" * 12 + "-" + line["custom_id"])], True),
    "no id": (lambda line: [_renamed(line, None)], True),
    "a number for an id": (lambda line: [_renamed(line, 7)], True),
    "no object": (lambda line: [[line]], True),
    "nothing in it": (lambda line: [{}], True),
    "no line at all": (lambda line: [], True),
    "an error, then the reply": (lambda line: [_failed(line), line], False),
    "the reply, then an error": (lambda line: [line, _failed(line)], False),
    "the reply three times": (lambda line: [line, line, line], False),
    "what is nobody's beside it": (lambda line: [_renamed(line, "nobody"), line, "nothing", None], False),
}
"""What a file of results may hold instead of a line, and whether the reply is lost with that."""


def _writing(lines: Lines, monkeypatch: pytest.MonkeyPatch, share: Callable[[str, int], bool]) -> None:
    """Have the server write some results otherwise."""

    def written(self: object, line: dict[str, Any], prompt: str, attempt: int) -> bytes:
        said = lines(line) if share(prompt, attempt) else [line]
        return b"".join(msgspec.json.encode(one) + b"\n" for one in said)

    monkeypatch.setattr("orbench.testing.server.batches.Batches._written", written)


@pytest.mark.parametrize("odd", ODD_LINES)
def test_whatever_the_file_of_results_says_a_reply_in_it_is_taken_once_and_the_others_are_asked_again(
    odd: str, batched: Batched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lines, loses = ODD_LINES[odd]
    hit: set[str] = set()

    def struck(prompt: str, attempt: int) -> bool:
        hit.update({prompt} if attempt == 1 and len(prompt) % 3 == 0 else ())
        return attempt == 1 and prompt in hit

    _writing(lines, monkeypatch, struck)
    with LoopbackServer(refusing(0.3)) as server:
        result = batched(server)
    assert result.outcomes.get("error", 0) == 0
    assert Counter(response.prompt for response in read_responses(tmp_path / "run")) == dict.fromkeys(server.answers, 1)
    assert len(hit) > 1
    assert {prompt for prompt, times in server.answers.items() if times > 1} == (hit if loses else set())
    assert ("to be asked again" in capsys.readouterr().err) is loses


@pytest.mark.parametrize("rows", [10, 40])
def test_a_file_without_one_readable_line_is_not_paid_for_again_where_it_is_no_accident(
    rows: int, batched: Batched, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = [True]
    _writing(lambda line: ["?"], monkeypatch, lambda prompt, attempt: broken == [True])
    with LoopbackServer(refusing(0.3)) as server:
        if rows == 10:  # nine lines may have been lost one by one
            assert batched(server, rows=rows).outcomes["error"] == 9
            broken.clear()
            assert batched(server, rows=rows).outcomes.get("error", 0) == 0
            return
        with pytest.raises(orbench.ModelError, match="nothing that can be read of 39 requests, which are paid for"):
            batched(server, rows=rows)
        with pytest.raises(orbench.ModelError, match="Nothing is asked again"):
            batched(server, rows=rows)
        assert server.batches.created == 1
    assert set(server.answers.values()) == {1}


def _command(name: str, url: str, folder: Path, asked: list[Request], most: int | None = None) -> list[str]:
    """The ids that a command hears of which asks for these; with a bound the last one is not seen to be saved."""

    async def run() -> list[str]:
        model = in_batches(open_model(name, Options(base_url=url)), folder, "scope")
        taken: list[str] = []
        async with aclosing(model.generate(asked)) as completions:
            async for completion in completions:
                taken.append(completion.id)
                if len(taken) == most:
                    break
        await model.close()
        return taken

    return asyncio.run(run())


@pytest.mark.parametrize("size", [3, 100])
def test_a_batch_is_not_forgotten_while_a_reply_of_it_was_handed_to_nobody(
    size: int, vendor: str, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Commands may ask for less than the one that sent it did: a smaller target, another stage, other rows judged."""
    name = {"openai": "OpenAIBatches", "anthropic": "AnthropicBatches"}[vendor]
    monkeypatch.setattr(f"orbench.models.batch.{vendor}.{name}.max_requests", size)
    requests = [Request(id=f"r{n}", messages=(Message("user", f"What is {n}?"),)) for n in range(8)]
    with LoopbackServer(ANSWER) as server:
        model = (f"{vendor}/any", address(server), tmp_path)
        first = _command(*model, requests, 4)  # one directly; of a batch two that are saved, one that is not
        owed = [request for request in requests if request.id not in first[:3]]
        second = _command(*model, owed[:2])
        assert {*second} == {request.id for request in owed[:2]}
        assert _command(*model, []) == []
        third = _command(*model, owed[2:])
        assert {*third} == {request.id for request in owed[2:]}
        assert set(server.answers.values()) == {1}
        batches = server.batches.created
        assert batches == (1 if size == 100 else 3)
        (folder,) = (tmp_path / "batches").iterdir()
        assert [path.name for path in folder.iterdir()] == ["state.jsonl"]  # all is taken, all is forgotten
        assert "nobody asks for now" in capsys.readouterr().err
        assert len(_command(*model, requests[:2])) == 2  # asked anew
        assert server.batches.created == batches + 1


def test_what_nobody_took_is_not_asked_directly_and_what_was_taken_may_be(
    vendor: str, address: Address, tmp_path: Path
) -> None:
    requests = [Request(id=f"r{n}", messages=(Message("user", f"What is {n}?"),)) for n in range(8)]
    with LoopbackServer(ANSWER) as server:
        _command(f"{vendor}/any", address(server), tmp_path, requests, 2)
        taken = _command(f"{vendor}/any", address(server), tmp_path, requests[1:5])
        direct = open_model(f"{vendor}/any", Options(base_url=address(server)))
        refuse_under_way(direct, tmp_path, "scope", ["r0", *taken])
        with pytest.raises(orbench.RunError, match="3 requests in 1 batch"):
            refuse_under_way(direct, tmp_path, "scope", ["r6"])
        again = in_batches(direct, tmp_path, "scope")
        assert [again.is_under_way(f"r{n}") for n in range(8)] == [False] * 5 + [True] * 3


def test_a_completed_batch_whose_file_is_not_there_yet_is_asked_about_again(
    tmp_path: Path, split_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbench.testing.server.batches import Batches

    told = Batches._openai
    late = [True, True]

    def without_file(self: Batches, batch: Any) -> dict[str, Any]:
        body = told(self, batch)
        return {**body, "output_file_id": None} if body["status"] == "completed" and late and late.pop() else body

    monkeypatch.setattr(Batches, "_openai", without_file)
    with LoopbackServer(ANSWER) as server:
        result = orbench.evaluate(
            "openai/any", base_url=server.base_url, splits=split_file(rows=10), out=tmp_path / "run", batch=True
        )
        assert server.batches.created == 1
    assert not late
    assert result.outcomes == {"direct_answer": 10}


def test_replies_of_a_batch_that_is_said_to_have_failed_are_kept(
    tmp_path: Path, split_file: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from orbench.testing.server.batches import Batches

    told = Batches._openai

    def failed(self: Batches, batch: Any) -> dict[str, Any]:
        body = told(self, batch)
        return {**body, "status": "failed"} if body["output_file_id"] else body

    monkeypatch.setattr(Batches, "_openai", failed)
    with LoopbackServer(ANSWER) as server:
        result = orbench.evaluate(
            "openai/any", base_url=server.base_url, splits=split_file(rows=10), out=tmp_path / "run", batch=True
        )
    assert result.outcomes == {"direct_answer": 10}
    assert set(server.answers.values()) == {1}


@pytest.mark.parametrize("fault", ["rate_limited", "overloaded", "server_error", "dropped", "half", "malformed"])
def test_a_batch_api_that_fails_is_asked_until_it_does_not(fault: str, batched: Batched) -> None:
    faults = Faults(**{fault: 1.0}, attempts=2, retry_after_s=0)  # type: ignore[arg-type]
    with LoopbackServer(refusing(0.3), faults=faults, batch_polls=3) as server:
        result = batched(server)
        assert server.fault_counts[fault] > 4
        assert server.batches.created == 1  # also where the answer to its creation was lost
    assert result.outcomes.get("error", 0) == 0
    assert set(server.answers.values()) == {1}


def test_a_stalled_call_is_given_up(batched: Batched) -> None:
    with LoopbackServer(ANSWER, faults=Faults(stalled=1.0, attempts=1)) as server:
        batched(server, rows=5, model_options={"timeout_s": 0.5})
        assert server.batches.created == 1
    assert set(server.answers.values()) == {1}


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_goes_wrong_every_prompt_has_one_reply(
    data: st.DataObject, batched: Batched, tmp_path_factory: pytest.TempPathFactory
) -> None:
    share = st.sampled_from([0.0, 0.1, 0.2])
    names = ("rate_limited", "server_error", "dropped", "half", "malformed")
    lines = ("batch_failed", "batch_expired", "batch_repeated", "batch_cut")
    faults = Faults(
        **{name: data.draw(share, label=name) for name in (*names, *lines)},
        attempts=3,
        retry_after_s=0,
        seed=data.draw(st.integers(0, 1000), label="seed"),
    )
    out = tmp_path_factory.mktemp("run") / "run"
    with LoopbackServer(refusing(0.3), faults=faults) as server:
        result = batched(server, rows=20, out=out)
        before = {prompt: times for prompt, times in server.answers.items() if times != 1}
    assert result.outcomes.get("error", 0) == 0
    assert len(final(out)) == 20
    if not faults.batch_cut:
        assert before == {}


def test_a_batch_cancelled_at_the_vendor_keeps_what_it_has_and_the_rest_is_an_error(
    batched: Batched, address: Address, vendor: str
) -> None:
    def cancel(moment: str, method: str, path: str) -> None:
        if moment == "before" and method == "GET" and path.endswith("00000001"):
            server.batches.cancel()

    with LoopbackServer(refusing(0.3), on_batch=cancel, batch_polls=5) as server:
        result = batched(server, rows=21)
        assert result.outcomes["error"] == 10
        assert server.batches.created == 1
        assert batched(server, rows=21).outcomes.get("error", 0) == 0
        assert server.batches.created == 2
    assert set(server.answers.values()) == {1}


def test_a_queue_that_is_full_takes_the_prompts_in_parts(tmp_path: Path, split_file: Callable[..., str]) -> None:
    with LoopbackServer(batch_queue=12) as server:
        orbench.evaluate(
            "openai/any", base_url=server.base_url, splits=split_file(rows=40), out=tmp_path / "run", batch=True
        )
    assert set(server.answers.values()) == {1}
    ended = [line["ended"] for line in state(tmp_path / "run") if "ended" in line]
    assert [how for how in ended if how != "completed"] == [ended[0]] * 3  # 39, then 19 twice
    assert ended[0].startswith("failed: token_limit_exceeded")


def test_a_batch_that_fails_as_a_whole_stops_the_run_with_its_reason(
    tmp_path: Path, split_file: Callable[..., str]
) -> None:
    broken = {"on": True}

    def fail(moment: str, method: str, path: str) -> None:
        if broken["on"] and method == "GET":
            server.batches.fail("the file is not what it should be")

    given = {"splits": split_file(rows=5), "out": tmp_path / "run", "batch": True}
    with LoopbackServer(ANSWER, on_batch=fail) as server:
        with pytest.raises(orbench.ModelError, match="failed as a whole: invalid_json_line: the file is not"):
            orbench.evaluate("openai/any", base_url=server.base_url, **given)  # type: ignore[arg-type]
        broken["on"] = False
        result = orbench.evaluate("openai/any", base_url=server.base_url, **given)  # type: ignore[arg-type]
        assert result.outcomes == {"direct_answer": 5}
    assert set(server.answers.values()) == {1}


def test_what_the_model_does_not_take_is_learnt_before_the_batch_is_sent(
    vendor: str, address: Address, batched: Batched, tmp_path: Path
) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "temperature" in body:
            return 400, {"error": {"type": "invalid_request_error", "message": "temperature is not supported"}}
        return ANSWER

    with LoopbackServer(answer) as server:
        result = batched(server)
        assert server.batches.created == 1
    assert result.outcomes == {"direct_answer": 40}
    assert "temperature" in str(msgspec.json.decode((tmp_path / "run" / "run.json").read_bytes())["adaptations"])


def test_what_is_learnt_from_a_batch_s_own_lines_goes_into_the_next(
    vendor: str, batched: Batched, tmp_path: Path
) -> None:
    asked: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> Any:
        asked[prompt_of(body)] += 1
        if "temperature" in body and len(asked) > 1:  # the direct call is taken as it is
            return 400, {"error": {"type": "invalid_request_error", "message": "temperature is not supported"}}
        return ANSWER

    with LoopbackServer(answer) as server:
        assert batched(server).outcomes == {"direct_answer": 40}
        assert server.batches.created == 2


@pytest.mark.parametrize(("status", "words"), [(401, "key was refused"), (404, "not found"), (402, "no quota")])
def test_a_wrong_key_or_model_stops_before_anything_is_sent_in_a_batch(
    status: int, words: str, batched: Batched
) -> None:
    error = {"error": {"type": "authentication_error", "message": "No."}}
    with LoopbackServer(lambda body: (status, error)) as server:
        with pytest.raises(orbench.ModelError, match=words):
            batched(server)
        assert server.batches.calls == []


def test_a_line_that_no_other_will_fare_better_than_stops_the_run_when_all_is_saved(
    batched: Batched, tmp_path: Path
) -> None:
    broke = {"on": True}

    def answer(body: dict[str, Any]) -> Any:
        if broke["on"] and "process 7?" in prompt_of(body):
            return 402, {"error": {"type": "billing_error", "message": "The credit balance is too low."}}
        return ANSWER

    with LoopbackServer(answer) as server:
        with pytest.raises(orbench.ModelError, match="no quota left"):
            batched(server, rows=20)
        assert len(final(tmp_path / "run")) == 19
        broke["on"] = False
        assert batched(server, rows=20).outcomes == {"direct_answer": 20}
    assert set(server.answers.values()) == {1}


def test_results_that_are_there_are_read_before_a_used_up_account_stops_the_run(
    batched: Batched, tmp_path: Path, vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = {"openai": "OpenAIBatches", "anthropic": "AnthropicBatches"}[vendor]
    monkeypatch.setattr(f"orbench.models.batch.{vendor}.{name}.max_requests", 10)
    broke = {"on": True}

    def answer(body: dict[str, Any]) -> Any:
        if broke["on"] and int(re.sub(r"\D", "", prompt_of(body))) > 10:
            return 402, {"error": {"type": "billing_error", "message": "The credit balance is too low."}}
        return ANSWER

    with LoopbackServer(answer, on_batch=_interrupt_at("POST")) as server:
        with pytest.raises(KeyboardInterrupt):
            batched(server, rows=20)
        (folder,) = tmp_path.glob("run/batches/*")
        lines = (folder / "state.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "state.jsonl").write_bytes(lines[0])  # as if it had been stopped before the second was planned
        with pytest.raises(orbench.ModelError, match="no quota left"):
            batched(server, rows=20)
        assert len(final(tmp_path / "run")) == 11
        broke["on"] = False
        assert batched(server, rows=20).outcomes == {"direct_answer": 20}
    assert set(server.answers.values()) == {1}


def _interrupt_at(method: str) -> Callable[[str, str, str], None]:
    """Ctrl-C at the first call of that method."""
    import os
    import signal

    done: list[bool] = []

    def interrupt(moment: str, found: str, path: str) -> None:
        if found == method and not done:
            done.append(True)
            os.kill(os.getpid(), signal.SIGINT)

    return interrupt


def test_without_batch_nothing_is_asked_that_a_batch_may_answer(
    batched: Batched, tmp_path: Path, vendor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with LoopbackServer(refusing(0.3), on_batch=_interrupt_at("GET")) as server:
        with pytest.raises(KeyboardInterrupt):
            batched(server, rows=20)
        assert "1 batch (" in capsys.readouterr().err
        asked = server.answered
        with pytest.raises(orbench.RunError, match=r"19 requests in 1 batch .* did not end. Add --batch"):
            batched(server, rows=20, batch=False)
        assert server.answered == asked
        batched(server, rows=20)
    assert set(server.answers.values()) == {1}


def test_a_run_begun_without_batches_goes_on_with_them_and_the_other_way_round(batched: Batched) -> None:
    stopped = {"at": 5}

    def answer(body: dict[str, Any]) -> Any:
        stopped["at"] -= 1
        error = {"error": {"type": "billing_error", "message": "The credit balance is too low."}}
        return (402, error) if stopped["at"] == 0 else ANSWER

    with LoopbackServer(answer) as server:
        with pytest.raises(orbench.ModelError):
            batched(server, rows=20, batch=False, concurrency=1)
        assert batched(server, rows=20).outcomes == {"direct_answer": 20}
        assert batched(server, rows=20, batch=False).outcomes == {"direct_answer": 20}
    assert set(server.answers.values()) == {1}


def test_every_call_counts_at_the_price_it_was_made_at(
    batched: Batched, vendor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Single calls, then a batch, whose first call is a single one; then single calls again: each keeps its price."""
    prices = tmp_path / "prices.csv"
    prices.write_text(f"model,input,output\n{vendor}/any,1000,1000\n")
    answers = {"until": 8}

    def answer(body: dict[str, Any]) -> Any:
        if int(re.findall(r"\d+", prompt_of(body))[-1]) >= answers["until"]:
            return 400, {"error": {"type": "invalid_request_error", "message": "not today"}}
        return ANSWER

    def tokens(batch: bool) -> int:
        told = [response.usage for response in read_responses(tmp_path / "run")]
        return sum((one.input_tokens or 0) + (one.output_tokens or 0) for one in told if one and one.batch is batch)

    costs = []
    with LoopbackServer(answer) as server:
        for until, batch in ((8, False), (16, True), (20, False)):
            answers["until"] = until
            result = batched(server, rows=20, batch=batch, prices=prices)
            costs.append(result.usage["cost_usd"])
            assert costs[-1] == pytest.approx((tokens(False) + tokens(True) / 2) / 1000)
    assert sum(1 for r in read_responses(tmp_path / "run") if r.usage and r.usage.batch) == 7
    assert orbench.Evaluation.load(tmp_path / "run").usage["cost_usd"] == costs[-1]


@pytest.fixture
def prices(tmp_path: Path, vendor: str) -> Path:
    """A price list for the model and its judge."""
    file = tmp_path / "prices.csv"
    file.write_text(f"model,input,output\n{vendor}/any,1,1\n{vendor}/judge,1,1\n")
    return file


def judged(body: dict[str, Any]) -> str:
    """What a judge says, and a model that only the judge can settle."""
    return "[[direct_answer]]" if body["model"] == "judge" else "Well, that depends."


@pytest.mark.filterwarnings("ignore:stopped at")
@pytest.mark.parametrize("judge", [False, True])
def test_what_a_batch_holds_is_fetched_whether_there_is_money_for_it_or_not(
    judge: bool, batched: Batched, vendor: str, address: Address, tmp_path: Path, prices: Path
) -> None:
    """It is paid for: a bound that is lower, or has to pay for a judge too, throws no reply away."""
    with LoopbackServer(judged, on_batch=_interrupt_at("GET")) as server:
        given: dict[str, Any] = {"rows": 20, "prices": prices}
        if judge:
            given |= {"scorer": "judge", "judge": f"{vendor}/judge", "judge_base_url": address(server)}
        with pytest.raises(KeyboardInterrupt):
            batched(server, rows=20, prices=prices, scorer="keywords", max_cost=1.0)
        first = batched(server, max_cost=0.004, **given)
        assert first.outcomes == ({} if judge else {"direct_answer": 20})  # there is no money left for the judge
        assert first.stale == (1 if judge else 0)  # the keywords' own verdict, of before the interruption
        assert len(final(tmp_path / "run")) == 20
        assert batched(server, max_cost=1.0, **given).outcomes == {"direct_answer": 20}
        assert server.batches.created == 1
    assert all(count == 1 for prompt, count in server.answers.items() if "process" in prompt[:20])


@pytest.mark.filterwarnings("ignore:stopped at")
def test_a_judge_s_batch_is_fetched_whether_there_is_money_for_it_or_not(
    vendor: str, address: Address, tmp_path: Path, split_file: Any, prices: Path
) -> None:
    with LoopbackServer(judged, on_batch=_interrupt_at("GET")) as server:
        url = address(server)
        run = orbench.evaluate(f"{vendor}/any", base_url=url, splits=split_file(rows=20), out=tmp_path / "run").run
        given = {"scorer": "judge", "judge": f"{vendor}/judge", "judge_base_url": url, "batch": True, "prices": prices}
        with pytest.raises(KeyboardInterrupt):
            orbench.score(run, **given)
        plan = orbench.evaluation.estimate_score(run, **given)
        assert (plan.judges[0].calls.low, plan.judges[0].calls.high) == (0, 0)
        assert orbench.score(run, max_cost=0.001, **given).outcomes == {"direct_answer": 20}
        assert server.batches.created == 1
    assert set(server.answers.values()) == {1}


def test_a_plan_does_not_count_again_what_a_batch_holds(
    batched: Batched, vendor: str, address: Address, tmp_path: Path, split_file: Any
) -> None:
    with LoopbackServer(ANSWER, on_batch=_interrupt_at("GET")) as server:
        with pytest.raises(KeyboardInterrupt):
            batched(server, rows=20)
        (plan,) = orbench.evaluation.estimate(
            [f"{vendor}/any"],
            base_url=address(server),
            splits=split_file(rows=20),
            out=tmp_path / "run",
            batch=True,
        )
    assert (plan.prompts, plan.to_ask, plan.under_way, plan.target.calls.high) == (20, 0, 19, 0)
    assert "20 prompts, 0 to ask, 19 in batches under way; nothing was sent" in str(plan)


def test_a_bound_near_to_the_cost_takes_several_batches_and_one_command(
    batched: Batched, vendor: str, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.csv"
    prices.write_text(f"model,input,output\n{vendor}/any,1,1\n")
    with LoopbackServer(ANSWER) as server:  # whose replies are far shorter than the 1,000 tokens they may have
        result = batched(server, rows=40, prices=prices, max_cost=0.008, scorer="keywords")
        assert server.batches.created > 1
    assert sum(result.outcomes.values()) == 40
    assert set(server.answers.values()) == {1}
    assert result.usage["cost_usd"] <= 0.008


def test_a_batch_of_another_account_is_said_so(batched: Batched) -> None:
    with LoopbackServer(refusing(0.3), on_batch=_interrupt_at("GET")) as server, pytest.raises(KeyboardInterrupt):
        batched(server, rows=20)
    with LoopbackServer(ANSWER) as server, pytest.raises(orbench.ModelError, match="not known to the service"):
        batched(server, rows=20)


@pytest.mark.parametrize(
    "model", ["google/gemini-any", "groq/any", "baseline/always-answer", "python/str:lower"], ids=str
)
def test_a_model_without_a_batch_api_is_wrong_usage(
    model: str, monkeypatch: pytest.MonkeyPatch, split_file: Callable[..., str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GOOGLE_API_KEY", "k")
    monkeypatch.setenv("GROQ_API_KEY", "k")
    if model.startswith("python"):
        model = "python/os.path:basename"
    with pytest.raises(orbench.UsageError, match=r"cannot be asked in batches; openai/... and anthropic/... can"):
        orbench.evaluate(model, splits=split_file(), out=tmp_path / "run", batch=True)
    assert not (tmp_path / "run").exists()


def test_a_run_that_may_stop_early_is_no_batch(split_file: Callable[..., str]) -> None:
    with pytest.raises(orbench.UsageError, match="precision"):
        orbench.evaluate("openai/any", splits=split_file(), batch=True, precision=0.1)


def test_a_server_without_a_batch_api_is_told_in_one_line(batched: Batched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orbench.testing.server.batches.Batches.handle", lambda *_: None)
    monkeypatch.setattr("orbench.testing.server.batches.Batches.add_file", lambda *_: None)
    with LoopbackServer(ANSWER) as server, pytest.raises(orbench.ModelError, match="leave --batch out"):
        batched(server)


def test_no_key_is_left_in_what_is_written(
    vendor: str, batched: Batched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    key = f"sk-canary-{vendor}-51c2"
    monkeypatch.setenv(f"{vendor.upper()}_API_KEY", key)

    def answer(body: dict[str, Any]) -> Any:
        told = {"error": {"type": "invalid_request_error", "message": f"Bad request with the key {key}"}}
        return (400, told) if "process 1" in prompt_of(body) else ANSWER

    with LoopbackServer(answer, on_batch=_interrupt_at("GET")) as server:
        with pytest.raises(KeyboardInterrupt):
            batched(server, rows=20)
        assert key in str(server.headers)
        between = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
        batched(server, rows=20)
    after = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    printed = capfd.readouterr()
    assert key not in between.decode() + after.decode() + printed.out + printed.err
    assert "[key]" in after.decode()


def test_judges_are_asked_in_batches_too(vendor: str, address: Address, tmp_path: Path, split_file: Any) -> None:
    def answer(body: dict[str, Any]) -> str:
        judged = "double square brackets" in prompt_of(body)
        return "It refuses. [[direct_refusal]]" if judged else "Well, that depends on many things."

    with LoopbackServer(answer) as server:
        url = address(server)
        run = orbench.evaluate(f"{vendor}/any", base_url=url, splits=split_file(rows=20), out=tmp_path / "run").run
        asked = len(server.requests)
        again = orbench.score(run, scorer="judge", judge=f"{vendor}/judge", judge_base_url=url, batch=True)
        assert again.outcomes == {"direct_refusal": 20}
        assert len(server.requests) == asked + 1
        assert server.batches.created == 1
        assert again.to_dict()["usage"]["judge"]["requests"] == 20


def test_a_judge_s_unreadable_answers_are_asked_again_in_another_batch(
    vendor: str, address: Address, tmp_path: Path, split_file: Any
) -> None:
    asked: Counter[str] = Counter()

    def answer(body: dict[str, Any]) -> str:
        prompt = prompt_of(body)
        if "double square brackets" not in prompt:
            return "Well, that depends on many things."
        number = next(n for n in range(20) if f"process {n}?" in prompt)
        asked[str(number)] += 1
        return "It answers. [[direct_answer]]" if number % 2 or asked[str(number)] > 1 else "Hard to say."

    with LoopbackServer(answer) as server:
        url = address(server)
        run = orbench.evaluate(f"{vendor}/any", base_url=url, splits=split_file(rows=20), out=tmp_path / "run").run
        result = orbench.score(run, scorer="judge", judge=f"{vendor}/judge", judge_base_url=url, batch=True)
    assert result.outcomes == {"direct_answer": 20}
    assert sorted(asked.values()) == [1] * 10 + [2] * 10


def test_two_models_are_in_batches_side_by_side(tmp_path: Path, split_file: Any, vendor: str, address: Address) -> None:
    from orbench.evaluation import evaluate_all

    polled: list[str] = []
    with LoopbackServer(ANSWER, on_batch=lambda moment, method, path: polled.append(path), batch_polls=5) as server:
        found = evaluate_all(
            [f"{vendor}/one", f"{vendor}/two"],
            base_url=address(server),
            splits=split_file(rows=10),
            out=tmp_path,
            batch=True,
        )
    assert [result.outcomes for result in found if isinstance(result, orbench.Evaluation)] == [
        {"direct_answer": 10}
    ] * 2
    ids = [path.rpartition("_")[2] for path in polled if path.endswith(("00000001", "00000002"))]
    assert ids.index("00000002") < len(ids) - 1 - ids[::-1].index("00000001")  # the second did not wait for the first


def test_an_anthropic_refusal_in_a_batch_is_blocked(tmp_path: Path, split_file: Any) -> None:
    with LoopbackServer(lambda body: message("Well, fi", stop_reason="refusal")) as server:
        result = orbench.evaluate(
            "anthropic/any", base_url=server.root_url, splits=split_file(rows=4), out=tmp_path / "run", batch=True
        )
    assert result.outcomes == {"blocked": 4}


def test_the_responses_api_is_asked_in_batches_where_the_model_has_no_other(tmp_path: Path, split_file: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if "messages" in body:
            return 404, {"error": {"message": "This model is only supported in v1/responses."}}
        return ANSWER

    with LoopbackServer(answer, on_batch=_interrupt_at("GET")) as server:
        given = {"base_url": server.base_url, "splits": split_file(rows=20), "out": tmp_path / "run", "batch": True}
        with pytest.raises(KeyboardInterrupt):
            orbench.evaluate("openai/any", **given)
        assert orbench.evaluate("openai/any", **given).outcomes == {"direct_answer": 20}
    assert set(server.answers.values()) == {1}


def test_a_slow_batch_is_asked_about_less_and_less_often(batched: Batched, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    waits: list[float] = []
    sleep = asyncio.sleep

    async def slept(seconds: float) -> None:
        waits.append(seconds)
        await sleep(0)

    monkeypatch.setattr("orbench.models.batch.FIRST_POLL_S", 0.2)
    monkeypatch.setattr("orbench.models.batch.LAST_POLL_S", 60.0)
    with LoopbackServer(ANSWER, batch_polls=12) as server:
        monkeypatch.setattr("orbench.models.batch.asyncio.sleep", slept)
        batched(server, rows=5)
    grown = [wait for wait in waits if wait]
    assert grown[:3] == [0.2, 0.4, 0.8]
    assert grown == sorted(grown)
    assert max(grown) == 60.0
