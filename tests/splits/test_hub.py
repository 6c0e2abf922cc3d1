"""The Hub, through the real `datasets` library against a stand-in on loopback."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from orbench.splits.hub import REPOSITORY

HEADER = "---\nconfigs:\n{}---\nOver-refusal\n"
Load = Callable[..., list[dict[str, Any]]]
NOWHERE = "http://127.0.0.1:1"

LOAD = """
import json, time, warnings
from orbench.splits import load_split
from orbench.errors import OrbenchError

import datasets  # so that the time below is without the import
warnings.simplefilter("always")
for arguments in json.loads('''ARGUMENTS'''):
    started = time.monotonic()
    result = {}
    with warnings.catch_warnings(record=True) as caught:
        try:
            split = load_split(**arguments)
            result["source"] = split.source
            result["rows"] = [[p.text, p.category, p.kind, p.split] for p in split]
        except OrbenchError as error:
            result["error"] = [type(error).__name__, str(error)]
    result["seconds"] = time.monotonic() - started
    result["warnings"] = [str(w.message) for w in caught]
    result["settings"] = [datasets.config.HF_HUB_OFFLINE, datasets.are_progress_bars_disabled()]
    print(json.dumps(result))
"""


def card(**files: str) -> bytes:
    """README.md with a configuration for each file."""
    lines = (f"- config_name: or-bench-{name}\n  data_files: {file}\n" for name, file in files.items())
    return HEADER.format("".join(lines)).encode()


def parquet(**columns: list[str]) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer)
    return buffer.getvalue()


@pytest.fixture
def load(hub: Any, run_python: Callable[..., subprocess.CompletedProcess[str]]) -> Load:
    """Loads splits in one fresh interpreter; one result for each set of arguments."""

    def load(*arguments: dict[str, Any], endpoint: str | None = None) -> list[dict[str, Any]]:
        done = run_python(
            LOAD.replace("ARGUMENTS", json.dumps(arguments)), HF_ENDPOINT=endpoint or hub.url, HTTPS_PROXY=hub.url
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""  # no progress bar, no log line
        return [json.loads(line) for line in done.stdout.splitlines()]

    return load


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("toxic.csv", b'prompt,category\n"a, ""b""\nc",hate\n d ,Sexual\n'),
        ("toxic.parquet", parquet(prompt=['a, "b"\nc', " d "], category=["hate", "Sexual"])),
    ],
)
def test_a_named_split_without_a_data_folder_comes_from_the_hub(
    hub: Any, load: Load, file: str, content: bytes
) -> None:
    hub.datasets[REPOSITORY] = {"README.md": card(toxic=file), file: content}
    [result] = load({"name": "toxic"})
    assert result["rows"] == [['a, "b"\nc', "hate", "toxic", "toxic"], [" d ", "sexual", "toxic", "toxic"]]
    assert result["source"] == f"hub:bench-llm/or-bench/or-bench-toxic@main ({hub.commit(REPOSITORY)[:12]})"
    assert "not the released split 'toxic'" in result["warnings"][0]
    assert result["settings"] == [False, False]  # as they were before
    assert not [request for request in hub.requests if request.startswith("CONNECT")]  # no other host was asked
    assert all(
        hub.commit(REPOSITORY) in request for request in hub.requests if "/resolve/" in request
    )  # all of one commit


def test_a_limit_holds_for_the_hub_and_the_whole_is_checked_before_it(hub: Any, load: Load) -> None:
    rows = "".join(f"prompt {number},hate\n" for number in range(20))
    hub.datasets[REPOSITORY] = {"README.md": card(toxic="t.csv"), "t.csv": b"prompt,category\n" + rows.encode()}
    [result] = load({"name": "toxic", "limit": 5})
    assert len(result["rows"]) == 5
    assert "(20 rows)" in result["warnings"][0]


def test_what_the_hub_does_not_have_is_an_error_of_one_line(hub: Any, load: Load) -> None:
    hub.datasets[REPOSITORY] = {
        "README.md": card(toxic="toxic.csv", **{"hard-1k": "hard.csv"}),
        "toxic.csv": b"text,category\na,hate\n",
        "hard.csv": b"prompt,category\na,hate\n",
    }
    results = load({"name": "toxic"}, {"name": "80k"}, {"name": "hard-1k", "revision": "v9"})
    kinds, messages = zip(*(result["error"] for result in results), strict=True)
    assert set(kinds) == {"SplitError"}
    no_column, no_configuration, no_revision = messages
    assert "columns: text, category" in no_column
    assert "'or-bench-80k' not found" in no_configuration
    assert "no revision 'v9'" in no_revision
    for message in (no_column, no_configuration):
        assert "--data DIR or ORBENCH_DATA_DIR" in message
    assert not any("\n" in message for message in messages)


def test_a_missing_repository_is_named(hub: Any, load: Load) -> None:
    del hub.datasets[REPOSITORY]
    [result] = load({"name": "toxic"})
    assert result["error"][0] == "SplitError"
    assert "no dataset bench-llm/or-bench" in result["error"][1]


def test_an_unreachable_hub_fails_at_once_and_says_what_to_do(load: Load) -> None:
    [result] = load({"name": "toxic"}, endpoint=NOWHERE)
    kind, message = result["error"]
    assert kind == "SplitError"
    assert "--data DIR or ORBENCH_DATA_DIR" in message
    assert "\n" not in message
    assert result["seconds"] < 10  # `datasets` alone tries for 23 s
    assert result["settings"] == [False, False]


def test_the_cache_serves_an_unreachable_hub_but_never_another_revision(hub: Any, load: Load) -> None:
    hub.datasets[REPOSITORY] = {"README.md": card(toxic="toxic.csv"), "toxic.csv": b"prompt,category\na,hate\n"}
    [online] = load({"name": "toxic"})
    main, commit, other = load(
        {"name": "toxic"},
        {"name": "toxic", "revision": hub.commit(REPOSITORY)[:10]},
        {"name": "toxic", "revision": "v9"},
        endpoint=NOWHERE,
    )
    assert main["rows"] == commit["rows"] == online["rows"] == [["a", "hate", "toxic", "toxic"]]
    assert main["source"] == online["source"]
    assert "no answer" in other["error"][1]
