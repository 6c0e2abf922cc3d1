"""What the cells of a file mean: ids, kinds, categories."""

from __future__ import annotations

import csv
import hashlib
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.errors import OrbenchWarning, SplitError, UsageError
from orbench.splits import Split, load_split


def write(folder: Path, header: str, *rows: list[str]) -> Path:
    path = folder / "mine.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header.split(","), *rows])
    return path


def load(folder: Path, header: str, *rows: list[str]) -> Split:
    return load_split(f"safe={write(folder, header, *rows)}")


def refusal(folder: Path, header: str, *rows: list[str]) -> str:
    with pytest.raises(SplitError) as caught:
        load(folder, header, *rows)
    return str(caught.value)


def test_an_id_is_the_hash_of_the_text(tmp_path: Path) -> None:
    [prompt] = load(tmp_path, "prompt", ["a prompt"])
    assert prompt.id == hashlib.sha256(b"a prompt").hexdigest()[:16] == "a98310efb4de5c1d"


def test_a_repeated_text_keeps_rows_of_their_own(tmp_path: Path) -> None:
    ids = [prompt.id for prompt in load(tmp_path, "prompt", ["a"], ["b"], ["a"], ["a"])]
    assert ids == [ids[0], ids[1], f"{ids[0]}-2", f"{ids[0]}-3"]


@given(st.lists(st.sampled_from("abc"), min_size=1), st.sampled_from("abcd"))
def test_ids_are_unique_and_stay_when_rows_are_added(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], more: str
) -> None:
    folder = tmp_path_factory.mktemp("ids")
    before = [prompt.id for prompt in load(folder, "prompt", *([text] for text in texts))]
    after = [prompt.id for prompt in load(folder, "prompt", *([text] for text in [*texts, more]))]
    assert len(set(after)) == len(after)
    assert after[:-1] == before


def test_a_file_may_bring_its_own_ids(tmp_path: Path) -> None:
    ids = [prompt.id for prompt in load(tmp_path, "prompt,id", ["a", "x"], ["a", ""], ["a", "y"], ["a", " "])]
    assert (ids[0], ids[2]) == ("x", "y")
    assert ids[3] == f"{ids[1]}-2"


def test_ids_may_be_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "id": 7, "seed_id": 12345678901234567890}')
    [prompt] = load_split(f"safe={path}")
    assert (prompt.id, prompt.seed_id) == ("7", "12345678901234567890")
    path.write_text('{"prompt": "a", "id": true}')
    with pytest.raises(SplitError, match="'id' is not text but of type bool"):
        load_split(f"safe={path}")


def test_a_prompt_without_a_seed_has_none(tmp_path: Path) -> None:
    assert [prompt.seed_id for prompt in load(tmp_path, "prompt,seed_id", ["a", ""], ["b", "s1"])] == [None, "s1"]
    assert load(tmp_path, "prompt", ["a"])[0].seed_id is None


def test_an_id_given_twice_names_both_rows(tmp_path: Path) -> None:
    message = refusal(tmp_path, "prompt,id", ["a", "x"], ["b", "y"], ["c", "x"])
    assert "row 3 (line 4): the id 'x' is that of row 1" in message


def test_an_empty_prompt_is_named_by_its_row(tmp_path: Path) -> None:
    for blank in ("", " \t", "\n", "\u3000"):
        message = refusal(tmp_path, "prompt,category", ["two\nlines", "hate"], ["b", "hate"], [blank, "hate"])
        assert message == f"{tmp_path / 'mine.csv'}, row 3 (line 5): the prompt is empty"


def test_a_missing_prompt_column_names_what_was_found(tmp_path: Path) -> None:
    message = refusal(tmp_path, "Prompts,label", ["a", "hate"])
    assert "no column 'prompt'; found 'Prompts', 'label'; is it 'Prompts'?" in message
    assert "is it" not in refusal(tmp_path, "label,question", ["hate", "a"])
    message = refusal(tmp_path, "My Prompt,Category,label", ["a", "hate", "b"])
    assert message.endswith("Then say --column 'prompt=My Prompt' --column category=Category")
    assert refusal(tmp_path, " Prompt", ["a"]).endswith("Then say --column 'prompt= Prompt'")
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"category": "hate"}\n')
    with pytest.raises(SplitError, match="found 'text', 'category'"):
        load_split(f"safe={path}")


