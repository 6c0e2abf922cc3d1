"""Keys stay where they are: a canary for every provider is looked for wherever orbench writes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import orbench
from orbench import OrbenchWarning
from orbench.models import PROVIDERS, Options, open_model
from orbench.models.wire import Wire
from orbench.testing import LoopbackServer

KEYED = [provider.name for provider in PROVIDERS.values() if provider.key_variables]
LEGACY = importlib.util.find_spec("google.generativeai") is not None


def canary(name: str) -> str:
    return f"sk-canary-{name}-7f3a9"


@pytest.fixture
def canaries(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A key in the variable of every provider."""
    keys = []
    for name in KEYED:
        for variable in PROVIDERS[name].key_variables:
            monkeypatch.setenv(variable, canary(name))
        keys.append(canary(name))
    return keys


def answering(key: str) -> Callable[[dict[str, Any]], Any]:
    """Each kind of reply, the errors with the key in full, as a service might repeat it."""

    def answer(body: dict[str, Any]) -> Any:
        if "process 1" in str(body):
            return 400, {"error": {"message": f"Bad request with the key {key}"}}
        if "process 2" in str(body):
            return 500, {"error": {"message": f"Broken with the key {key}"}}
        if "process 3" in str(body):  # an error with status 200, as some services send it
            return 200, {"error": {"message": f"Bad request with the key {key}", "code": 400}}
        return "Certainly."

    return answer


@pytest.mark.parametrize("name", [*KEYED, *(["google-legacy"] if LEGACY else [])])
def test_no_key_is_left_anywhere(
    name: str, canaries: list[str], tmp_path: Path, split_file: Any, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    caplog.set_level("DEBUG")
    provider = name.removesuffix("-legacy")
    own = canary(provider)
    with LoopbackServer(answering(own)) as server, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        url = server.root_url if provider in ("anthropic", "google") else server.base_url
        options = {"google_sdk": "legacy"} if name == "google-legacy" else None
        result = orbench.evaluate(
            f"{provider}/any", base_url=url, splits=split_file(rows=4), out=tmp_path / "run", model_options=options
        )
    assert any(own in str(dict(headers)) for headers in server.headers)  # it was sent where it belongs
    assert result.splits["safe"].outcomes["error"] == 3
    result.to_html(tmp_path / "report.html")
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode()
    printed = capfd.readouterr()
    everything = "".join(
        [written, caplog.text, printed.out, printed.err, str(result), str([str(warning) for warning in warned])]
    )
    assert own not in everything
    assert "[key]" in written


@pytest.mark.parametrize("name", ["openai", "anthropic", "google", "ollama"])
def test_no_key_of_another_provider_is_left_either(
    name: str, canaries: list[str], tmp_path: Path, split_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", canary("hub"))
    every = [*canaries, canary("hub")]
    with LoopbackServer(answering(" ".join(every))) as server:
        url = server.root_url if name in ("anthropic", "google") else server.base_url
        result = orbench.evaluate(f"{name}/any", base_url=url, splits=split_file(rows=4), out=tmp_path / "run")
    assert result.splits["safe"].outcomes["error"] == 3
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()).decode()
    assert [key for key in every if key in written] == []
    assert "with the key [key] [key]" in written


def test_no_key_is_in_the_error_of_a_callable(canaries: list[str], tmp_path: Path, split_file: Any) -> None:
    def refused(prompt: str) -> str:
        raise PermissionError(f"Incorrect API key provided: {canary('openai')}")

    orbench.evaluate(refused, splits=split_file(rows=1), out=tmp_path / "run")
    assert "PermissionError: Incorrect API key provided: [key]" in (tmp_path / "run" / "responses.jsonl").read_text()


def test_no_key_is_in_what_the_program_says(canaries: list[str], tmp_path: Path, split_file: Any) -> None:
    (tmp_path / "broken.py").write_text(f"raise RuntimeError('no access with {canary('anthropic')}')")
    command = [sys.executable, "-m", "orbench", "evaluate", "python/broken:reply", "--split", split_file(rows=1)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=dict(os.environ), check=False)
    assert done.returncode == 1
    assert "canary" not in done.stdout + done.stderr
    assert "no access with [key]" in done.stderr


def test_a_key_in_a_reply_is_left_there_for_replies_are_the_data(
    canaries: list[str], tmp_path: Path, split_file: Any
) -> None:
    with LoopbackServer(f"It is {canary('groq')}.") as server:
        result = orbench.evaluate(
            "openai/any", base_url=server.base_url, splits=split_file(rows=1), out=tmp_path / "run"
        )
    assert [row.response for row in result.rows()] == [f"It is {canary('groq')}."]


SLASHED = "sk/canary+7f3a9/b2c4-1d"


@pytest.mark.parametrize(
    "escaped",
    [
        SLASHED,
        SLASHED.replace("/", r"\/"),
        SLASHED.replace("/", r"\u002F").replace("+", r"\u002b"),
        SLASHED.replace("/", r"\\\/").replace("+", r"\\u002b"),
        SLASHED.replace("/", "%2F").replace("+", "%2b"),
        SLASHED.replace("/", "&#x2F;").replace("+", "&#43;"),
    ],
)
@pytest.mark.parametrize("status", [200, 400, 500])
def test_no_key_is_left_however_its_characters_are_escaped(
    monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Any], escaped: str, status: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SLASHED)
    body = b'{"error": {"message": "The key %s is bad.", "code": 400}}' % escaped.encode()
    with (
        LoopbackServer((status, body)) as server,
        pytest.raises((orbench.RejectedError, orbench.RetryableError)) as caught,
    ):
        ask(open_model("openai/any", Options(base_url=server.base_url)))
    assert "The key [key] is bad." in str(caught.value)


