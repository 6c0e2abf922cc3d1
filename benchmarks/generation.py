"""`orbench generate` against a loopback server with latency, beside a bare client that makes as many calls.

python benchmarks/generation.py [--seeds 1000] [--latency 0.05] [--connections 256] [--runs 3] [--scale 80000]

1,000 seeds x 5 rewrites x 3 moderators are 50 + 1,000 + 15,000 calls. The connections are shared out among the five
models as their calls are. The bare client posts the same requests, which are taken from a run of ours, with as many
connections, and writes each reply as a line. With `--scale N` all stages make N rewrites with models inside the
process, and the finished folder is gone on with: how much memory it takes, how long until it says that it is done.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from itertools import count
from pathlib import Path

from measure import Cost, compare, run, serving

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
    parser.add_argument("--in-process", metavar="OUT", help=argparse.SUPPRESS)
    parser.add_argument("--rule", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        in_process(options.in_process, options.scale, options.rule)
        return
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
    numbers = count()
    world = ("--generation", f"--latency={options.latency}")

    def ours() -> Cost:
        config = folder / f"config-{next(numbers)}.json"
        with serving(*world) as (root, served_s):
            settings = configuration(folder / config.stem, f"{root}/v1", options.seeds, options.connections)
            config.write_text(json.dumps(settings), encoding="utf-8")
            cost = run([sys.executable, "-m", "orbench", "generate", "--config", str(config), "--quiet"])
            return replace(cost, served_s=served_s())

    def calls_alone() -> Cost:
        out = folder / f"bare-{next(numbers)}.jsonl"
        with serving(*world) as (root, served_s):
            own = ["--bare", str(requests), f"{root}/v1", str(out), "--connections", str(options.connections)]
            return replace(run([sys.executable, __file__, *own]), served_s=served_s())

    what = f"{options.seeds:,} seeds x 5 x 3, {options.latency * 1000:.0f} ms, {options.connections} connections"
    compare(what, ours, calls_alone, runs=options.runs)


class InProcess:
    """A model of the scripted world, without a wire."""

    batch_size = 1
    max_concurrency = 64

    def __init__(self, name: str) -> None:
        from orbench.testing import ScriptedGeneration

        self.name = f"in-process/{name}"
        self._model = name
        self._world = ScriptedGeneration()

    async def generate(self, requests):
        """The world's reply to each."""
        from orbench.records import Completion, Usage

        for request in requests:
            body = {"model": self._model, "messages": [{"content": request.prompt}]}
            usage = Usage(input_tokens=len(request.prompt) // 4, output_tokens=40)
            yield Completion(id=request.id, text=self._world(body), usage=usage)

    async def close(self) -> None:
        """Nothing to close."""


def in_process(out: str, prompts: int, rule: str | None) -> None:
    """One generation of so many rewrites; prints what it made."""
    from orbench.generation import generate

    names = ("seeder", "rewriter", "rescue", "moderator-1", "moderator-2", "moderator-3")
    models = {name: InProcess(name) for name in names}
    config = {
        "out": out,
        "seeds_per_category": prompts // 50,
        "seeder": models["seeder"],
        "rewriter": models["rewriter"],
        "rescue": models["rescue"],
        "moderators": [models[f"moderator-{n}"] for n in (1, 2, 3)],
        "rule": rule,
    }
    began = time.perf_counter()
    made = generate(config, progress=False)
    print(f"{made.counts}, {time.perf_counter() - began:.1f} s after the imports", file=sys.stderr)


def at_scale(folder: Path, prompts: int) -> None:
    """All stages, then the same again, then another rule: wall clock and memory of each."""
    command = [sys.executable, __file__, "--in-process", str(folder / "scale"), "--scale", str(prompts)]
    for what, more in (("all stages", []), ("resume when finished", []), ("another rule", ["--rule", "unanimous"])):
        cost = run([*command, *more])
        print(f"{prompts:,} prompts, {what}: {cost.wall_s:.1f} s, {cost.peak_mb:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
