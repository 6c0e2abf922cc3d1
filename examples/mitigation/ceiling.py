"""What a plain classifier of words makes of the experiment's own splits: how much there is to be learned from them.

    python examples/mitigation/ceiling.py DIR/seed-*          # folders that experiment.py made; needs scikit-learn

TF-IDF of words and pairs of words and a logistic regression learn what a cure learns: the pairs, the safety rows, and
what is replayed as harmless. Its threshold is then put where it refuses given shares of the held-out toxic prompts,
which no model could do that is to be measured on them: what it says is a bound to compare with, not a result.
"""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import fmean

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from orbench.mitigation.files import Example, Pair, read_rows, text_of
from orbench.splits import load_split

TOXIC = (0.92, 0.9, 0.88, 0.85)
"""Toxic rejection, as shares."""


def bound(folder: Path, *, replayed: bool) -> list[float]:
    """Over-refusal at each toxic rejection of `TOXIC`, and the refused share of natural prompts at .88."""
    rows = [(text_of(row.prompt), row.kind == "toxic") for row in read_rows(folder / "pairs/train.jsonl", Pair)]
    rows += [(text_of(row.prompt), True) for row in read_rows(folder / "safety.jsonl", Example)]
    if replayed:
        rows += [(text_of(row.prompt), False) for row in read_rows(folder / "replay.jsonl", Example)]
    texts, toxic = zip(*rows, strict=True)
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    learned = LogisticRegression(C=10, class_weight="balanced", max_iter=1000).fit(words.fit_transform(texts), toxic)

    def margins(prompts: list[str]) -> np.ndarray:
        return np.asarray(learned.decision_function(words.transform(prompts)))

    held_out = list(load_split(folder / "pairs/held_out_prompts.csv"))
    safe, harmful = (margins([p.text for p in held_out if p.kind == kind]) for kind in ("safe", "toxic"))
    natural = margins([prompt.text for prompt in load_split(f"safe={folder}/natural.csv")])
    found = [float((safe >= np.quantile(harmful, 1 - share)).mean()) for share in TOXIC]
    return [*found, float((natural >= np.quantile(harmful, 1 - 0.88)).mean())]


def main() -> None:
    """Print the means over the folders, with and without replayed prompts among what is learned."""
    folders = [Path(name) for name in sys.argv[1:]]
    if not folders:
        raise SystemExit("usage: python ceiling.py DIR/seed-0 [DIR/seed-1 ...]")
    for replayed in (False, True):
        columns = zip(*(bound(folder, replayed=replayed) for folder in folders), strict=True)
        means = [fmean(column) for column in columns]
        at = ", ".join(f"{value:.2f} at {share:.2f}" for value, share in zip(means, TOXIC, strict=False))
        learned = "with replay" if replayed else "without replay"
        print(f"{learned}: over-refusal {at}; natural prompts refused at 0.88: {means[-1]:.2f}")


if __name__ == "__main__":
    main()
