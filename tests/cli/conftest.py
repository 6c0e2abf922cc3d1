"""Runs commands: in this process where that tells the same, else in one of their own."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass

import msgspec
import pytest

from orbench.cli import main


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """Standard output as one object a line; fails if there is anything else."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


def check_errors(err):
    """What holds for every message: one line each, no traceback, no control character."""
    assert "Traceback" not in err
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", err)


@pytest.fixture
def cli(here, monkeypatch, capsys):
    """Calls the command as typed, in an empty working directory."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["orbench", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        captured = capsys.readouterr()
        check_errors(captured.err)
        return Done(caught.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def process(here):
    """Starts the command in a process of its own; ends it with the test."""
    started = []

    def start(*arguments, module=False, **options):
        head = (
            [sys.executable, "-m", "orbench"]
            if module
            else [sys.executable, "-c", "from orbench.cli import main; main()"]
        )
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        # Output is buffered where users run it, whatever is set here.
        options["env"] = {**os.environ, "PYTHONUNBUFFERED": "", **options.get("env", {})}
        one = subprocess.Popen([*head, *map(str, arguments)], **options)
        started.append(one)
        return one

    yield start
    for one in started:
        if one.poll() is None:
            one.kill()
        one.communicate()


@pytest.fixture
def finish(process):
    """Runs the command to its end in a process of its own."""

    def run(*arguments, **options):
        one = process(*arguments, **options)
        out, err = one.communicate(timeout=60)
        check_errors(err or "")
        return Done(one.returncode, out, err)

    return run
