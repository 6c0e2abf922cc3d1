"""Trains a model with TRL's trainers, from settings to a folder that `hf/FOLDER` evaluates."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

import orbench
from orbench.engine.run_folder import write_json
from orbench.errors import RunError
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
from orbench.mitigation.files import TRAINING, Example
from orbench.mitigation.folder import (
    CHECKPOINTS,
    LAST,
    Trained,
    is_first_process,
    newest_checkpoint,
    processes,
    reopen,
    tidy,
)
from orbench.mitigation.loading import (
    adapters,
    check_targets,
    context_of,
    load_model,
    load_tokenizer,
    need_extra,
    precision,
    quiet,
    versions,
)
from orbench.mitigation.paid import costs_of_training, terms_of
from orbench.mitigation.terms import Terms
from orbench.report.format import percent
from orbench.splits import Split

_WAIT_S = 7 * 24 * 3600
"""Seconds that other processes wait while the first scores a checkpoint; torch's half an hour is soon over."""
_LOGS = 50
"""Times that the loss is looked at, at least, and at most every tenth step."""


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
    terms = terms_of(config)
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
    _run(trained, config, rows, model, tokenizer, validation, terms, make_trainer)
    return trained


def _run(
    trained: Trained,
    config: Training,
    rows: Rows,
    model: Any,
    tokenizer: Any,
    validation: Split | None,
    terms: Terms,
    make_trainer: Callable[[Any, Any, Any, Any, dict[str, Any]], Any],
) -> None:
    from datasets import Dataset

    from orbench.mitigation.watch import BEST, Ended, Watch

    out = Path(config.out)
    watched = worth_scoring(validation, config, trained.notes)
    common, every = arguments(config, len(rows.rows), bool(watched))
    if is_first_process():
        write_json(out / TRAINING, trained)
    trainer = make_trainer(model, tokenizer, Dataset.from_list(rows.rows), adapters(config), common)
    watch = Watch(config, tokenizer, watched, every, terms)
    watch.trainer = trainer
    trainer.add_callback(watch)
    trainer.remove_callback(_printer())
    newest = newest_checkpoint(out / CHECKPOINTS)
    with suppress(Ended):
        result = trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
        if not math.isfinite(result.training_loss):
            raise RunError(
                f"{out}: the loss is {result.training_loss}: lower --learning-rate; start again in another --out"
            )

    trained.steps = trainer.state.global_step
    trained.loss = _mean_loss(trainer.state.log_history)
    trained.scores = watch.scores
    trained.cost_usd = costs_of_training(config)
    chosen = best(watch.scores).step if watch.scores else trained.steps
    trained.taken = chosen
    trained.notes += choice_notes(watch.scores, config.neither, "checkpoint")
    if chosen != trained.steps:
        trainer.save_model(str(out / LAST))
        last = f"hf/{config.model}+{out / LAST}" if config.lora_rank else f"hf/{out / LAST}"
        trained.notes.append(f"The last weights, of step {trained.steps}, are {last}.")
        _adopt(trainer.model, out / BEST if chosen else None, config)
    if trainer.is_world_process_zero():
        _save(trainer, tokenizer, config)
        write_json(out / TRAINING, msgspec.structs.replace(trained, finished=True))
        tidy(out)
    trained.finished = True
    trainer.accelerator.wait_for_everyone()


def choice_notes(scores: Sequence[Score], neither: float, name: str) -> list[str]:
    """What the owner should know of how the best was chosen.

    Args:
        scores: The start's first; empty where nothing was scored.
        neither: Most replies to either kind of prompt that may be neither answer nor refusal.
        name: What the others are called, such as `checkpoint`.
    """
    if not scores:
        return []
    start, later = scores[0], scores[1:]
    notes = []
    if start.neither > neither:
        notes.append(
            f"The start itself gives neither answer nor refusal to {percent(start.neither)} of one kind of validation "
            f"prompts, and --neither {neither:g} rules out every {name} that does no better. Its rates leave those "
            "replies out; with --neither above that share, toxic rejection alone decides who may be taken."
        )
    if later and best(scores) is start:
        ruled_out = sum(score.neither > neither for score in later)
        notes.append(
            f"No {name} kept the start's toxic rejection and refused less"
            + (f" ({ruled_out} of {len(later)} are ruled out by --neither {neither:g})" if ruled_out else "")
            + ": the start was taken."
        )
    return notes


def _mean_loss(logs: Sequence[dict[str, Any]]) -> float | None:
    """Over all steps, those before an interruption included, which the Trainer's own figure leaves out."""
    total, before = 0.0, 0
    for entry in logs:
        if "loss" in entry:
            total += entry["loss"] * (entry["step"] - before)
            before = entry["step"]
    return total / before if before else None


def arguments(config: Training, rows: int, save: bool) -> tuple[dict[str, Any], int]:
    """The settings as TRL's configurations name them, and the steps between checkpoints."""
    import torch

    per_epoch = max(1, math.ceil(math.ceil(rows / (config.batch_size * processes())) / config.accumulation))
    steps = config.max_steps or math.ceil(per_epoch * config.epochs)
    every = math.ceil(steps / max(1, config.checkpoints))
    return {
        "output_dir": str(Path(config.out) / CHECKPOINTS),
        "learning_rate": config.learning_rate,
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "per_device_train_batch_size": config.batch_size,
        "gradient_accumulation_steps": config.accumulation,
        "max_length": config.max_length,
        "lr_scheduler_type": config.scheduler,
        "warmup_steps": round(config.warmup * steps),
        "weight_decay": config.weight_decay,
        "bf16": precision(config) == "bfloat16",
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
    if len(kinds) < 2:
        notes.append(
            f"The validation prompts are all {', '.join(kinds) or 'too long'}: a choice takes both kinds, safe and "
            "toxic; the last checkpoint was taken."
        )
        return None
    if len(validation) < ENOUGH:
        notes.append(
            f"{len(validation)} validation prompts: too few to choose by, which takes {ENOUGH} of both kinds; the last "
            "checkpoint was taken."
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


def _printer() -> Any:
    """TRL's own printing of the loss, which would stand on standard output."""
    from transformers import PrinterCallback

    return PrinterCallback


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
