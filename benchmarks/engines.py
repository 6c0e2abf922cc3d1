"""Local engines beside what one would write without orbench, on a tiny model made on the spot.

    python benchmarks/engines.py hf --data DIR [--runs 3]
    python benchmarks/engines.py inspect --data DIR        needs inspect_ai
    python benchmarks/engines.py vllm --data DIR [--runs 5]
    python benchmarks/engines.py ray --data DIR [--runs 3]
    python benchmarks/engines.py memory --data DIR --engine hf|vllm|ray

DIR holds hard-1k.csv and toxic.csv of OR-Bench: 1,974 prompts, 32 new tokens each at most, greedy. Everything is
loaded before the clock starts. Ways are taken in turn, in one process; medians of wall clock and of the ratio of
each pair. `ray` sets two workers beside one, each with one thread, after a quarter of the replies: Ray Data starts
its workers within the same call. `memory` evaluates 2,000 and 80,000 prompts, one token each, and prints the
driver's peak.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orbench.models.base import Model
from orbench.records import Completion, Message, Request, Sampling
from orbench.testing import make_tiny_model

NEW = 32
VLLM = {"dtype": "float32", "enforce_eager": True, "max_model_len": 2048}
Way = Callable[[], list[str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["hf", "inspect", "vllm", "ray", "memory", "evaluate"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--engine", choices=["hf", "vllm", "ray"], default="hf")
    parser.add_argument("--prompts", type=int, default=2000, help="of the part `evaluate`, which `memory` calls")
    options = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with tempfile.TemporaryDirectory() as folder:
        if options.part == "evaluate":
            evaluate(options.engine, prompts(options.data), options.prompts, Path(folder))
        elif options.part == "memory":
            for rows in (2_000, 80_000):
                command = [sys.executable, __file__, "evaluate", "--data", options.data, "--engine", options.engine]
                subprocess.run([*command, "--prompts", str(rows)], check=True)
        else:
            path = make_tiny_model(Path(folder) / "tiny")
            {"hf": hf, "inspect": inspect, "vllm": vllm, "ray": on_ray}[options.part](
                path, prompts(options.data), options.runs
            )


def prompts(data: str) -> list[str]:
    found = []
    for name in ("hard-1k", "toxic"):
        with (Path(data) / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            found += [row["prompt"] for row in csv.DictReader(file)]
    return found


def answers(model: Model, texts: list[str]) -> list[str]:
    asked = [
        Request(id=str(n), messages=(Message("user", text),), sampling=Sampling(max_tokens=NEW))
        for n, text in enumerate(texts)
    ]

    async def collect() -> dict[str, Completion]:
        return {completion.id: completion async for completion in model.generate(asked)}

    found = asyncio.run(collect())
    return [found[str(n)].text for n in range(len(texts))]


def compare(name: str, ours: Way, others: dict[str, Way], runs: int) -> None:
    """Print the median ratio other / ours of each other way, and whether all replies are the same."""
    times: dict[str, list[float]] = {"orbench": [], **{other: [] for other in others}}
    replies: dict[str, list[str]] = {}
    ours(), [way() for way in others.values()]
    for _ in range(runs):
        for label, way in {"orbench": ours, **others}.items():
            began = time.perf_counter()
            replies[label] = way()
            times[label].append(time.perf_counter() - began)
    print(f"{name}: orbench {statistics.median(times['orbench']):.2f} s", flush=True)
    for other in others:
        ratio = statistics.median(b / a for a, b in zip(times["orbench"], times[other], strict=True))
        same = sum(a == b for a, b in zip(replies["orbench"], replies[other], strict=False))
        print(
            f"  {other}: {statistics.median(times[other]):.2f} s, {ratio:.2f} x orbench's; "
            f"{same} of {len(replies[other])} replies the same",
            flush=True,
        )


def hf(path: Path, texts: list[str], runs: int) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    from orbench.models.huggingface import HuggingFaceModel

    torch.set_num_threads(1)  # so small a model only waits for further threads
    tokenizer = AutoTokenizer.from_pretrained(path, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    shaped = [
        tokenizer.apply_chat_template([{"role": "user", "content": t}], tokenize=False, add_generation_prompt=True)
        for t in texts
    ]

    def bare(rows: int, limit: int | None = None) -> list[str]:
        """A script that takes the prompts as they come, in batches of one size."""
        found = []
        for start in range(0, len(shaped[:limit]), rows):
            batch = shaped[:limit][start : start + rows]
            inputs = tokenizer(batch, return_tensors="pt", padding=True, add_special_tokens=False)
            with torch.no_grad():
                output = model.generate(**inputs, max_new_tokens=NEW, do_sample=False)
            found += tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return found

    best, fastest = 0, float("inf")
    for rows in (32, 64, 128, 256):
        began = time.perf_counter()
        bare(rows)
        took = time.perf_counter() - began
        print(f"bare script, {rows} at a time: {took:.2f} s", flush=True)
        if took < fastest:
            best, fastest = rows, took
    ours = HuggingFaceModel(str(path))
    ours.load()
    compare("transformers", lambda: answers(ours, texts), {f"bare, {best} at a time": lambda: bare(best)}, runs)
    some = texts[:200]

    def continuous() -> list[str]:
        """Transformers' own continuous batching."""
        ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        config = GenerationConfig(max_new_tokens=NEW, do_sample=False, **ends)
        asked = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in shaped[:200]]
        found = model.generate_batch(inputs=asked, generation_config=config)
        return [tokenizer.decode(each.generated_tokens, skip_special_tokens=True) for each in found.values()]

    others = {"one at a time": lambda: bare(1, 200), "generate_batch": continuous}
    compare("the first 200", lambda: answers(ours, some), others, runs)


