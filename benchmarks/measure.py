"""Times whole commands: wall clock, processor time and peak memory, in turn with a baseline, medians printed."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """What one run of a command took."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    served_s: float | None = None
    """Seconds from the first request that a server of ours got to its last answer, where the benchmark asks it."""


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, Callable[[], float]]]:
    """A server of its own for one command: its address, and what tells `served_s` when the command has ended."""
    command = [sys.executable, "-m", "orbench.testing.server", "--stdin", *arguments]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert server.stdin is not None
    assert server.stdout is not None

    def served_s() -> float:
        return float(server.communicate()[0])

    try:
        yield server.stdout.readline().strip(), served_s
    finally:
        server.stdin.close()
        server.wait()


def run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Cost:
    """Run a command to its end and measure it; a command that fails ends the benchmark."""
    began = time.perf_counter()
    process = subprocess.Popen(
        list(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(environment or {})}
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)} failed:\n{errors.decode()}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def compare(
    name: str, ours: Callable[[], Cost], baseline: Callable[[], Cost] | None = None, *, runs: int = 5
) -> tuple[float, float | None]:
    """Run ours and the baseline in turn, after one warm-up each; print and return median wall and median ratio."""
    ours()
    if baseline:
        baseline()
    pairs = [(ours(), baseline() if baseline else None) for _ in range(runs)]
    own = [cost for cost, _ in pairs]
    wall = statistics.median(cost.wall_s for cost in own)
    line = (
        f"{name}: {wall:.2f} s wall ({min(c.wall_s for c in own):.2f}-{max(c.wall_s for c in own):.2f}), "
        f"{statistics.median(c.cpu_s for c in own):.2f} s CPU, {max(c.peak_mb for c in own):.0f} MB"
    )
    ratio = None
    if baseline:
        other = [cost for _, cost in pairs if cost]
        ratio = statistics.median(a.wall_s / b.wall_s for a, b in pairs if b)
        line += (
            f"; baseline {statistics.median(c.wall_s for c in other):.2f} s wall, "
            f"{statistics.median(c.cpu_s for c in other):.2f} s CPU; ratio {ratio:.2f}"
        )
        if times := [(a.served_s, b.served_s) for a, b in pairs if b and a.served_s and b.served_s]:
            line += (
                f"; from the first request to the last answer {statistics.median(a for a, _ in times):.2f} s beside "
                f"{statistics.median(b for _, b in times):.2f} s, "
                f"{statistics.median(b / a for a, b in times):.2f} x the baseline's requests a second"
            )
    print(line, flush=True)
    return wall, ratio
