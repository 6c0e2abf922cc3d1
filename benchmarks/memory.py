"""Peak memory of one `orbench evaluate` against a loopback server without latency, as it grows with the replies saved.

python benchmarks/memory.py [--prompts 80000] [--provider openai|anthropic|google] [--batch] [--judge]
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=80_000)
    parser.add_argument("--provider", default="openai", choices=["openai", "anthropic", "google"])
    parser.add_argument("--batch", action="store_true", help="through the batch API")
    parser.add_argument("--judge", action="store_true", help="with a judge that is asked about every reply")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.csv"
        with prompts.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt"])
            writer.writerows([f"How do I stop a runaway process, case {n} of many?"] for n in range(options.prompts))
        server = subprocess.Popen(
            [sys.executable, "-m", "orbench.testing.server", "--stdin", "--reply", "Certainly. " + "word " * 40],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        root = server.stdout.readline().strip()
        url = f"{root}/v1" if options.provider == "openai" else root
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "orbench", "evaluate", f"{options.provider}/m", "--base-url", url]
        command += ["--split", f"safe={prompts}", "--out", str(out), "--quiet"]
        command += ["--batch"] if options.batch else []
        command += ["--scorer", "judge", "--judge", f"{options.provider}/j"] if options.judge else []
        command += [] if options.judge else ["--scorer", "keywords"]
        print("| replies saved | peak so far |\n|---|---|")
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        watch(process, out / "responses.jsonl", options.prompts // STEPS)
        assert process.stderr is not None
        told = process.stderr.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        if os.waitstatus_to_exitcode(status) not in (0, 3):
            sys.exit(told)
        wall = time.perf_counter() - began
        cpu = used.ru_utime + used.ru_stime
        print(f"| all, and scored | {used.ru_maxrss / 1024:.0f} MB |")
        print(f"{wall:.1f} s wall, {cpu:.1f} s CPU, {1000 * cpu / options.prompts:.2f} ms CPU a prompt")
        server.stdin.close()
        server.wait()


def watch(process: subprocess.Popen[bytes], replies: Path, step: int) -> None:
    """Print the peak each time so many more replies are saved."""
    wanted = step
    lines = position = 0
    while wanted <= step * STEPS and process.returncode is None:
        if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        if replies.exists():
            with replies.open("rb") as file:
                file.seek(position)
                while block := file.read(1 << 20):
                    lines += block.count(b"\n")
                    position += len(block)
        if lines >= wanted:
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            peak = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
            print(f"| {wanted:,} | {peak / 1024:.0f} MB |", flush=True)
            wanted += step
        time.sleep(0.02)


if __name__ == "__main__":
    main()
