"""The rows of a generation's files.

    responses/seeds.jsonl     Call   what the seeder wrote, one line a call
    seeds.jsonl               Item   what was read out of it, dropped ones included
    responses/rewrites.jsonl  Call   what the rewriter wrote
    rewrites.jsonl            Item
    votes.jsonl               Vote   what each moderator said of each prompt, and of the rescuer's answers
    responses/rescue.jsonl    Call   what the model without safety training answered

Every call is one line, written before anything else is done with it. All else can be made again from these lines.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import Literal

import msgspec

from orbench.records import BlockedBy, FinishReason, Usage

CallOutcome = Literal["read", "refused", "blocked", "unreadable", "error"]
"""What came of a call: `error` is owed still and asked again by the next run, the others are what the model said."""

Verdict = Literal["safe", "toxic", "abstained"]
"""A moderator's vote. An abstention is a vote that cannot be read or was withheld; it is never `toxic`."""

Subject = Literal["prompt", "answer"]
"""What was judged: the prompt, or the rescuer's answer to it."""

GIVEN = "given"
"""The author of what came from a file, and the call that its rows are of: their place is their row, from 0."""


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One call of a seeder, rewriter or rescuer."""

    id: str
    """`CATEGORY/NUMBER` of a seeder's call, else the id of the prompt that was rewritten or answered, with `+N` behind
    it where N rewrites of it were asked for before."""
    ask: int
    """Which time the same thing was asked, from 1."""
    model: str
    category: str
    outcome: CallOutcome
    wanted: int = 1
    """Items asked for."""
    items: int = 0
    """Items found, those that are dropped at once included."""
    response: str
    """The reply in full."""
    finish_reason: FinishReason | None = None
    blocked_by: BlockedBy | None = None
    usage: Usage | None = None
    estimate: Usage | None = None
    """Most tokens that it can have taken, as far as the provider does not say them in `usage`."""
    latency_s: float | None = None
    attempts: int = 1
    """Requests sent for this line, failed ones included."""
    error: str | None = None
    received_at: str = ""
    """UTC time in ISO 8601."""
    refused: bool = False
    """Whether the answer of a rescuer is a refusal: it may bring a prompt back, but says little of the prompt."""


class Item(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One item of a list that a model wrote, or one row of a given file."""

    id: str
    """Of the text alone, as `text_id` makes it, so that the same text has the same id in every run."""
    prompt: str
    category: str
    seed_id: str
    """The seed at the root; of a seed, its own id."""
    parent_id: str | None
    """What it is a rewrite of; None for a seed or a given prompt."""
    round: int
    """0 for a seed, 1 for its rewrites, 2 for a rewrite of those."""
    model: str
    """Who wrote it; `given` if it came from a file."""
    call: str
    """The call it was in."""
    place: int
    """Its place in that call's reply, from 0."""
    dropped: str | None = None
    """Why it goes no further."""
    own_id: str | None = None
    """Its `id` in the given file, where that has one."""

    @property
    def key(self) -> tuple[str, int]:
        """(call, place): what names the row. The last line for it counts."""
        return (self.call, self.place)


class Vote(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One reply of a moderator. The last line for (prompt, subject, moderator) counts."""

    prompt_id: str
    of: Subject
    moderator: str
    ask: int
    """Which time it was asked, from 1."""
    verdict: Verdict
    category: str | None
    """The category it chose."""
    reason: str | None
    """What it said before the label, shortened; of an abstention, why there is no label."""
    reply: str
    """In full."""
    usage: Usage | None = None
    estimate: Usage | None = None
    """Most tokens that it can have taken, as far as the provider does not say them in `usage`."""
    latency_s: float | None = None
    attempts: int = 1
    error: str | None = None
    """Why there was no reply; such a vote is owed still."""
    received_at: str = ""


def text_id(text: str) -> str:
    """16 hexadecimal digits that are the same for texts which differ only in letter case, blanks or Unicode form."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return hashlib.sha256(plain.encode("utf-8", "surrogatepass")).hexdigest()[:16]
