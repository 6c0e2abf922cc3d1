"""BERTScore between prompts of a set: how alike they are in meaning, by a model that the user names.

In: texts and a model's folder or name. Out: means over pairs. Needs the extra `hf`; nothing is loaded without being
asked for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from orbench.errors import MissingExtraError, ModelError, UsageError
from orbench.models import is_installed

PAIRS = 1000
_BATCH = 32


class BertScore(msgspec.Struct, frozen=True, kw_only=True):
    """Means over pairs of prompts; higher is more alike.

    Not rescaled: the paper's 0.41 to 0.61 are, with the baseline of its model, so that an unrelated pair has about 0.
    """

    precision: float
    recall: float
    f1: float
    pairs: int
    model: str


def bertscore(texts: Sequence[str], model: str, *, pairs: int = PAIRS, seed: int = 0) -> BertScore:
    """BERTScore over random pairs of different prompts.

    Each token is matched with the most similar one of the other text, by the cosine of the model's last hidden states;
    special tokens do not count, and all others count the same (no weights by rarity).

    Args:
        texts: Two prompts at least.
        model: A folder or name that `transformers` loads.
        pairs: How many pairs to draw, with replacement.
        seed: Draws them.

    Raises:
        UsageError: Fewer than two prompts, or no pair wanted.
        MissingExtraError: The extra `hf` is not installed.
        ModelError: The model cannot be loaded.

    Source:
        T. Zhang et al., BERTScore, ICLR 2020, section 3.
    """
    if len(texts) < 2 or pairs < 1:
        raise UsageError(f"BERTScore of {pairs} pairs of {len(texts)} prompts: at least one pair of two prompts")
    check_installed()
    import torch

    tokenizer, network = _load(model)
    draw = random.Random(seed)
    chosen = [draw.sample(range(len(texts)), 2) for _ in range(pairs)]
    needed = sorted({place for pair in chosen for place in pair}, key=lambda place: len(texts[place]))
    states: dict[int, Any] = {}
    with torch.inference_mode():
        for at in range(0, len(needed), _BATCH):
            places = needed[at : at + _BATCH]
            batch = tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=512,
                return_tensors="pt",
                return_special_tokens_mask=True,
            )
            counts = (1 - batch.pop("special_tokens_mask")) * batch["attention_mask"]
            hidden = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
            hidden = torch.nn.functional.normalize(hidden.float(), dim=-1)
            for row, place in enumerate(places):
                states[place] = hidden[row][counts[row].bool()]
    precisions, recalls, f1s = [], [], []
    for one, other in chosen:
        similarity = states[one] @ states[other].T
        precision, recall = float(similarity.max(1).values.mean()), float(similarity.max(0).values.mean())
        precisions.append(precision)
        recalls.append(recall)
        f1s.append(2 * precision * recall / (precision + recall))
    return BertScore(
        precision=sum(precisions) / pairs,
        recall=sum(recalls) / pairs,
        f1=sum(f1s) / pairs,
        pairs=pairs,
        model=model,
    )


def check_installed() -> None:
    """Before anything is asked.

    Raises:
        MissingExtraError: The extra `hf` is not installed.
    """
    if not (is_installed("torch") and is_installed("transformers")):
        raise MissingExtraError("BERTScore", "hf")


@lru_cache(maxsize=1)
def _load(model: str) -> tuple[Any, Any]:
    """Tokenizer and network; kept for the next category."""
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model)
        network = AutoModel.from_pretrained(model).eval()
    except (OSError, ValueError) as error:
        raise ModelError(f"{model}: no model that BERTScore can use: {' '.join(str(error).split())[:200]}") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer, network
