"""SIGTERM, which a scheduler sends before it kills, ends a command as one Ctrl-C does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def orderly_sigterm() -> Iterator[list[int]]:
    """While this lasts, SIGTERM does what SIGINT would: open calls are cancelled, and KeyboardInterrupt is raised.

    Later ones are taken as the same: `timeout` and Slurm send it to a process and again to its group, and a second
    Ctrl-C breaks off without order. Nothing changes where somebody else has decided about SIGTERM, or calls us in
    another thread than the main one.

    Yields:
        Where the signal is noted when it comes; empty until then.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield came
        return
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN and hasattr(signal, "pthread_sigmask"):
        # A script's background. Ctrl-C stays without effect there, but asyncio ends in order only through its handler
        # of SIGINT, and sets that only in the place of Python's own.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, signal.default_int_handler)

    ours = os.getpid()

    def interrupt(number: int, frame: object) -> None:
        if os.getpid() != ours:  # a worker that was forked off: its parent ends it so
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif not came:
            came.append(number)
            handler = signal.getsignal(signal.SIGINT)
            if not callable(handler):
                raise KeyboardInterrupt
            handler(signal.SIGINT, None)

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
