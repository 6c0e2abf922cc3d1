"""The card beside the data: where it comes from, how much there is, what was dropped, what to keep in mind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from orbench.engine.run_folder import write_json
from orbench.errors import RunError
from orbench.mitigation.files import write_text
from orbench.mitigation.terms import cost_text

CARD, CARD_TEXT = "card.json", "card.md"


class Card(msgspec.Struct, kw_only=True):
    """What is known of a folder of pairs; `card.json`, and for people `card.md`."""

    orbench_version: str
    run: str
    """The run folder that was cured."""
    model: str
    """The model of that run, `provider/name`; training takes no other unless told to."""
    teacher: str
    temperature: float
    """Of the teacher; the next two likewise."""
    max_tokens: int
    system_prompt: str | None
    scorer: str
    """Reads the teacher's replies."""
    judge: str | None
    moderators: list[str]
    splits: list[str]
    """Splits of the run."""
    published: list[str]
    """Those of them that are OR-Bench's own."""
    seed: int
    held_out: float
    validation: float
    containment: float
    groups: int
    """Groups of prompts that stay together: one seed, or nearly the same words."""
    prompts: dict[str, dict[str, int]]
    """Part to kind to prompts of the run."""
    rows: dict[str, dict[str, int]]
    """File to kind to rows."""
    dropped: dict[str, int]
    """Why a prompt gave no row, to how many."""
    cost_usd: dict[str, float | None]
    """Role and model to what it has cost, earlier commands for the folder included; None where that is unknown."""
    usage: dict[str, Any]
    """Calls and tokens of teacher and moderators."""
    notes: list[str]
    created_at: str


def write_card(folder: Path, card: Card) -> None:
    """Write both forms.

    Raises:
        RunError: They cannot be written.
    """
    write_json(folder / CARD, card)
    write_text(folder / CARD_TEXT, card_text(card))


def read_card(folder: Path) -> Card | None:
    """The card of a folder; None if it has none, as data of another make.

    Raises:
        RunError: It is damaged.
    """
    path = folder / CARD
    try:
        return msgspec.json.decode(path.read_bytes(), type=Card)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


def card_text(card: Card) -> str:
    """The card for people, in Markdown."""
    lines = [
        f"# Preference pairs for {card.model}",
        "",
        f"Made by `orbench align pairs` (orbench {card.orbench_version}, seed {card.seed}) from the run `{card.run}`",
        f"on {', '.join(card.splits)}. Teacher: `{card.teacher}`, temperature {card.temperature:g}, at most "
        f"{card.max_tokens} tokens, {'a' if card.system_prompt else 'no'} system prompt; its replies were read by "
        f"`{card.scorer}`"
        + (f" and `{card.judge}`" if card.judge else "")
        + ". Moderators: "
        + (", ".join(f"`{name}`" for name in card.moderators) or "none")
        + ".",
        "",
        "| file | safe | toxic |",
        "|---|---|---|",
        *(f"| {name} | {kinds.get('safe', 0)} | {kinds.get('toxic', 0)} |" for name, kinds in card.rows.items()),
        "",
        "| prompts of the run | safe | toxic |",
        "|---|---|---|",
        *(f"| {part} | {kinds.get('safe', 0)} | {kinds.get('toxic', 0)} |" for part, kinds in card.prompts.items()),
        "",
        "Dropped: " + (", ".join(f"{reason} {count}" for reason, count in card.dropped.items()) or "nothing") + ".",
        "",
        *(f"- {note}" for note in card.notes),
        "",
        f"Cost: {cost_text(card.cost_usd)}.",
    ]
    return "\n".join(lines) + "\n"
