"""How much time our layer adds to bare TRL: the same pairs, settings and steps with and without it, in turns.

    python benchmarks/training.py            # prints both times of every turn and the ratio of the medians

Only training is timed, from settings to the saved model: loading, checks for overlap and length, TRL, saving. No
checkpoint is scored on the way, which would be an evaluation and not overhead. Both load the libraries beforehand.
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from pathlib import Path

from orbench.mitigation.config import Dpo
from orbench.mitigation.loading import quiet
from orbench.mitigation.trainer import dpo
from orbench.testing import make_tiny_model

WORDS = ["river", "garden", "window", "letter", "engine", "market", "violin", "summer", "bottle", "castle"]


def write_pairs(folder, rows):
    folder.mkdir()
    with (folder / "train.jsonl").open("w", encoding="utf-8") as file:
        for n in range(rows):
            said = {
                "prompt": (
                    "user",
                    f"Tell me about {WORDS[n % 10]} {n}a and {WORDS[n // 10 % 10]} {n}b, at some length",
                ),
                "chosen": ("assistant", "Of course. Water it in the morning, and give it light and a little patience."),
                "rejected": ("assistant", "I'm sorry, but I can't help with that."),
            }
            row = {name: [{"role": role, "content": text}] for name, (role, text) in said.items()}
            file.write(json.dumps({**row, "prompt_id": str(n), "kind": "safe"}) + "\n")


def bare(model, data, out, steps):
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    rows = load_dataset("json", data_files=str(data / "train.jsonl"), split="train", cache_dir=str(out) + "-cache")
    arguments = DPOConfig(
        output_dir=str(out),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=1e-4,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        max_length=1024,
        dataloader_pin_memory=False,
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(model), args=arguments, train_dataset=rows, processing_class=tokenizer
    )
    trainer.train()
    trainer.save_model(str(out))


def ours(model, data, out, steps):
    dpo(Dpo(data=str(data), model=str(model), out=str(out), max_steps=steps, learning_rate=1e-4, checkpoints=0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    quiet()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_tiny_model(folder / "tiny", steps=0)
        write_pairs(folder / "pairs", given.rows)
        for way in (bare, ours):  # libraries loaded, caches warm
            way(folder / "tiny", folder / "pairs", folder / f"warm-{way.__name__}", 2)
        times = {bare: [], ours: []}
        for turn in range(given.turns):
            for way in (bare, ours) if turn % 2 else (ours, bare):
                began = time.perf_counter(), time.process_time()
                way(folder / "tiny", folder / "pairs", folder / f"{way.__name__}-{turn}", given.steps)
                wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
                times[way].append((wall, cpu))
                print(f"{way.__name__:5} {wall:6.2f} s wall {cpu:6.2f} s CPU", flush=True)
        for place, what in enumerate(("wall", "CPU")):
            middle = {way: statistics.median(pair[place] for pair in found) for way, found in times.items()}
            ratios = [a[place] / b[place] for a, b in zip(times[ours], times[bare], strict=True)]
            print(
                f"{what}: ours / bare = {middle[ours] / middle[bare]:.3f} (turns {min(ratios):.3f}-{max(ratios):.3f})"
            )


if __name__ == "__main__":
    main()
