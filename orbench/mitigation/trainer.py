"""Trains a model with TRL's trainers, from settings to a folder that `hf/FOLDER` evaluates.

OUT/                the trained model: the best checkpoint, or the last where none could be chosen
OUT/adapter/        the LoRA adapters alone, where they were trained
OUT/last/           where another checkpoint was taken: the last weights, of LoRA the adapters
OUT/training.json   settings, rows, scores of checkpoints, which was taken and why
OUT/scores/         a run folder of each checkpoint
OUT/checkpoints/    the last checkpoint, to go on from
"""

from __future__ import annotations

import importlib.util
import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench.engine.run_folder import write_json
from orbench.errors import MissingExtraError, ModelError, RunError, UsageError
from orbench.mitigation.checkpoints import ENOUGH, Score, best, prompts_needed
from orbench.mitigation.config import Dpo, Sft, Training
from orbench.mitigation.data import (
    UNASKABLE,
    Rows,
    askable,
    check_model,
    digests,
    load_examples,
    load_validation,
    pair_rows,
    sft_rows,
)
from orbench.mitigation.files import Example
from orbench.splits import Split

TRAINING = "training.json"
_MODULES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")
_CHECKPOINTS, _LAST = "checkpoints", "last"
_CHANGED = {"data": "the data has", "validation": "the validation prompts have", "model": "the model has"}
_STATE = "trainer_state.json"
"""What the Trainer writes last into a checkpoint."""
_WAIT_S = 7 * 24 * 3600
"""Seconds that other processes wait while the first scores a checkpoint; torch's half an hour is soon over."""
_ALL = "all-linear"
_LOGS = 50
"""Times that the loss is looked at, at least, and at most every tenth step."""


class Trained(msgspec.Struct, kw_only=True):
    """What came of a training; `training.json`."""

    orbench_version: str
    method: str
    config: dict[str, Any]
    digests: dict[str, str] = {}
    """Of the data, of what was mixed in, of the validation prompts and of the model, as they were at the start."""
    rows: dict[str, int]
    """Kind to rows."""
    dropped: dict[str, int]
    steps: int = 0
    loss: float | None = None
    """Mean over the training."""
    scores: list[Score] = []
    taken: int | None = None
    """Step of the checkpoint that lies in the folder; 0 is the untrained start."""
    notes: list[str] = []
    versions: dict[str, str] = {}
    finished: bool = False


def sft(config: Sft, examples: list[Example] | None = None) -> Trained:
    """Fine-tune on good replies.

    Args:
        config: The settings.
        examples: Rows instead of those of `config.data`.

    Raises:
        orbench.OrbenchError: See `train`.
    """
    need_extra("orbench align sft")
    check_model(config)
    rows = load_examples(config) if examples is None else examples

    def make(model: Any, tokenizer: Any, data: Any, peft: Any, common: dict[str, Any]) -> Any:
        from trl import SFTConfig, SFTTrainer

        arguments = SFTConfig(**common, completion_only_loss=not config.learn_prompts)
        return SFTTrainer(model, arguments, train_dataset=data, processing_class=tokenizer, peft_config=peft)

    return train("sft", config, lambda tokenizer, context: sft_rows(config, rows, tokenizer, context), make, examples)


def dpo(config: Dpo) -> Trained:
    """Optimise preferences, by DPO or one of its kin, or by KTO.

    Raises:
        orbench.OrbenchError: See `train`.
    """
    check_model(config)

    def make(model: Any, tokenizer: Any, data: Any, peft: Any, common: dict[str, Any]) -> Any:
        from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

        given = {"train_dataset": data, "processing_class": tokenizer, "peft_config": peft}
        if config.loss == "kto":
            return KTOTrainer(model, args=KTOConfig(**common, beta=config.beta), **given)
        losses = {config.loss: 1.0, **({"sft": config.sft_weight} if config.sft_weight else {})}
        arguments = DPOConfig(**common, beta=config.beta, loss_type=list(losses), loss_weights=list(losses.values()))
        return DPOTrainer(model, args=arguments, **given)

    return train("dpo", config, lambda tokenizer, context: pair_rows(config, tokenizer, context), make)


