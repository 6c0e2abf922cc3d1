"""Scoring replies of 250 words: phrases, and the whole cascade without a judge, beside the cheapest scorer there is.

    python benchmarks/scoring.py --labels DIR [--replies 80000] [--runs 3]

DIR holds xstest.csv, phtest.csv and orfuzz.csv (docs/scoring.md); their replies are joined to texts of 250 words, so
that one in several begins with a refusal. What is timed is `orbench calibrate` on one core; the baseline is the same
command with the paper's two phrases for Llama, so that the difference is what reading the replies costs.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from measure import Cost, compare, run

WORDS = 250


def rows(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Prompt, 250 words of replies and label, without end."""
    csv.field_size_limit(1 << 30)
    words: list[str] = []
    while True:
        for name in ("xstest", "phtest", "orfuzz"):
            with (folder / f"{name}.csv").open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    words += row["response"].split(" ")
                    if len(words) >= WORDS:
                        yield row["prompt"], " ".join(words[:WORDS]), row["label"]
                        words = []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--replies", type=int, default=80_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        many = Path(folder) / "many.csv"
        with many.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "response", "label"])
            writer.writerows(islice(rows(options.labels), options.replies))

        def scored(*arguments: str) -> Callable[[], Cost]:
            command = [sys.executable, "-m", "orbench", "calibrate", "--labels", str(many), "--quiet"]
            return lambda: run([*command, *arguments], {"OMP_NUM_THREADS": "1"})

        baseline = scored("--scorer", "paper", "--family", "llama")
        for scorer in ("keywords", "cascade"):
            compare(
                f"{options.replies:,} replies of {WORDS} words, {scorer}",
                scored("--scorer", scorer),
                baseline,
                runs=options.runs,
            )


if __name__ == "__main__":
    main()
