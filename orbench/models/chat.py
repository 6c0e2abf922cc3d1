"""What all engines on this machine share: requests through the model's chat template, completions out of tokens.

In: requests. Out: for each its prompt in tokens and the room for its reply, or the reason why it cannot be asked.
The template is the model's own, or a file that the user names; there is no default for a model without one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from orbench.errors import ModelError, UsageError
from orbench.models.files import digest_of
from orbench.models.reasoning import is_marker, opened_by, split_reasoning
from orbench.records import Completion, FinishReason, Message, Request, Usage


class ChatOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Options of every local engine that are ours and not passed on to it."""

    chat_template: str | None = None
    """A Jinja file that stands in for the model's chat template."""
    chat_template_kwargs: dict[str, Any] = {}
    """Values for the template, such as `{"enable_thinking": false}` where it knows them."""
    truncate: bool = False
    """Cut the end off a prompt that is longer than the context; by default such a row is an `error`."""


_WHERE_AND_HOW_FAST = frozenset(
    """
    batch_rows batch_tokens
    attn_implementation cache_dir device_map force_download local_files_only low_cpu_mem_usage max_memory
    offload_buffers offload_folder offload_state_dict tp_plan tp_size use_safetensors
    api_server_count async_scheduling block_size compilation_config cpu_offload_gb data_parallel_address
    data_parallel_backend data_parallel_rpc_port data_parallel_size data_parallel_size_local
    disable_custom_all_reduce disable_log_stats distributed_executor_backend download_dir enable_chunked_prefill
    enable_expert_parallel enable_lora enable_prefix_caching enforce_eager gpu_memory_utilization
    kv_cache_memory_bytes max_cpu_loras max_lora_rank max_loras max_num_batched_tokens max_num_seqs
    max_parallel_loading_workers num_gpu_blocks_override pipeline_parallel_size swap_space tensor_parallel_size
    tokenizer_pool_size use_tqdm_on_load
    """.split()  # noqa: SIM905 - fifty lines otherwise
)
"""Options of ours, transformers and vLLM that change no reply. Any other may, and so is part of what a run is."""

OwnOptions = TypeVar("OwnOptions", bound=ChatOptions)


def plain_options(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options as JSON knows them, so that a run folder can hold them and another machine take them.

    `torch_dtype`, the older name, becomes `dtype`; a dtype or device of torch its name, and a configuration of
    transformers what it saves of itself.

    Raises:
        UsageError: Both names of the dtype, or a value that has no such form.
    """
    if "torch_dtype" in given and "dtype" in given:
        raise UsageError(f"{name}: torch_dtype is the older name of dtype: give one of them")
    return {"dtype" if key == "torch_dtype" else key: _plain(name, key, value) for key, value in given.items()}


def _plain(name: str, option: str, value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {key if isinstance(key, int) else str(key): _plain(name, option, each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(name, option, each) for each in value]
    if type(value).__module__ == "torch":  # not imported only to be asked
        return str(value).removeprefix("torch.")
    if callable(saved := getattr(value, "to_dict", None)):
        return _plain(name, option, saved())
    raise UsageError(f"{name}: the engine option {option} is a {type(value).__name__}; give it as text, number or dict")


def take_options(name: str, given: Mapping[str, Any], own: type[OwnOptions]) -> tuple[OwnOptions, dict[str, Any]]:
    """Ours among the options of a local engine, and the others, which go to the engine as they are.

    Args:
        name: The model's, for messages.
        given: As they were made plain by `plain_options`.
        own: Which ones are ours.

    Raises:
        UsageError: A value that one of ours does not take.
    """
    if secret := next((key for key in given if key in ("token", "hf_token", "use_auth_token")), None):
        raise UsageError(f"{name}: no key is taken as an option ({secret}): set HF_TOKEN in the environment")
    mine = {key: value for key, value in given.items() if key in own.__struct_fields__}
    try:
        options = msgspec.convert(mine, own)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name}: engine options: {error}") from None
    return options, {key: value for key, value in given.items() if key not in mine}


def reply_options(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Those options that change replies, and so belong to what a run is; None if there are none."""
    return {key: value for key, value in given.items() if key not in _WHERE_AND_HOW_FAST} or None


def find_source(name: str, path_or_id: str) -> str:
    """The folder, or the Hub id, that holds a model's files.

    Raises:
        ModelError: A path that can be no Hub id, and there is no such folder; or a folder with an adapter alone.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            raise ModelError(f"{name}: {folder} holds an adapter; write BASE+ADAPTER, the model it was made for first")
        return str(folder)
    if path_or_id.startswith((".", "/", "~")) or len(folder.parts) > 2:
        raise ModelError(f"{name}: there is no folder {folder}")
    return path_or_id


def find_adapter(name: str, path_or_id: str) -> tuple[str, str | None]:
    """The sources of `BASE` or `BASE+ADAPTER`; a folder with a plus in its name is taken whole.

    Raises:
        ModelError: See `find_source`.
    """
    base, plus, adapter = path_or_id.partition("+")
    if not plus or Path(path_or_id).expanduser().is_dir():
        return find_source(name, path_or_id), None
    folder = Path(adapter).expanduser()
    if folder.is_dir():
        return find_source(name, base), str(folder)
    return find_source(name, base), find_source(name, adapter)


def model_digest(name: str, source: str, adapter: str | None, options: ChatOptions) -> str | None:
    """The digest of all files that a model on this machine is made of, a template of the user's own included.

    Raises:
        ModelError: A file cannot be read.
    """
    template = [str(Path(options.chat_template).expanduser())] if options.chat_template else []
    return digest_of(name, [source, *([] if adapter is None else [adapter]), *template])


def tokenizer_source(source: str, adapter: str | None) -> str:
    """The adapter's folder if a tokenizer, with perhaps a chat template of its own, was saved with it."""
    if adapter is not None and (Path(adapter) / "tokenizer_config.json").is_file():
        return adapter
    return source


def tokenizer_options(loading: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers is to be told of a tokenizer, out of the options for vLLM."""
    revision = loading.get("tokenizer_revision", None if "tokenizer" in loading else loading.get("revision"))
    found = {"revision": revision, "trust_remote_code": loading.get("trust_remote_code")}
    return {key: value for key, value in found.items() if value is not None}


def use_template(name: str, tokenizer: Any, options: ChatOptions) -> None:
    """Put the user's template in place of the tokenizer's, where there is one.

    Raises:
        ModelError: There is none at all, or the file cannot be read.
    """
    if options.chat_template is not None:
        try:
            tokenizer.chat_template = Path(options.chat_template).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"{name}: the chat template {options.chat_template} cannot be read: {error}") from None
    if not tokenizer.chat_template:
        raise ModelError(
            f"{name}: its tokenizer has no chat template, so how to put a question to it is unknown; take the "
            "chat-tuned version of the model, or name a Jinja file: --engine-option chat_template=FILE"
        )
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        raise ModelError(
            f"{name}: its tokenizer has the chat templates {', '.join(tokenizer.chat_template)} and no default one; "
            "name a Jinja file: --engine-option chat_template=FILE"
        )


class Question:
    """A request on its way: its prompt in tokens, and how many new ones the reply may have."""

    __slots__ = ("opened", "request", "room", "tokens")

    def __init__(self, request: Request, tokens: list[int], room: int, opened: str) -> None:
        self.request = request
        self.tokens = tokens
        self.room = room
        self.opened = opened
        """With what the chat template has opened the reasoning already."""

    @property
    def cost(self) -> int:
        """Tokens it may hold in the cache."""
        return len(self.tokens) + self.room


class Chat:
    """A tokenizer with its chat template, for one model."""

    def __init__(self, name: str, tokenizer: Any, context: int | None, options: ChatOptions) -> None:
        """Use them.

        Args:
            name: The model's, for messages.
            tokenizer: Of transformers, with a chat template (`use_template`).
            context: Tokens of prompt and reply together at most; None where the model has no bound.
            options: See there.
        """
        self._name = name
        self._tokenizer = tokenizer
        self._context = context
        self._options = options
        self._truncated = 0
        added = getattr(tokenizer, "added_tokens_decoder", {})
        self._special = {str(token): number for number, token in added.items() if token.special}

    @property
    def adaptations(self) -> list[str]:
        """What was done to prompts, for the run folder."""
        return [f"{self._truncated} prompts cut to the model's context"] if self._truncated else []

    @property
    def digest(self) -> str:
        """First 12 hexadecimal digits of the sha256 of the template and the values given to it."""
        template = self._tokenizer.get_chat_template()
        values = msgspec.json.encode(self._options.chat_template_kwargs, order="sorted")
        return hashlib.sha256(template.encode() + (values if values != b"{}" else b"")).hexdigest()[:12]

    def prepare(self, requests: Sequence[Request]) -> tuple[list[Question], list[Completion]]:
        """What can be asked, and the failed completions of what cannot.

        Raises:
            ModelError: The template takes no system prompt, or cannot be rendered.
        """
        texts = [self._render(request.messages) for request in requests]
        self._check_system_prompts(requests, texts)
        tokens = self._tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        questions, failed = [], []
        for request, text, found in zip(requests, texts, tokens, strict=True):
            limit = self._context
            if limit is not None and len(found) >= limit and self._options.truncate:
                found = self._cut(request, found, max(limit - request.sampling.max_tokens, limit // 2))  # noqa: PLW2901
            if limit is not None and len(found) >= limit:
                reason = f"the prompt is too long: {len(found)} tokens, and the model's context holds {limit} with the"
                failed.append(Completion(id=request.id, text="", error=f"{reason} reply"))
                continue
            room = request.sampling.max_tokens
            room = room if limit is None else min(room, limit - len(found))
            questions.append(Question(request, found, room, opened_by(text)))
        return questions, failed

    def completion(self, question: Question, tokens: Sequence[int], produced: int, reason: FinishReason) -> Completion:
        """What the tokens of a reply say, reasoning apart.

        Args:
            question: What was asked.
            tokens: Of the reply, without what only ends it.
            produced: Tokens that were made, those that end the reply included.
            reason: Why the model stopped.
        """
        answer, reasoning = self._split(question.opened, tokens)
        return Completion(
            id=question.request.id,
            text=answer,
            reasoning=reasoning,
            finish_reason=reason,
            usage=Usage(input_tokens=len(question.tokens), output_tokens=produced),
        )

    def _split(self, opened: str, tokens: Sequence[int]) -> tuple[str, str | None]:
        """Answer and reasoning. Many models mark their reasoning with special tokens, which go only after that."""
        markers = [token for token in self._special if is_marker(token)]
        if any(self._special[token] in tokens for token in markers):
            text: str = self._tokenizer.decode(tokens, skip_special_tokens=False)
            for token in self._special.keys() - markers:
                text = text.replace(token, "")
            answer, reasoning = split_reasoning(opened + text)
            if reasoning is not None or answer != opened + text:
                for token in markers:
                    answer = answer.replace(token, "")
                    reasoning = None if reasoning is None else reasoning.replace(token, "")
                return answer, reasoning
        return split_reasoning(opened + self._tokenizer.decode(tokens, skip_special_tokens=True))

    def _check_system_prompts(self, requests: Sequence[Request], texts: Sequence[str]) -> None:
        """Templates that know no system prompt may drop it without a word: then another one makes no difference."""
        taken: set[str] = set()
        for request, text in zip(requests, texts, strict=True):
            system = request.system_prompt
            if system is not None and system not in taken:
                other = Message("system", f"{system} {system} and more")
                if self._render([other, *request.messages[1:]]) == text:
                    raise ModelError(f"{self._name}: its chat template takes no system prompt")
                taken.add(system)

    def _cut(self, request: Request, tokens: list[int], limit: int) -> list[int]:
        """The tokens of the prompt whose last message has lost as much of its end as it takes."""
        *before, last = request.messages
        words = self._tokenizer(last.content, add_special_tokens=False, verbose=False)["input_ids"]
        kept, cut = len(words), tokens
        while len(cut) > limit and kept > 1:
            kept = max(1, kept - (len(cut) - limit))
            content = self._tokenizer.decode(words[:kept])
            text = self._render([*before, Message(last.role, content)])
            cut = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        self._truncated += 1
        return cut

    def _render(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        values = self._options.chat_template_kwargs
        try:
            text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, **values)
        except Exception as error:  # a template is a program of the model's authors
            if turns[0]["role"] == "system" and len(turns) > 1:
                self._render(messages[1:])  # raises where the system prompt is not to blame
                raise ModelError(f"{self._name}: its chat template takes no system prompt ({error})") from error
            raise ModelError(f"{self._name}: its chat template cannot be rendered: {error}") from error
        return text


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    inner = next((line for line in lines if line.startswith("Value error, ")), "")  # pydantic's, below a heading
    return inner.removeprefix("Value error, ").partition(" [type=")[0] or next(iter(lines), "") or type(error).__name__


def one_line(error: BaseException) -> str:
    """All that an error says, in one line: transformers says at the end what is to be done. At most 500 characters."""
    said = " ".join(str(error).split())
    return f"{said[:499]}…" if len(said) > 500 else said or type(error).__name__
