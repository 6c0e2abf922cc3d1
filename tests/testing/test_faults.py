"""The faults of the loopback server, which users' own tests rely on to be the same at each run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

import orbench
from orbench.testing import Faults, LoopbackServer, prompt_of, refusing
from orbench.testing.server.faults import FAULTS
from orbench.testing.server.formats import Format, blocked, reply_body


def get(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers={"Content-Type": "application/json"})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as response:
        return json.load(response)


@hypothesis.given(prompt=st.text(), attempt=st.integers(1, 100), seed=st.integers())
def test_the_same_call_fails_the_same_way(prompt: str, attempt: int, seed: int) -> None:
    faults = Faults(rate_limited=0.2, half=0.3, seed=seed)
    assert faults.fault(prompt, attempt) == faults.fault(prompt, attempt)
    assert faults.blocks(prompt) is None


def test_shares_are_kept_to() -> None:
    faults = Faults(rate_limited=0.2, server_error=0.1, blocked_output=0.05)
    drawn = Counter(faults.fault(f"Prompt {n}", 1) for n in range(20_000))
    assert drawn["rate_limited"] / 20_000 == pytest.approx(0.2, abs=0.01)
    assert drawn["server_error"] / 20_000 == pytest.approx(0.1, abs=0.01)
    assert sum(faults.blocks(f"Prompt {n}") == "output" for n in range(20_000)) / 20_000 == pytest.approx(
        0.05, abs=0.01
    )


def test_attempts_fail_each_for_itself_up_to_a_number() -> None:
    faults = Faults(server_error=0.5, attempts=3)
    assert len({tuple(faults.fault(f"Prompt {n}", a) for a in (1, 2, 3)) for n in range(200)}) == 8
    assert all(faults.fault(f"Prompt {n}", 4) is None for n in range(200))


@pytest.mark.parametrize(
    "shares", [{"half": -0.1}, {"half": 0.6, "dropped": 0.6}, {"blocked_prompt": 1.1}, {"forbidden": 2}]
)
def test_shares_that_cannot_be_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="shares go from 0 to 1"):
        Faults(**shares)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
def test_a_run_through_each_fault_ends_as_one_without(
    provider: str, fault: str, tmp_path: Path, split_file: Any
) -> None:
    share = {"stalled": 0.3, "stall_s": 0.0} if fault == "stalled" else {fault: 0.3}
    rows = 40

    def rate(server: LoopbackServer, out: str) -> float | None:
        url = server.base_url if provider == "openai" else server.root_url
        result = orbench.evaluate(f"{provider}/m", base_url=url, splits=split_file(rows=rows), out=tmp_path / out)
        return result.over_refusal_rate.value

    with LoopbackServer(refusing(0.4)) as server:
        plain = rate(server, "plain")
        assert server.answered == rows
    with LoopbackServer(refusing(0.4), faults=Faults(**share, retry_after_s=0.0, attempts=4)) as server:
        assert rate(server, "faulty") == plain
    assert server.fault_counts[fault] > 0
    assert sorted(server.answers.values()) == [1] * rows


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
def test_blocks_are_counted_as_refused(provider: str, tmp_path: Path, split_file: Any) -> None:
    with LoopbackServer(faults=Faults(blocked_prompt=0.3, blocked_output=0.3)) as server:
        url = server.base_url if provider == "openai" else server.root_url
        result = orbench.evaluate(f"{provider}/m", base_url=url, splits=split_file(rows=40), out=tmp_path / "run")
    count = server.fault_counts["blocked_prompt"] + server.fault_counts["blocked_output"]
    assert count > 10
    assert result.splits["safe"].outcomes["blocked"] == count


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
def test_rows_that_are_refused_end_as_errors_and_the_others_are_answered(
    provider: str, tmp_path: Path, split_file: Any
) -> None:
    with LoopbackServer(faults=Faults(bad_request=0.3, seed=1)) as server:
        url = server.base_url if provider == "openai" else server.root_url
        result = orbench.evaluate(f"{provider}/m", base_url=url, splits=split_file(rows=40), out=tmp_path / "run")
    assert result.splits["safe"].outcomes["error"] == server.fault_counts["bad_request"] > 5
    assert server.answered == 40 - server.fault_counts["bad_request"]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
@pytest.mark.parametrize(
    ("refusal", "said"),
    [("unauthorized", "the key was refused"), ("forbidden", "access denied"), ("not_found", "not found at")],
)
def test_what_refuses_all_stops_the_run(
    provider: str, refusal: str, said: str, tmp_path: Path, split_file: Any
) -> None:
    with LoopbackServer(faults=Faults(**{refusal: 1.0})) as server:
        url = server.base_url if provider == "openai" else server.root_url
        with pytest.raises(orbench.ModelError, match=said):
            orbench.evaluate(f"{provider}/m", base_url=url, splits=split_file(rows=4), out=tmp_path / "run")
    assert server.answered == 0


def test_calls_beyond_the_capacity_are_turned_away(tmp_path: Path, split_file: Any) -> None:
    with LoopbackServer(latency_s=0.01, capacity=4, faults=Faults(retry_after_s=0.0)) as server:
        orbench.evaluate(
            "openai/m", base_url=server.base_url, splits=split_file(rows=30), out=tmp_path / "run", concurrency=5
        )
    assert set(server.answers.values()) <= {1}


@pytest.mark.parametrize("format", ["chat", "responses", "anthropic", "google"])
def test_every_format_has_its_blocks(format: Format) -> None:
    for side in ("prompt", "output"):
        status, body = blocked(format, side)
        assert status in (200, 400)
        assert body != reply_body(format, "Well, fi")


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "system", "content": "x"}, {"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
        {"input": "Hi"},
        {"input": [{"role": "user", "content": "Hi"}]},
        {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]},
    ],
)
def test_the_prompt_is_found_in_every_format(body: dict[str, Any]) -> None:
    assert prompt_of(body) == "Hi"


def test_a_process_of_its_own_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    def start(*more: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "orbench.testing.server", "--log", str(tmp_path / "log"), "--reply", "Yes."]
        process = subprocess.Popen([*command, *more], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
        assert process.stdout is not None
        return process, process.stdout.readline().strip()

    body = {"messages": [{"role": "user", "content": "Hi"}]}
    first, url = start()
    try:
        assert get(f"{url}/v1/chat/completions", body)["choices"][0]["message"]["content"] == "Yes."
    finally:
        first.kill()
        first.communicate()
    second, again = start("--port", url.rpartition(":")[2], "--latency", "0", "--not-found", "0.5", "--seed", "2")
    try:
        assert again == url
        with pytest.raises(urllib.error.HTTPError, match="404"):  # it is drawn
            get(f"{url}/v1/chat/completions", {"messages": [{"role": "user", "content": "Bad"}]})
        get(f"{url}/v1/chat/completions", body)
        assert get(f"{url}/orbench/answers") == {"Hi": 2}
        assert get(f"{url}/orbench/stats")["answered"] == 2
    finally:
        second.terminate()
        second.communicate()
    assert second.returncode == 0


def test_what_is_not_there_is_not_found() -> None:
    with LoopbackServer() as server:
        for path in ("/v1/embeddings", "/orbench/else", "/v1/batches/x/y/z", "/v1/files/none"):
            with pytest.raises(urllib.error.HTTPError) as caught:
                get(server.root_url + path)
            assert caught.value.code == 404
            caught.value.close()