def train(
    method: str,
    config: Training,
    make_rows: Callable[[Any, int | None], Rows],
    make_trainer: Callable[[Any, Any, Any, Any, dict[str, Any]], Any],
    examples: list[Example] | None = None,
) -> Trained:
    """What all methods share: load, check, train, score, choose, save. Goes on where it was interrupted.

    Args:
        method: The command.
        config: Its settings.
        make_rows: From the tokenizer and the tokens that the model can read.
        make_trainer: From model, tokenizer, rows, adapters and the settings that all of TRL's trainers share.
        examples: Rows that stand for those of `config.data`.

    Raises:
        MissingExtraError: TRL and the like are not installed.
        ModelError: The model cannot be loaded, or its tokenizer has no chat template.
        UsageError: The data is of another model, or the model has no module that is to get an adapter.
        RunError: The folder holds another training, the data has changed, no row is left, a judge failed on the
            replies of a checkpoint, or the loss is no number.
    """
    need_extra(f"orbench align {method}")
    quiet()
    out = Path(config.out)
    started_from = digests(config, examples)
    done = reopen(out, method, config, started_from)
    if done is not None and done.finished:
        return done
    tokenizer = load_tokenizer(config.model)
    model = load_model(config)
    check_targets(model, config)
    context = context_of(model.config)
    rows = make_rows(tokenizer, context)
    validation, unaskable = askable(load_validation(config) if config.checkpoints else None, tokenizer, context)
    if unaskable:
        rows.dropped[UNASKABLE] = unaskable
    trained = Trained(
        orbench_version=orbench.__version__,
        method=method,
        config=msgspec.to_builtins(config),
        digests=started_from,
        rows=rows.counts,
        dropped=rows.dropped,
        notes=rows.notes,
        versions=versions(),
    )
    _run(trained, config, rows, model, tokenizer, validation, make_trainer)
    return trained


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
    dtype = torch.bfloat16 if config.lora_rank and _precision(config) == "bfloat16" else torch.float32
    try:
        return AutoModelForCausalLM.from_pretrained(config.model, dtype=dtype)
    except Exception as error:
        raise ModelError(f"{config.model} cannot be loaded for training: {_first_line(error)}") from error


def _precision(config: Training) -> str:
    import torch

    if config.dtype != "auto":
        return config.dtype
    return "bfloat16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "float32"


def _run(
    trained: Trained,
    config: Training,
    rows: Rows,
    model: Any,
    tokenizer: Any,
    validation: Split | None,
    make_trainer: Callable[[Any, Any, Any, Any, dict[str, Any]], Any],
) -> None:
    from datasets import Dataset

    from orbench.mitigation.watch import BEST, Ended, Watch

    out = Path(config.out)
    watched = worth_scoring(validation, config, trained.notes)
    common, every = arguments(config, len(rows.rows), bool(watched))
    if is_first_process():
        write_json(out / TRAINING, trained)
    trainer = make_trainer(model, tokenizer, Dataset.from_list(rows.rows), _peft(config), common)
    watch = Watch(config, tokenizer, watched, every)
    watch.trainer = trainer
    trainer.add_callback(watch)
    trainer.remove_callback(_printer())
    newest = _newest_checkpoint(out / _CHECKPOINTS)
    with suppress(Ended):
        result = trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        if not math.isfinite(result.training_loss):
            raise RunError(
                f"{out}: the loss is {result.training_loss}: lower --learning-rate; start again in another --out"
            )

    trained.steps = trainer.state.global_step
    trained.loss = _mean_loss(trainer.state.log_history)
    trained.scores = watch.scores
    chosen = best(watch.scores).step if watch.scores else trained.steps
    trained.taken = chosen
    if chosen == 0:
        trained.notes.append("No checkpoint kept the start's toxic rejection and refused less: the start was taken.")
    if chosen != trained.steps:
        trainer.save_model(str(out / _LAST))
        last = f"hf/{config.model}+{out / _LAST}" if config.lora_rank else f"hf/{out / _LAST}"
        trained.notes.append(f"The last weights, of step {trained.steps}, are {last}.")
        _adopt(trainer.model, out / BEST if chosen else None, config)
    if trainer.is_world_process_zero():
        _save(trainer, tokenizer, config)
        write_json(out / TRAINING, msgspec.structs.replace(trained, finished=True))
        _tidy(out)
    trained.finished = True
    trainer.accelerator.wait_for_everyone()


def _mean_loss(logs: Sequence[dict[str, Any]]) -> float | None:
    """Over all steps, those before an interruption included, which the Trainer's own figure leaves out."""
    total, before = 0.0, 0
    for entry in logs:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - before)
            before = entry["step"]
    return total / before if before else None


def _tidy(out: Path) -> None:
    """Remove what only an unfinished training needs."""
    from orbench.mitigation.watch import BEST

    for folder in (out / BEST, out / _CHECKPOINTS):
        shutil.rmtree(folder, ignore_errors=True)


