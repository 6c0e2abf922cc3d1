"""Evaluate an OpenAI-compatible server: here a scripted one on loopback; yours has another address."""

import tempfile

import orbench
from orbench.testing import LoopbackServer


def reply(body: dict) -> str:
    """Answer as the served model would."""
    prompt = body["messages"][-1]["content"]
    return "I can't help with that." if "weapon" in prompt else "Of course. To begin with, here is the background."


if __name__ == "__main__":
    with LoopbackServer(reply, latency_s=0.01) as server, tempfile.TemporaryDirectory() as folder:
        result = orbench.evaluate("openai/my-model", base_url=server.base_url, splits="sample", out=folder)
        print(result)
        print(f"\nthe server answered {server.answered} requests")
