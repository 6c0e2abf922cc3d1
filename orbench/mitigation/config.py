"""What can be set in training: one record a method, whose fields are the flags and the keys of a YAML file at once.

A value comes from the flag, else the file (`--config`), else the preset, else the default here. Defaults are TRL's
where TRL has one; presets are the papers' published settings, by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from orbench.errors import UsageError

_Path = Annotated[str, Meta(min_length=1)]
_Share = Annotated[float, Meta(ge=0, le=1)]
_Count = Annotated[int, Meta(ge=1)]
_CountOr0 = Annotated[int, Meta(ge=0)]
_Positive = Annotated[float, Meta(gt=0)]


TERMS = ("base_url", "concurrency", "rpm", "tpm", "prices", "max_cost")
"""On which terms judges are asked: what is learned does not depend on it, so the same training goes on with others."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What the methods have in common."""

    data: Annotated[_Path, Meta(description="Folder of `align pairs` or `overgenerate`, or a JSON Lines file of rows.")]
    model: Annotated[_Path, Meta(description="Folder or Hub id of the model to train.")]
    out: Annotated[_Path, Meta(description="Folder for the trained model; the same command goes on in it.")]
    learning_rate: Annotated[_Positive, Meta(description="Peak learning rate.")] = 2e-5
    epochs: Annotated[_Positive, Meta(description="Times that every row is seen.")] = 1.0
    max_steps: Annotated[_CountOr0, Meta(description="Stop after so many steps; 0: by epochs.")] = 0
    batch_size: Annotated[_Count, Meta(description="Rows of one pass, on each device.")] = 8
    accumulation: Annotated[_Count, Meta(description="Passes of one step.")] = 1
    max_length: Annotated[_Count, Meta(description="Tokens of prompt and reply; longer rows are dropped.")] = 1024
    scheduler: Annotated[Literal["linear", "cosine", "constant"], Meta(description="How the rate falls.")] = "linear"
    warmup: Annotated[_Share, Meta(description="Share of the steps in which the rate rises.")] = 0.0
    weight_decay: Annotated[float, Meta(ge=0, description="AdamW's.")] = 0.0
    lora_rank: Annotated[_CountOr0, Meta(description="Rank of the adapters; 0 trains all weights.")] = 0
    lora_alpha: Annotated[_Positive, Meta(description="Scale of the adapters.")] = 16.0
    lora_dropout: Annotated[_Share, Meta(description="Dropout in the adapters.")] = 0.05
    lora_targets: Annotated[str, Meta(description="Modules that get one, with commas; or all-linear.")] = "all-linear"
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Meta(description="Precision of training; auto: bfloat16 on a GPU that has it, else float32."),
    ] = "auto"
    gradient_checkpointing: Annotated[bool, Meta(description="Less memory for more time.")] = False
    replay: Annotated[str | None, Meta(description="JSON Lines of general prompts with replies, mixed in.")] = None
    replay_rows: Annotated[_CountOr0, Meta(description="How many of them, drawn at random; 0: all.")] = 0
    safety: Annotated[str | None, Meta(description="JSON Lines of toxic prompts with refusals, mixed in (SIT).")] = None
    safety_rows: Annotated[_CountOr0, Meta(description="How many of them, drawn at random; 0: all.")] = 0
    toxic_repeat: Annotated[_Count, Meta(description="Times that each toxic row is put in.")] = 1
    seed: Annotated[int, Meta(ge=0, lt=2**32, description="Of order, weights and draws.")] = 0
    checkpoints: Annotated[
        _CountOr0,
        Meta(description="Checkpoints to score and to go on from; 0: none, an interrupted training starts anew."),
    ] = 5
    validation: Annotated[
        str | None, Meta(description="Split file of both kinds to score them on; default: the one in --data.")
    ] = None
    containment: Annotated[
        float, Meta(gt=0, le=1, description="How far toxic rejection may lie below the start, by the paired test.")
    ] = 0.05
    neither: Annotated[
        _Share, Meta(description="Most validation replies to either kind that are neither answer nor refusal.")
    ] = 0.1
    patience: Annotated[_CountOr0, Meta(description="Stop after so many checkpoints without a better; 0: never.")] = 0
    max_tokens: Annotated[_Count, Meta(description="Longest reply when checkpoints are scored.")] = 200
    scorer: Annotated[str, Meta(description="Reads those replies; as in evaluate.")] = "cascade"
    judge: Annotated[str | None, Meta(description="Judge for what the scorer leaves open.")] = None
    base_url: Annotated[str | None, Meta(description="Address of the judge, and of others of its provider.")] = None
    concurrency: Annotated[int | None, Meta(description="The judge's calls open at once; else found out.")] = None
    rpm: Annotated[float | None, Meta(description="Its requests a minute at most.")] = None
    tpm: Annotated[float | None, Meta(description="Its tokens a minute at most, sent and received.")] = None
    prices: Annotated[str | None, Meta(description="CSV of prices over the shipped ones.")] = None
    max_cost: Annotated[
        float | None, Meta(description="USD for judges, earlier commands for the folder included; then it stops.")
    ] = None
    other_model: Annotated[bool, Meta(description="Train a model that the data was not made for.")] = False

    def __post_init__(self) -> None:
        """Refuse settings that cannot be meant, or that others would silently leave without effect.

        Raises:
            UsageError: Names the setting.
        """
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, float) and not math.isfinite(value):
                raise UsageError(f"{flag(name)} is {value}: a finite number")
        for name in ("replay", "safety"):
            if getattr(self, f"{name}_rows") and not getattr(self, name):
                raise UsageError(f"{flag(f'{name}_rows')} without {flag(name)}: there are no rows to draw from")
        if not self._has_judge():
            for name in TERMS:
                if getattr(self, name) is not None:
                    raise UsageError(f"{flag(name)} is for judges, and there is none to ask: leave it out")

    def _has_judge(self) -> bool:
        return self.judge is not None


