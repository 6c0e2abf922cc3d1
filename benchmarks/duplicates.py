"""Near duplicates among 80,000 prompts, the whole of cleaning, and overlap with another set.

    python benchmarks/duplicates.py --data DIR [--runs 5]

DIR holds 80k-sample.csv, hard-1k.csv and toxic.csv of OR-Bench. Their 3,074 prompts are blown up to 80,000 by changing
up to nine words in ten; a second set is the worst case, 80,000 prompts of one pattern. Wanted: at most 30 s and 1 GB.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
from functools import partial
from pathlib import Path

from measure import compare, run

from orbench.generation.overlap import counts, overlap
from orbench.statistics.duplicates import near_duplicates

NEAR = """
import sys
from orbench.statistics.duplicates import near_duplicates
near_duplicates(open(sys.argv[1], encoding="utf-8").read().splitlines(), 0.8)
"""
CLEAN = """
import sys
from orbench.generation.cleaning import Rules, clean
clean(open(sys.argv[1], encoding="utf-8").read().splitlines(), Rules(language=sys.argv[2] or None))
"""
OVERLAP = """
import sys
from orbench.generation.overlap import overlap
overlap(*(open(name, encoding="utf-8").read().splitlines() for name in sys.argv[1:]))
"""
NAMES = ("80k-sample", "hard-1k", "toxic")


def prompts(path: Path) -> list[str]:
    with path.open(encoding="utf-8", newline="") as file:
        return [row["prompt"] for row in csv.DictReader(file)]


def varied(texts: list[str], count: int) -> list[str]:
    draw = random.Random(0)
    vocabulary = [word for text in texts for word in text.split()]
    found = []
    for _ in range(count):
        words = draw.choice(texts).split()
        for place in draw.sample(range(len(words)), int(0.9 * draw.random() * len(words))):
            words[place] = draw.choice(vocabulary)
        found.append(" ".join(words))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    texts = []
    splits = {name: prompts(Path(options.data) / f"{name}.csv") for name in NAMES}
    for name, own in splits.items():
        texts += own
        repeats = ", ".join(
            f"{len(own) - len(set(near_duplicates(own, likeness)))} at {likeness}" for likeness in (0.6, 0.7, 0.8, 0.9)
        )
        print(f"{name}: of {len(own)} prompts near duplicates of another: {repeats}")
    for length in (6, 7, 8, 9):
        found = counts(overlap(splits["hard-1k"], splits["toxic"], run=length))
        print(f"hard-1k in toxic, runs of {length} words: {found}")
    patterns = [f"How do I stop the process number {n} on my machine with my friend {n % 7}?" for n in range(80_000)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.txt"
        for name, lines in (("varied prompts", varied(texts, 80_000)), ("prompts of one pattern", patterns)):
            path.write_text("\n".join(lines), encoding="utf-8")
            for what, arguments in (
                ("near duplicates", [NEAR, str(path)]),
                ("cleaning without the language check", [CLEAN, str(path), ""]),
                ("cleaning with it", [CLEAN, str(path), "en"]),
            ):
                command = [sys.executable, "-c", *arguments]
                compare(f"80,000 {name}, {what}", partial(run, command), runs=options.runs)
        path.write_text("\n".join(varied(texts, 80_000)), encoding="utf-8")
        other = Path(folder) / "other.txt"
        command = [sys.executable, "-c", OVERLAP, str(path), str(other)]
        other.write_text("\n".join(splits["hard-1k"]), encoding="utf-8")
        compare("80,000 varied prompts, overlap with Hard-1K", partial(run, command), runs=options.runs)
        alike = [f"How do I stop the process number {n} on my machine with my friend {n % 7}?" for n in range(81_000)]
        draw = random.Random(0)
        words = [f"w{n}" for n in range(3_000)]
        runs = [f"How do I stop the process on my machine with {' '.join(draw.choices(words, k=12))}" for _ in alike]
        for what, lines in (("of one pattern", alike), ("of one beginning", runs)):
            path.write_text("\n".join(lines[1_000:]), encoding="utf-8")
            other.write_text("\n".join(lines[:1_000]), encoding="utf-8")
            compare(f"80,000 prompts {what}, overlap with 1,000 more", partial(run, command), runs=options.runs)


if __name__ == "__main__":
    main()
