"""The names of `import orbench`, and what the import costs."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import orbench
import orbench.testing


def test_every_public_name_is_there() -> None:
    for name in orbench.__all__:
        assert getattr(orbench, name) is not None
        assert name in dir(orbench)


@pytest.mark.parametrize("name", [name for name in orbench.__all__ if name != "__version__"])
def test_a_public_name_is_documented(name: str) -> None:
    assert getattr(orbench, name).__doc__


def test_type_checkers_and_the_interpreter_see_the_same_names() -> None:
    (typed,) = [
        node
        for node in ast.parse(Path(orbench.__file__).read_text(encoding="utf-8")).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    seen = {
        alias.name: statement.module
        for statement in typed.body
        if isinstance(statement, ast.ImportFrom)
        for alias in statement.names
    }
    assert seen == orbench._WHERE


def test_the_names_are_in_order() -> None:
    assert list(orbench._WHERE) == sorted(orbench._WHERE)
    assert orbench.__all__ == sorted(["__version__", *orbench._WHERE])


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'orbench' has no attribute 'evalute'"):
        orbench.evalute  # noqa: B018


def test_the_import_loads_nothing_heavy() -> None:
    code = (
        "import json, sys; before = set(sys.modules); import orbench; print(json.dumps([*set(sys.modules) - before]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    outside = {name.partition(".")[0] for name in loaded} - set(sys.stdlib_module_names) - {"orbench"}
    assert not {name for name in outside if not name.startswith("_")}
    assert {name for name in loaded if name.startswith("orbench")} == {"orbench"}


def test_the_doubles_for_tests_are_public() -> None:
    for name in orbench.testing.__all__:
        assert getattr(orbench.testing, name).__doc__