def inspect(path: Path, texts: list[str], runs: int) -> None:
    """A whole inspect_ai evaluation with its hf provider beside a whole orbench one; loading is in both."""
    import orbench

    with tempfile.TemporaryDirectory() as folder:
        split = orbench.Split(
            "all",
            [orbench.Prompt(id=str(n), text=t, category="x", kind="safe", split="all") for n, t in enumerate(texts)],
            "here",
        )
        numbers = iter(range(1000))

        def ours() -> list[str]:
            out = Path(folder) / str(next(numbers))
            result = orbench.evaluate(f"hf/{path}", splits=split, max_tokens=NEW, out=out, progress=False)
            return [row.response for row in sorted(result.rows(), key=lambda row: int(row.prompt_id))]

        def theirs() -> list[str]:
            from inspect_ai import Task
            from inspect_ai import eval as run
            from inspect_ai.dataset import MemoryDataset, Sample
            from inspect_ai.model import GenerateConfig, get_model
            from inspect_ai.solver import generate

            config = GenerateConfig(max_tokens=NEW, temperature=0.0, max_connections=64)
            model = get_model("hf/local", model_path=str(path), device="cpu", config=config, do_sample=False)
            samples = MemoryDataset([Sample(input=text, id=n) for n, text in enumerate(texts)])
            [log] = run(
                Task(dataset=samples, solver=[generate()]), model=model, log_dir=folder, display="none", score=False
            )
            assert log.status == "success", log.error
            return [sample.output.completion for sample in sorted(log.samples or [], key=lambda s: int(s.id))]

        compare("whole evaluations", ours, {"inspect_ai hf": theirs}, runs)


def vllm(path: Path, texts: list[str], runs: int) -> None:
    from orbench.models.vllm import VllmModel

    ours = VllmModel(str(path), **VLLM)
    ours.load()
    from vllm import LLM, SamplingParams

    theirs = LLM(model=str(path), **VLLM)
    shaped: list[Any] = [[{"role": "user", "content": text}] for text in texts]
    sampling = SamplingParams(temperature=0.0, max_tokens=NEW)

    def chat() -> list[str]:
        return [reply.outputs[0].text for reply in theirs.chat(shaped, sampling, use_tqdm=False)]

    # Both have cached the prompts' prefixes after the first run: what is compared is scheduling and handing over.
    compare("vLLM", lambda: answers(ours, texts), {"llm.chat": chat}, runs)
    asyncio.run(ours.close())


def on_ray(path: Path, texts: list[str], runs: int) -> None:
    """Prompts a second of one worker and of two, warm: after each worker has given its first part back."""
    from orbench.models import make_options, open_model

    def rate(workers: int) -> float:
        model = open_model(f"hf/{path}", make_options(None, None, {"ray": {"workers": workers}}))
        asked = [
            Request(id=str(n), messages=(Message("user", text),), sampling=Sampling(max_tokens=NEW))
            for n, text in enumerate(texts * 4)
        ]

        async def collect() -> float:
            times = [time.perf_counter() async for _ in model.generate(asked)]
            await model.close()
            cold = len(times) // 4
            return (len(times) - cold) / (times[-1] - times[cold])

        return asyncio.run(collect())

    ratios = []
    for _ in range(runs):
        one, two = rate(1), rate(2)
        ratios.append(two / one)
        print(f"one worker {one:.0f} prompts/s, two {two:.0f}: {two / one:.2f} x", flush=True)
    print(f"median {statistics.median(ratios):.2f} x", flush=True)


def evaluate(engine: str, texts: list[str], rows: int, folder: Path) -> None:
    """One whole run of so many prompts, and the peak memory of this process."""
    import orbench

    path = make_tiny_model(folder / "tiny")
    file = folder / "many.csv"
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["prompt"])
        writer.writerows([f"{texts[n % len(texts)]} (variant {n})"] for n in range(rows))
    options = {"vllm": {"engine": VLLM}, "ray": {"ray": {"workers": 2}}}.get(engine)
    provider = "hf" if engine == "ray" else engine
    began = time.perf_counter()
    orbench.evaluate(
        f"{provider}/{path}", splits=f"safe={file}", max_tokens=1, model_options=options, out=folder / "run"
    )
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{engine}, {rows} prompts, 1 new token: {took:.0f} s, peak of the driver {peak:.0f} MB", flush=True)


if __name__ == "__main__":
    main()
