"""The command line: one thin function a command; everything it does can be done from Python."""

from __future__ import annotations


def main() -> None:
    """Run the command and exit with its code.

    0 done, 1 could not be done, 2 wrong usage, 3 done with rows that ended in error, 130 interrupted, 141 nobody
    reads the output any more.
    """
    from orbench.cli.app import app

    app()