@pytest.mark.parametrize("name", KEYED)
def test_no_key_is_in_a_traceback(name: str, canaries: list[str], tmp_path: Path, split_file: Any) -> None:
    refusal = (401, {"error": {"message": f"The key {canary(name)} is wrong"}})
    with LoopbackServer(refusal) as server:
        url = server.root_url if name in ("anthropic", "google") else server.base_url
        try:
            orbench.evaluate(f"{name}/any", base_url=url, splits=split_file(rows=2), out=tmp_path / "run")
        except orbench.ModelError as error:
            told = "".join(traceback.format_exception(error)) + repr(error)
        else:
            raise AssertionError("a wrong key must stop the run")
    assert canary(name) not in told
    assert "[key]" in told
    variables = PROVIDERS[name].key_variables
    assert any(variable in told for variable in variables)


def test_no_key_is_in_the_list_of_models(canaries: list[str]) -> None:
    for more in ([], ["--json"]):
        command = [sys.executable, "-m", "orbench", "models", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=dict(os.environ))
        assert "canary" not in done.stdout + done.stderr
        assert "is set" in done.stdout or "true" in done.stdout


@pytest.mark.parametrize("name", ["openai", "anthropic", "google", "ollama"])
def test_an_unencrypted_address_elsewhere_is_warned_of(name: str, canaries: list[str]) -> None:
    with pytest.warns(OrbenchWarning, match="example.org is asked without encryption"):
        open_model(f"{name}/any", Options(base_url="http://example.org"))


def test_certificates_are_checked_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio
    import ssl

    for variable in ("PYTHONHTTPSVERIFY", "CURL_CA_BUNDLE", "SSL_VERIFY", "NODE_TLS_REJECT_UNAUTHORIZED"):
        monkeypatch.setenv(variable, "0" if variable != "CURL_CA_BUNDLE" else "")

    async def main() -> Any:
        wire = Wire("https://127.0.0.1:1/v1", {})
        try:
            return wire._open().connector
        finally:
            await wire.close()

    context: Any = asyncio.run(main())._ssl
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname
