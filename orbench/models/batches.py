"""Batched generation with a model of transformers: what is answered together, and what happens without memory.

Prompts of about one length are answered together, the longest first, as many at once as memory allows. A reply
depends on its own request alone, never on what else is in the batch (up to the rounding of 16-bit weights): so
batches may shrink when memory runs out, and a run that goes on gets the replies it would have got.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from orbench.errors import ModelError
from orbench.models.chat import Chat, Question, first_line
from orbench.models.draws import Stopped, Watch, take_over
from orbench.records import Completion, Request

_MAX_ROWS = {"cpu": 64, "mps": 64, "cuda": 256}
"""Rows of one batch at most, by device: beyond that a step takes longer in proportion, and early ends wait longer."""
_CACHE_SHARE = 0.4
"""Share of the free memory that the key-value cache of one batch may take; the rest is for activations."""


class Batches:
    """A loaded model that answers lists of requests."""

    def __init__(self, name: str, model: Any, tokenizer: Any, chat: Chat, rows: int | None, tokens: int | None) -> None:
        """Use the model.

        Args:
            name: For messages.
            model: Of transformers, in evaluation mode; its generation settings are changed.
            tokenizer: The model's.
            chat: The tokenizer with its template.
            rows: Prompts answered together at most; by default what suits the device.
            tokens: Bound on rows x (longest prompt + longest reply) of a batch; by default from free memory.
        """
        self._name = name
        self._model = model
        self._tokenizer = tokenizer
        self.chat = chat
        self._rows = rows or _MAX_ROWS.get(model.device.type, 64)
        self._budget = tokens or _cache_tokens(model)
        self._authors = take_over(model, tokenizer)
        self._ends = frozenset(model.generation_config.eos_token_id or ())
        self._pad: int = model.generation_config.pad_token_id

    def answer(self, requests: Sequence[Request], stopped: threading.Event) -> Iterator[Completion]:
        """Yield the completion of each request, those that cannot be asked first.

        Args:
            requests: What to answer.
            stopped: Once it is set, the batch at hand is broken off, and there are no more completions.
        """
        questions, failed = self.chat.prepare(requests)
        yield from failed
        groups: dict[tuple[float, float | None, int], list[Question]] = {}
        for question in questions:
            sampling = question.request.sampling
            groups.setdefault((sampling.temperature, sampling.top_p, question.room), []).append(question)
        for rows in groups.values():  # a batch has one way to sample and one longest reply
            rows.sort(key=lambda row: len(row.tokens), reverse=True)
            yield from self._batches(rows, stopped)

    def _batches(self, rows: list[Question], stopped: threading.Event) -> Iterator[Completion]:
        """Answer rows that are sorted by length; a batch that does not fit into memory is split, and so all later."""
        done = 0
        while done < len(rows):
            size = max(1, min(self._rows, self._budget // rows[done].cost))
            batch = rows[done : done + size]
            try:
                completions = self._batch(batch, stopped)
            except Stopped:
                return
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise ModelError(f"{self._name} failed while it generated: {first_line(error)}") from error
                completions = None
            if completions is None:  # outside of `except`, which would hold on to the failed batch's memory
                free_memory()
                if len(batch) > 1:
                    self._budget = len(batch) * batch[0].cost // 2
                    continue
                completions = [
                    Completion(id=batch[0].request.id, text="", error="out of memory with this prompt alone")
                ]
            yield from completions
            done += len(batch)

    def _batch(self, batch: list[Question], stopped: threading.Event) -> list[Completion]:
        import torch

        longest = len(batch[0].tokens)
        # Padding is masked. It repeats a token that the row has anyway, so that no repetition penalty sees it either.
        tokens = [row.tokens[:1] * (longest - len(row.tokens)) + row.tokens for row in batch]
        mask = [[0] * (longest - len(row.tokens)) + [1] * len(row.tokens) for row in batch]
        watch = Watch(batch, self._authors, stopped)
        output = self._model.generate(
            input_ids=torch.tensor(tokens, device=self._model.device),
            attention_mask=torch.tensor(mask, device=self._model.device),
            max_new_tokens=batch[0].room,
            logits_processor=[watch],
            tokenizer=self._tokenizer,
        )
        replies = output[:, longest:].tolist()
        return [
            self._completion(row, reply, broken)
            for row, reply, broken in zip(batch, replies, watch.broken.tolist(), strict=True)
        ]

    def _completion(self, row: Question, reply: list[int], broken: bool) -> Completion:
        if broken:
            return Completion(
                id=row.request.id, text="", error="the model computed NaN or infinity instead of probabilities"
            )
        end = next((place for place, token in enumerate(reply) if token in self._ends), None)
        if end is not None:
            return self.chat.completion(row, reply[:end], end + 1, "stop")
        produced = len(reply)
        while produced and reply[produced - 1] == self._pad:  # stopped by a stop string of the model's authors
            produced -= 1
        return self.chat.completion(row, reply[:produced], produced, "length" if produced >= row.room else "stop")


def _cache_tokens(model: Any) -> int:
    """Tokens whose keys and values fit into the memory that is free now."""
    import torch

    config = model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", 1)
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    layer = 2 * width * (getattr(config, "num_key_value_heads", None) or heads) * model.dtype.itemsize
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    if devices:
        free = sum(torch.cuda.mem_get_info(device)[0] for device in devices)
    else:
        free = importlib.import_module("psutil").virtual_memory().available  # comes with accelerate
    return max(1, int(_CACHE_SHARE * free / (layer * config.num_hidden_layers)))


def _is_out_of_memory(error: Exception) -> bool:
    """Whether torch could not allocate: a class of its own on CUDA, words elsewhere."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    )


def free_memory() -> None:
    """Give back what torch holds and nothing uses any more."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
