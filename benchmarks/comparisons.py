"""Leaderboard of 32 runs with its bootstrap, and comparison of two runs of 80,000 rows.

    python benchmarks/comparisons.py --data DIR [--runs 5]

DIR holds hard-1k.csv and toxic.csv of OR-Bench. The runs are made first, of models that refuse at random.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
from pathlib import Path

from measure import compare, run

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.testing import ScriptedModel

ORBENCH = [sys.executable, "-m", "orbench"]


def model(number: int) -> ScriptedModel:
    """Refuses more the higher its number; whether it refuses a prompt also hangs on the prompt."""

    def reply(request: orbench.Request) -> str:
        hardness = random.Random(request.prompt).random()
        return (
            REFUSAL if 0.7 * hardness + 0.3 * random.Random(f"{number}{request.id}").random() < number / 40 else ANSWER
        )

    return ScriptedModel(reply, name=f"scripted/model-{number}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = [str(folder / f"run-{number}") for number in range(1, 33)]
        for number, out in enumerate(runs, start=1):
            orbench.evaluate(model(number), data=options.data, out=out)
        compare(
            "leaderboard of 32 runs of 1,974 rows, 10,000 draws over models and prompts",
            lambda: run([*ORBENCH, "leaderboard", *runs]),
            runs=options.runs,
        )
        compare(
            "the same with its picture",
            lambda: run([*ORBENCH, "leaderboard", *runs, "--plot", f"{folder}/p.png"]),
            runs=options.runs,
        )
        compare(
            "the paper's figure",
            lambda: run([*ORBENCH, "leaderboard", "--published", "--plot", f"{folder}/p.png"]),
            runs=options.runs,
        )
        compare("compare two of them", lambda: run([*ORBENCH, "compare", *runs[:2]]), runs=options.runs)
        many = folder / "many.csv"
        with (Path(options.data) / "hard-1k.csv").open(encoding="utf-8", newline="") as file:
            rows = [(row["prompt"], row["category"]) for row in csv.DictReader(file)]
        with many.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "category"])
            for number in range(80_000):
                text, category = rows[number % len(rows)]
                writer.writerow([f"{text} (variant {number})", category])
        large = [str(folder / "large-1"), str(folder / "large-2")]
        for number, out in zip((10, 12), large, strict=True):
            orbench.evaluate(model(number), splits=f"safe={many}", out=out)
        compare("compare two runs of 80,000 rows", lambda: run([*ORBENCH, "compare", *large]), runs=options.runs)
        compare("the flips of the same", lambda: run([*ORBENCH, "compare", *large, "--flips"]), runs=options.runs)
        compare(
            "show --statistics of 1,974 rows",
            lambda: run([*ORBENCH, "show", runs[9], "--statistics"]),
            runs=options.runs,
        )
        compare(
            "show --statistics of 80,000 rows",
            lambda: run([*ORBENCH, "show", large[0], "--statistics"]),
            runs=min(options.runs, 3),
        )


if __name__ == "__main__":
    main()
