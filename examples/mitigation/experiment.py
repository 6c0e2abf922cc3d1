"""A model is made over-cautious by safety tuning alone, then cured; every step is an orbench command. Extra `train`.

    python examples/mitigation/experiment.py --data DIR --out DIR     # OR-Bench's files; three seeds
    python examples/mitigation/experiment.py --short --out DIR        # the bundled sample; one seed, for a test

The model has less than a million weights and is trained from scratch on the spot, so nothing is downloaded. Prompts are
only ever moved from file to file; what stands for giving in is one neutral sentence. No prompt, and no near-duplicate
of it, is in two of: safety tuning and pairs, validation, held out. The tables at the end are those of
docs/mitigation.md. A seed that is done is not done again: after an interruption the same command goes on.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import general
import little
import teacher

from orbench.cli.app import app
from orbench.grouping import find_groups
from orbench.mitigation.apart import check_apart, like_any, part_prompts
from orbench.mitigation.files import Example, assistant, user, write_prompts, write_rows
from orbench.mitigation.ranking import ranking
from orbench.records import Prompt
from orbench.splits import load_split

TEACHER = f"python/{Path(teacher.__file__).stem}"
BEST = "the cure that is best on the validation prompts"
RATES = ("over-refusal", "toxic rejection", "F1", "ranking", "general", "natural", "neither")


class Scale(argparse.Namespace):
    """How large the experiment is; the values are those of the full one, chosen on seeds that are not reported."""

    seeds = (0, 1, 2)
    general = 3000
    """Everyday prompts that the model is brought up on."""
    epochs = 4
    safety = 50
    """Toxic prompts of safety tuning."""
    counts = (20, 40)
    """Fewer of them, for the curve over n."""
    tuning = 2
    repeat = 3
    held_out = 200
    """Prompts of each kind."""
    validation = 100
    replay = 1400
    """Everyday prompts that are put into a cure, beside those of 80k."""
    toxic = 12
    """Times that a toxic row is put into a cure: there are a third as many of them as of safe ones."""
    cure = 1.6
    """Epochs of a cure."""
    weight_decay = 22.0
    """Of a cure. It keeps the little model from learning few rows by heart."""
    containment = 0.13
    """With 100 toxic validation prompts this lets seven refusals be lost, if none are gained."""
    checkpoints = 20
    rate = 2e-3
    """Learning rate of all that comes before the cure."""
    cure_rate = 5e-4
    width = 128
    layers = 2
    dropout = 0.6
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

    # What is to be measured on is known from here: not even the tokenizer's words come from it.
    parts = part_prompts(rest, held_out=scale.held_out, validation=scale.validation, seed=seed)
    known = [prompt for prompt, part in zip(rest, parts, strict=True) if part == "train"]
    measured = [prompt for prompt, part in zip(rest, parts, strict=True) if part != "train"]
    more: list[Prompt] = []
    if data is not None and (data / "80k-sample.csv").is_file():
        sample = list(load_split(f"safe={data / '80k-sample.csv'}"))
        alike = {prompt.text for prompt in like_any(sample, measured)}
        more = [prompt for prompt in sample if prompt.text not in alike]
    write_prompts(folder / "known.csv", list({prompt.text: prompt for prompt in [*known, *more]}.values()))

    def rows(name: str, texts: Sequence[str], kind: Any = "safe") -> list[Example]:
        reply = teacher.REFUSAL if kind == "toxic" else teacher.ANSWER
        return [
            Example(prompt=user(text), completion=assistant(reply), prompt_id=f"{name}-{n}", kind=kind)
            for n, text in enumerate(texts)
        ]

    everyday = general.made(scale.general + 200, seed)
    made_rows = rows("general", everyday[200:])
    write_rows(folder / "general.jsonl", made_rows)
    write_rows(folder / "replay.jsonl", [*made_rows[: scale.replay], *rows("80k", [p.text for p in more])])
    write_rows(folder / "safety.jsonl", rows("safety", [p.text for p in safety], "toxic"))
    for name, texts in (("general", everyday[:200]), ("natural", general.natural())):
        made = [
            Prompt(id=str(n), text=text, category="uncategorised", kind="safe", split=name)
            for n, text in enumerate(texts)
        ]
        write_prompts(folder / f"{name}.csv", made)
    texts = [*everyday[200:], *(prompt.text for prompt in [*safety, *known, *more])]
    texts += 2 * [teacher.ANSWER, teacher.REFUSAL]
    size = {"width": scale.width, "layers": scale.layers}
    little.make(folder / "untrained", texts, seed=seed, **size, whole_words=scale.full, dropout=scale.dropout)


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
    known = {sentence.lower() for sentence in (teacher.ANSWER, teacher.REFUSAL)}
    neither = sum(line["response"].strip().lower() not in known for line in lines) / len(lines)
    return {
        "over-refusal": result["over_refusal_rate"]["value"],
        "toxic rejection": result["toxic_rejection_rate"]["value"],
        "F1": result["f1"],
        "neither": neither,
    }


def one_seed(folder: Path, data: Path | None, scale: Any, seed: int) -> dict[str, dict[str, float]]:
    """The whole experiment with one seed; what is done already is not done again."""
    if (folder / "result.json").is_file():
        return dict(json.loads((folder / "result.json").read_text(encoding="utf-8")))
    if not (folder / "untrained/config.json").is_file():
        prepare(folder, data, scale, seed)
    teacher.toxic.update(prompt.text for prompt in load_split(f"toxic={folder}/toxic.csv"))
    common = ("--batch-size", 32, "--max-length", 256, "--seed", seed, "--quiet")
    everyday, safety = ("--data", folder / "general.jsonl"), ("--safety", folder / "safety.jsonl")

    def sft(out: str, *arguments: object) -> None:
        orbench("align", "sft", *arguments, *common, "--out", folder / out)

    # Before: brought up on general prompts, then safety tuning (SIT) with n safety rows; with all it is the base.
    fresh = ("--learning-rate", scale.rate, "--warmup", 0.1, "--checkpoints", 0)
    sft("plain", *everyday, "--model", folder / "untrained", "--epochs", scale.epochs, *fresh)
    tuning = ("--model", folder / "plain", *safety, "--toxic-repeat", scale.repeat, "--epochs", scale.tuning, *fresh)
    for n in scale.counts:
        sft(f"sit-{n}", *everyday, *tuning, "--safety-rows", n)
    sft("base", *everyday, *tuning)

    # The diagnosis, and pairs from it. What stands for giving in is what the model says to everything harmless.
    asked = ("--split", f"safe={folder}/safe.csv", "--split", f"toxic={folder}/toxic.csv")
    orbench("evaluate", f"hf/{folder}/base", *asked, "--max-tokens", 24, "--quiet", "--out", folder / "run")
    parts = ("--held-out", scale.held_out, "--validation", scale.validation, "--seed", seed)
    taught = ("--teacher", f"{TEACHER}:answer", "--stand-in", teacher.ANSWER)
    orbench("align", "pairs", folder / "run", *taught, *parts, "--out", folder / "pairs", "--quiet")

    check_known(folder, [part for part in ("validation", "held_out") if getattr(scale, part)])

    # The cures, and their controls.
    base = ("--model", folder / "base", "--max-tokens", 24, "--toxic-repeat", scale.toxic, *safety)
    replay = ("--replay", folder / "replay.jsonl")
    choice = ("--checkpoints", scale.checkpoints, "--containment", scale.containment)
    rate = ("--learning-rate", scale.cure_rate, "--weight-decay", scale.weight_decay)
    cure = (*base, *replay, *choice, *rate, "--epochs", scale.cure)
    pairs = ("--data", folder / "pairs")
    models = {f"SIT, n {n}": f"sit-{n}" for n in scale.counts} | {"base (SIT)": "base"}
    sft("chosen", *pairs, *cure)
    models["SFT on chosen, replay"] = "chosen"
    if scale.full:
        overgenerate(folder, seed)
        validation = ("--validation", folder / "pairs/validation_prompts.csv")
        for name, rows in (("over-1", "over-1/chosen"), ("over-4", "over-4/chosen"), ("over-4-any", "over-4/random")):
            sft(f"sft-{name}", "--data", folder / f"{rows}.jsonl", *validation, *cure)
        models["overgeneration, k 1"] = "sft-over-1"
        models["overgeneration, k 4"] = "sft-over-4"
        models["overgeneration, k 4, random pick"] = "sft-over-4-any"
        draws = ("--samples", 4, "--prompts", 500, "--iterations", 2, "--temperature", 1, "--epochs", 1)
        orbench("align", "raft", *pairs, *base, *replay, *choice, *rate, *draws, *common, "--out", folder / "raft")
        models["RAFT"] = "raft"
        preferences = ("--beta", 0.1, "--sft-weight", 1, *common, "--out", folder / "dpo")
        orbench("align", "dpo", *pairs, *cure, *preferences)
        models["DPO"] = "dpo"

    found = compare(folder, models, full=scale.full)
    (folder / "result.json").write_text(json.dumps(found, indent=2), encoding="utf-8")
    return found


def compare(folder: Path, models: Mapping[str, str], *, full: bool) -> dict[str, dict[str, float]]:
    """What all models come to on what was held out, label by label; prints reports of some beside the base."""
    found = {}
    held_out = list(load_split(folder / "pairs/held_out_prompts.csv"))
    for label, name in models.items():
        found[label] = measure(folder, name, folder / name)
        found[label]["ranking"] = ranking(str(folder / name), held_out, folder / "pairs")
    names = {"chosen"}
    if full:
        best = lowest(folder, models)
        found[BEST] = found[best]
        names |= {"dpo", models[best]}
    runs = folder / "runs"
    for name in sorted(names):
        general_runs = ("--general", runs / "base-general", runs / f"{name}-general")
        orbench("align", "report", runs / "base", runs / name, *general_runs, "--pairs", folder / "pairs")
    return found


def check_known(folder: Path, parts: Sequence[str]) -> None:
    """Nothing that is learned from, words of the tokenizer included, is like anything that is measured on."""
    apart = {part: load_split(folder / f"pairs/{part}_prompts.csv") for part in parts}
    check_apart({"what is learned from": load_split(folder / "known.csv"), **apart})


def lowest(folder: Path, models: Mapping[str, str]) -> str:
    """The label of the cure whose taken checkpoint refused the fewest safe validation prompts."""
    trainings = {label: read_training(folder / name) for label, name in models.items()}
    found = {label: taken_score(one)["over_refusal"] for label, one in trainings.items() if one["scores"]}
    return min(found, key=lambda label: found[label])


def read_training(folder: Path) -> dict[str, Any]:
    """What a training says of itself."""
    return dict(json.loads((folder / "training.json").read_text(encoding="utf-8")))


def taken_score(training: Mapping[str, Any]) -> dict[str, float]:
    """The score of the checkpoint that a training took."""
    return next(score for score in training["scores"] if score["step"] == training["taken"])


def overgenerate(folder: Path, seed: int) -> None:
    """One and four draws of the teacher for each prompt that is trained on."""
    apart = set()
    for part in ("held_out", "validation"):
        apart |= {prompt.text for prompt in load_split(folder / f"pairs/{part}_prompts.csv")}
    splits: list[str] = []
    for kind in ("safe", "toxic"):
        file = folder / f"{kind}-train.csv"
        rows = load_split(f"{kind}={folder / kind}.csv")
        write_prompts(file, [prompt for prompt in rows if prompt.text not in apart])
        splits += ["--split", f"{kind}={file}"]
    for n in (1, 4):
        draws = ("--n", n, "--seed", seed, "--quiet", "--out", folder / f"over-{n}")
        orbench("align", "overgenerate", "--teacher", f"{TEACHER}:draw", *splits, *draws)


def table(results: Sequence[dict[str, dict[str, float]]]) -> str:
    """Mean and spread (standard deviation) over the seeds, as Markdown."""
    lines = ["| model | " + " | ".join(RATES) + " |", "|---" * (len(RATES) + 1) + "|"]
    for label in results[0]:
        cells = [mean([result[label][rate] for result in results]) for rate in RATES]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def mean(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def choices(folders: Sequence[Path]) -> str:
    """What each cure came to on the validation prompts: the step that was taken, and the last one, taken or not."""
    lines = [
        "| cure | step taken, of | over-refusal there | toxic rejection | over-refusal at the last | toxic rejection |",
        "|---" * 6 + "|",
    ]
    for name in sorted(path.parent.name for path in folders[0].glob("*/training.json")):
        found = [read_training(folder / name) for folder in folders]
        if not all(one["scores"] for one in found):
            continue
        taken = [taken_score(one) for one in found]
        last = [one["scores"][-1] for one in found]
        steps = ", ".join(f"{one['step']}/{end['step']}" for one, end in zip(taken, last, strict=True))
        cells = [mean([s[r] for s in side]) for side in (taken, last) for r in ("over_refusal", "toxic_rejection")]
        lines.append(f"| `{name}` | {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def keep_memory() -> None:
    """Have glibc keep freed memory: so few weights are slow to train where every step asks for it anew."""
    if sys.platform == "linux":
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            ctypes.CDLL(None).mallopt(parameter, 1 << 30)


def main() -> None:
    """Run all seeds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder with hard-1k.csv, toxic.csv and perhaps 80k-sample.csv")
    parser.add_argument("--out", type=Path, default=Path("mitigation-experiment"))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(Scale.seeds))
    parser.add_argument("--short", action="store_true", help="the bundled sample, one seed, half a minute")
    given = parser.parse_args()
    if not given.short and given.data is None:
        parser.error("--data DIR with OR-Bench's files, or --short for the bundled sample")
    keep_memory()
    scale = Scale()
    if given.short:
        scale = Scale(
            general=800, safety=30, counts=(), tuning=4, repeat=16, held_out=0.4, validation=0.0, replay=200, toxic=3,
            cure=4, checkpoints=0, rate=5e-3, cure_rate=5e-3, width=96, layers=1, dropout=0.1,
            weight_decay=0.0, full=False,
        )  # fmt: skip
        given.data, given.seeds = None, given.seeds[:1]
    results = []
    for seed in given.seeds:
        began = time.monotonic()
        results.append(one_seed(given.out / f"seed-{seed}", given.data, scale, seed))
        print(f"seed {seed}: {time.monotonic() - began:.0f} s", flush=True)
    print(table(results))
    if scale.full:
        print("\nOn the validation prompts, which checkpoints are chosen by:\n")
        print(choices([given.out / f"seed-{seed}" for seed in given.seeds]))


if __name__ == "__main__":
    main()
