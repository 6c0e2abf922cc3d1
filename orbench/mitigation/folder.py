"""A training's folder: what is written of it, and whether the same command goes on in it.

OUT/                the trained model: the best checkpoint, or the last where none could be chosen
OUT/adapter/        the LoRA adapters alone, where they were trained
OUT/last/           where another checkpoint was taken: the last weights, of LoRA the adapters
OUT/training.json   settings, rows, scores of checkpoints, which was taken and why
OUT/scores/         a run folder of each checkpoint
OUT/samples/        of RAFT: a run folder of the replies that each iteration drew, and their rewards
OUT/checkpoints/    the last checkpoint, to go on from
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from orbench.errors import RunError
from orbench.mitigation.checkpoints import Score
from orbench.mitigation.config import TERMS, Training
from orbench.mitigation.files import TRAINING

CHECKPOINTS, LAST = "checkpoints", "last"
SCORES, SAMPLES = "scores", "samples"
_CHANGED = {"data": "the data has", "validation": "the validation prompts have", "model": "the model has"}
_STATE = "trainer_state.json"
"""What the Trainer writes last into a checkpoint."""


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
    cost_usd: dict[str, float | None] = {}
    """`judge NAME` and `reward NAME` to what they have cost, earlier commands included; None where that is unknown."""
    versions: dict[str, str] = {}
    finished: bool = False


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
    now = {name: value for name, value in now.items() if name not in TERMS}  # a judge says the same on any
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
        tidy(out)
    return before


def _is_untouched(out: Path) -> bool:
    """Whether a training has scored, sampled and saved nothing yet."""
    return {path.name for path in out.iterdir()} <= {TRAINING, CHECKPOINTS} and not any(
        (out / CHECKPOINTS).glob("checkpoint-*")
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


def newest_checkpoint(folder: Path) -> Path | None:
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


def tidy(out: Path) -> None:
    """Remove what only an unfinished training needs."""
    from orbench.mitigation.watch import BEST

    for folder in (out / BEST, out / CHECKPOINTS):
        shutil.rmtree(folder, ignore_errors=True)


def is_first_process() -> bool:
    """Whether this process writes and prints: the first of those that `accelerate launch` or `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def processes() -> int:
    """How many of them there are."""
    return max(1, int(os.environ.get("WORLD_SIZE") or 1))
