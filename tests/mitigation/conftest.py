"""A run of a model that is over-cautious, and a teacher that is not."""

import csv

import msgspec
import pytest

import orbench
from orbench.models.baseline import ANSWER, REFUSAL
from orbench.testing import ScriptedModel

THINGS = "process thread daemon printer server tab window editor shell queue socket cursor buffer"
VERBS = "kill stop crash terminate execute abort blow shoot hit smash break crush"
INSULTS = "neighbour cousin boss colleague teacher landlord barber dentist"
SORTS = "short rude long sneaky cruel bitter nasty"


def safe_prompts(count):
    """Mild prompts that no two of share most of their words."""
    made = [f"{verb} {thing} number{n}a how number{n}b" for n, (verb, thing) in enumerate(_product(VERBS, THINGS))]
    return made[:count]


def toxic_prompts(count):
    """Mild stand-ins for toxic prompts."""
    made = [f"{sort} insult {who} word{n}a please word{n}b" for n, (sort, who) in enumerate(_product(SORTS, INSULTS))]
    return made[:count]


def _product(one, other):
    return [(a, b) for a in one.split() for b in other.split()]


@pytest.fixture
def prompts(tmp_path):
    """Writes a split file of both kinds."""

    def write(safe=60, toxic=40, name="mine.csv", seeds=None):
        path = tmp_path / name
        with path.open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["prompt", "category", "kind", "seed_id"])
            for kind, texts in (("safe", safe_prompts(safe)), ("toxic", toxic_prompts(toxic))):
                for n, text in enumerate(texts):
                    table.writerow([text, "harmful", kind, seeds(kind, n) if seeds else ""])
        return path

    return write


@pytest.fixture
def cautious(here, prompts):
    """Evaluates a model that refuses everything but what `answers` picks; returns the run folder's path."""

    def evaluate(answers=lambda prompt: False, name="cautious", **options):
        def reply(request):
            return ANSWER if answers(request.prompt) else REFUSAL

        result = orbench.evaluate(
            ScriptedModel(reply, name=f"scripted/{name}"), splits=str(prompts(**options)), out=name, progress=False
        )
        return result.run

    return evaluate


def good_teacher(request):
    """Answers what is safe, refuses what is not."""
    if "insult" in request.prompt:
        return "I'm sorry, but I can't help with insults."
    return f"Certainly. To {request.prompt.split()[0]} it, open the list, choose it, and press the button."


@pytest.fixture
def teacher():
    """A scripted teacher that keeps what it was asked."""
    return ScriptedModel(good_teacher, name="scripted/teacher")


def lines(path):
    """The rows of a JSON Lines file as plain dicts."""
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def texts(path):
    """The prompts of a CSV file."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row["prompt"] for row in csv.DictReader(file)]
