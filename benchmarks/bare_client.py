"""The baseline of `api.py`: the least a program can do to send the same prompts, in plain aiohttp."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from pathlib import Path

import aiohttp


def request(provider: str, text: str) -> tuple[str, dict]:
    """Path and body, as each vendor wants them."""
    turn = [{"role": "user", "content": text}]
    if provider == "anthropic":
        return "/v1/messages", {"model": "m", "messages": turn, "temperature": 0, "max_tokens": 1000}
    if provider == "google":
        contents = [{"role": "user", "parts": [{"text": text}]}]
        return "/v1/models/m:generateContent", {"contents": contents, "generationConfig": {"temperature": 0}}
    return "/v1/chat/completions", {"model": "m", "messages": turn, "temperature": 0}


def answer(provider: str, reply: dict) -> str:
    """The text of a reply."""
    if provider == "anthropic":
        return reply["content"][0]["text"]
    if provider == "google":
        return reply["candidates"][0]["content"]["parts"][0]["text"]
    return reply["choices"][0]["message"]["content"]


async def main(provider: str, url: str, prompts: str, out: str, concurrency: int) -> None:
    """Send each prompt, `concurrency` at once, and write each reply as a line."""
    with Path(prompts).open(encoding="utf-8", newline="") as file:
        texts = iter([row["prompt"] for row in csv.DictReader(file)])
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:
        with Path(out).open("w", encoding="utf-8") as lines:

            async def work() -> None:
                for text in texts:
                    path, body = request(provider, text)
                    async with session.post(url + path, json=body) as response:
                        reply = await response.json()
                    lines.write(json.dumps({"prompt": text, "response": answer(provider, reply)}) + "\n")

            await asyncio.gather(*(work() for _ in range(concurrency)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4], int(sys.argv[5])))
