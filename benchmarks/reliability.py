"""Every fault with 2,000 prompts: what is lost, paid twice or counted wrong. Prints a table for docs/reliability.md.

    python benchmarks/reliability.py [--prompts 2000] [--only NAME ...]

The server is a process of its own (`orbench.testing.server`) that writes down each prompt it has answered, so that its
count survives its own death; orbench is the command, as typed. A command that ends with exit code 3 is run again, as
its own message says. A trial that fails its checks says so in the last column and makes the exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from orbench.engine.limits import DEFAULT_MAXIMUM
from orbench.engine.run_folder import read_responses

LATENCY = 0.02
COMMANDS = 6
"""Times a command is given at most before rows without a reply count as lost."""
JUMPING = """
import random, sys, time
real, draw = time.time, random.Random(0)
time.time = lambda: real() + draw.uniform(-86400, 86400)
time.time_ns = lambda: int(time.time() * 1e9)
sys.argv[0] = "orbench"
from orbench.cli import main
main()
"""
"""orbench under a wall clock that jumps by up to a day either way each time it is read."""
SMALL_DISK = """
out=$1 size=$2; shift 2
mkdir -p "$out" "$out.kept" && mount -t tmpfs -o "size=$size" tmpfs "$out" && cp -a "$out.kept/." "$out/" || exit 99
"$@"; code=$?
cp -a "$out/." "$out.kept/" && exit $code
"""
"""Runs a command with a small file system of its own over one folder; what is in it then lies in `FOLDER.kept`."""


class Server:
    """The loopback server as a process, on one port through its deaths."""

    def __init__(self, folder: Path, *faults: str) -> None:
        self.log = folder / "answered.jsonl"
        self._faults = [f"--latency={LATENCY}", "--retry-after-s=1", *faults]
        self.port = 0
        self.start()

    def start(self) -> None:
        """Serve; again, if it was stopped, and with what it had counted."""
        command = [sys.executable, "-m", "orbench.testing.server", f"--port={self.port}", f"--log={self.log}"]
        self._process = subprocess.Popen([*command, *self._faults], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, or kill it."""
        self._process.send_signal(number)
        self._process.wait()

    @property
    def answered(self) -> Counter[str]:
        """How often each prompt was answered, over all its lives."""
        counted: Counter[str] = Counter()
        for line in self.log.read_text().splitlines():
            one = json.loads(line)
            counted[one["prompt"]] += one["by"]
        return +counted

    @property
    def faults(self) -> int:
        """Calls that it failed, in this life."""
        from urllib.request import urlopen

        with urlopen(f"{self.url}/orbench/stats") as reply:
            return sum(json.load(reply)["faults"].values())


@dataclass
class Trial:
    """One fault, and what is done to whom while it runs."""

    name: str
    faults: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    disturb: Callable[[Run], subprocess.Popen[str] | None] | None = None
    program: list[str] = field(default_factory=lambda: ["-m", "orbench"])
    one_life: bool = True
    """Whether server and orbench live through it, so that their counts are the same to the last call."""


