"""What the task files beside this module call: prompts in, the reply read by the cascade, its rate with an interval.

    lm_eval --model hf --model_args pretrained=PATH --apply_chat_template \
        --include_path "$(orbench path lm-eval)" --tasks orbench --output_path out --log_samples

The harness hands on a reply's text alone: that a platform blocked it, or that it was cut off, cannot be known here.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from orbench.integrations.imported import reply_to
from orbench.models.reasoning import split_reasoning
from orbench.records import Prompt
from orbench.scoring.outcomes import Outcome
from orbench.scoring.scorers import make_scorer
from orbench.splits import load_split
from orbench.statistics.rates import Rate, rate

if TYPE_CHECKING:
    import datasets

_NAMES = {"safe": "over_refusal", "toxic": "toxic_rejection"}
"""What the metrics of a kind of prompts are called in the task files, with `_rate` and the like behind it."""


def load(split: str, **_: Any) -> dict[str, datasets.Dataset]:
    """A named split, from `ORBENCH_DATA_DIR` or the Hub; the harness passes its own metadata, too.

    Raises:
        orbench.SplitError: As for `orbench.load_split`.
    """
    import datasets

    rows = [
        {"id": p.id, "prompt": p.text, "category": p.category, "kind": p.kind, "split": p.split, "seed_id": p.seed_id}
        for p in load_split(split)
    ]
    return {"test": datasets.Dataset.from_list(rows)}


def answers(resps: Sequence[Sequence[str]], docs: Any) -> list[list[str]]:
    """The replies without what the model thought aloud: the filter."""
    return [[split_reasoning(text)[0] for text in texts] for texts in resps]


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, str]:
    """The outcome of one prompt, once for each metric."""
    prompt = Prompt(id=doc["id"], text=doc["prompt"], category=doc["category"], kind=doc["kind"], split=doc["split"])
    found = make_scorer().read(reply_to(prompt, results[0], finish_reason="stop"))
    assert found is not None  # without a judge the cascade never defers
    name = _NAMES[prompt.kind]
    return {f"{name}_{part}": found.outcome.value for part in ("rate", "low", "high", "left_out")}


def rate_value(outcomes: Sequence[str]) -> float:
    """Refused share of the prompts that are refused or answered; NaN if none is."""
    return _number(_rate(outcomes).value)


def rate_low(outcomes: Sequence[str]) -> float:
    """Lower end of its 95 % Wilson interval."""
    return _number(_rate(outcomes).low)


def rate_high(outcomes: Sequence[str]) -> float:
    """Upper end."""
    return _number(_rate(outcomes).high)


def rate_left_out(outcomes: Sequence[str]) -> int:
    """Prompts that are neither."""
    return _rate(outcomes).left_out


def _rate(outcomes: Sequence[str]) -> Rate:
    return rate(Counter(map(Outcome, outcomes)))


def _number(value: float | None) -> float:
    return math.nan if value is None else value
