"""Batches of 2,000 prompts, killed at every stage, under faults: what is lost or paid twice. Prints a table.

    python benchmarks/batches.py [--prompts 2000]

The server runs here and kills the command just where a stage begins or ends: before a call of the batch API is worked
on, after the work and before its answer, and halfway through the results. The same command is given again until it
ends by itself. `paid twice` counts prompts that were answered more than once although no fault made it necessary.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from orbench.engine.run_folder import read_responses
from orbench.testing import Faults, LoopbackServer, refusing

HTTP = {"rate_limited": 0.1, "server_error": 0.1, "dropped": 0.1, "half": 0.1, "malformed": 0.1}
OPEN = {"batch_failed": 0.05, "batch_expired": 0.05}
LINES = {"batch_garbled": 0.01, "batch_repeated": 0.02, "batch_cut": 0.3}
TRIALS = {
    "none": Faults(),
    "the batch API fails at 50 %, each way at 10 %": Faults(**HTTP, attempts=3),
    "5 % failed, 5 % expired": Faults(**OPEN, attempts=2),
    "1 % of lines garbled, 2 % twice, 30 % of downloads cut": Faults(**LINES, attempts=2),
    "all of these": Faults(**HTTP, **OPEN, **LINES, attempts=2),
}
MOST = 60
"""Commands that are given at most."""


class Killer:
    """Kills the command once at each stage that it sees."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.stages: list[str] = []

    def __call__(self, moment: str, method: str, path: str) -> None:
        """What the server tells of each call of its batch API."""
        words = [word for word in path.split("/")[2:] if not any(digit in word for digit in "0123456789")]
        stage = f"{moment} {method} {'/'.join(words)}"
        if stage in self.stages or self.process is None:
            return
        if moment == "during":
            time.sleep(0.2)  # a part of the results is read
        self.stages.append(stage)
        self.process.kill()
        self.process.wait()
        if moment == "before":
            raise ConnectionError("nobody is there to answer")  # then nothing is done either


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=2000)
    options = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parents[1]))
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # that its clients die is what is wanted
    print(
        "| vendor | fault | killed at stages | commands | batches | time | final replies | paid twice | all is well |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    failed = False
    for vendor in ("openai", "anthropic"):
        rates = None
        for name, faults in TRIALS.items():
            with tempfile.TemporaryDirectory() as folder:
                row, found = attempt(vendor, name, faults, Path(folder), options.prompts)
            rates = rates or found
            if found != rates:
                row[-1] = f"other rates: {found}"
            failed = failed or row[-1] != "yes"
            print(f"| {' | '.join(row)} |", flush=True)
    sys.exit(failed)


def attempt(vendor: str, name: str, faults: Faults, folder: Path, count: int) -> tuple[list[str], tuple[int, ...]]:
    """One trial; its row and both rates as counts."""
    prompts, out = folder / "prompts.csv", folder / "run"
    texts = [f"How do I stop process {n}?" for n in range(count)]
    with prompts.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "kind"])
        writer.writerows([text, "safe" if n % 3 else "toxic"] for n, text in enumerate(texts))
    killer = Killer()
    began = time.monotonic()
    with LoopbackServer(refusing(0.3), faults=faults, on_batch=killer, keep_requests=False) as server:
        url = server.base_url if vendor == "openai" else server.root_url
        command = [sys.executable, "-m", "orbench", "evaluate", f"{vendor}/m", "--base-url", url, "--batch", "--json"]
        command += ["--split", str(prompts), "--scorer", "keywords", "--out", str(out)]
        commands = 0
        while commands < MOST:
            commands += 1
            pipe = subprocess.PIPE
            killer.process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
            told, errors = killer.process.communicate()
            if killer.process.returncode not in (0, 3, -signal.SIGKILL):
                sys.exit(f"{vendor}, {name}: {errors}")
            if killer.process.returncode == 0:
                break
        answers, batches = server.answers, server.batches.created
    wall = time.monotonic() - began
    result = json.loads(told)
    replies = [response for response in read_responses(out) if response.error is None]
    wrong = []
    if Counter(response.prompt for response in replies) != Counter(texts):
        wrong.append("not one final reply a prompt")
    twice = sum(times - 1 for times in answers.values())
    if twice and not faults.batch_garbled:
        wrong.append("paid twice")
    found = tuple(
        result[rate][what] for rate in ("over_refusal_rate", "toxic_rejection_rate") for what in ("refused", "scored")
    )
    row = [vendor, name, str(len(killer.stages)), str(commands), str(batches), f"{wall:.0f} s"]
    return [*row, f"{len(replies):,}", str(twice), "; ".join(wrong) or "yes"], found


if __name__ == "__main__":
    main()
