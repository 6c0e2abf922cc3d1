"""The baseline of `api.py`: the least a program can do to send the same prompts, in plain aiohttp."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from pathlib import Path

import aiohttp


async def main(url: str, prompts: str, out: str, concurrency: int) -> None:
    """Send each prompt, `concurrency` at once, and write each reply as a line."""
    with Path(prompts).open(encoding="utf-8", newline="") as file:
        texts = iter([row["prompt"] for row in csv.DictReader(file)])
    connector = aiohttp.TCPConnector(limit=concurrency)
    async with aiohttp.ClientSession(connector=connector) as session:
        with Path(out).open("w", encoding="utf-8") as lines:

            async def work() -> None:
                for text in texts:
                    body = {"model": "m", "messages": [{"role": "user", "content": text}], "temperature": 0}
                    async with session.post(f"{url}/chat/completions", json=body) as response:
                        reply = await response.json()
                    content = reply["choices"][0]["message"]["content"]
                    lines.write(json.dumps({"prompt": text, "response": content}) + "\n")

            await asyncio.gather(*(work() for _ in range(concurrency)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