def _check_scored(config: Training) -> None:
    """Iterations of RAFT are scored without checkpoints of their own; nothing else is."""
    if config.validation is not None and not config.checkpoints:
        raise UsageError("--validation with --checkpoints 0: there is nothing to score; leave one of them out")


class Sft(Training, frozen=True, kw_only=True):
    """Supervised fine-tuning on good replies; with `safety`, safety instruction tuning (SIT)."""

    learn_prompts: Annotated[bool, Meta(description="Learn to write the prompts too, as in pretraining.")] = False

    def __post_init__(self) -> None:
        """As for all methods.

        Raises:
            UsageError: Names the setting.
        """
        super().__post_init__()
        _check_scored(self)


class Dpo(Training, frozen=True, kw_only=True):
    """Direct preference optimisation, or KTO."""

    learning_rate: Annotated[_Positive, Meta(description="Peak learning rate.")] = 1e-6
    beta: Annotated[_Positive, Meta(description="How strongly the start holds the model back.")] = 0.1
    loss: Annotated[
        Literal["sigmoid", "ipo", "hinge", "robust", "kto"],
        Meta(description="TRL's name of it; kto takes unpaired rows too."),
    ] = "sigmoid"
    sft_weight: Annotated[
        float, Meta(ge=0, description="Weight of a further loss, that of learning the chosen replies.")
    ] = 0.0

    def __post_init__(self) -> None:
        """As for all methods.

        Raises:
            UsageError: Names the setting.
        """
        super().__post_init__()
        _check_scored(self)
        if self.loss == "kto" and self.sft_weight:
            raise UsageError("--sft-weight adds a loss to those of pairs; --loss kto has none: leave one of them out")
        if self.loss == "kto" and self.batch_size == 1:
            raise UsageError("--loss kto compares the rows of a pass: --batch-size must be at least 2")


class Raft(Training, frozen=True, kw_only=True):
    """Reward-ranked fine-tuning: sample, keep the best, fine-tune on it, again."""

    samples: Annotated[_Count, Meta(description="Replies drawn for each prompt.")] = 8
    prompts: Annotated[_CountOr0, Meta(description="Prompts of one iteration, drawn at random; 0: all.")] = 500
    iterations: Annotated[_Count, Meta(description="Times that it is done.")] = 1
    temperature: Annotated[float, Meta(gt=0, le=2, description="Of the draws.")] = 0.85
    top_p: Annotated[float, Meta(gt=0, le=1, description="Of the draws.")] = 0.95
    reward: Annotated[
        str | None,
        Meta(
            description="reward/PATH or a judge: how good a reply is. Default: whether it answers or refuses rightly."
        ),
    ] = None

    def _has_judge(self) -> bool:
        return self.judge is not None or self.reward is not None


