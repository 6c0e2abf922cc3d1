"""Start-up, a whole run without a model behind it, and 80,000 prompts: fresh and again.

    python benchmarks/local.py --data DIR [--runs 5]

DIR holds hard-1k.csv and toxic.csv of OR-Bench.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from itertools import count
from pathlib import Path

from measure import Cost, compare, run

PYTHON = [sys.executable]
ORBENCH = [sys.executable, "-m", "orbench"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    numbers = count()
    compare("python -c pass", lambda: run([*PYTHON, "-c", "pass"]), runs=options.runs)
    compare("import orbench", lambda: run([*PYTHON, "-c", "import orbench"]), runs=options.runs)
    compare("orbench --help", lambda: run([*ORBENCH, "--help"]), runs=options.runs)
    with tempfile.TemporaryDirectory() as folder:

        def evaluate(*arguments: str) -> Cost:
            return run([*ORBENCH, "evaluate", "baseline/keyword-guard", "--quiet", *arguments])

        compare(
            "hard-1k and toxic, keyword-guard",
            lambda: evaluate("--data", options.data, "--out", f"{folder}/{next(numbers)}"),
            runs=options.runs,
        )
        many = Path(folder) / "many.csv"
        with (Path(options.data) / "hard-1k.csv").open(encoding="utf-8", newline="") as file:
            texts = [row["prompt"] for row in csv.DictReader(file)]
        with many.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt"])
            writer.writerows([f"{texts[n % len(texts)]} (variant {n})"] for n in range(80_000))
        split = f"safe={many}"
        compare(
            "80,000 prompts, fresh",
            lambda: evaluate("--split", split, "--out", f"{folder}/{next(numbers)}"),
            runs=min(options.runs, 3),
        )
        again = f"{folder}/again"
        compare("80,000 prompts, again", lambda: evaluate("--split", split, "--out", again), runs=options.runs)


if __name__ == "__main__":
    main()
