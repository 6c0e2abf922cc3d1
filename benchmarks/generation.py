"""`orbench generate` against a loopback server with latency, beside a bare client that makes as many calls.

python benchmarks/generation.py [--seeds 1000] [--latency 0.05] [--connections 256] [--runs 3] [--scale 80000]

1,000 seeds x 5 rewrites x 3 moderators are 50 + 1,000 + 15,000 calls. The connections are shared out among the five
models as their calls are. The bare client posts the same requests, which are taken from a run of ours, with as many
connections, and writes each reply as a line. With `--scale N` a finished folder of N prompts is made without any call,
and gone on with: how long until it says that nothing is owed, and how much memory all stages take.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import count
from pathlib import Path

from measure import Cost, compare, run

MODERATORS = [f"openai/moderator-{n}" for n in range(1, 4)]


def configuration(folder: Path, url: str, seeds: int, connections: int) -> dict:
    """Models, targets, and connections in proportion to the calls."""
    calls = {"seeder": seeds / 20, "rewriter": seeds, "moderator": seeds * 5.0}
    share = connections / (calls["seeder"] + calls["rewriter"] + 3 * calls["moderator"])
    open_at_once = {name: max(1, round(share * number)) for name, number in calls.items()}
    return {
        "out": str(folder),
        "seeds_per_category": seeds // 10,
        "seeder": {"model": "openai/seeder", "concurrency": max(10, open_at_once["seeder"])},
        "rewriter": {"model": "openai/rewriter", "concurrency": open_at_once["rewriter"]},
        "moderators": [{"model": name, "concurrency": open_at_once["moderator"]} for name in MODERATORS],
        "base_url": url,
    }


def bare(requests: Path, url: str, out: Path, connections: int) -> None:
    """What `compare` runs as the baseline: the least a program can do to send the same requests."""
    import aiohttp

    bodies = iter(requests.read_bytes().splitlines())

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=connections)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector) as session:
            with out.open("w", encoding="utf-8") as lines:

                async def work() -> None:
                    for body in bodies:
                        async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                            reply = await response.json()
                        lines.write(json.dumps({"response": reply["choices"][0]["message"]["content"]}) + "\n")

                await asyncio.gather(*(work() for _ in range(connections)))

    asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--scale", type=int, default=0, help="prompts of a finished folder; 0 leaves that out")
    parser.add_argument("--bare", nargs=3, metavar=("REQUESTS", "URL", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        requests, url, out = options.bare
        bare(Path(requests), url, Path(out), options.connections)
        return
    os.environ["OPENAI_API_KEY"] = "loopback"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.seeds:
            beside_a_bare_client(folder, options)
        if options.scale:
            at_scale(folder, options.scale)


def beside_a_bare_client(folder: Path, options: argparse.Namespace) -> None:
    """Wall clock of the whole command over that of the calls alone."""
    from orbench.testing import LoopbackServer, ScriptedGeneration

    with LoopbackServer(ScriptedGeneration()) as recorder:
        from orbench.generation import generate

        generate(configuration(folder / "recorded", recorder.base_url, options.seeds, options.connections))
        requests = folder / "requests.jsonl"
        requests.write_bytes(b"".join(json.dumps(body).encode() + b"\n" for body in recorder.requests))
        print(f"{len(recorder.requests):,} calls", flush=True)
    server = subprocess.Popen(
        [sys.executable, "-m", "orbench.testing.server", "--stdin", "--generation", f"--latency={options.latency}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    url = f"{server.stdout.readline().strip()}/v1"
    numbers = count()

    def ours() -> Cost:
        config = folder / f"config-{next(numbers)}.json"
        out = folder / config.stem
        config.write_text(json.dumps(configuration(out, url, options.seeds, options.connections)), encoding="utf-8")
        return run([sys.executable, "-m", "orbench", "generate", "--config", str(config), "--quiet"])

    def calls_alone() -> Cost:
        out = folder / f"bare-{next(numbers)}.jsonl"
        own = ["--bare", str(requests), url, str(out), "--connections", str(options.connections)]
        return run([sys.executable, __file__, *own])

    what = f"{options.seeds:,} seeds x 5 x 3, {options.latency * 1000:.0f} ms, {options.connections} connections"
    compare(what, ours, calls_alone, runs=options.runs)
    server.stdin.close()
    server.wait()


def at_scale(folder: Path, prompts: int) -> None:
    """A folder of so many prompts, all stages done: how long until it says so, and how much memory it takes."""
    from orbench.testing.generation import ScriptedGeneration, finished_folder

    out = folder / "scale"
    config = folder / "scale.json"
    given = configuration(out, "http://127.0.0.1:9/v1", 1000, 256)
    finished_folder(given, prompts, ScriptedGeneration(toxic=0.2))
    config.write_text(json.dumps(given), encoding="utf-8")
    command = [sys.executable, "-m", "orbench", "generate", "--config", str(config), "--json"]
    for what in ("selection", "resume when finished", "resume after a change of the rule"):
        began = time.perf_counter()
        more = ["--rule", "unanimous"] if what.endswith("rule") else []
        cost = run([*command, *more])
        print(f"{prompts:,} prompts, {what}: {time.perf_counter() - began:.1f} s, {cost.peak_mb:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
