"""Every code block of README.md and docs/ is run, page by page, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orbench.testing import LoopbackServer, prompt_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = {
    "align sft": ("trl", "train"),
    "inspect eval": ("inspect_ai", "inspect"),
    "lm_eval --": ("lm_eval", "lm-eval"),
    "evaluate hf/": ("accelerate", "hf"),
    "--engine ray": ("ray", "ray"),
}
"""What a page cannot run without: a command to its module and the extra that brings it."""
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def reply(body):
    """As a judge and as a model: what the pages' models would say."""
    prompt = prompt_of(body)
    if "[[11. None of the above]]" in prompt:
        return "It only wants to know. [[11. None of the above]]"
    if "double square brackets" in prompt:
        return "It responds to the question. [[direct_answer]]"
    return "Certainly. Here is an overview of the topic, with its main points one after the other."


@pytest.fixture
def place(tmp_path):
    """An empty folder with stand-ins for what the pages assume: data, a key, a service."""
    data = tmp_path / "data"
    data.mkdir()
    for name in ("hard-1k", "toxic"):
        (data / f"{name}.csv").write_text(f"prompt,category\nA prompt of {name}?,harmful\n", encoding="utf-8")
    with LoopbackServer(reply) as server:
        environment = {
            **os.environ,
            "ORBENCH_DATA_DIR": str(data),
            "OPENAI_API_KEY": "loopback",
            "OPENAI_BASE_URL": server.base_url,
            "ANTHROPIC_BASE_URL": server.root_url,
            "GOOGLE_GEMINI_BASE_URL": server.root_url,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        yield tmp_path, environment, server


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_of_a_page_runs(page, place):
    folder, environment, server = place
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    for command, (module, extra) in EXTRAS.items():
        if any(language == "bash" and command in code for language, code in blocks):
            pytest.importorskip(module, reason=f"needs the extra `{extra}`")
    for language, code in blocks:
        if language == "bash" and "pip install" not in code:
            script = code.replace("OPENAI_API_KEY=...", "OPENAI_API_KEY=loopback")
            script = script.replace("http://localhost:8000/v1", server.base_url)
            command = ["bash", "-euo", "pipefail", "-c", script]
        elif language == "python":
            command = [sys.executable, "-c", code]
        else:
            assert language in ("bash", "text"), f"{page.name}: a {language} block that nothing runs"
            continue
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{page.name}:\n{code}\n{done.stdout}\n{done.stderr}"


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_table_in_the_readme_is_what_the_command_prints(tmp_path):
    command = [sys.executable, "-m", "orbench", "evaluate", "baseline/keyword-guard", "--split", "sample"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    shown = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert done.stdout.startswith(shown.group(1).rstrip("\n"))
