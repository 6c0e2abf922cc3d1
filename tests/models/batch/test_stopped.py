"""A run in batches that is stopped anywhere, and gone on with: nothing is lost, and nothing paid for twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

import orbench
from orbench.engine.run_folder import RESPONSES, read_responses
from orbench.models.batch.store import Batch, Store
from orbench.testing import Faults, LoopbackServer, refusing

Address = Callable[[LoopbackServer], str]
ROWS = 40


class Command:
    """`orbench evaluate --batch` as a process of its own."""

    def __init__(self, folder: Path, arguments: list[str]) -> None:
        self._command = [sys.executable, "-m", "orbench", "evaluate", *arguments, "--out", str(folder), "--batch"]
        self.process: subprocess.Popen[str] | None = None

    def run(self) -> tuple[int, str, str]:
        pipe = subprocess.PIPE
        with subprocess.Popen([*self._command, "--json"], stdout=pipe, stderr=pipe, text=True) as self.process:
            out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait(10)


def check(server: LoopbackServer, folder: Path) -> None:
    """Every prompt was answered once, and has its reply, in the file once too."""
    assert set(server.answers.values()) == {1}
    assert Counter(response.prompt for response in read_responses(folder)) == server.answers
    assert len(server.answers) == ROWS


def test_killed_at_every_stage_in_turn_it_completes(
    vendor: str, address: Address, tmp_path: Path, split_file: Callable[..., str]
) -> None:
    folder = tmp_path / "run"
    stages: list[tuple[str, str, str]] = []

    def kill(moment: Any, method: str, path: str) -> None:
        parts = [part for part in path.split("/")[2:] if not any(mark in part for mark in "0123456789")]
        stage = (moment, method, "/".join(parts))
        if stage in stages or (moment == "after" and method == "GET"):
            return
        (state,) = folder.glob("batches/*/state.jsonl")
        if moment == "during" and b'"id"' not in state.read_bytes():
            return  # a look at whose results they are
        stages.append(stage)
        if moment == "during":  # when a part of the results is saved
            until = time.monotonic() + 20
            while (folder / RESPONSES).read_bytes().count(b"\n") < 3 and time.monotonic() < until:
                time.sleep(0.01)
            assert 3 <= (folder / RESPONSES).read_bytes().count(b"\n") < ROWS
        command.signal(signal.SIGKILL)
        raise ConnectionError("nobody is there to answer")  # "before" then means that nothing was done

    with LoopbackServer(refusing(0.3), on_batch=kill) as server:
        command = Command(folder, [f"{vendor}/any", "--base-url", address(server), "--split", split_file(rows=ROWS)])
        ended = []
        while not ended or ended[-1] != 0:
            code, out, err = command.run()
            assert code in (0, -signal.SIGKILL), err
            ended.append(code)
        assert server.batches.created == 1
        assert msgspec.json.decode(out)["replies"] == ROWS
    files = {"openai": [("before", "POST", "files"), ("after", "POST", "files")], "anthropic": []}[vendor]
    batches = {"openai": "batches", "anthropic": "messages/batches"}[vendor]
    results = {"openai": "files/content", "anthropic": "messages/batches/results"}[vendor]
    assert set(stages) >= {
        *files,
        ("before", "POST", batches),
        ("after", "POST", batches),  # created, and the id never told
        ("before", "GET", batches),
        ("before", "GET", results),
        ("during", "GET", results),
    }
    assert len(ended) in (len(stages), len(stages) + 1)  # a request may still leave while the signal is on its way
    check(server, folder)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", [1, 2, 3])
def test_stopped_over_its_own_notes_it_completes(
    step: int,
    when: str,
    batched: Callable[..., orbench.Evaluation],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    save = Store.save
    saved: list[Batch] = []

    def stop(self: Store, batch: Batch) -> None:
        saved.append(batch)
        if len(saved) == step and when == "before":
            raise orbench.RunError("disk full")
        save(self, batch)
        if len(saved) == step:
            raise orbench.RunError("disk full")

    monkeypatch.setattr(Store, "save", stop)
    with LoopbackServer(refusing(0.3)) as server:
        with pytest.raises(orbench.RunError, match="disk full"):
            batched(server, rows=ROWS)
        batched(server, rows=ROWS)
        assert server.batches.created == 1
    check(server, tmp_path / "run")
    assert not list(tmp_path.glob("run/batches/*/*.part"))


def test_killed_again_and_again_under_faults_it_completes(tmp_path: Path, split_file: Callable[..., str]) -> None:
    folder = tmp_path / "run"
    calls = []

    def kill(moment: str, method: str, path: str) -> None:
        calls.append(path)
        if len(calls) % 9 == 0 and len(calls) <= 27:
            command.signal(signal.SIGKILL)

    faults = Faults(server_error=0.1, half=0.1, batch_failed=0.1, batch_expired=0.1, attempts=2, seed=5)
    with LoopbackServer(refusing(0.3), faults=faults, on_batch=kill) as server:
        command = Command(folder, ["openai/any", "--base-url", server.base_url, "--split", split_file(rows=ROWS)])
        codes = [command.run()[0]]
        while codes[-1] != 0:
            codes.append(command.run()[0])
    assert codes.count(-signal.SIGKILL) >= 2
    check(server, folder)


def test_ctrl_c_says_that_the_batch_goes_on(tmp_path: Path, split_file: Callable[..., str]) -> None:
    pressed: list[str] = []

    def press(moment: str, method: str, path: str) -> None:
        if method == "GET" and not pressed:
            pressed.append(path)
            command.signal(signal.SIGINT)

    with LoopbackServer(refusing(0.3), on_batch=press, batch_polls=3) as server:
        command = Command(
            tmp_path / "run", ["openai/any", "--base-url", server.base_url, "--split", split_file(rows=ROWS)]
        )
        code, out, err = command.run()
        assert (code, out) == (130, "")
        assert "1 batch (" in err
        assert "goes on at the vendor; the same command fetches what comes of it" in err
        assert "Traceback" not in err
        code, out, err = command.run()
        assert code == 0, err
        assert "(39 requests) is gone on with" in err
    check(server, tmp_path / "run")


def test_a_batch_that_was_never_created_is_not_waited_for(
    batched: Callable[..., orbench.Evaluation], vendor: str, tmp_path: Path
) -> None:
    def interrupt(moment: str, method: str, path: str) -> None:
        if not interrupted and moment == "before" and path.endswith("batches") and method == "POST":
            interrupted.append(path)
            os.kill(os.getpid(), signal.SIGINT)
            raise ConnectionError("the server is gone before it did anything")

    interrupted: list[str] = []
    with LoopbackServer(refusing(0.3), on_batch=interrupt) as server:
        with pytest.raises(KeyboardInterrupt):
            batched(server, rows=ROWS)
        assert server.batches.created == 0
        batched(server, rows=ROWS)
        assert server.batches.created == 1
    check(server, tmp_path / "run")


def test_an_address_without_batches_leaves_nothing_open(tmp_path: Path, split_file: Callable[..., str]) -> None:
    with LoopbackServer(refusing(0.3)) as server:
        given: dict[str, Any] = {"splits": split_file(rows=10), "out": tmp_path / "run", "base_url": server.root_url}
        for _ in range(2):
            with pytest.raises(orbench.ModelError, match=r"has no Batch API .* leave --batch out"):
                orbench.evaluate("openai/any", batch=True, **given)
        assert orbench.evaluate("openai/any", **given).open == 0


def test_another_s_batch_of_the_same_size_is_not_taken_for_ours(
    batched: Callable[..., orbench.Evaluation], vendor: str, tmp_path: Path, split_file: Callable[..., str]
) -> None:
    """The id of ours is lost while another run of the same prompts has a batch of the same size under way."""
    lost: list[str] = []

    def interrupt(moment: str, method: str, path: str) -> None:
        if moment == "after" and path.endswith("batches") and method == "POST" and len(lost) < 2:
            lost.append(path)
            os.kill(os.getpid(), signal.SIGINT)

    with LoopbackServer(refusing(0.3), on_batch=interrupt, batch_polls=4) as server:
        for name in ("one", "two"):
            with pytest.raises(KeyboardInterrupt):
                batched(server, rows=ROWS, out=tmp_path / name)
        for name in ("one", "two"):
            batched(server, rows=ROWS, out=tmp_path / name)
        assert server.batches.created == 2
    assert set(server.answers.values()) == {2}
    for name in ("one", "two"):
        assert len(list(read_responses(tmp_path / name))) == ROWS
