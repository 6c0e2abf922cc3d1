"""A loopback server for benchmarks, in a process of its own so that it does not share the client's processor time.

Prints its address, then serves until its standard input closes.
"""

from __future__ import annotations

import sys

from orbench.testing import LoopbackServer

if __name__ == "__main__":
    with LoopbackServer("I can't help with that. " + "word " * 40, latency_s=float(sys.argv[1])) as server:
        print(server.base_url, flush=True)
        sys.stdin.read()
