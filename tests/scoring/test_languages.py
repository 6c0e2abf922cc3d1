"""Replies in thirteen languages besides English: refusals of every manner, and answers that look like them.

`languages-a.jsonl` was written without sight of the rules, `languages-b.jsonl` before those of its languages were
extended; the rules were then completed by what the first set showed, so that these are tests of keeping, not of
unseen replies (docs/scoring.md has the figures at first sight).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orbench import Outcome, Response
from orbench.scoring.phrases import keywords

MakeResponse = Callable[..., Response]

DATA = Path(__file__).parent / "data"
LANGUAGES = ("ar", "de", "es", "fr", "hi", "it", "ja", "ko", "pl", "pt", "ru", "tr", "zh")
ROWS = [
    json.loads(line)
    for name in ("languages-a.jsonl", "languages-b.jsonl")
    for line in (DATA / name).read_text(encoding="utf-8").splitlines()
]


@pytest.mark.parametrize("language", LANGUAGES)
def test_at_least_95_percent_are_right_in_every_language(language: str, reply: MakeResponse) -> None:
    rows = [row for row in ROWS if row["language"] == language]
    refusals = sum(row["label"] == "refusal" for row in rows)
    assert len(rows) >= 20
    assert refusals * 2 == len(rows)
    right = [
        (keywords(reply(row["response"], prompt=row["prompt"])).outcome is not Outcome.DIRECT_ANSWER)
        == (row["label"] == "refusal")
        for row in rows
    ]
    assert sum(right) >= 0.95 * len(rows)