def test_no_message_quotes_a_prompt(tmp_path: Path) -> None:
    secret = "something toxic"
    for header, row in (("prompt,kind", [secret, "bad"]), ("prompt,id", [secret, "1"]), ("text,id", [secret, "2"])):
        assert secret not in refusal(tmp_path, header, row, row)


def test_categories_are_read_in_any_case(tmp_path: Path) -> None:
    rows = [["a", " Self-Harm "], ["b", "HATE"], ["c", ""], ["d", " "], ["e", "uncategorised"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = load(tmp_path, "prompt,category", *rows)
        assert load(tmp_path, "prompt", ["a"])[0].category == "uncategorised"
    assert [prompt.category for prompt in split] == ["self-harm", "hate", *["uncategorised"] * 3]


def test_unknown_categories_are_kept_and_reported_once(tmp_path: Path) -> None:
    rows = [["a", " Mine "], ["b", "hate"], ["c", " Mine "], ["d", "other"]]
    with pytest.warns(OrbenchWarning) as caught:
        split = load(tmp_path, "prompt,category", *rows)
    assert [prompt.category for prompt in split] == [" Mine ", "hate", " Mine ", "other"]
    [message] = [str(warning.message) for warning in caught]
    assert "mine.csv" in message
    assert "' Mine ' (2), 'other' (1)" in message


def test_a_file_of_categories_of_its_own_does_not_flood_the_warning(tmp_path: Path) -> None:
    with pytest.warns(OrbenchWarning, match=r"'c0' \(1\).* and 40 more$"):
        load(tmp_path, "prompt,category", *([f"p{number}", f"c{number}"] for number in range(50)))


def test_a_kind_column_makes_a_bare_file_enough(tmp_path: Path) -> None:
    split = load_split(write(tmp_path, "prompt,kind", ["a", "toxic"], ["b", "toxic"]))
    assert (split.name, split.kind, {prompt.split for prompt in split}) == ("mine", "toxic", {"mine"})


def test_a_file_with_both_kinds_is_one_split_whose_prompts_belong_to_two(tmp_path: Path) -> None:
    split = load_split(write(tmp_path, "prompt,kind", ["a", "toxic"], ["b", "safe"]))
    assert (split.name, split.kind) == ("mine", None)
    assert [prompt.split for prompt in split] == ["mine/toxic", "mine/safe"]


def test_a_bare_file_without_kinds_is_wrong_usage(tmp_path: Path) -> None:
    path = write(tmp_path, "prompt", ["a"])
    with pytest.raises(UsageError) as caught:
        load_split(str(path))
    assert f"--split safe={path} or --split toxic={path}" in str(caught.value)


@pytest.mark.parametrize("bad", ["Safe", "harmful", ""])
def test_a_bad_kind_names_row_and_allowed_values(tmp_path: Path, bad: str) -> None:
    path = write(tmp_path, "prompt,kind", ["a", "safe"], ["b", bad])
    with pytest.raises(SplitError, match=r"row 2 \(line 3\): 'kind' is '.*'; it must be 'safe' or 'toxic'"):
        load_split(path)


def test_a_kind_that_is_said_fills_gaps_but_overrules_nothing(tmp_path: Path) -> None:
    assert load(tmp_path, "prompt,kind", ["a", "safe"], ["b", ""]).kind == "safe"
    path = write(tmp_path, "prompt,kind", ["a", "safe"], ["b", "toxic"], ["c", "toxic"])
    with pytest.raises(UsageError, match=r"row 2 \(line 3\): the file says toxic"):
        load_split(f"safe={path}")
