"""What a training loads: the libraries of the extra `train`, a tokenizer, a model, its adapters.

In: a folder or Hub id, and the settings. Out: what TRL's trainers take; errors say what cannot be loaded, and why.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

from orbench.errors import MissingExtraError, ModelError, UsageError
from orbench.mitigation.config import Training

_MODULES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
_ALL = "all-linear"


def need_extra(what: str) -> None:
    """Raise MissingExtraError where a module of the extra `train` is missing."""
    if any(importlib.util.find_spec(module) is None for module in _MODULES):
        raise MissingExtraError(what, "train")


def quiet() -> None:
    """Bars of the libraries only on a terminal, and their warnings to developers not at all."""
    import datasets
    from transformers.utils import logging

    logging.set_verbosity_error()
    if not sys.stderr.isatty():
        logging.disable_progress_bar()
        datasets.disable_progress_bars()


def load_tokenizer(source: str) -> Any:
    """The tokenizer of a model that is to be trained.

    Raises:
        ModelError: It cannot be loaded, or has no chat template.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
    except Exception as error:  # what loaders raise has no common base
        raise ModelError(f"{source}: no tokenizer can be loaded from it: {_first_line(error)}") from error
    if not tokenizer.chat_template:
        raise ModelError(
            f"{source}: its tokenizer has no chat template, so how to put a question to it is unknown; take the "
            "chat-tuned version, or save a template as chat_template.jinja in the model's folder"
        )
    return tokenizer


def context_of(config: Any) -> int | None:
    """Tokens that a model of this configuration can read; None where it has no bound."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_context(source: str) -> int | None:
    """The same of a model that is not loaded.

    Raises:
        ModelError: Its configuration cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        return context_of(AutoConfig.from_pretrained(source))
    except Exception as error:
        raise ModelError(f"{source} cannot be loaded for training: {_first_line(error)}") from error


def load_model(config: Training) -> Any:
    """The model to train, in the precision that was asked for.

    Raises:
        ModelError: It cannot be loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(config.seed)
    # Weights stay float32 where all of them are trained: a step would vanish in bfloat16's rounding.
    dtype = torch.bfloat16 if config.lora_rank and precision(config) == "bfloat16" else torch.float32
    try:
        return AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype)
    except Exception as error:
        raise ModelError(f"{config.model} cannot be loaded for training: {_first_line(error)}") from error


def precision(config: Training) -> str:
    """`bfloat16` or `float32`: that of the settings, or what suits this machine."""
    import torch

    if config.dtype != "auto":
        return config.dtype
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def check_targets(model: Any, config: Training) -> None:
    """Look whether the model has the modules that are to get an adapter.

    Raises:
        UsageError: One is missing; names those that there are.
    """
    if not config.lora_rank or config.lora_targets == _ALL:
        return
    there = {name.rpartition(".")[2] for name, module in model.named_modules() if _is_matrix(module)}
    for target in _targets(config):
        if target not in there:
            raise UsageError(
                f"--lora-targets: {config.model} has no module {target!r}; it has {', '.join(sorted(there))}; or take "
                f"{_ALL}"
            )


def _is_matrix(module: Any) -> bool:
    return getattr(getattr(module, "weight", None), "ndim", 0) == 2


def _targets(config: Training) -> list[str]:
    return [name.strip() for name in config.lora_targets.split(",")]


def adapters(config: Training) -> Any:
    """The settings of the adapters as peft takes them; None where all weights are trained."""
    if not config.lora_rank:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=_ALL if config.lora_targets == _ALL else _targets(config),
        task_type="CAUSAL_LM",
    )


def versions() -> dict[str, str]:
    """Of the libraries that train."""
    from importlib.metadata import version

    return {name: version(name) for name in _MODULES}


def _first_line(error: BaseException) -> str:
    """What an error says, at least a sentence of it."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join([first.strip(), *(line.strip() for line in more)]) if first.rstrip().endswith(":") else first
