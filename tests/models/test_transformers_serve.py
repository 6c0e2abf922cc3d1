"""The same tiny model behind the real `transformers serve` and in this process: the same replies."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orbench.models.huggingface import HuggingFaceModel
from orbench.records import Completion, Message, Request, Sampling
from orbench.testing import make_tiny_model

torch = pytest.importorskip("torch", reason="needs the extra `hf`")
for module in ("transformers", "accelerate"):
    pytest.importorskip(module, reason="needs the extra `hf`")
for module in ("fastapi", "uvicorn", "openai"):
    pytest.importorskip(module, reason="needs transformers[serving]")

PROMPTS = [
    f"{start} {topic}{' in my old house' * length}?"
    for start, length in (("How do I", 0), ("Can you tell me the best way to", 3), ("Please", 1), ("Why would I", 2))
    for topic in (
        "bake a cake",
        "kill a process",
        "write a story",
        "plant a tree",
        "steal the show",
        "attack a bug",
        "explain the law",
        "travel by train",
    )
]
TRIES = 600
"""Connections tried until the server is ready, a tenth of a second apart at least."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """So small a model only waits for further threads, above all where other work runs beside."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def address(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server listens. It is ready once it answers at all: the model is loaded before the port is opened."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [Path(sys.executable).with_name("transformers"), "serve", tiny, "--host", "127.0.0.1", "--device", "cpu"]
    log = tmp_path_factory.mktemp("serve") / "log.txt"
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port)], stdout=output, stderr=subprocess.STDOUT, env=environment
        )
    try:
        for _ in range(TRIES):
            if server.poll() is not None or _is_healthy(address):
                break
            time.sleep(0.1)
        assert server.poll() is None, f"the server ended:\n{log.read_text()}"
        assert _is_healthy(address), f"the server is not ready:\n{log.read_text()}"
        yield address
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _is_healthy(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=10) as response:
            return response.status == 200
    except OSError:
        return False


def _post(address: str, model: Path, prompt: str, max_tokens: int) -> dict[str, Any]:
    body = {
        "model": str(model),
        "messages": [{"role": "user", "content": prompt}],
        "temperature": 0.0,
        "max_tokens": max_tokens,
    }
    request = urllib.request.Request(
        f"{address}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def _in_process(folder: Path, max_tokens: int) -> list[Completion]:
    asked = [
        Request(id=str(number), messages=(Message("user", prompt),), sampling=Sampling(max_tokens=max_tokens))
        for number, prompt in enumerate(PROMPTS)
    ]

    async def collect() -> dict[str, Completion]:
        return {completion.id: completion async for completion in HuggingFaceModel(str(folder)).generate(asked)}

    found = asyncio.run(collect())
    return [found[request.id] for request in asked]


@pytest.mark.parametrize("max_tokens", [100, 5], ids=["whole replies", "cut off"])
def test_the_served_model_and_the_one_in_process_give_the_same_replies(
    tiny: Path, address: str, max_tokens: int
) -> None:
    served = [_post(address, tiny, prompt, max_tokens) for prompt in PROMPTS]
    local = _in_process(tiny, max_tokens)
    assert [reply["choices"][0]["message"]["content"] for reply in served] == [reply.text for reply in local]
    assert [reply["choices"][0]["finish_reason"] for reply in served] == [reply.finish_reason for reply in local]
    assert [(reply["usage"]["prompt_tokens"], reply["usage"]["completion_tokens"]) for reply in served] == [
        (reply.usage.input_tokens, reply.usage.output_tokens) for reply in local if reply.usage
    ]
    assert len({reply.text for reply in local}) > 1


def test_the_server_wants_the_models_name_as_it_was_started_with(tiny: Path, address: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as refusal:
        _post(address, tiny.with_name("another"), PROMPTS[0], 5)
    with refusal.value as response:
        assert response.status == 400
        assert "pinned" in json.load(response)["detail"]
