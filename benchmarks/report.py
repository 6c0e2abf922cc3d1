"""The HTML report: how long it takes to write, how large it is, and how long a browser takes to open and search it.

    python benchmarks/report.py --data DIR [--runs 5]

DIR holds hard-1k.csv and toxic.csv of OR-Bench. The browser's part needs playwright and a Chromium, named in the
environment variable CHROMIUM or found as `chromium`, and is left out without them.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from measure import compare, run

import orbench
from orbench.records import Completion, Request
from orbench.testing import ScriptedModel

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
FLAGS = "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        many = folder / "many.csv"
        with (Path(options.data) / "hard-1k.csv").open(encoding="utf-8", newline="") as file:
            texts = [(row["prompt"], row["category"]) for row in csv.DictReader(file)]
        with many.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "category"])
            writer.writerows(
                [f"{texts[n % len(texts)][0]} (variant {n})", texts[n % len(texts)][1]] for n in range(80_000)
            )
        orbench.evaluate(model(1), data=options.data, out=folder / "small", scorer="keywords", progress=False)
        orbench.evaluate(model(2), splits=f"safe={many}", out=folder / "large", scorer="keywords", progress=False)
        for label, run_name, more in (
            ("report of 1,974 rows, replies of 2,000 characters", "small", []),
            ("report of 80,000 rows, 20,000 in the page", "large", []),
            ("report of 80,000 rows, all in the page", "large", ["--rows", "80000"]),
        ):
            page = folder / "report.html"
            command = [sys.executable, "-m", "orbench", "report", str(folder / run_name), "--out", str(page), *more]
            compare(label, lambda command=command: run(command), runs=options.runs)  # type: ignore[misc]
            print(f"  {page.stat().st_size / 1e6:.1f} MB", flush=True)
            browse(page, options.runs)


def model(seed: int) -> ScriptedModel:
    """Refuses three in ten; its replies are about 2,000 characters long, as a model's are."""
    rng = random.Random(seed)
    words = [f"word{n}" for n in range(500)]

    def reply(request: Request) -> Completion | str:
        if rng.random() < 0.3:
            return "I'm sorry, but I can't help with that."
        return "Certainly. " + " ".join(rng.choices(words, k=rng.randrange(100, 450)))

    return ScriptedModel(reply, name=f"scripted/{seed}")


def browse(page: Path, runs: int) -> None:
    """Time from the start of loading to the page in use, of a search, and of showing 2,000 rows."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    if not Path(CHROMIUM).exists():
        return
    opened, searched, listed = [], [], []
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        for _ in range(runs):
            tab = browser.new_page()
            began = time.perf_counter()
            tab.goto(page.as_uri())
            tab.wait_for_selector("tr.row")
            opened.append(time.perf_counter() - began)
            began = time.perf_counter()
            tab.evaluate(
                """() => new Promise((done) => {
                  const size = document.getElementById('f-size'); size.value = '2000';
                  size.dispatchEvent(new Event('change'));
                  requestAnimationFrame(() => setTimeout(done)); })"""
            )
            listed.append(time.perf_counter() - began)
            before = tab.inner_text("#status")
            began = time.perf_counter()
            tab.fill("#q", "word42")
            tab.wait_for_function("text => document.getElementById('status').textContent !== text", arg=before)
            searched.append(time.perf_counter() - began)
            tab.close()
        browser.close()
    print(
        f"  in Chromium: open {statistics.median(opened):.2f} s, show 2,000 rows {statistics.median(listed):.2f} s, "
        f"search (first, 2,000 rows shown) {statistics.median(searched):.2f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
