"""The batch APIs of the loopback server, through the vendors' own SDKs."""

from __future__ import annotations

import json
from collections.abc import Iterator

import anthropic
import openai
import pytest

from orbench.testing import Faults, LoopbackServer

COUNT = 20


def lines(count: int = COUNT, url: str = "/v1/chat/completions") -> bytes:
    return b"".join(
        json.dumps(
            {
                "custom_id": f"r{n}",
                "method": "POST",
                "url": url,
                "body": {"model": "m", "messages": [{"role": "user", "content": f"Prompt {n}"}]},
            }
        ).encode()
        + b"\n"
        for n in range(count)
    )


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[LoopbackServer]:
    with LoopbackServer("Certainly.", faults=getattr(request, "param", None)) as server:
        yield server


@pytest.fixture
def client(server: LoopbackServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client:
        yield client


@pytest.fixture
def claude(server: LoopbackServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(api_key="k", base_url=server.root_url, max_retries=0) as client:
        yield client


def create(client: openai.OpenAI, content: bytes) -> str:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"run": "x"}
    )
    assert batch.status == "validating"
    return batch.id


def test_a_file_of_several_megabytes_is_taken_whole(server: LoopbackServer, client: openai.OpenAI) -> None:
    content = lines() + b" " * (3 << 20)
    assert client.files.create(file=("in.jsonl", content), purpose="batch").bytes == len(content)


def test_an_openai_batch_ends_with_a_line_a_request(server: LoopbackServer, client: openai.OpenAI) -> None:
    identity = create(client, lines())
    assert client.batches.retrieve(identity).status == "in_progress"
    batch = client.batches.retrieve(identity)
    assert (batch.status, batch.error_file_id) == ("completed", None)
    assert batch.output_file_id is not None
    found = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert {line["custom_id"] for line in found} == {f"r{n}" for n in range(COUNT)}
    assert found[0]["response"]["body"]["choices"][0]["message"]["content"] == "Certainly."
    assert server.answered == COUNT
    assert [b.id for b in client.batches.list()] == [identity]
    client.batches.retrieve(identity)
    assert server.answered == COUNT


@pytest.mark.parametrize("server", [Faults(batch_failed=0.3, batch_expired=0.3, attempts=1)], indirect=True)
def test_what_failed_or_expired_is_told_apart_and_succeeds_in_another(
    server: LoopbackServer, client: openai.OpenAI
) -> None:
    for expected in ("expired", "completed"):
        identity = create(client, lines())
        client.batches.retrieve(identity)
        batch = client.batches.retrieve(identity)
        assert batch.status == expected
        if expected == "expired":
            assert batch.output_file_id is not None
            assert batch.error_file_id is not None
            good = client.files.content(batch.output_file_id).text.splitlines()
            bad = [json.loads(line) for line in client.files.content(batch.error_file_id).text.splitlines()]
            assert len(good) + len(bad) == COUNT
            assert any(line["error"] and line["error"]["code"] == "batch_expired" for line in bad)
            assert any(line["response"] and line["response"]["status_code"] == 500 for line in bad)


def test_an_openai_batch_can_be_cancelled(client: openai.OpenAI) -> None:
    identity = create(client, lines())
    assert client.batches.cancel(identity).status == "cancelling"
    batch = client.batches.retrieve(identity)
    assert batch.status == "cancelled"
    assert batch.request_counts is not None
    assert batch.request_counts.completed == COUNT // 2


@pytest.mark.parametrize("content", [b"no json\n", lines(url="/v1/responses"), lines(2) + lines(1)])
def test_a_file_that_is_no_batch_fails_it(client: openai.OpenAI, content: bytes) -> None:
    identity = create(client, content)
    batch = client.batches.retrieve(identity)
    assert batch.status == "failed"
    assert batch.errors is not None


def test_an_unknown_batch_or_file_is_not_found(client: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("none")
    with pytest.raises(openai.BadRequestError):
        client.batches.create(input_file_id="none", endpoint="/v1/chat/completions", completion_window="24h")
    with pytest.raises(anthropic.NotFoundError):
        claude.messages.batches.retrieve("none")


def create_claude(claude: anthropic.Anthropic) -> str:
    return claude.messages.batches.create(
        requests=[
            {
                "custom_id": f"r{n}",
                "params": {"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": f"Prompt {n}"}]},
            }
            for n in range(COUNT)
        ]
    ).id


@pytest.mark.parametrize("server", [None, Faults(batch_failed=0.3, batch_expired=0.3)], indirect=True)
def test_an_anthropic_batch_ends_with_a_line_a_request(server: LoopbackServer, claude: anthropic.Anthropic) -> None:
    identity = create_claude(claude)
    assert claude.messages.batches.retrieve(identity).processing_status == "in_progress"
    batch = claude.messages.batches.retrieve(identity)
    assert batch.processing_status == "ended"
    results = {line.custom_id: line.result for line in claude.messages.batches.results(identity)}
    assert len(results) == COUNT
    kinds = [result.type for result in results.values()]
    assert kinds.count("succeeded") == server.answered == batch.request_counts.succeeded
    assert kinds.count("errored") == batch.request_counts.errored
    assert kinds.count("expired") == batch.request_counts.expired


def test_an_anthropic_batch_can_be_cancelled(claude: anthropic.Anthropic) -> None:
    identity = create_claude(claude)
    assert claude.messages.batches.cancel(identity).processing_status == "canceling"
    assert claude.messages.batches.retrieve(identity).request_counts.canceled == COUNT // 2
