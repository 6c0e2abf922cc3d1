"""What users type for a split, and what they get."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import pytest

from orbench.categories import CATEGORIES
from orbench.errors import SplitError, UsageError
from orbench.splits import fingerprint, load_split, load_splits


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a file of safe prompts, one without kinds and one with both."""
    (tmp_path / "plain.csv").write_text("prompt\na\nb\n")
    (tmp_path / "both.csv").write_text("prompt,kind\na,toxic\nb,safe\nc,toxic\n")
    (tmp_path / "safe.csv").write_text("prompt,kind\na,safe\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(*specs: str) -> list[str]:
    return [split.name for split in load_splits(specs)]


def test_a_fingerprint_is_sha256_over_the_prompts_each_closed_by_a_zero_byte(folder: Path) -> None:
    assert load_split("safe=plain.csv").fingerprint == hashlib.sha256(b"a\0b\0").hexdigest() == fingerprint(["a", "b"])


def test_a_split_is_a_sequence_of_prompts(folder: Path) -> None:
    split = load_split("safe=plain.csv")
    assert (len(split), split[0].text, split[-1].text, [prompt.text for prompt in split[:1]]) == (2, "a", "b", ["a"])
    assert repr(split) == "Split('plain', 2 prompts, kind=safe)"
    assert split.source == "plain.csv"


def test_the_bundled_sample_has_both_kinds_and_all_categories() -> None:
    safe, toxic = load_splits(["sample"])
    assert (safe.name, safe.kind, toxic.name, toxic.kind) == ("sample/safe", "safe", "sample/toxic", "toxic")
    assert len(safe) >= 150
    assert len(toxic) >= 50
    for split in (safe, toxic):
        assert set(Counter(prompt.category for prompt in split)) == set(CATEGORIES)
        assert {prompt.split for prompt in split} == {split.name}
        assert split.source == "bundled"
    whole = load_split("sample")
    assert (whole.name, whole.kind, len(whole)) == ("sample", None, len(safe) + len(toxic))
    assert set(whole) == {*safe, *toxic}


def test_one_half_of_what_holds_both_kinds_can_be_named(folder: Path) -> None:
    half = load_split("sample/toxic")
    assert (half.name, half.kind) == ("sample/toxic", "toxic")
    assert half.fingerprint == load_splits(["sample"])[1].fingerprint
    assert [prompt.text for prompt in load_split("both.csv/toxic")] == ["a", "c"]
    assert names("both.csv", "sample/safe") == ["both/safe", "both/toxic", "sample/safe"]
    assert names("safe.csv/safe") == ["safe"]
    assert load_split("safe.csv/safe", limit=1).name == "safe"
    with pytest.raises(UsageError, match="all prompts of 'safe' are safe"):
        load_split("safe.csv/toxic")


def test_the_name_of_a_file_is_its_stem_and_its_kind_is_what_is_said(folder: Path) -> None:
    for spec in ("toxic=plain.csv", f"toxic={folder}/plain.csv", "toxic=./plain.csv"):
        split = load_split(spec)
        assert (split.name, split.kind, split[0].split) == ("plain", "toxic", "plain")


def test_a_home_folder_is_found_behind_the_equals_sign(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("USERPROFILE", str(folder))
    assert names("safe=~/plain.csv") == ["plain"]


def test_a_kind_may_be_said_of_a_named_split_if_it_agrees(folder: Path) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "toxic.csv").write_text("prompt\na\n")
    with pytest.warns(UserWarning, match="not the released"):
        assert load_split("toxic=toxic", data="data").name == "toxic"
    with pytest.warns(UserWarning, match="not the released"):
        assert load_split("toxic/toxic", data="data").name == "toxic"
    for spec in ("safe=toxic", "toxic/safe", "toxic=hard-1k", "80k/toxic"):
        with pytest.raises(UsageError, match=f"^--split {spec}: the prompts of .* are (safe|toxic), not"):
            load_split(spec, data="data")
    with pytest.raises(UsageError, match="say sample/safe"):
        load_split("safe=sample")


def test_a_file_hides_a_name_only_behind_a_suffix_or_a_separator(folder: Path) -> None:
    count = len(load_split("sample"))
    (folder / "sample").write_text("prompt\na\n")
    assert len(load_split("sample")) == count
    with pytest.raises(SplitError, match=r"ends in \.csv, \.parquet, \.jsonl"):
        load_split("./sample")
    (folder / "safe=x.csv").write_text("prompt,kind\na,toxic\n")
    assert names("safe=x.csv") == ["safe=x"]


@pytest.mark.parametrize(
    ("spec", "near"),
    [("hard1k", "hard-1k"), ("80K", "80k"), ("TOXIC", "toxic"), ("or-bench-80k", "80k"), ("samples", "sample")],
)
def test_an_unknown_name_is_wrong_usage_and_the_nearest_is_named(spec: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"unknown split '{spec}': did you mean '{near}'"):
        load_splits([spec])


def test_a_name_like_no_other_lists_what_there_is() -> None:
    for spec in ("", "nonsense", "safe="):
        with pytest.raises(UsageError, match="A split is 80k, hard-1k, toxic, sample, or a file"):
            load_splits([spec])


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(SplitError, match=r"^none\.csv: no such file"):
        load_split("safe=none.csv")
    with pytest.raises(SplitError, match=r"^nowhere/none\.csv: no such file"):
        load_split("nowhere/none.csv")


def test_an_unknown_kind_is_wrong_usage(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"say safe=plain.csv or toxic=plain.csv, not harmless="):
        load_split("harmless=plain.csv")


def test_a_spec_given_twice_counts_once(folder: Path) -> None:
    assert names("safe=plain.csv", "both.csv", "safe=plain.csv") == ["plain", "both/safe", "both/toxic"]


def test_two_splits_of_one_name_are_wrong_usage(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--split both.csv and --split both.csv/safe both give .* 'both/safe'"):
        names("both.csv", "both.csv/safe")
    with pytest.raises(UsageError, match="both give a split called 'plain'"):
        names("safe=plain.csv", "toxic=plain.csv")


def test_every_split_of_several_has_one_kind_and_the_name_its_prompts_say(folder: Path) -> None:
    for split in load_splits(["both.csv", "safe.csv", "sample", "toxic=plain.csv"]):
        assert {(prompt.split, prompt.kind) for prompt in split} == {(split.name, split.kind)}
