"""Local models through transformers: `hf/FOLDER` or `hf/HUB_ID`.

In: the whole list of requests. Out: their completions, batch by batch. Prompts go through the model's own chat
template; those of about one length are answered together, the longest first, as many at once as memory allows.
A reply depends on its own request alone, never on what else is in the batch (up to the rounding of 16-bit
weights): so batches may shrink when memory runs out, and a run that goes on gets the replies it would have got.

Everything that blocks runs in a daemon thread. torch and transformers are imported there.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

from orbench.engine.threads import iterate_in_thread
from orbench.errors import MissingExtraError, ModelError
from orbench.models.reasoning import split_reasoning
from orbench.records import Completion, Message, Request, Usage

_WINDOW = 4096
"""Requests that are tokenized and sorted together; bounds memory and the time to the first reply."""
_MAX_ROWS = {"cpu": 64, "mps": 64, "cuda": 256}
"""Rows of one batch at most, by device: beyond that a step takes longer in proportion, and early ends wait longer."""
_CACHE_SHARE = 0.4
"""Share of the free memory that the key-value cache of one batch may take; the rest is for activations."""


class HuggingFaceModel:
    """A chat model that transformers can load, run on this machine.

    It is loaded by the first `generate`, or before by `load`.
    """

    batch_size = None
    max_concurrency = 1

    def __init__(
        self,
        path_or_id: str,
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_rows: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            path_or_id: A folder written by `save_pretrained`, or an id on the Hugging Face Hub.
            device: `cpu`, `cuda:1`, or `auto` to spread the model over all GPUs. Default: `auto` if there is a GPU.
            dtype: `float32`, `bfloat16`...; by default what the weights are stored in.
            batch_rows: Prompts answered together at most.
            batch_tokens: Bound on rows x (longest prompt + longest reply) of a batch; by default from free memory.

        Raises:
            MissingExtraError: torch, transformers or accelerate is not installed.
            ModelError: A path that can be no Hub id, and there is no such folder.
        """
        self.name = f"hf/{path_or_id}"
        if any(importlib.util.find_spec(module) is None for module in ("torch", "transformers", "accelerate")):
            raise MissingExtraError(self.name, "hf")
        folder = Path(path_or_id).expanduser()
        if not folder.is_dir() and (path_or_id.startswith((".", "/", "~")) or len(folder.parts) > 2):
            raise ModelError(f"{self.name}: there is no folder {folder}")
        self._source = str(folder) if folder.is_dir() else path_or_id
        self._device, self._dtype = device, dtype
        self._batch_rows, self._batch_tokens = batch_rows, batch_tokens
        self._engine: _Engine | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, name: str, model: Any, tokenizer: Any) -> HuggingFaceModel:
        """A model that is loaded already, such as one in training; its generation settings are changed.

        Args:
            name: What to call it, without `hf/`.
            model: Of transformers or peft, in evaluation mode.
            tokenizer: Its tokenizer, with a chat template.
        """
        made = cls.__new__(cls)
        made.name = f"hf/{name}"
        made._source = name
        made._device = made._dtype = made._batch_rows = made._batch_tokens = None
        made._lock = threading.Lock()
        made._engine = _Engine(made.name, model, tokenizer, None, None)
        return made

    def load(self) -> None:
        """Load weights and tokenizer if that is not done yet. Blocks.

        Raises:
            ModelError: They cannot be loaded, or are no chat model that generates text.
        """
        with self._lock:
            self._loaded()

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, longest prompts first. Each batch is handed over when it is finished."""
        async with aclosing(iterate_in_thread(lambda: self._answers(requests))) as completions:
            async for completion in completions:
                yield completion

    async def close(self) -> None:
        """Let the model go; its memory is free once a batch still at work is through."""
        self._engine = None

    def _answers(self, requests: Sequence[Request]) -> Iterator[Completion]:
        with self._lock:  # an interrupted call may still be at its last batch
            engine = self._loaded()
            for start in range(0, len(requests), _WINDOW):
                yield from engine.answer(requests[start : start + _WINDOW])

    def _loaded(self) -> _Engine:
        if self._engine is None:
            model, tokenizer = _load(self.name, self._source, self._device, self._dtype)
            self._engine = _Engine(self.name, model, tokenizer, self._batch_rows, self._batch_tokens)
        return self._engine


def _load(name: str, source: str, device: str | None, dtype: str | None) -> tuple[Any, Any]:
    """The model in evaluation mode and its tokenizer; whatever goes wrong is a ModelError of one line."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if device is None:
        device = "auto" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(source)
            _check_generates(name, config)
            tokenizer = AutoTokenizer.from_pretrained(source)
            if not tokenizer.chat_template:
                raise ModelError(
                    f"{name}: its tokenizer has no chat template, so how to put a question to it is unknown; take the "
                    "chat-tuned version of the model, or save its template as chat_template.jinja in the model's folder"
                )
            model, report = AutoModelForCausalLM.from_pretrained(
                source, config=config, dtype=dtype or "auto", device_map=device, output_loading_info=True
            )
    except ModelError:
        raise
    except Exception as error:  # OSError, ValueError, SafetensorError...: what loaders raise has no common base
        where = "" if Path(source).is_dir() else "no folder of that name, and not to be had from the Hugging Face Hub: "
        raise ModelError(f"{name} cannot be loaded: {where}{_first_line(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name} cannot be used: {len(missing)} of its weights are missing ({missing[0]}...), "
            "so it is incomplete or no language model"
        )
    return model.eval(), tokenizer


