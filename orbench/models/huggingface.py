"""Local models through transformers: `hf/FOLDER`, `hf/HUB_ID`, and with an adapter `hf/BASE+ADAPTER`.

In: the whole list of requests. Out: their completions, batch by batch (`orbench.models.batches`), each prompt put
through the model's own chat template (`orbench.models.chat`).

Everything that blocks runs in a daemon thread. torch and transformers are imported there.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Annotated, Any

import msgspec

from orbench.engine.threads import iterate_in_thread
from orbench.errors import MissingExtraError, ModelError
from orbench.models.batches import Batches, free_memory
from orbench.models.chat import (
    Chat,
    ChatOptions,
    find_adapter,
    model_digest,
    one_line,
    plain_options,
    reply_options,
    take_options,
    tokenizer_source,
    use_template,
)
from orbench.records import Completion, Request

_WINDOW = 4096
"""Requests that are tokenized and sorted together; bounds memory and the time to the first reply."""

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class _Options(ChatOptions, frozen=True, kw_only=True):
    batch_rows: _Positive | None = None
    """Prompts answered together at most."""
    batch_tokens: _Positive | None = None
    """Bound on rows x (longest prompt + longest reply) of a batch; by default from free memory."""


class HuggingFaceModel:
    """A chat model that transformers can load, run on this machine.

    It is loaded by the first `generate`, or before by `load`.

    Attributes:
        digest: Of the files of a model on this machine (`orbench.models.files`); None for one of the Hub.
        facts: What the replies were made with, once it is loaded: versions, device, type of the weights, and the
            digest of the chat template.
    """

    batch_size = None
    max_concurrency = 1

    def __init__(self, path_or_id: str, **options: Any) -> None:
        """Name the model; nothing is loaded yet.

        Args:
            path_or_id: A folder written by `save_pretrained`, or an id on the Hugging Face Hub. `BASE+ADAPTER` puts
                an adapter of peft on it, merged into the weights unless these are quantised.
            options: `batch_rows`, `batch_tokens`, `chat_template`, `chat_template_kwargs` and `truncate`
                (docs/local-models.md) are ours. Others go to `from_pretrained`: `dtype` (default: what the weights
                are stored in), `device_map` (default: `auto` if there is a GPU), `quantization_config`,
                `attn_implementation`, `revision`...

        Raises:
            MissingExtraError: torch, transformers or accelerate is not installed, or peft for an adapter.
            UsageError: A value that an option does not take, or that cannot be saved in a run folder.
            ModelError: A path that can be no Hub id, and there is no such folder.
        """
        self.name = f"hf/{path_or_id}"
        if any(importlib.util.find_spec(module) is None for module in ("torch", "transformers", "accelerate")):
            raise MissingExtraError(self.name, "hf")
        self._given = options = plain_options(self.name, options)
        self._options, self._loading = take_options(self.name, options, _Options)
        self._source, self._adapter = find_adapter(self.name, path_or_id)
        if self._adapter is not None and importlib.util.find_spec("peft") is None:
            raise MissingExtraError(self.name, "peft")
        self.settings = reply_options(options)
        self.digest = model_digest(self.name, self._source, self._adapter, self._options)
        self.facts: dict[str, Any] = {}
        self._chat: Chat | None = None
        self._engine: Batches | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, name: str, model: Any, tokenizer: Any) -> HuggingFaceModel:
        """A model that is loaded already, such as one in training; its generation settings are changed.

        Args:
            name: Folder or Hub id that it came from or goes to, without `hf/`.
            model: Of transformers or peft, in evaluation mode.
            tokenizer: Its tokenizer, with a chat template.
        """
        made = cls(name)
        made.digest = None  # of files, which are not what it is now
        made._ready(model, tokenizer)
        return made

    @property
    def adaptations(self) -> list[str]:
        """What was done to prompts, for the run folder."""
        return self._chat.adaptations if self._chat else []

    def load(self) -> None:
        """Load weights and tokenizer if that is not done yet. Blocks.

        Raises:
            ModelError: They cannot be loaded, or are no chat model that generates text.
        """
        with self._lock:
            self._loaded()

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Answer all requests, longest prompts first. Each batch is handed over when it is finished."""
        stopped = threading.Event()
        async with aclosing(iterate_in_thread(lambda: self._answers(requests, stopped), stopped)) as completions:
            async for completion in completions:
                yield completion

    async def close(self) -> None:
        """Let the model go; its memory is free once a batch still at work is through."""
        if self._engine is not None:
            self._engine = None
            free_memory()

    def _answers(self, requests: Sequence[Request], stopped: threading.Event) -> Iterator[Completion]:
        with self._lock:  # an interrupted call may still be at its last batch
            engine = self._loaded()
            for start in range(0, len(requests), _WINDOW):
                yield from engine.answer(requests[start : start + _WINDOW], stopped)

    def _loaded(self) -> Batches:
        if self._engine is None:
            self._ready(*self._load())
        assert self._engine is not None
        return self._engine

    def _ready(self, model: Any, tokenizer: Any) -> None:
        """Make the engine of a loaded model."""
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._chat = chat = Chat(self.name, tokenizer, context, self._options)
        self.facts = {
            **{package: importlib.metadata.version(package) for package in ("transformers", "torch")},
            "device": str(model.device),
            "dtype": str(model.dtype).removeprefix("torch."),
            "chat_template": chat.digest,
            "options": self._given,
        }
        rows, tokens = self._options.batch_rows, self._options.batch_tokens
        self._engine = Batches(self.name, model, tokenizer, chat, rows, tokens)

    def _load(self) -> tuple[Any, Any]:
        """The model in evaluation mode and its tokenizer; whatever goes wrong is a ModelError of one line."""
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        gpu = "auto" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        loading = {"dtype": "auto", "device_map": gpu, **self._loading}
        of_hub = {key: loading[key] for key in ("revision", "trust_remote_code") if key in loading}
        try:
            with quiet_loading():
                config = AutoConfig.from_pretrained(self._source, **of_hub)
                _check_generates(self.name, config)
                tokenizer = AutoTokenizer.from_pretrained(tokenizer_source(self._source, self._adapter), **of_hub)
                use_template(self.name, tokenizer, self._options)
                model, report = AutoModelForCausalLM.from_pretrained(
                    self._source, config=config, output_loading_info=True, **loading
                )
                if missing := sorted(report["missing_keys"]):
                    raise ModelError(
                        f"{self.name} cannot be used: {len(missing)} of its weights are missing ({missing[0]}...), "
                        "so it is incomplete or no language model"
                    )
                if self._adapter is not None:
                    model = _with_adapter(model, self._adapter)
        except ModelError:
            raise
        except Exception as error:  # OSError, ValueError, SafetensorError...: what loaders raise has no common base
            local = Path(self._source).is_dir()
            where = "" if local else "no folder of that name, and not to be had from the Hugging Face Hub: "
            raise ModelError(f"{self.name} cannot be loaded: {where}{one_line(error)}") from error
        return model.eval(), tokenizer


def _with_adapter(model: Any, adapter: str) -> Any:
    """The model with the adapter merged into its weights, so that it costs no time; beside quantised ones."""
    from peft import PeftModel

    adapted = PeftModel.from_pretrained(model, adapter)
    return adapted if getattr(model, "is_quantized", False) else adapted.merge_and_unload()


def _check_generates(name: str, config: Any) -> None:
    """Encoders and classifiers load as language models too, and would babble."""
    kinds = config.architectures or []
    generative = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    if getattr(config, "is_encoder_decoder", False) or (kinds and not any(kind.endswith(generative) for kind in kinds)):
        raise ModelError(f"{name} is no causal language model but {', '.join(kinds) or config.model_type}")


@contextmanager
def quiet_loading() -> Iterator[None]:
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
