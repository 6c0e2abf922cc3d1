"""The rows of training data, in the conversational formats of TRL, one JSON object a line.

TRL's trainers load these files as they are; `prompt_id`, `kind`, `seed_id` and `group_id` are further columns that they
pass over. Messages
rather than plain text, so that the model's own chat template is applied by whoever trains.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from orbench.errors import RunError
from orbench.records import Kind, Message, Prompt

TRAIN, HELD_OUT, UNPAIRED = "train.jsonl", "held_out.jsonl", "unpaired.jsonl"
HELD_OUT_PROMPTS, VALIDATION_PROMPTS = "held_out_prompts.csv", "validation_prompts.csv"
CHOSEN, RANDOM = "chosen.jsonl", "random.jsonl"
TRAINING = "training.json"
"""What a training leaves in the folder of its model."""

Turns = Annotated[tuple[Message, ...], msgspec.Meta(min_length=1)]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One preference: TRL's type "preference", with an explicit prompt."""

    prompt: Turns
    chosen: Turns
    rejected: Turns
    prompt_id: str
    kind: Kind
    seed_id: str = ""
    """As in `Prompt`, `""` where none is known: a column of texts throughout loads everywhere."""
    group_id: str = ""


class Single(msgspec.Struct, frozen=True, kw_only=True):
    """One good or bad completion: TRL's type "unpaired preference"."""

    prompt: Turns
    completion: Turns
    label: bool
    """True for a completion to learn, False for one to unlearn."""
    prompt_id: str
    kind: Kind
    seed_id: str = ""
    group_id: str = ""


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One completion to learn: TRL's type "prompt-completion"."""

    prompt: Turns
    completion: Turns
    prompt_id: str = ""
    kind: Kind = "safe"
    seed_id: str = ""
    group_id: str = ""


class SafetyExample(Example, frozen=True, kw_only=True):
    """The same of a toxic prompt: a file of these need not say so in every row."""

    kind: Kind = "toxic"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of a row of any type."""

    prompt: Turns
    prompt_id: str = ""
    kind: Kind = "safe"
    seed_id: str = ""
    group_id: str = ""


Row = TypeVar("Row", Pair, Single, Example, SafetyExample, Asked)


def user(text: str) -> Turns:
    """A conversation of one question."""
    return (Message("user", text),)


def assistant(text: str) -> Turns:
    """The reply to it."""
    return (Message("assistant", text),)


def text_of(turns: Turns) -> str:
    """The last message's text."""
    return turns[-1].content if turns else ""


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write a JSON Lines file whole or not at all.

    Raises:
        RunError: It cannot be written.
    """
    _write(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """The rows of a file.

    Raises:
        RunError: It is missing, cannot be read, or a line of it is no such row; names file and line.
    """
    decoder = msgspec.json.Decoder(kind)
    rows = []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            needed = ", ".join(field.name for field in msgspec.structs.fields(kind) if field.required)
            raise RunError(f"{path}, line {number}: not a row with {needed}: {error}") from None
        rows.append(row)
    return rows


def write_prompts(path: Path, prompts: Sequence[Prompt]) -> None:
    """Write prompts as a split file that `orbench evaluate --split` reads.

    Raises:
        RunError: It cannot be written.
    """
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["id", "prompt", "category", "kind", "seed_id", "group_id"])
    for prompt in prompts:
        linked = (prompt.seed_id or "", prompt.group_id or "")
        table.writerow([prompt.id, prompt.text, prompt.category, prompt.kind, *linked])
    _write(path, out.getvalue().encode())


def has_prompts(path: Path) -> bool:
    """Whether there is a file of prompts with more than its header: a part may be empty."""
    return path.is_file() and len(path.read_bytes().splitlines()) > 1


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        RunError: It cannot be written.
    """
    _write(path, text.encode())


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error.strerror}. Make room or choose another --out") from None
