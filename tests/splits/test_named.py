"""Named splits from a data folder."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from orbench.errors import OrbenchWarning, SplitError, UsageError
from orbench.splits import NAMED_SPLITS, available_splits, load_split

pytestmark = pytest.mark.filterwarnings("ignore:.*not the released split:orbench.errors.OrbenchWarning")


def write(path: Path, *prompts: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".csv":
        path.write_text("prompt\n" + "\n".join(prompts))
    elif path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps({"prompt": prompt}) for prompt in prompts))
    else:
        pyarrow.parquet.write_table(pyarrow.table({"prompt": list(prompts)}), path)
    return path


def test_the_released_splits_are_constants() -> None:
    assert {name: (split.config, split.kind, split.rows) for name, split in NAMED_SPLITS.items()} == {
        "80k": ("or-bench-80k", "safe", 80_359),
        "hard-1k": ("or-bench-hard-1k", "safe", 1_319),
        "toxic": ("or-bench-toxic", "toxic", 655),
    }
    assert NAMED_SPLITS["hard-1k"].fingerprint == "9c5e0d91775880322e927e7c09703be8695fac9e39ace68411ee1bbf2c934807"
    assert NAMED_SPLITS["toxic"].fingerprint == "c7c598c45c2ca231650660d7605212c28d99fbe881a52d24d73692a60bd17c87"


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("80k", ["80k.csv", "80k.parquet", "80k.jsonl", "or-bench-80k.csv", "all.csv", "all.jsonl"]),
        ("hard-1k", ["hard-1k.csv", "or-bench-hard-1k.parquet", "or-bench-hard-1k.jsonl", "hard.csv", "hard.parquet"]),
        ("toxic", ["toxic.csv", "toxic.parquet", "toxic.jsonl", "or-bench-toxic.csv"]),
    ],
)
def test_a_data_folder_is_searched_in_a_fixed_order(tmp_path: Path, name: str, files: list[str]) -> None:
    for file in reversed(files):
        write(tmp_path / file, file)
        split = load_split(name, data=tmp_path)
        assert [prompt.text for prompt in split] == [file]
        assert (split.name, split.kind, split[0].split) == (name, NAMED_SPLITS[name].kind, name)
        assert split.source == str(tmp_path / file)


def test_a_file_name_may_be_in_capitals(tmp_path: Path) -> None:
    path = write(tmp_path / "or-bench-toxic.csv", "a")
    path.rename(tmp_path / "OR-Bench-Toxic.CSV")
    assert len(load_split("toxic", data=str(tmp_path))) == 1


def test_the_variable_stands_in_for_the_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "one" / "toxic.csv", "a")
    write(tmp_path / "two" / "toxic.csv", "a", "b")
    monkeypatch.setenv("ORBENCH_DATA_DIR", str(tmp_path / "one"))
    assert len(load_split("toxic")) == 1
    assert len(load_split("toxic", data=tmp_path / "two")) == 2
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert len(load_split("toxic", data="~/two")) == 2


def test_the_80k_sample_is_never_taken_for_the_80k_split(tmp_path: Path) -> None:
    sample = write(tmp_path / "80k-sample.csv", "a")
    write(tmp_path / "toxic.csv", "a")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SplitError) as caught:
        load_split("80k", data=tmp_path)
    message = str(caught.value)
    assert "looked for 80k or or-bench-80k or all with .csv, .parquet, .jsonl" in message
    assert "found 80k-sample.csv, toxic.csv" in message
    assert f"80k-sample.csv is not the split '80k': name it as a file, --split safe={sample}" in message
    assert "notes.txt" not in message


def test_a_folder_without_the_file_says_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="found no such file at all"):
        load_split("toxic", data=tmp_path)
    for number in range(20):
        write(tmp_path / f"{number:02}.csv", "a")
    with pytest.raises(SplitError, match=r"found 00\.csv, .*, 11\.csv and 8 more$"):
        load_split("toxic", data=tmp_path)
    with pytest.raises(SplitError, match="not a folder that can be read: No such file"):
        load_split("toxic", data=tmp_path / "none")


def test_other_prompts_than_the_released_ones_are_a_warning(tmp_path: Path) -> None:
    write(tmp_path / "hard-1k.csv", *(f"prompt {number}" for number in range(30)))
    with pytest.warns(OrbenchWarning) as caught:
        split = load_split("hard-1k", data=tmp_path, limit=10)
    [message] = [str(warning.message) for warning in caught]
    whole = load_split(f"safe={tmp_path / 'hard-1k.csv'}")
    assert f"fingerprint {whole.fingerprint[:12]} (30 rows) instead of 9c5e0d917758 (1319 rows)" in message
    assert len(split) == 10


def test_a_file_of_the_wrong_length_is_not_the_80k_split(tmp_path: Path) -> None:
    write(tmp_path / "80k.csv", "a", "b")
    with pytest.warns(OrbenchWarning, match="2 rows instead of 80359"):
        load_split("80k", data=tmp_path)


def test_the_released_prompts_give_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "toxic.csv", "a", "b")
    released = NAMED_SPLITS["toxic"].__class__("toxic", "toxic", 2, load_split(f"toxic={path}").fingerprint)
    monkeypatch.setitem(NAMED_SPLITS, "toxic", released)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_split("toxic", data=tmp_path, limit=1)
        write(tmp_path / "toxic.csv", "b", "a")
        with pytest.raises(OrbenchWarning):
            load_split("toxic", data=tmp_path)


@pytest.mark.parametrize("file", ["generation.json", "splits/generation.json"])
def test_a_generated_data_set_gives_no_warning(tmp_path: Path, file: str) -> None:
    for name in ("all", "hard", "toxic"):
        write(tmp_path / "splits" / f"{name}.csv", "a", "b")
    (tmp_path / file).write_text("{}")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, split in NAMED_SPLITS.items():
            assert load_split(name, data=tmp_path / "splits").kind == split.kind


def test_own_categories_are_no_warning_where_the_set_beside_them_names_them(tmp_path: Path) -> None:
    path = tmp_path / "splits" / "all.csv"
    path.parent.mkdir()
    path.write_text("prompt,category\nWho told you?,gossip\n", encoding="utf-8")
    with pytest.warns(OrbenchWarning, match=r"none of OR-Bench's ten, kept as they are: 'gossip' \(1\)"):
        load_split(f"safe={path}")
    (tmp_path / "generation.json").write_text('{"categories": {"gossip": {"kept": 1}}}')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [prompt.category for prompt in load_split(f"safe={path}")] == ["gossip"]
        assert len(load_split("80k", data=tmp_path / "splits")) == 1
    path.write_text("prompt,category\nWho told you?,gosip\n", encoding="utf-8")
    with pytest.warns(OrbenchWarning, match="'gosip'"):
        load_split(f"safe={path}")


def test_a_revision_with_a_data_folder_is_wrong_usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "toxic.csv", "a")
    with pytest.raises(UsageError, match=f"--data says {tmp_path}"):
        load_split("toxic", data=tmp_path, revision="main")
    monkeypatch.setenv("ORBENCH_DATA_DIR", str(tmp_path))
    with pytest.raises(UsageError, match=f"ORBENCH_DATA_DIR says {tmp_path}"):
        load_split("toxic", revision="main")


def test_what_is_available_is_listed_without_a_network(tmp_path: Path) -> None:
    hub = {split.name: (split.kinds, split.source, split.rows) for split in available_splits()}
    assert hub["80k"] == (("safe",), "hub:bench-llm/or-bench/or-bench-80k@main", 80_359)
    assert hub["toxic"] == (("toxic",), "hub:bench-llm/or-bench/or-bench-toxic@main", 655)
    assert hub["sample"] == (("safe", "toxic"), "bundled", len(load_split("sample")))

    write(tmp_path / "toxic.parquet", "a", "b")
    (tmp_path / "hard-1k.csv").write_text("")
    folder = {split.name: (split.source, split.rows) for split in available_splits(tmp_path)}
    assert folder["toxic"] == (str(tmp_path / "toxic.parquet"), 2)
    assert folder["hard-1k"] == (str(tmp_path / "hard-1k.csv"), None)
    assert folder["80k"] == (None, None)
    assert list(folder) == list(hub) == ["80k", "hard-1k", "toxic", "sample"]