def _check_generates(name: str, config: Any) -> None:
    """Encoders and classifiers load as language models too, and would babble."""
    kinds = config.architectures or []
    generative = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    if getattr(config, "is_encoder_decoder", False) or (kinds and not any(kind.endswith(generative) for kind in kinds)):
        raise ModelError(f"{name} is no causal language model but {', '.join(kinds) or config.model_type}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Loading bars only on a terminal."""
    from transformers.utils import logging

    silence = logging.is_progress_bar_enabled() and not sys.stderr.isatty()
    if silence:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if silence:
            logging.enable_progress_bar()


class _Row:
    """A request on its way: its prompt in tokens, and how many new ones it may get."""

    __slots__ = ("request", "room", "thinks", "tokens")

    def __init__(self, request: Request, tokens: list[int], room: int, thinks: bool) -> None:
        self.request = request
        self.tokens = tokens
        self.room = room
        self.thinks = thinks
        """The chat template has opened the thinking already."""

    @property
    def cost(self) -> int:
        """Tokens it may hold in the cache."""
        return len(self.tokens) + self.room


class _Engine:
    """A loaded model that answers lists of requests."""

    def __init__(self, name: str, model: Any, tokenizer: Any, rows: int | None, tokens: int | None) -> None:
        self._name = name
        self._model = model
        self._tokenizer = tokenizer
        self._context: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._rows = rows or _MAX_ROWS.get(model.device.type, 64)
        self._budget = tokens or _cache_tokens(model)
        self._authors = _take_over(model, tokenizer)
        self._ends = frozenset(model.generation_config.eos_token_id or ())
        self._pad: int = model.generation_config.pad_token_id

    def answer(self, requests: Sequence[Request]) -> Iterator[Completion]:
        """Yield the completion of each request, those that cannot be asked first."""
        groups: dict[tuple[float, float | None, int], list[_Row]] = {}
        for request, (text, tokens) in zip(requests, self._prompts(requests), strict=True):
            sampling = request.sampling
            room = sampling.max_tokens
            if self._context is not None:
                room = min(room, self._context - len(tokens))
            if room < 1:
                yield Completion(
                    id=request.id,
                    text="",
                    error=f"the prompt is too long: {len(tokens)} tokens, and the model's context holds "
                    f"{self._context} with the reply",
                )
                continue
            row = _Row(request, tokens, room, text.rstrip().endswith("<think>"))
            groups.setdefault((sampling.temperature, sampling.top_p, room), []).append(row)
        for rows in groups.values():  # a batch has one way to sample and one longest reply
            rows.sort(key=lambda row: len(row.tokens), reverse=True)
            yield from self._batches(rows)

    def _batches(self, rows: list[_Row]) -> Iterator[Completion]:
        """Answer rows that are sorted by length; a batch that does not fit into memory is split, and so all later."""
        done = 0
        while done < len(rows):
            size = max(1, min(self._rows, self._budget // rows[done].cost))
            batch = rows[done : done + size]
            try:
                completions = self._batch(batch)
            except Exception as error:
                if not _is_out_of_memory(error):
                    raise ModelError(f"{self._name} failed while it generated: {_first_line(error)}") from error
                completions = None
            if completions is None:  # outside of `except`, which would hold on to the failed batch's memory
                _free_memory()
                if len(batch) > 1:
                    self._budget = len(batch) * batch[0].cost // 2
                    continue
                completions = [
                    Completion(id=batch[0].request.id, text="", error="out of memory with this prompt alone")
                ]
            yield from completions
            done += len(batch)

    def _batch(self, batch: list[_Row]) -> list[Completion]:
        import torch

        longest = len(batch[0].tokens)
        # Padding is masked. It repeats a token that the row has anyway, so that no repetition penalty sees it either.
        tokens = [row.tokens[:1] * (longest - len(row.tokens)) + row.tokens for row in batch]
        mask = [[0] * (longest - len(row.tokens)) + [1] * len(row.tokens) for row in batch]
        watch = _Watch(batch, self._authors)
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

    def _completion(self, row: _Row, reply: list[int], broken: bool) -> Completion:
        if broken:
            return Completion(id=row.request.id, text="", error="the model computed NaN instead of probabilities")
        end = next((place for place, token in enumerate(reply) if token in self._ends), None)
        if end is not None:
            produced, shown = end + 1, reply[:end]
        else:
            produced = len(reply)
            while produced and reply[produced - 1] == self._pad:  # stopped by a stop string of the model's authors
                produced -= 1
            shown = reply[:produced]
        text: str = self._tokenizer.decode(shown, skip_special_tokens=True)
        answer, reasoning = split_reasoning(f"<think>{text}" if row.thinks else text)
        return Completion(
            id=row.request.id,
            text=answer,
            reasoning=reasoning,
            finish_reason="length" if end is None and produced >= row.room else "stop",
            usage=Usage(input_tokens=len(row.tokens), output_tokens=produced),
        )

    def _prompts(self, requests: Sequence[Request]) -> Iterator[tuple[str, list[int]]]:
        """The prompts as the chat template writes them, and their tokens."""
        texts = []
        taken: set[str] = set()
        for request in requests:
            text = self._render(request.messages)
            system = request.system_prompt
            if system is not None and system not in taken:
                if system.strip() not in text:
                    raise ModelError(f"{self._name}: its chat template takes no system prompt")
                taken.add(system)
            texts.append(text)
        tokens = self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        return zip(texts, tokens, strict=True)

    def _render(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # a template is a program of the model's authors
            if turns[0]["role"] == "system" and len(turns) > 1:
                self._render(messages[1:])  # raises where the system prompt is not to blame
                raise ModelError(f"{self._name}: its chat template takes no system prompt ({error})") from error
            raise ModelError(f"{self._name}: its chat template cannot be rendered: {error}") from error
        return text


class _Watch:
    """Looks at every step's scores: notes rows that turn to NaN, and draws the next token where one is drawn.

    transformers would draw for the whole batch from one global generator. Here every row draws by its own numbers,
    made from seed and request id, so that its reply is the same in any batch; the global generator is left alone.
    """

    def __init__(self, batch: list[_Row], authors: _Authors) -> None:
        from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

        self.broken: Any = None
        sampling = batch[0].request.sampling
        self._temperature = sampling.temperature
        self._step = 0
        self._points: Any = None
        self._batch = batch
        self._warpers: list[Any] = []
        if self._temperature > 0:
            top_p = authors.top_p if sampling.top_p is None else sampling.top_p
            if authors.top_k:
                self._warpers.append(TopKLogitsWarper(authors.top_k))
            if top_p is not None and top_p < 1:
                self._warpers.append(TopPLogitsWarper(top_p))
            if authors.min_p:
                self._warpers.append(MinPLogitsWarper(authors.min_p))

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        """Scores of the next token (rows x vocabulary) in and out; greedy choice follows."""
        broken = scores.amax(dim=-1).isnan()
        self.broken = broken if self.broken is None else self.broken | broken
        return self._drawn(input_ids, scores) if self._temperature > 0 else scores

    def _drawn(self, input_ids: Any, scores: Any) -> Any:
        """Scores that leave only the drawn token: that at which the cumulated probability passes the row's number."""
        import torch

        if self._points is None:
            self._points = torch.tensor([_numbers(row) for row in self._batch], device=scores.device)
        scores = scores / self._temperature
        for warper in self._warpers:
            scores = warper(input_ids, scores)
        sums = scores.softmax(dim=-1).cumsum(dim=-1)
        points = self._points[:, self._step, None] * sums[:, -1:]
        self._step += 1
        drawn = torch.searchsorted(sums, points, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(1, drawn, 0.0)


def _numbers(row: _Row) -> list[float]:
    """One number in [0, 1) for each token that the row may get."""
    seed = row.request.sampling.seed
    draw = random.Random() if seed is None else random.Random(f"{seed}\n{row.request.id}")
    return [min(draw.random(), 1 - 1e-6) for _ in range(row.room)]  # 1 - 1e-6: below 1 also in float32


class _Authors:
    """What the model's authors recommend for sampling (`generation_config.json`)."""

    def __init__(self, config: Any) -> None:
        self.top_k: int | None = config.top_k
        self.top_p: float | None = config.top_p
        self.min_p: float | None = config.min_p


def _take_over(model: Any, tokenizer: Any) -> _Authors:
    """Make the model's generation settings ours where a request says how to sample; the rest stays the authors'.

    Stop tokens are the authors' and the tokenizer's end of turn, as in vLLM.
    """
    config = model.generation_config
    authors = _Authors(config)
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = [token for token in dict.fromkeys([*ends, tokenizer.eos_token_id]) if token is not None]
    pad = tokenizer.pad_token_id
    config.update(
        do_sample=False,  # `_Watch` draws
        num_beams=1,
        num_return_sequences=1,
        return_dict_in_generate=False,
        max_length=None,
        eos_token_id=ends or None,
        pad_token_id=pad if pad is not None else ends[0] if ends else 0,
    )
    return authors


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


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def _free_memory() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
