"""Pushing to the Hub, through the real `huggingface_hub` and `datasets`, to a stand-in on loopback."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

import orbench
from orbench.errors import RunError, SplitError, UsageError
from orbench.generation.push import push
from orbench.testing import LoopbackHub
from orbench.testing.hub import TOKEN

NAME = "someone/refusals"
ROWS = [
    {"id": "a", "prompt": 'How do I stop a "fox",\nat night?', "category": "harmful", "seed_id": "s", "kind": "safe"},
    {"id": "b", "prompt": "Why is the sky 青い?", "category": "privacy", "seed_id": "t", "kind": "safe"},
]
GENERATION = '{"config": {"seed": 0}, "finished": {"stage": null}}'
CODE = """
import datasets, json, os, sys
from orbench.generation.push import push
folder, name, work = sys.argv[1:]
if work == "push":
    print(push(folder, name))
else:
    print(json.dumps({c: datasets.load_dataset(name, c, split="train").to_list() for c in ("all", "toxic")}))
"""


@pytest.fixture
def folder(tmp_path):
    """What a generation leaves behind, as far as it is pushed."""
    made = tmp_path / "made"
    (made / "splits").mkdir(parents=True)
    for name, rows in (("all", ROWS), ("toxic", [{**ROWS[0], "kind": "toxic"}])):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), made / "splits" / f"{name}.parquet")
    with (made / "splits" / "all.csv").open("w", encoding="utf-8", newline="") as file:
        csv.DictWriter(file, ROWS[0]).writerows(ROWS)
    (made / "votes.jsonl").write_text("{}\n")
    (made / "generation.json").write_text(GENERATION)
    configs = [{"config_name": name, "data_files": f"splits/{name}.parquet"} for name in ("all", "toxic")]
    header = yaml.safe_dump({"license": "cc-by-4.0", "configs": configs}, sort_keys=False)
    (made / "README.md").write_text(f"---\n{header}---\n# Refusals\n\nMade to be pushed.\n", encoding="utf-8")
    return made


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with LoopbackHub() as hub:
        yield hub


def run(hub, folder, work):
    """In an interpreter of its own: the libraries read their settings when imported."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    root = str(Path(orbench.__file__).parents[1])
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder.parent / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_TOKEN": TOKEN,
        "NO_PROXY": "127.0.0.1",
        "HTTPS_PROXY": hub.url,
        "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")]),
    }
    command = [sys.executable, "-c", CODE, str(folder), NAME, work]
    done = subprocess.run(command, env=kept | settings, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("large", [(), (".parquet",)])
def test_what_is_pushed_comes_back_the_same(hub, folder, large):
    hub.large = large
    assert run(hub, folder, "push") == f"{hub.url}/datasets/{NAME}/commit/{hub.commit(NAME)}"
    assert len(hub.objects) == (2 if large else 0)
    loaded = json.loads(run(hub, folder, "load"))
    assert loaded == {"all": ROWS, "toxic": [{**ROWS[0], "kind": "toxic"}]}
    assert hub.messages == ["Splits made with orbench"]  # one commit
    assert not [request for request in hub.requests if request.startswith("CONNECT")]


def test_the_splits_the_card_and_how_they_were_made_are_pushed_and_nothing_else(hub, folder):
    push(folder, NAME, endpoint=hub.url)
    assert set(hub.datasets[NAME]) == {"README.md", "generation.json", "splits/all.parquet", "splits/toxic.parquet"}
    assert hub.private == {NAME}
    push(folder, "someone/public", endpoint=hub.url, private=False)
    assert hub.private == {NAME}


def test_pushing_again_replaces_what_changed(hub, folder):
    push(folder, NAME, endpoint=hub.url)
    (folder / "generation.json").write_text(GENERATION.replace("0", "1"))
    push(folder, NAME, endpoint=hub.url)
    assert hub.datasets[NAME]["generation.json"] == GENERATION.replace("0", "1").encode()
    assert len(hub.messages) == 2


def test_a_licence_is_asked_for_and_one_that_is_given_goes_before_the_cards(hub, folder):
    push(folder, NAME, endpoint=hub.url, license="apache-2.0")
    pushed = hub.datasets[NAME]["README.md"].decode()
    assert yaml.safe_load(pushed.split("---\n")[1])["license"] == "apache-2.0"
    assert pushed.endswith("# Refusals\n\nMade to be pushed.\n")
    card = folder / "README.md"
    card.write_text(card.read_text().replace("license: cc-by-4.0\n", ""))
    with pytest.raises(UsageError, match=r"no licence.*--license"):
        push(folder, NAME, endpoint=hub.url)
    with pytest.raises(UsageError, match="'My own!' is none of the Hub's"):
        push(folder, NAME, endpoint=hub.url, license="My own!")


def test_the_token_comes_from_the_environment_alone(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    with pytest.raises(RunError, match="HF_TOKEN a token that may write") as caught:
        push(folder, NAME, endpoint=hub.url)
    assert "hf_other" not in str(caught.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(UsageError, match="set HF_TOKEN"):
        push(folder, NAME, endpoint=hub.url)
    assert hub.datasets == {}


@pytest.mark.parametrize("name", ["refusals", "a/b/c", "some one/x", "a/.."])
def test_a_name_that_cannot_be_one_is_wrong_usage(hub, folder, name):
    with pytest.raises(UsageError, match="no name of a data set"):
        push(folder, name, endpoint=hub.url)
    assert hub.datasets == {}


def spoil(folder, what):
    card = folder / "README.md"
    if what == "no card":
        card.unlink()
    elif what == "no header":
        card.write_text("# Refusals\n")
    elif what == "no YAML":
        card.write_text("---\na: [\n---\n")
    elif what == "no generation":
        (folder / "generation.json").unlink()
    elif what == "not finished":
        (folder / "generation.json").write_text('{"config": {}}')
    elif what == "one stage":
        (folder / "generation.json").write_text('{"config": {}, "finished": {"stage": "moderation"}}')
    elif what == "no split":
        (folder / "splits" / "all.parquet").unlink()
    elif what == "elsewhere":
        card.write_text(card.read_text().replace("splits/all.parquet", "../made/../secret"))
        (folder.parent / "secret").write_text("x")
    elif what == "no configs":
        card.write_text("---\nlicense: other\n---\n")


@pytest.mark.parametrize(
    "what",
    [
        "no card",
        "no header",
        "no YAML",
        "no generation",
        "not finished",
        "one stage",
        "no split",
        "elsewhere",
        "no configs",
    ],
)
def test_a_folder_that_is_no_finished_generation_is_not_pushed(hub, folder, what):
    spoil(folder, what)
    with pytest.raises(RunError, match=r"README\.md|generation\.json|not finished"):
        push(folder, NAME, endpoint=hub.url)
    assert hub.requests == []


def test_a_broken_split_is_not_pushed(hub, folder):
    (folder / "splits" / "toxic.parquet").write_bytes(b"PAR1")
    with pytest.raises(SplitError, match=r"toxic\.parquet"):
        push(folder, NAME, endpoint=hub.url)
    assert hub.requests == []


def test_a_hub_that_does_not_answer_is_one_line(hub, folder):
    with pytest.raises(RunError, match="cannot push someone/refusals") as caught:
        push(folder, NAME, endpoint="http://127.0.0.1:1")
    assert "\n" not in str(caught.value)
