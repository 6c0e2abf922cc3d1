"""`orbench doctor`: what it finds, and that it never shows a key."""

import pytest

from orbench.doctor import examine
from orbench.models import PROVIDERS
from orbench.testing import LoopbackServer
from orbench.testing.server import chat_completion

KEY = "sk-canary-0123456789"


@pytest.fixture(autouse=True)
def clean(here, monkeypatch):
    for provider in PROVIDERS.values():
        for name in provider.key_variables:
            monkeypatch.delenv(name, raising=False)
    for name in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL", "ORBENCH_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)


def finding(what, *arguments, **options):
    return next(each for each in examine(*arguments, **options) if each.what == what)


def test_a_sound_set_up_has_no_problem():
    assert not [each for each in examine() if each.status == "problem"]


def test_keys_are_told_to_be_set_and_never_shown(monkeypatch):
    for provider in PROVIDERS.values():
        for name in provider.key_variables:
            monkeypatch.setenv(name, KEY)
    found = examine(["openai/x"], base_url="http://127.0.0.1:9")
    assert finding("key openai").status == "ok"
    assert KEY not in repr(found)


def test_keys_that_are_not_set_are_a_note():
    keys = finding("keys")
    assert keys.status == "note"
    assert "OPENAI_API_KEY" in keys.found


@pytest.mark.parametrize("key", [f"{KEY} ", f"{KEY}\n", f"{KEY[:5]}\u200b{KEY[5:]}"])
def test_a_key_with_a_character_that_no_key_has_is_a_problem(monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    found = finding("key openai")
    assert found.status == "problem"
    assert KEY[:5] not in found.found


@pytest.mark.parametrize(
    ("address", "status"),
    [
        ("https://models.example.org/v1", "ok"),
        ("http://localhost:8000/v1", "ok"),
        ("http://models.example.org/v1", "problem"),
        ("models.example.org", "problem"),
        ("http://[::1", "problem"),
        ("http://127.0.0.2:8000/v1", "ok"),
        ("https://models.example.org:port/v1", "problem"),
        ("https://user:word@models.example.org/v1", "problem"),
        ("https://models.example.org/v1?api_key=word", "problem"),
    ],
)
def test_an_address_from_the_environment_is_looked_at(monkeypatch, address, status):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    assert finding("address OPENAI_BASE_URL").status == status


@pytest.mark.parametrize("address", ["https://user:{}@models.example.org/v1?key={}", "http://{}@[::1", "{}", "'\"{}"])
def test_an_address_with_a_password_is_not_shown(monkeypatch, address):
    monkeypatch.setenv("OPENAI_BASE_URL", address.format(KEY, KEY))
    assert KEY not in repr(examine())


def test_the_data_folder_is_looked_into(tmp_path):
    assert finding("splits").status == "note"
    assert finding("splits", data=tmp_path / "nowhere").status == "problem"
    assert "holds none" in finding("splits", data=tmp_path).found
    (tmp_path / "toxic.csv").write_text("prompt\na\n", encoding="utf-8")
    assert finding("splits", data=tmp_path).found.startswith("toxic in")


def test_a_named_model_gets_one_short_question(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackServer(lambda request: chat_completion("ready")) as server:
        found = finding("openai/x", ["openai/x"], base_url=server.base_url)
        assert found.status == "ok"
        assert "replied in" in found.found
        assert len(server.requests) == 1


def test_a_model_that_cannot_be_reached_or_used_is_a_problem(monkeypatch):
    assert finding("openai/x", ["openai/x"]).status == "problem"
    assert "OPENAI_API_KEY" in finding("openai/x", ["openai/x"]).found
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with LoopbackServer(lambda request: (401, {"error": {"message": "Incorrect API key provided"}})) as server:
        assert finding("openai/x", ["openai/x"], base_url=server.base_url).status == "problem"
    assert finding("nonsense", ["nonsense"]).status == "problem"


def test_nothing_is_sent_unless_a_model_is_named():
    with LoopbackServer(lambda request: chat_completion("ready")) as server:
        examine(base_url=server.base_url)
        assert not server.requests


def test_a_model_that_cannot_be_asked_is_named_once():
    found = finding("openai/x", ["openai/x"])
    assert found.status == "problem"
    assert "openai/x" not in found.found


def test_the_missing_extras_are_one_note_and_the_installed_ones_another():
    found = [each for each in examine() if "extra" in each.what]
    assert [each.what for each in found] in (["extras", "missing extras"], ["missing extras"], ["extras"])
    named = ", ".join(each.found.removeprefix("installed: ") for each in found).split(", ")
    assert {"hf", "plot"} <= set(named)
    assert len(set(named)) == len(named)
