"""Our requests beside those that the vendors' own SDKs write, and replies that no service should send."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import anthropic
import hypothesis
import msgspec
import openai
import pytest
from google import genai
from google.genai import types
from hypothesis import strategies as st

from orbench import Completion, ModelError, RetryableError, Sampling
from orbench.models import Options, open_model
from orbench.models.google import CATEGORIES
from orbench.models.remote import RemoteModel
from orbench.models.wire import HttpError
from orbench.testing import LoopbackServer, chat_completion, generated_content, message, response

Ask = Callable[..., Completion]
MODELS: list[tuple[str, Options]] = [
    ("openai/m", Options(base_url="http://127.0.0.1:1/v1")),
    ("openai/m", Options(base_url="http://127.0.0.1:1/v1", api="responses")),
    ("anthropic/m", Options(base_url="http://127.0.0.1:1")),
    ("google/m", Options(base_url="http://127.0.0.1:1")),
]
NAMES = ["chat", "responses", "anthropic", "google"]
SAMPLING = Sampling(temperature=0.5, max_tokens=7, top_p=0.9)
TURNS: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi there"}]
PLAIN = ("content-type", "accept", "anthropic-version", "x-goog-api-key", "authorization", "x-api-key", "user-agent")


def sdk_openai(server: LoopbackServer, api: str) -> None:
    with openai.OpenAI(api_key="k", base_url=server.base_url) as client:
        if api == "chat":
            client.chat.completions.create(model="m", messages=TURNS, temperature=0.5, max_tokens=7, top_p=0.9)
        else:
            client.responses.create(
                model="m", input=TURNS, temperature=0.5, max_output_tokens=7, top_p=0.9, store=False
            )


def sdk_anthropic(server: LoopbackServer, api: str) -> None:
    with anthropic.Anthropic(api_key="k", base_url=server.root_url) as client:
        more = {"temperature": 0.5, "top_p": 0.9}  # the package has forgotten them; older models take them
        client.messages.create(model="m", system="Be brief.", messages=TURNS[1:], max_tokens=7, extra_body=more)


def sdk_google(server: LoopbackServer, api: str) -> None:
    client = genai.Client(vertexai=False, api_key="k", http_options=types.HttpOptions(base_url=server.root_url))
    config = types.GenerateContentConfig(
        temperature=0.5,
        max_output_tokens=7,
        top_p=0.9,
        system_instruction="Be brief.",
        safety_settings=[
            types.SafetySetting(category=types.HarmCategory(category), threshold=types.HarmBlockThreshold.BLOCK_NONE)
            for category in CATEGORIES
        ],
    )
    client.models.generate_content(model="m", contents="Hi there", config=config)
    client.close()


@pytest.mark.parametrize(
    ("name", "api", "sdk", "variable"),
    [
        ("openai/m", "chat", sdk_openai, "OPENAI_API_KEY"),
        ("openai/m", "responses", sdk_openai, "OPENAI_API_KEY"),
        ("anthropic/m", "", sdk_anthropic, "ANTHROPIC_API_KEY"),
        ("google/m", "", sdk_google, "GOOGLE_API_KEY"),
    ],
)
def test_we_send_what_the_sdk_sends(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, name: str, api: str, sdk: Any, variable: str
) -> None:
    monkeypatch.setenv(variable, "k")
    with LoopbackServer("Hello.") as server:
        url = server.base_url if name.startswith("openai") else server.root_url
        options = Options(base_url=url, api=api or None)  # type: ignore[arg-type]
        ask(open_model(name, options), "Hi there", system="Be brief.", sampling=SAMPLING)
        sdk(server, api)
    ours, theirs = server.requests
    assert ours == theirs
    mine, its = ({k.lower(): v for k, v in headers.items() if k.lower() in PLAIN} for headers in server.headers)
    mine["user-agent"] = mine["user-agent"].replace("Async", "")
    assert mine == its
    assert not [name for name in server.headers[0] if "stainless" in name.lower()]  # it tells of the user's machine


# Replies


@functools.cache
def opened(number: int) -> RemoteModel:
    model = open_model(*MODELS[number])
    assert isinstance(model, RemoteModel)
    return model


def read(number: int, content: bytes) -> Completion:
    return opened(number).read("r", content)


GOOD = [chat_completion("Hello."), response("Hello."), message("Hello."), generated_content("Hello.")]
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated(draw: Callable[..., Any], body: dict[str, Any]) -> Any:
    """A good reply with one of its values, however deep, replaced by anything or taken out."""
    copy = msgspec.json.decode(msgspec.json.encode(body))
    place: Any = copy
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = draw(st.sampled_from(keys))
        if isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans()):
            place = place[key]
            continue
        if draw(st.booleans()):
            place[key] = draw(ANY_JSON)
        else:
            del place[key]
        return copy


def read_anything(number: int, content: bytes) -> None:
    try:
        completion = read(number, content)
    except (RetryableError, HttpError, ModelError):
        return
    assert isinstance(completion.text, str)
    assert completion.reasoning is None or isinstance(completion.reasoning, str)


@pytest.mark.parametrize("number", range(4), ids=NAMES)
@hypothesis.given(data=st.data())
@hypothesis.settings(max_examples=150, deadline=None)
def test_a_reply_with_anything_in_it_is_read_or_refused(number: int, data: st.DataObject) -> None:
    read_anything(number, msgspec.json.encode(data.draw(mutated(GOOD[number]))))


@pytest.mark.parametrize("number", range(4), ids=NAMES)
@hypothesis.given(content=st.binary() | ANY_JSON.map(msgspec.json.encode))
@hypothesis.settings(max_examples=100, deadline=None)
def test_what_is_no_reply_is_asked_for_again(number: int, content: bytes) -> None:
    with pytest.raises((RetryableError, HttpError)):
        read(number, content)


@pytest.mark.parametrize("number", range(4), ids=NAMES)
def test_a_reply_torn_anywhere_is_asked_for_again(number: int) -> None:
    whole = msgspec.json.encode(GOOD[number])
    for length in range(len(whole)):
        with pytest.raises(RetryableError, match="malformed"):
            read(number, whole[:length])


@pytest.mark.parametrize("number", range(4), ids=NAMES)
@pytest.mark.parametrize(
    ("text", "answer", "reasoning"),
    [
        ("<think>They greet.</think>\n\nHello.", "Hello.", "They greet."),
        ("<think>They greet. I should", "", "They greet. I should"),
    ],
)
def test_reasoning_in_the_text_is_kept_apart_everywhere(number: int, text: str, answer: str, reasoning: str) -> None:
    makers: list[Callable[[str], dict[str, Any]]] = [chat_completion, response, message, generated_content]
    completion = read(number, msgspec.json.encode(makers[number](text)))
    assert (completion.text, completion.reasoning) == (answer, reasoning)