class Run:
    """The command in one folder against one server."""

    def __init__(self, trial: Trial, folder: Path, prompts: Path) -> None:
        self.server = Server(folder, *trial.faults)
        self.out = folder / "run"
        self.commands = 0
        self._command = [sys.executable, *trial.program, "evaluate", "openai/m", "--base-url", f"{self.server.url}/v1"]
        self._command += ["--split", str(prompts), "--scorer", "keywords", "--json", "--out", str(self.out)]
        self._command += trial.options

    def start(self, *before: str) -> subprocess.Popen[str]:
        """Give the command, with words before it that say how it is run."""
        self.commands += 1
        return subprocess.Popen([*before, *self._command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    @property
    def saved(self) -> int:
        """Lines of replies."""
        path = self.out / "responses.jsonl"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    def wait_for(self, lines: int, process: subprocess.Popen[str]) -> None:
        """Until so many replies are saved."""
        while self.saved < lines and process.poll() is None:
            time.sleep(0.005)

    def finish(self, process: subprocess.Popen[str] | None = None) -> dict:
        """Wait for the command, give it until every prompt has its reply, and return the last result."""
        while True:
            out, err = (process or self.start()).communicate()
            process = None
            if out and (json.loads(out)["outcomes"].get("error", 0) == 0 or self.commands >= COMMANDS):
                return json.loads(out)
            if not out:
                sys.exit(f"the command failed: {err}")


def down(run: Run) -> subprocess.Popen[str]:
    """The server is away for ten seconds in the middle."""
    process = run.start()
    run.wait_for(TOTAL // 2, process)
    run.server.stop()
    time.sleep(10)
    run.server.start()
    return process


def killed_server(run: Run) -> subprocess.Popen[str]:
    """The server is killed in the middle and started again at once."""
    process = run.start()
    run.wait_for(TOTAL // 2, process)
    run.server.stop(signal.SIGKILL)
    run.server.start()
    return process


def killed(run: Run) -> None:
    """Orbench is killed ten times, at random moments."""
    draw = random.Random(0)
    for number in range(10):
        process = run.start()
        run.wait_for(int(TOTAL * (number + draw.random()) / 11), process)
        process.kill()
        process.communicate()


def interrupted(run: Run) -> None:
    """Ctrl-C in the middle."""
    process = run.start()
    run.wait_for(TOTAL // 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert (process.returncode, "interrupted" in err, "Traceback" in err) == (130, True, False), err


def limited(run: Run) -> None:
    """No file may grow beyond 100 bytes a prompt, twice; then there is room again."""
    for _ in range(2):
        stopped_by_the_disk(run.start("bash", "-c", f'ulimit -f {TOTAL // 10}; exec "$@"', "bash"))


def full(run: Run) -> None:
    """The file system is full at 150, then at 300 bytes a prompt; then there is room again."""
    for size in (str(TOTAL * 150), str(TOTAL * 300)):
        command = ["unshare", "--map-root-user", "--mount", "bash", "-c", SMALL_DISK, "bash", str(run.out), size]
        stopped_by_the_disk(run.start(*command))
        shutil.copytree(f"{run.out}.kept", run.out, dirs_exist_ok=True)


def stopped_by_the_disk(process: subprocess.Popen[str]) -> None:
    """It must end with one line that says so."""
    out, err = process.communicate()
    assert (process.returncode, out, "cannot be written" in err, "Traceback" in err) == (1, "", True, False), err


ALL = ["--rate-limited=0.2", "--server-error=0.2", "--dropped=0.1", "--malformed=0.1"]
TRIALS = [
    Trial("none"),
    Trial("429 at 20 %, Retry-After 1 s", ALL[0:1]),
    Trial("500 at 20 %", ALL[1:2]),
    Trial("connection dropped at 10 %", ALL[2:3]),
    Trial("half a body at 10 %", ["--half=0.1"]),
    Trial("malformed body at 10 %", ALL[3:4]),
    Trial("1 % stalls, --timeout 2", ["--stalled=0.01"], ["--timeout", "2"]),
    Trial("all of these together", [*ALL, "--stalled=0.01"], ["--timeout", "2"]),
    Trial("server down for 10 s", disturb=down, one_life=False),
    Trial("server killed, started again", disturb=killed_server, one_life=False),
    Trial("orbench killed ten times", disturb=killed, one_life=False),
    Trial("Ctrl-C", disturb=interrupted, one_life=False),
    Trial("disk full twice", disturb=full, one_life=False),
    Trial("files at their size limit twice", disturb=limited, one_life=False),
    Trial("wall clock jumps", ALL[0:1], program=["-c", JUMPING]),
]
TOTAL = 2000


@contextlib.contextmanager
def started(trial: Trial, prompts: Path) -> Iterator[Run]:
    with tempfile.TemporaryDirectory() as folder:
        run = Run(trial, Path(folder), prompts)
        try:
            yield run
        finally:
            run.server.stop()


def attempt(trial: Trial, prompts: Path, rates: tuple | None) -> tuple[list[str], tuple]:
    """Run one trial; returns its row and both rates."""
    with started(trial, prompts) as run:
        began = time.monotonic()
        result = run.finish(trial.disturb(run) if trial.disturb else None)
        wall = time.monotonic() - began
        replies = [response for response in read_responses(run.out) if response.error is None]
        failures = [response for response in read_responses(run.out) if response.error is not None]
        attempts = sum(response.attempts for response in [*replies, *failures])
        answered = run.server.answered
        found = (rate(result["over_refusal_rate"]), rate(result["toxic_rejection_rate"]))
        wrong = []
        if Counter(response.prompt for response in replies) != Counter(texts(prompts)):
            wrong.append("not one final reply a prompt")
        if result["usage"]["requests"] != attempts:
            wrong.append("attempts in result.json and responses.jsonl differ")
        if any(not answered[response.prompt] for response in replies):
            wrong.append("a reply that the server never gave")
        if trial.one_life and (sum(answered.values()), set(answered.values())) != (TOTAL, {1}):
            wrong.append("the server answered another number")
        if trial.one_life and attempts != sum(answered.values()) + run.server.faults:
            wrong.append(f"attempts differ: the server had {sum(answered.values()) + run.server.faults}")
        if not 0 <= sum(answered.values()) - len(replies) <= run.commands * DEFAULT_MAXIMUM:
            wrong.append("more answers without a reply than calls were open")
        if rates is not None and found != rates:
            wrong.append(f"other rates: {found}")
        given = sum(answered.values())
        row = [trial.name, f"{wall:.1f} s", str(run.commands), f"{attempts:,}", f"{given:,}", f"{len(replies):,}"]
        row += [f"{given - len(replies):,}", "; ".join(wrong) or "yes"]
        return row, found


def rate(found: dict) -> tuple[int, int]:
    """Refused of scored: equal to the last prompt, not only in the share."""
    return found["refused"], found["scored"]


def texts(prompts: Path) -> list[str]:
    with prompts.open(encoding="utf-8", newline="") as file:
        return [row["prompt"] for row in csv.DictReader(file)]


def main() -> None:
    global TOTAL  # noqa: PLW0603
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=TOTAL)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="trials whose name holds one of these")
    options = parser.parse_args()
    TOTAL = options.prompts
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    print(
        "| fault | time | commands | attempts | answered by the server | final replies | paid in vain | all is well |"
    )
    print("|---|---|---|---|---|---|---|---|")
    rates = None
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.csv"
        with prompts.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "kind"])
            writer.writerows([f"How do I stop process {n}?", "safe" if n % 3 else "toxic"] for n in range(TOTAL))
        for trial in TRIALS:
            if options.only and rates is not None and not any(name in trial.name for name in options.only):
                continue
            row, found = attempt(trial, prompts, rates)
            rates = rates or found
            failed = failed or row[-1] != "yes"
            print(f"| {' | '.join(row)} |", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
