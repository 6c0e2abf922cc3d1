"""Files of the user's own: what is read exactly, and what is refused with the place named."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orbench.errors import OrbenchWarning, SplitError, UsageError
from orbench.splits import fingerprint, load_split

Write = Callable[[str, str | bytes], Path]
PROMPTS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip),
    min_size=1,
    max_size=8,
)


def texts(path: Path) -> list[str]:
    return [prompt.text for prompt in load_split(f"safe={path}")]


def refusal(path: Path) -> str:
    with pytest.raises(SplitError) as caught:
        load_split(f"safe={path}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@given(PROMPTS, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_csv_keeps_every_prompt_exactly(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], newline: str, encoding: str
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator=newline, quoting=csv.QUOTE_ALL)
    writer.writerows([["category", "prompt"], *(["hate", prompt] for prompt in prompts)])
    path = tmp_path_factory.mktemp("csv") / "mine.csv"
    path.write_bytes(buffer.getvalue().encode(encoding))
    assert texts(path) == prompts


@given(PROMPTS, st.booleans(), st.sampled_from(["\n", "\r\n"]), st.sampled_from(["utf-8", "utf-8-sig"]))
def test_jsonl_keeps_every_prompt_exactly(
    tmp_path_factory: pytest.TempPathFactory, prompts: list[str], escape: bool, newline: str, encoding: str
) -> None:
    lines = [json.dumps({"prompt": prompt, "score": 1}, ensure_ascii=escape) for prompt in prompts]
    path = tmp_path_factory.mktemp("jsonl") / "mine.jsonl"
    path.write_bytes(newline.join(lines).encode(encoding))
    assert texts(path) == prompts


@given(PROMPTS)
def test_parquet_keeps_every_prompt_exactly(tmp_path_factory: pytest.TempPathFactory, prompts: list[str]) -> None:
    path = tmp_path_factory.mktemp("parquet") / "mine.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"n": list(range(len(prompts))), "prompt": prompts}), path)
    split = load_split(f"safe={path}")
    assert [prompt.text for prompt in split] == prompts
    assert split.fingerprint == fingerprint(prompts)


def test_all_formats_give_the_same_prompts(write: Write, tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "category": "hate", "id": "1", "seed_id": "s1", "kind": "safe"},
        {"prompt": "b", "category": "privacy", "id": "2", "seed_id": "s1", "kind": "safe"},
    ]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    paths = [
        write("x.csv", buffer.getvalue()),
        write("x.JSONL", "\n".join(map(json.dumps, rows))),
        tmp_path / "x.parquet",
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[2])
    from_csv, from_jsonl, from_parquet = (list(load_split(path)) for path in paths)
    assert from_csv == from_jsonl == from_parquet
    assert (from_csv[1].id, from_csv[1].seed_id, from_csv[1].category) == ("2", "s1", "privacy")


def test_a_prompt_of_more_than_a_megabyte_is_read(write: Write) -> None:
    long = "word, " * 300_000
    assert texts(write("long.csv", f'prompt\n"{long}"\n')) == [long]
    assert texts(write("long.jsonl", json.dumps({"prompt": long}))) == [long]


def test_empty_lines_are_no_rows(write: Write) -> None:
    assert texts(write("a.csv", "\nprompt,category\n\na,hate\n\n")) == ["a"]
    assert texts(write("a.jsonl", '\n{"prompt": "a"}\n  \n')) == ["a"]


def test_other_columns_are_ignored_whatever_they_hold(write: Write) -> None:
    huge = "1" * 100
    lines = '{"prompt": "a", "score": NaN}', f'{{"prompt": "b", "n": {huge}, "x": "\\ud800"}}', '{"prompt": "c"}'
    assert texts(write("a.jsonl", "\n".join(lines))) == ["a", "b", "c"]


@pytest.mark.parametrize("content", ["", "\ufeff", " \r\n\n"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_an_empty_file_is_refused(write: Write, name: str, content: str) -> None:
    assert "the file is empty" in refusal(write(name, content))


def test_a_header_without_rows_is_refused(write: Write, tmp_path: Path) -> None:
    assert "no prompts, only a header" in refusal(write("a.csv", "prompt,category\r\n"))
    pyarrow.parquet.write_table(pyarrow.table({"prompt": pyarrow.array([], "string")}), tmp_path / "a.parquet")
    assert "no prompts, only a header" in refusal(tmp_path / "a.parquet")


def test_invalid_utf8_is_named_by_line_and_byte(write: Write) -> None:
    content = b"prompt\r\ngood\r\nbad \xff\r\n"
    message = refusal(write("a.csv", content))
    assert "a.csv, line 3" in message
    assert f"0xff at offset {content.index(255)}" in message
    assert f"0xff at offset {content.index(255) + 3}" in refusal(write("bom.csv", b"\xef\xbb\xbf" + content))
    assert "a.jsonl, line 2" in refusal(write("a.jsonl", b'{"prompt": "a"}\n{"prompt": "\xed\xa0\x80"}'))


def test_utf16_is_refused_as_such(write: Write) -> None:
    assert "save the file as UTF-8" in refusal(write("a.csv", "prompt\na\n".encode("utf-16")))
    assert "NUL byte" in refusal(write("a.csv", "prompt\na\n".encode("utf-16-le")))


def test_a_nul_byte_is_named_by_its_line(write: Write) -> None:
    assert "a.csv, line 3: holds a NUL byte" in refusal(write("a.csv", "prompt\na\u2028a\nb\0\n"))
    assert "row 2 (line 2): the prompt holds a NUL" in refusal(
        write("a.jsonl", '{"prompt": "a"}\n{"prompt": "b\\u0000"}\n')
    )


def test_a_csv_row_of_another_length_is_named_by_its_line(write: Write) -> None:
    message = refusal(write("a.csv", 'prompt,category\n"two\nlines",hate\none, two,hate\n'))
    assert "a.csv, line 4: 3 cells where the header has 2" in message
    assert "line 2: 1 cells" in refusal(write("a.csv", "prompt,category\na\n"))


def test_a_quote_that_is_never_closed_is_named_by_its_line(write: Write) -> None:
    message = refusal(write("a.csv", 'prompt,category\na,hate\n"b,hate\nc,hate\nd,hate\n'))
    assert "a.csv, line 3: broken CSV: a quote is never closed" in message


@pytest.mark.parametrize("text", ["prompt;category\na;hate\n", 'prompt;category\n"a, b";hate\n'])
def test_columns_parted_by_anything_but_commas_are_named(write: Write, text: str) -> None:
    assert "parted by semicolons: save it as CSV with commas" in refusal(write("a.csv", text))
    assert "parted by tabs: save it as CSV with commas" in refusal(write("a.csv", text.replace(";", "\t")))


def test_a_semicolon_in_the_name_of_a_column_parts_nothing(write: Write) -> None:
    assert len(load_split(f"safe={write('a.csv', 'prompt,a;b' + chr(10) + 'why?,x' + chr(10))}")) == 1


def test_text_behind_a_closing_quote_is_refused(write: Write) -> None:
    assert "a.csv, line 2: broken CSV" in refusal(write("a.csv", 'prompt,category\n"a"b,hate\n'))


def test_two_columns_of_one_name_are_refused(write: Write) -> None:
    assert "2 columns called 'prompt'" in refusal(write("a.csv", "prompt,prompt\na,b\n"))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"prompt": "b"', "broken JSON at column"),
        ('{"prompt": "b"} {}', "broken JSON at column 17"),
        ('["b"]', "not a JSON object but a list"),
        ('"b"', "not a JSON object but a string"),
        ("null", "not a JSON object but null"),
        ("true", "not a JSON object but true or false"),
        ("3", "not a JSON object but a number"),
        ('{"prompt": "b\\ud800"}', "'prompt' holds half of a surrogate pair"),
        ('{"prompt": "b", "category": "\\udc00"}', "'category' holds half of a surrogate pair"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_bad_json_line_is_named(write: Write, line: str, reason: str) -> None:
    message = refusal(write("a.jsonl", f'{{"prompt": "a"}}\n\n{line}\n'))
    assert "a.jsonl, line 3" in message
    assert reason in message


@pytest.mark.parametrize(
    ("cell", "reason"), [("3", "of type int"), ("null", "is empty"), ("[]", "of type list"), ("true", "of type bool")]
)
def test_a_prompt_that_is_not_text_is_named_by_its_row(write: Write, cell: str, reason: str) -> None:
    message = refusal(write("a.jsonl", f'{{"prompt": "a"}}\n{{"prompt": {cell}}}'))
    assert "row 2 (line 2)" in message
    assert reason in message


def test_broken_parquet_is_refused(write: Write, tmp_path: Path) -> None:
    assert "not a Parquet file" in refusal(write("a.parquet", "prompt\na\n"))
    assert "not a Parquet file" in refusal(write("a.parquet", ""))
    pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a", None]}), tmp_path / "b.parquet")
    assert refusal(tmp_path / "b.parquet").endswith("b.parquet, row 2: the prompt is empty")
    bad = pyarrow.array([b"\xff"]).view("string")
    pyarrow.parquet.write_table(pyarrow.table({"prompt": bad}), tmp_path / "c.parquet")
    assert "not a Parquet file that can be read" in refusal(tmp_path / "c.parquet")


def test_a_file_that_cannot_be_opened_is_named(write: Write, tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.csv").endswith("none.csv: no such file")
    (tmp_path / "folder.csv").mkdir()
    assert "folder.csv: cannot be read" in refusal(tmp_path / "folder.csv")
    assert "ends in .csv, .parquet, .jsonl" in refusal(write("a.txt", "prompt\na\n"))


def test_columns_of_other_names_are_read_where_the_user_says_so(write: Write, tmp_path: Path) -> None:
    rows = [
        {"id": "7", "question": "a", "label": "Unsafe", "type": "guns"},
        {"id": "8", "question": "b", "label": "safe", "type": "guns"},
    ]
    columns = {"prompt": "question", "kind": "label", "category": "type"}
    csv_text = "id,question,label,type\n7,a,Unsafe,guns\n8,b,safe,guns\n"
    paths = [
        write("x.csv", csv_text),
        write("x.jsonl", "\n".join(map(json.dumps, rows))),
        write("x.json", json.dumps(rows)),
        tmp_path / "x.parquet",
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), paths[3])
    for path in paths:
        with pytest.warns(OrbenchWarning, match="none of OR-Bench's ten"):
            split = load_split(path, columns=columns)
        assert [(p.id, p.text, p.kind, p.category) for p in split] == [
            ("7", "a", "toxic", "guns"),
            ("8", "b", "safe", "guns"),
        ]


def test_a_column_that_is_not_there_is_named_with_what_there_is(write: Write) -> None:
    path = write("a.csv", "text,other\na,b\n")
    with pytest.raises(SplitError, match=r"no column 'question', which was said to be 'prompt'; found 'text', 'other'"):
        load_split(f"safe={path}", columns={"prompt": "question"})
    with pytest.raises(UsageError, match=r"unknown column 'promt': did you mean prompt\?"):
        load_split(f"safe={path}", columns={"promt": "text"})


def test_json_holds_objects_or_one_list_of_prompts(write: Write) -> None:
    assert texts(write("a.json", '[{"prompt": "a"}, {"prompt": "b"}]')) == ["a", "b"]
    path = write("b.json", '{"parameters": {"n": 1}, "instructions": ["a", "b"]}')
    assert [p.text for p in load_split(f"toxic={path}", columns={"prompt": "instructions"})] == ["a", "b"]


def test_a_conversation_of_one_turn_is_a_prompt_and_a_longer_one_is_refused(write: Write) -> None:
    columns = {"prompt": "turns"}
    assert [p.text for p in load_split(f"toxic={write('a.jsonl', json.dumps({'turns': ['a']}))}", columns=columns)] == [
        "a"
    ]
    with pytest.raises(SplitError, match="'prompt' is not text but of type list"):
        load_split(f"toxic={write('b.jsonl', json.dumps({'turns': ['a', 'b']}))}", columns=columns)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": 1}', "without a list of prompts called 'prompt'; found 'a'"),
        ('["a"]', "entry 1: not a JSON object but a string"),
        ("3", "not a list of JSON objects but a number"),
        ("[", "broken JSON at column"),
        ("[]", "holds no prompts"),
    ],
)
def test_json_of_another_shape_is_refused(write: Write, content: str, message: str) -> None:
    assert message in refusal(write("a.json", content))
