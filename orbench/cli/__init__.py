"""The command line: one thin function a command; everything it does can be done from Python."""

from __future__ import annotations

import gc
import os
import sys

_GC_THRESHOLD = 10_000
"""Allocations between two looks of the garbage collector. Hundreds of open calls keep thousands of objects alive and
leave no cycles; at Python's own 700 looking through them again and again takes a tenth of a run."""


def main() -> None:
    """Run the command and exit with its code.

    0 done, 1 could not be done, 2 wrong usage, 3 done with rows that ended in error, 130 interrupted, 141 nobody
    reads the output any more, 143 ended by SIGTERM.
    """
    gc.set_threshold(_GC_THRESHOLD)
    from orbench.cli.app import app
    from orbench.engine.threads import at_work

    others = at_work()  # where somebody calls us within a program of theirs
    try:
        app()
    except SystemExit as end:
        if at_work() and not others and isinstance(end.code, int):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code)
        raise
