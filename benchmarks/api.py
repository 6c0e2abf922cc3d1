"""Prompts against a loopback server with latency: the whole `orbench evaluate` beside a bare aiohttp script.

python benchmarks/api.py [--prompts 2000] [--latency 0.2] [--concurrency 256] [--runs 5]
    [--provider openai|anthropic|google ...]
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

from measure import Cost, compare, run, serving

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.2, help="seconds")
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--provider", nargs="+", default=["openai"], choices=["openai", "anthropic", "google"])
    options = parser.parse_args()
    numbers = count()
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.csv"
        with prompts.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt"])
            writer.writerows([f"How do I stop a runaway process, case {n} of many?"] for n in range(options.prompts))
        reply = "I can't help with that. " + "word " * 40
        arguments = [f"--latency={options.latency}", f"--reply={reply}"]

        def ours(provider: str) -> Cost:
            out = f"{folder}/run{next(numbers)}"
            with serving(*arguments) as (root, served_s):
                url = f"{root}/v1" if provider == "openai" else root
                command = [sys.executable, "-m", "orbench", "evaluate", f"{provider}/m", "--base-url", url]
                command += ["--split", f"safe={prompts}", "--concurrency", str(options.concurrency), "--out", out]
                cost = run([*command, "--quiet", "--scorer", "keywords"])
                return replace(cost, served_s=served_s())

        def bare(provider: str) -> Cost:
            script = str(HERE / "bare_client.py")
            out = f"{folder}/bare{next(numbers)}"
            with serving(*arguments) as (root, served_s):
                cost = run([sys.executable, script, provider, root, str(prompts), out, str(options.concurrency)])
                return replace(cost, served_s=served_s())

        what = f"{options.prompts} prompts, {options.latency * 1000:.0f} ms, {options.concurrency} connections"
        for provider in options.provider:
            compare(f"{provider}: {what}", partial(ours, provider), partial(bare, provider), runs=options.runs)


if __name__ == "__main__":
    main()