def is_first_process() -> bool:
    """Whether this process writes and prints: the first of those that `accelerate launch` or `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """How many of them there are."""
    return max(1, int(os.environ.get("WORLD_SIZE") or 1))


def arguments(config: Training, rows: int, save: bool) -> tuple[dict[str, Any], int]:
    """The settings as TRL's configurations name them, and the steps between checkpoints."""
    import torch

    per_epoch = max(1, math.ceil(math.ceil(rows / (config.batch_size * processes())) / config.accumulation))
    steps = config.max_steps or math.ceil(per_epoch * config.epochs)
    every = math.ceil(steps / max(1, config.checkpoints))
    return {
        "output_dir": str(Path(config.out) / _CHECKPOINTS),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulation,
        "max_length": config.max_length,
        "lr_scheduler_type": config.scheduler,
        "warmup_steps": round(config.warmup * steps),
        "weight_decay": config.weight_decay,
        "bf16": _precision(config) == "bfloat16",
        "gradient_checkpointing": config.gradient_checkpointing,
        "seed": config.seed,
        "save_strategy": "steps" if save or config.checkpoints else "no",
        "save_steps": every,
        "save_total_limit": 1,
        "logging_steps": max(1, min(10, steps // _LOGS)),
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "use_cpu": not torch.accelerator.is_available(),  # else two processes on CPUs would not know of each other
        "ddp_timeout": _WAIT_S,
        "disable_tqdm": not sys.stderr.isatty(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }, every


def worth_scoring(validation: Split | None, config: Training, notes: list[str]) -> Split | None:
    """The validation prompts, if there are enough of both kinds to choose by."""
    if not config.checkpoints:
        return None
    if validation is None:
        notes.append("No validation prompts: the last checkpoint was taken, none was chosen.")
        return None
    kinds = {prompt.kind for prompt in validation}
    if len(validation) < ENOUGH or len(kinds) < 2:
        notes.append(
            f"{len(validation)} validation prompts ({', '.join(sorted(kinds))}): too few to choose by, which takes "
            f"{ENOUGH} of both kinds; the last checkpoint was taken."
        )
        return None
    toxic, needed = sum(prompt.kind == "toxic" for prompt in validation), prompts_needed(config.containment)
    if toxic < needed:
        notes.append(
            f"{toxic} toxic validation prompts cannot show that toxic rejection fell by no more than "
            f"{config.containment:g}, even where none is lost: that takes {needed}; the last checkpoint was taken."
        )
        return None
    return validation


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


def _peft(config: Training) -> Any:
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


def _printer() -> Any:
    """TRL's own printing of the loss, which would stand on standard output."""
    from transformers import PrinterCallback

    return PrinterCallback


def _newest_checkpoint(folder: Path) -> Path | None:
    """The last checkpoint that was written whole; those that were not, because we were killed, are removed."""
    whole = []
    for path in folder.glob("checkpoint-*"):
        try:
            msgspec.json.decode((path / _STATE).read_bytes())
        except (OSError, msgspec.MsgspecError):
            if is_first_process():
                shutil.rmtree(path, ignore_errors=True)
        else:
            whole.append(path)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _adopt(model: Any, source: Path | None, config: Training) -> None:
    """Put the chosen weights into the model; None is the start."""
    if config.lora_rank:
        from peft import load_peft_weights, set_peft_model_state_dict

        if source is not None:
            set_peft_model_state_dict(model, load_peft_weights(str(source)))
        else:  # adapters that change nothing
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.data.zero_()
        return
    from transformers import AutoModelForCausalLM

    chosen = AutoModelForCausalLM.from_pretrained(str(source or config.model), dtype=model.dtype)
    model.load_state_dict(chosen.state_dict())


def _save(trainer: Any, tokenizer: Any, config: Training) -> None:
    out = Path(config.out)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if config.lora_rank:
        model.save_pretrained(out / "adapter")
        model = model.merge_and_unload()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def reopen(out: Path, method: str, config: Training, started_from: dict[str, str]) -> Trained | None:
    """What is known of a training begun in the folder before; None if it is new.

    Args:
        out: The folder.
        method: The command.
        config: Its settings.
        started_from: Digests of data and model as they are now.

    Raises:
        RunError: It holds another training, or something else, or the data has changed since.
    """
    path = out / TRAINING
    if not path.exists():
        if not is_first_process():  # the first has looked, and may be writing already
            return None
        there = sorted(entry.name for entry in out.iterdir() if entry.name[0] != ".") if out.is_dir() else []
        if there:
            raise RunError(f"{out}: no training, but holds {', '.join(there[:3])}. Choose another --out")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{out}: cannot be made: {error.strerror}. Choose another --out") from None
        return None
    before = read_training(out)
    if not before.finished and _is_untouched(out):  # such as by a judge that there is not: nothing is lost
        return None
    now = {"method": method, **msgspec.to_builtins(config)}
    then = {"method": before.method, **before.config}
    changed = [name for name, value in now.items() if then.get(name) != value]
    if changed:
        name = changed[0]
        raise RunError(
            f"{out}: holds a training with another {name}: {then.get(name)} there, {now[name]} now. "
            "Choose another --out"
        )
    for name in sorted({*before.digests, *started_from}) if before.digests else ():
        if before.digests.get(name) != started_from.get(name):
            what = _CHANGED.get(name, f"the {name} rows have")
            raise RunError(f"{out}: {what} changed since this training began: choose another --out")
    if before.finished and is_first_process():
        _tidy(out)
    return before


def _is_untouched(out: Path) -> bool:
    """Whether a training has scored, sampled and saved nothing yet."""
    return {path.name for path in out.iterdir()} <= {TRAINING, _CHECKPOINTS} and not any(
        (out / _CHECKPOINTS).glob("checkpoint-*")
    )


def read_training(out: Path) -> Trained:
    """What `training.json` of a folder says.

    Raises:
        RunError: There is none, or it is damaged.
    """
    try:
        return msgspec.json.decode((out / TRAINING).read_bytes(), type=Trained)
    except (OSError, msgspec.MsgspecError) as error:
        raise RunError(f"{out / TRAINING}: cannot be read: {error}") from None


def versions() -> dict[str, str]:
    """Of the libraries that train."""
    from importlib.metadata import version

    return {name: version(name) for name in _MODULES}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
