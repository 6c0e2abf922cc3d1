"""A transformers sequence classifier of one's own on replies: in batches, and one at a time.

    python benchmarks/classifiers.py [--replies 256] [--runs 3]

Needs the extra `hf`. The classifiers are made on the spot, with weights drawn at random: their speed does not depend on
what they know. The replies are those of tools/replies.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
import transformers

from orbench.records import Response
from orbench.scoring.scorers import BATCH
from orbench.scoring.transformer import TransformerStage
from orbench.testing import make_tiny_model

REPLIES = Path(__file__).parent.parent / "tools" / "replies"
SIZES = {"tiny": (32, 1), "small": (256, 4)}
"""Width and layers."""


def replies(number: int) -> list[Response]:
    """So many of our own replies, in English."""
    lines = [line for file in sorted(REPLIES.glob("english-*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    rows = [json.loads(line) for line in lines[:number]]
    return [
        Response(prompt_id=str(n), split="", category="", kind="safe", prompt=row["prompt"], response=row["response"])
        for n, row in enumerate(rows)
    ]


def make(folder: Path, width: int, layers: int) -> TransformerStage:
    """A classifier that knows nothing."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(make_tiny_model(folder / "words", steps=0))
    tokenizer.chat_template = None
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        max_position_embeddings=512,
        pad_token_id=tokenizer.pad_token_id,
        id2label={0: "answer", 1: "refusal"},
    )
    transformers.LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return TransformerStage(f"hf/{folder}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replies", type=int, default=256)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    given = replies(options.replies)
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory() as folder:
            stage = make(Path(folder), *size)
            times: dict[int, list[float]] = {1: [], BATCH: []}
            for _ in range(options.runs):
                for batch, taken in times.items():
                    start = time.perf_counter()
                    for n in range(0, len(given), batch):
                        stage.read_all(given[n : n + batch])
                    taken.append(time.perf_counter() - start)
            one, many = (statistics.median(taken) for taken in times.values())
            turns = [a / b for a, b in zip(*times.values(), strict=True)]
            print(
                f"{name}, {len(given)} replies: {many:.2f} s in batches of {BATCH}, {one:.2f} s one at a time, "
                f"{one / many:.1f} x as long (turns {min(turns):.1f}-{max(turns):.1f})"
            )


if __name__ == "__main__":
    main()
