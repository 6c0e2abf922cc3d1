"""What every test gets: no waits between attempts, no keys, no data of the machine it runs on."""

import signal

import pytest
from hypothesis import HealthCheck, settings

import orbench
from orbench.engine.calls import Retries
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.models.services import SERVICES
from orbench.testing import ScriptedModel

# No test goes by the clock: a slow machine is no defect.
settings.register_profile("orbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("orbench")

# Whoever is started in the background of a shell ignores Ctrl-C, and so would the programs that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
    """Failed calls are tried again at once."""
    monkeypatch.setattr(Retries, "wait_s", lambda self, attempt, retry_after: 0.0)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """The machine's own keys, addresses and data folders do not count."""
    for service in SERVICES.values():
        monkeypatch.delenv(service.base_url_variable, raising=False)
        if service.key_variable:
            monkeypatch.delenv(service.key_variable, raising=False)
    for name in (
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "GOOGLE_API_KEY",
        "GEMINI_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("ORBENCH_DATA_DIR", raising=False)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def split_file(tmp_path):
    """Writes a CSV of mild prompts and returns it as `--split` wants it: `toxic=.../toxic.csv`."""

    def write(kind="safe", rows=4, categories=("harmful", "privacy")):
        # Short, so that two which differ in their number do not share six in ten of their words.
        ask = {"safe": "Kill process {}?", "toxic": "Insult neighbour {}."}[kind]
        path = tmp_path / f"{kind}.csv"
        lines = [f"{ask.format(n)},{categories[n % len(categories)]}\n" for n in range(rows)]
        path.write_text("prompt,category\n" + "".join(lines), encoding="utf-8")
        return f"{kind}={path}"

    return write


@pytest.fixture
def run(here, split_file):
    """Evaluates a model that refuses the prompts with the given numbers, of 40 safe and 30 toxic ones."""
    default = [split_file("safe", 40), split_file("toxic", 30)]

    def evaluate(refused, name, splits=None, **options):
        def reply(request):
            return REFUSAL if int("".join(filter(str.isdigit, request.prompt))) in refused else ANSWER

        model = ScriptedModel(refused if callable(refused) else reply, name=f"scripted/{name}")
        return orbench.evaluate(model, splits=splits or default, out=name, **options)

    return evaluate
