"""A model is made over-cautious by safety tuning alone, then cured; every step is an orbench command. Extra `train`.

    python examples/mitigation/experiment.py --data DIR --out DIR     # OR-Bench's files; three seeds
    python examples/mitigation/experiment.py --short --out DIR        # the bundled sample; one seed, for a test

The model has half a million weights and is trained from scratch on the spot, so nothing is downloaded. Prompts are
only ever moved from file to file; what stands for giving in is one neutral sentence. No prompt, and no near-duplicate
of it, is in two of: safety tuning and pairs, validation, held out. The table at the end is that of docs/mitigation.md.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import general
import little
import teacher

from orbench.cli.app import app
from orbench.mitigation.apart import find_groups
from orbench.mitigation.files import Example, assistant, user, write_prompts, write_rows
from orbench.mitigation.ranking import ranking
from orbench.records import Prompt
from orbench.splits import load_split

TAUGHT = f"python/{Path(teacher.__file__).stem}:answer"
RATES = ("over-refusal", "toxic rejection", "F1", "ranking", "general", "natural", "neither")


class Scale(argparse.Namespace):
    """How large the experiment is."""

    seeds = (0, 1, 2)
    general = 4000
    safety = 300
    held_out = 200
    validation = 100
    epochs = 6
    replay = 1000
    cure = 6
    repeat = 1
    tuning = 2
    toxic = 2
    full = True


def orbench(*arguments: object) -> None:
    """Run a command as typed, in this process: torch is imported once."""
    words = [str(argument) for argument in arguments]
    print("$ orbench", " ".join(words), flush=True)
    try:
        code = app(words, standalone_mode=False) or 0
    except SystemExit as end:
        code = end.code or 0
    if code not in (0, 3):
        raise SystemExit(f"orbench {' '.join(words)} ended with {code}")


def prepare(folder: Path, data: Path | None, scale: Any, seed: int) -> None:
    """Write what a seed's experiment starts from: prompts of the run, safety rows, general rows, an untrained model."""
    draw = random.Random(seed)
    if data is None:
        prompts = list(load_split("sample"))
    else:
        prompts = [*load_split("hard-1k", data=data), *load_split("toxic", data=data)]
    prompts = list({prompt.text: prompt for prompt in prompts}.values())
    groups = find_groups(prompts)
    toxic = [n for n, prompt in enumerate(prompts) if prompt.kind == "toxic"]
    draw.shuffle(toxic)
    for_safety: set[int] = set()
    for n in toxic:
        if sum(groups[m] in for_safety for m in toxic) < scale.safety:
            for_safety.add(groups[n])
    rest = [prompt for prompt, group in zip(prompts, groups, strict=True) if group not in for_safety]
    safety = [prompts[n] for n in toxic if groups[n] in for_safety]
    for kind in ("safe", "toxic"):
        write_prompts(folder / f"{kind}.csv", [prompt for prompt in rest if prompt.kind == kind])

    def rows(texts: Sequence[str], kind: Any, reply: Any) -> list[Example]:
        return [
            Example(prompt=user(text), completion=assistant(reply(text)), prompt_id=f"{kind}-{n}", kind=kind)
            for n, text in enumerate(texts)
        ]

    everyday = general.made(scale.general + 200, seed)
    write_rows(folder / "general.jsonl", rows(everyday[200:], "safe", teacher.answer))
    write_rows(folder / "safety.jsonl", rows([p.text for p in safety], "toxic", lambda _: teacher.REFUSAL))
    for name, texts in (("general", everyday[:200]), ("natural", general.natural())):
        made = [
            Prompt(id=str(n), text=text, category="uncategorised", kind="safe", split=name)
            for n, text in enumerate(texts)
        ]
        write_prompts(folder / f"{name}.csv", made)
    texts = [*everyday[200:], *(p.text for p in safety)]
    if data is not None and (data / "80k-sample.csv").is_file():  # words alone; nothing of it is asked or trained on
        texts += [prompt.text for prompt in load_split(f"safe={data / '80k-sample.csv'}")]
    texts += 2 * [*teacher.ANSWERS, teacher.REFUSAL, teacher.STAND_IN]
    little.make(folder / "untrained", texts, seed=seed, whole_words=scale.full)


def measure(folder: Path, name: str, model: Path) -> dict[str, float]:
    """Evaluate a model on what was held out and on both sorts of general prompts, and set it beside the base."""
    short = ("--max-tokens", 24, "--quiet")
    held_out = folder / "pairs/held_out_prompts.csv"
    orbench("evaluate", f"hf/{model}", "--split", held_out, *short, "--out", folder / f"runs/{name}")
    found = rates(folder / f"runs/{name}")
    for split in ("general", "natural"):
        out = folder / f"runs/{name}-{split}"
        orbench("evaluate", f"hf/{model}", "--split", f"safe={folder / split}.csv", *short, "--out", out)
        found[split] = rates(out)["over-refusal"]
    return found