# Safe to Serve, tables of recipes: the authors' report (2024-05), sections 7 and 8, and their released code.
_ALPACA = {"max_length": 512, "lora_alpha": 16.0, "lora_dropout": 0.05, "lora_rank": 4}
PRESETS: dict[type[Training], dict[str, dict[str, Any]]] = {
    Sft: {
        "safe-to-serve": {
            **_ALPACA,
            "learning_rate": 1e-4,
            "epochs": 2.0,
            "batch_size": 32,
            "accumulation": 4,
            "lora_targets": "q_proj,k_proj,v_proj",
            "seed": 42,
        },
    },
    Raft: {
        "safe-to-serve": {
            **_ALPACA,
            "learning_rate": 1e-4,
            "epochs": 4.0,
            "batch_size": 32,
            "accumulation": 4,
            "lora_targets": "q_proj,v_proj",
            "samples": 8,
            "prompts": 500,
            "iterations": 1,
            "temperature": 0.85,
            "top_p": 0.95,
            "max_tokens": 120,
            "seed": 42,
        },
    },
    Dpo: {
        "safe-to-serve": {
            "learning_rate": 5e-5,
            "epochs": 2.0,
            "max_length": 1024,
            "scheduler": "cosine",
            "batch_size": 4,
            "accumulation": 1,  # as stated; the published loss curves fit 32 rows a step
            "lora_rank": 8,
            "lora_alpha": 32.0,
            "lora_dropout": 0.1,
            "lora_targets": "q_proj,k_proj,v_proj",
            "beta": 0.1,
            "seed": 42,
        },
    },
}
PRESETS[Raft]["safe-to-serve-iterated"] = {**PRESETS[Raft]["safe-to-serve"], "prompts": 100, "iterations": 5}
"""Method to name to settings. POROver's are not published where we could read them, so there is no preset of it."""


def flag(name: str) -> str:
    """A setting as an option of the command line."""
    return f"--{name.replace('_', '-')}"


AnyTraining = TypeVar("AnyTraining", bound=Training)


def make_config(
    kind: type[AnyTraining],
    flags: Mapping[str, Any],
    *,
    file: str | Path | None = None,
    preset: str | None = None,
) -> AnyTraining:
    """Put the settings of one training together.

    Args:
        kind: `Sft`, `Dpo` or `Raft`.
        flags: Settings given one by one; None counts as not given.
        file: YAML with the same names; it may name a `preset` too.
        preset: One of `PRESETS`.

    Raises:
        UsageError: No such preset or setting, a value that cannot be meant, or a file that cannot be read.
    """
    given = _read_yaml(Path(file)) if file is not None else {}
    from_file = given.pop("preset", None)
    name = preset or from_file
    known = PRESETS[kind]
    if name is not None and name not in known:
        raise UsageError(f"unknown preset {name!r}: there are {', '.join(known)}")
    values = {
        **(known[name] if name else {}),
        **given,
        **{key: value for key, value in flags.items() if value is not None},
    }
    fields = kind.__struct_fields__
    if unknown := sorted(set(values) - set(fields)):
        raise UsageError(f"{file}: unknown setting {unknown[0]!r}: there are {', '.join(fields)}")
    needed = [field.name for field in msgspec.structs.fields(kind) if field.required]
    if missing := [flag(name) for name in needed if name not in values]:
        raise UsageError(f"no {', '.join(missing)} given")
    try:
        config = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UsageError(_said(kind, str(error), None if file is None else given, file)) from None
    set_ = [name for name, value in flags.items() if value is not None]
    _check_lora(config, set_ if "lora_rank" in set_ else [*set_, *given])
    return config


def _said(kind: type[Training], error: str, given: Mapping[str, Any] | None, file: str | Path | None) -> str:
    """What is wrong with a setting, by the name of its flag, and in which file."""
    what, _, place = error.partition(" - at `$.")
    name = place.rstrip("`")
    if name not in kind.__struct_fields__:
        return f"training: {error}"
    hint = get_type_hints(kind)[name]
    if get_origin(hint) is Literal:
        what = f"{what}: there are {', '.join(get_args(hint))}"
    where = f"{file}: " if given is not None and name in given else ""
    return f"{where}{flag(name)}: {what[0].lower()}{what[1:]}"


def _check_lora(config: Training, given: Sequence[str]) -> None:
    """Refuse settings of adapters where there are none: those given, as a preset's, or a file's, may be switched off.

    Raises:
        UsageError: Names the setting.
    """
    idle = [name for name in given if name.startswith("lora_") and name != "lora_rank"]
    if idle and not config.lora_rank:
        raise UsageError(f"{flag(idle[0])} is of adapters, and --lora-rank is 0: give a rank, or leave it out")


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: cannot be read: {' '.join(str(error).split())}") from None
    if read is None:
        return {}
    if not isinstance(read, dict):
        raise UsageError(f"{path}: not settings, one `name: value` a line")
    # YAML reads 5e-5 as text: it wants a point in the number.
    return {str(key): _number(value) for key, value in read.items()}


def _number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value) if value.strip()[:1] in "0123456789.-+" else value
        except ValueError:
            return value
    return value
