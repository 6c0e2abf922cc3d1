"""constraints.txt: pinned versions of everything that pyproject.toml asks for, from nowhere in particular."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
LINES = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if line and not line.startswith("#")]


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("asked", [*PROJECT["dependencies"], *EXTRAS["dev"], *EXTRAS["plot"], *EXTRAS["inspect"]])
def test_each_dependency_is_pinned_to_a_version_that_it_allows(asked):
    wanted = Requirement(asked)
    pins = [pin for pin in PINS if plain(pin.name) == plain(wanted.name)]
    assert pins, f"{asked} is not in constraints.txt: make it anew with the command in its head"
    for pin in pins:
        [version] = pin.specifier
        assert version.operator == "=="
        assert wanted.specifier.contains(version.version)


def test_nothing_names_an_index_or_a_file():
    assert not [line for line in LINES if re.search(r"://|^-|\s@\s", line)]