def rates(run: Path) -> dict[str, float]:
    """The rates of a run, and the share of replies that are none of the sentences the model was taught."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    lines = [json.loads(line) for line in (run / "responses.jsonl").read_text(encoding="utf-8").splitlines()]
    known = {sentence.lower() for sentence in (*teacher.ANSWERS, teacher.REFUSAL, teacher.STAND_IN)}
    neither = sum(line["response"].strip().lower() not in known for line in lines) / len(lines)
    return {
        "over-refusal": result["over_refusal_rate"]["value"],
        "toxic rejection": result["toxic_rejection_rate"]["value"],
        "F1": result["f1"],
        "neither": neither,
    }


def one_seed(folder: Path, data: Path | None, scale: Any, seed: int) -> dict[str, dict[str, float]]:
    """The whole experiment with one seed; what is done already is not done again."""
    if not (folder / "untrained/config.json").is_file():
        prepare(folder, data, scale, seed)
    train = ("--batch-size", 32, "--max-length", 256, "--seed", seed, "--quiet")
    fresh = ("--learning-rate", "2e-3", "--warmup", 0.1, "--checkpoints", 0, *train)

    # Before: brought up on general prompts, then safety tuning (SIT) with n safety rows; with all it is the base.
    def sft(*arguments: object, out: str) -> None:
        orbench("align", "sft", "--out", folder / out, *arguments)

    safety = ("--safety", folder / "safety.jsonl")
    everyday = ("--data", folder / "general.jsonl")
    sft(*everyday, "--model", folder / "untrained", "--epochs", scale.epochs, *fresh, out="plain")
    counts = [30, 100] if scale.full else []
    for n in (*counts, 0):
        more = (*safety, "--safety-rows", n, "--toxic-repeat", scale.repeat, "--epochs", scale.tuning)
        sft(*everyday, "--model", folder / "plain", *more, *fresh, out=f"sit-{n}" if n else "base")

    # The diagnosis, and pairs from it.
    asked = ("--split", f"safe={folder}/safe.csv", "--split", f"toxic={folder}/toxic.csv")
    orbench("evaluate", f"hf/{folder}/base", *asked, "--max-tokens", 24, "--quiet", "--out", folder / "run")
    parts = ("--held-out", scale.held_out, "--validation", scale.validation, "--seed", seed)
    with_teacher = ("--teacher", TAUGHT, "--stand-in", teacher.STAND_IN)
    orbench("align", "pairs", folder / "run", *with_teacher, *parts, "--out", folder / "pairs", "--quiet")

    # The cures, and their controls.
    base = ("--data", folder / "pairs", "--model", folder / "base", "--checkpoints", scale.cure, "--max-tokens", 24)
    replay = ("--replay", folder / "general.jsonl", "--replay-rows", scale.replay)
    cure = (*base, *safety, *replay, "--epochs", scale.cure, *train)
    fast = ("--learning-rate", "2e-3", "--toxic-repeat", scale.toxic)
    slow = ("--learning-rate", "1e-3", "--toxic-repeat", scale.toxic)
    sft(*cure, *fast, out="chosen")
    dpo = ("--beta", 0.1, "--sft-weight", 1, *slow)
    orbench("align", "dpo", *cure, *dpo, "--out", folder / "dpo")
    models = {"base (SIT)": "base", "SFT on chosen, replay": "chosen", "DPO": "dpo"}
    if scale.full:
        sft(*cure, *fast, "--containment", 1, out="chosen-free")
        draws = ("--samples", 4, "--prompts", 500, "--iterations", 2, "--temperature", 1)
        orbench(
            "align", "raft", *base, *safety, *replay, "--epochs", 1, *train, *slow, *draws, "--out", folder / "raft"
        )
        models = {
            **{f"SIT, n {n}": f"sit-{n}" for n in counts},
            **models,
            "SFT, no containment": "chosen-free",
            "RAFT": "raft",
        }
    found = {}
    held_out = list(load_split(folder / "pairs/held_out_prompts.csv"))
    for label, name in models.items():
        found[label] = measure(folder, name, folder / name)
        found[label]["ranking"] = ranking(str(folder / name), held_out, folder / "pairs")
    runs = folder / "runs"
    for name in ("chosen", "dpo"):
        general_runs = ("--general", runs / "base-general", runs / f"{name}-general")
        orbench("align", "report", runs / "base", runs / name, *general_runs, "--pairs", folder / "pairs")
    (folder / "result.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found


def table(results: Sequence[dict[str, dict[str, float]]]) -> str:
    """Mean and spread (standard deviation) over the seeds, as Markdown."""
    lines = ["| model | " + " | ".join(RATES) + " |", "|---" * (len(RATES) + 1) + "|"]
    for label in results[0]:
        cells = []
        for rate in RATES:
            values = [result[label][rate] for result in results]
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values):.2f}{spread}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with hard-1k.csv, toxic.csv and perhaps 80k-sample.csv")
    parser.add_argument("--out", type=Path, default=Path("mitigation-experiment"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(Scale.seeds))
    parser.add_argument("--short", action="store_true", help="the bundled sample, one seed, a minute")
    given = parser.parse_args()
    if not given.short and given.data is None:
        parser.error("--data DIR with OR-Bench's files, or --short for the bundled sample")
    scale = Scale()
    if given.short:
        scale = Scale(
            general=1200, safety=20, held_out=0.3, validation=0.0, epochs=4, replay=200, cure=4, repeat=8, full=False
        )
        given.data, given.seeds = None, given.seeds[:1]
    results = []
    for seed in given.seeds:
        began = time.monotonic()
        results.append(one_seed(given.out / f"seed-{seed}", given.data, scale, seed))
        print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
