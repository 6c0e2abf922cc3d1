"""The records that flow through orbench: prompt -> request -> completion -> response -> verdict.

All are frozen and typed, and the last two are what the run folder holds, one JSON object a line. Nothing here
knows where a record comes from or goes to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import msgspec

Kind = Literal["safe", "toxic"]
"""What a prompt is: `safe` ones should be answered (refusing is over-refusal), `toxic` ones should be refused."""

KINDS: tuple[Kind, ...] = get_args(Kind)
AXES: Mapping[Kind, str] = {"safe": "over-refusal", "toxic": "toxic rejection"}
"""What the refused share of each kind of prompts is called."""

Role = Literal["system", "user", "assistant"]

FinishReason = Literal["stop", "length", "content_filter", "refusal", "other"]
"""Why the model stopped: `stop` by itself, `length` at max_tokens, the last two by the platform's decision."""

BlockedBy = Literal["prompt", "output"]
"""What the platform blocked: the prompt before generation, or the output during it."""

Stage = Literal["signal", "phrases", "classifier", "judge"]
"""Which stage of scoring gave a verdict."""


class Prompt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One prompt of a split."""

    id: str
    """Stable id: the file's own `id`, else a hash of the text. Unique within the split."""
    text: str
    """What the model is asked."""
    category: str
    """One of `orbench.categories.CATEGORIES`, a category of the user's own, or `uncategorised`."""
    kind: Kind
    """Whether a good model answers it (`safe`) or refuses it (`toxic`)."""
    split: str
    """Name of the split, such as `hard-1k` or `sample/safe`."""
    seed_id: str | None = None
    """Id of the seed that the prompt was made from; prompts of one seed are not independent."""
    group_id: str | None = None
    """Id of a group of prompts that are nearly the same, and so not independent either."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One turn of a conversation."""

    role: Role
    content: str


class Sampling(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How a model draws its reply."""

    temperature: float = 0.0
    """0 is greedy decoding, the setting of OR-Bench (section 4.1). Range 0 to 2."""
    max_tokens: int = 1000
    """Upper bound on new tokens; 1000 is the setting of OR-Bench's released code."""
    top_p: float | None = None
    """Nucleus sampling, 0 to 1; None leaves it to the model."""
    seed: int | None = None
    """Seed for sampling where the model takes one."""


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One thing to ask a model."""

    id: str
    """Names the request; unique among those given to one `generate` call, and echoed by the completion."""
    messages: tuple[Message, ...]
    """The conversation, ending with the turn to reply to."""
    sampling: Sampling = Sampling()
    pattern: str | None = None
    """Regular expression that the whole reply shall match, for engines that can hold a model to it (vLLM); others
    leave it aside."""
    schema: dict[str, Any] | None = None
    """JSON schema of the reply, for services that can hold a model to it (OpenAI and those like it, Anthropic, Google);
    others leave it aside, so what is asked says in words what the reply shall look like."""

    @property
    def prompt(self) -> str:
        """Content of the last message: the text to reply to."""
        return self.messages[-1].content

    @property
    def system_prompt(self) -> str | None:
        """Content of the first message if it is a system message, else None."""
        first = self.messages[0]
        return first.content if first.role == "system" else None


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Tokens of one call, as the provider counts them; None where it does not say."""

    input_tokens: int | None = None
    """Tokens of the request, cached ones included."""
    output_tokens: int | None = None
    """Tokens of the reply, reasoning included."""
    batch: bool = False
    """All of these tokens went through a batch API, and cost what the vendor takes for batches: half."""


class Completion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a model gave for one request."""

    id: str
    """The request's id."""
    text: str
    """The answer, without reasoning. Empty if there was none."""
    reasoning: str | None = None
    """What the model thought aloud before its answer, where it is told apart."""
    finish_reason: FinishReason = "stop"
    blocked_by: BlockedBy | None = None
    """Set where the platform, not the model, withheld the answer."""
    usage: Usage | None = None
    error: str | None = None
    """Why this one request failed although the others of its list went on; then `text` means nothing."""


class Response(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of `responses.jsonl`: a prompt and the final reply to it, or the error that stood in its way."""

    prompt_id: str
    split: str
    category: str
    kind: Kind
    prompt: str
    response: str
    reasoning: str | None = None
    finish_reason: FinishReason | None = None
    blocked_by: BlockedBy | None = None
    usage: Usage | None = None
    latency_s: float | None = None
    """Seconds from sending to receiving of the last attempt; None where a whole list was answered at once."""
    attempts: int = 1
    """Calls made for this line, failed ones included."""
    error: str | None = None
    """Why there is no reply; such a prompt is asked again by the next run of the same command."""
    received_at: str = ""
    """UTC time in ISO 8601."""
    seed_id: str | None = None
    group_id: str | None = None
    """Both as in `Prompt`."""

    @property
    def key(self) -> tuple[str, str]:
        """(split, prompt id): what names a row of a run."""
        return (self.split, self.prompt_id)

    @property
    def asked(self) -> Prompt:
        """The prompt that it is a reply to."""
        return Prompt(
            id=self.prompt_id,
            text=self.prompt,
            category=self.category,
            kind=self.kind,
            split=self.split,
            seed_id=self.seed_id,
            group_id=self.group_id,
        )


class Vote(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What one judge of a panel said of one reply."""

    model: str
    outcome: str
    """The judge's own label; `unscored` if it gave none that can be read."""
    reason: str | None = None
    reply: str = ""
    """Its last reply in full."""
    requests: int = 0
    """Calls to it, failed ones included, but for those that an earlier line of the row counts."""
    usage: Usage | None = None
    """Tokens over all of them."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What is left of a judge's work on one reply; of a panel's, all of its judges' together."""

    model: str
    """Its name; of a panel, the names with ` + ` between them."""
    reply: str = ""
    """The judge's last reply in full, so that a verdict can be read again later."""
    requests: int = 1
    """Calls to it, failed ones included. An answer that could not be read and was asked for again has a line of its
    own in `verdicts.jsonl`, saved at once, and counts there."""
    usage: Usage | None = None
    """Tokens over all of them."""
    votes: tuple[Vote, ...] = ()
    """Of a panel, what each judge said, in the order in which they were given."""
    audit: str | None = None
    """Where an earlier stage had decided and the judge only checked it: the judge's own outcome."""
