"""`python -m orbench.testing.server`: a loopback server as a process of its own, for benchmarks and for killing it.

Prints its address (without a path) as one line, then serves until it is ended, or with `--stdin` until its standard
input closes; then it prints the seconds from the first request that it answered to the last answer.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack

from orbench.testing.generation import ScriptedGeneration
from orbench.testing.server import Answer, Body, LoopbackServer
from orbench.testing.server.faults import Faults, refusing


def main() -> None:
    """Serve as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m orbench.testing.server", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 (default) for a free one")
    parser.add_argument("--latency", type=float, default=0.0, metavar="S", help="seconds before each answer")
    parser.add_argument("--reply", help="the text of every answer")
    parser.add_argument(
        "--generation",
        action="store_true",
        help="answer as orbench generate's models, whose names begin with seeder, rewriter, moderator or rescue",
    )
    parser.add_argument("--refused", type=float, default=0.3, metavar="SHARE", help="prompts that are refused (0.3)")
    parser.add_argument("--capacity", type=int, metavar="N", help="calls open at once; others get status 429")
    parser.add_argument("--rpm", type=float, metavar="N", help="requests a minute; others get status 429")
    parser.add_argument("--batch-polls", type=int, default=1, metavar="N", help="polls before a batch is done")
    parser.add_argument("--batch-queue", type=int, metavar="N", help="requests that batches may have under way")
    parser.add_argument("--log", metavar="FILE", help="answered prompts, one a line; counted in at the start")
    parser.add_argument("--stdin", action="store_true", help="end when standard input closes")
    for field in Faults.__struct_fields__:
        kind = int if field in ("attempts", "seed") else float
        unit = "N" if kind is int else "S" if field.endswith("_s") else "SHARE"
        parser.add_argument(f"--{field.replace('_', '-')}", type=kind, default=getattr(Faults(), field), metavar=unit)
    given = parser.parse_args()
    try:
        faults = Faults(**{field: getattr(given, field) for field in Faults.__struct_fields__})
    except ValueError as error:
        parser.error(str(error))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    reply: Answer | Callable[[Body], Answer] = refusing(given.refused) if given.reply is None else given.reply
    if given.generation:
        reply = ScriptedGeneration(refused=given.refused)
    server = LoopbackServer(
        reply,
        latency_s=given.latency,
        faults=faults,
        capacity=given.capacity,
        rpm=given.rpm,
        batch_polls=given.batch_polls,
        batch_queue=given.batch_queue,
        port=given.port,
        log=given.log,
        keep_requests=False,
    )
    with ExitStack() as serving:
        try:
            serving.enter_context(server)
        except OSError as error:
            parser.error(str(error))
        print(server.root_url, flush=True)
        if given.stdin:
            sys.stdin.read()
            print(f"{server.served_s:.3f}", flush=True)
        else:
            ended.wait()


if __name__ == "__main__":
    main()
