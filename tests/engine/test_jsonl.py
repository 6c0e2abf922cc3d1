import errno
import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orbench.engine.jsonl import Appender, read_lines
from orbench.errors import RunError


class Line(msgspec.Struct, frozen=True):
    text: str
    number: int = 0
    more: dict[str, int] | None = None


LINES = [
    Line("plain"),
    Line("two\nlines", 2),
    Line('"quoted" {}', 3, {"a": 1}),
    Line("ünïcödé \u2028 🙂", 4),
    Line("", 5),
]


def write(path, lines):
    with closing(Appender(path)) as file:
        for line in lines:
            file.append(line)


def read(path):
    return list(read_lines(path, Line))


def test_what_was_appended_is_read_in_order(tmp_path):
    write(tmp_path / "x.jsonl", LINES[:2])
    write(tmp_path / "x.jsonl", LINES[2:])
    assert read(tmp_path / "x.jsonl") == LINES
    assert (tmp_path / "x.jsonl").read_bytes().count(b"\n") == len(LINES)


def test_a_missing_file_has_no_lines(tmp_path):
    assert read(tmp_path / "x.jsonl") == []


def test_a_line_is_in_the_file_before_append_returns(tmp_path):
    with closing(Appender(tmp_path / "x.jsonl")) as file:
        file.append(LINES[0])
        assert read(tmp_path / "x.jsonl") == LINES[:1]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_cut_anywhere_keeps_its_whole_lines_and_can_be_appended_to(tmp_path, data):
    path = tmp_path / "x.jsonl"
    path.unlink(missing_ok=True)
    write(path, LINES)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    # A line that lacks nothing but its end of line is whole.
    kept = LINES[: whole[:cut].count(b"\n") + (cut < len(whole) and whole[cut : cut + 1] == b"\n")]
    assert read(path) == kept
    write(path, [Line("after")])
    assert read(path) == [*kept, Line("after")]


@pytest.mark.parametrize("size", [1 << 20, (1 << 20) - 30, 3 << 20])
def test_long_lines_are_kept_and_a_torn_one_is_cut_off_whole(tmp_path, size):
    path = tmp_path / "x.jsonl"
    long = Line("x" * size)
    write(path, [LINES[0], long])
    assert read(path) == [LINES[0], long]
    os.truncate(path, path.stat().st_size - 10)
    assert read(path) == [LINES[0]]
    write(path, [long])
    assert read(path) == [LINES[0], long]


def test_a_file_that_is_nothing_but_a_torn_line_starts_anew(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "x')
    write(path, LINES[:1])
    assert read(path) == LINES[:1]


def test_zero_bytes_at_the_end_as_power_cuts_leave_them_are_cut_off(tmp_path):
    path = tmp_path / "x.jsonl"
    write(path, LINES[:1])
    with path.open("ab") as file:
        file.write(bytes(5000))
    assert read(path) == LINES[:1]
    write(path, LINES[1:2])
    assert read(path) == LINES[:2]


def test_blank_lines_are_passed_over(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'\n{"text": "a"}\n\r\n{"text": "b"}\n \n')
    assert [line.text for line in read(path)] == ["a", "b"]


@pytest.mark.parametrize("broken", [b'{"text": "a', b"{}", b'{"text": 5}', b"\xff\xfe", b'{"text": "\xff"}', b"[]"])
def test_a_broken_line_in_the_middle_is_named_with_what_to_do(tmp_path, broken):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + broken + b'\n{"text": "b"}\n')
    with pytest.raises(RunError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2: not a Line record")
    advice = re.search(r"\((sed .*?)\) and run the same command again", message)
    subprocess.run(["sh", "-c", advice[1]], check=True)
    assert [line.text for line in read(path)] == ["a", "b"]


def test_half_a_surrogate_pair_is_replaced_not_fatal(tmp_path):
    path = tmp_path / "x.jsonl"
    write(path, [Line("a\ud83db", 1, {"a": 1}), Line("\ud83d\ude00")])
    assert read(path) == [Line("a\ufffdb", 1, {"a": 1}), Line("\U0001f600")]


def test_a_full_disk_is_a_run_error_that_says_what_to_do():
    with closing(Appender(Path("/dev/full"))) as file, pytest.raises(RunError) as caught:
        file.append(LINES[0])
    assert "/dev/full: cannot be written: No space left on device" in str(caught.value)
    assert "run the same command again" in str(caught.value)


def test_a_part_of_a_line_that_still_fitted_is_taken_back(tmp_path):
    path = tmp_path / "x.jsonl"

    class Filling:
        """Takes 7 bytes of the second line, then is full; later there is room again."""

        def __init__(self, file):
            self._file = file
            self.answers = [None, 7, OSError(errno.ENOSPC, "No space left on device"), None]

        def write(self, line):
            answer = self.answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return self._file.write(line[:answer])

        def __getattr__(self, name):
            return getattr(self._file, name)

    with closing(Appender(path)) as file:
        file._file = Filling(file._file)
        file.append(LINES[0])
        with pytest.raises(RunError, match="No space left"):
            file.append(LINES[1])
        file.append(LINES[2])
    assert read(path) == [LINES[0], LINES[2]]


def test_a_line_that_is_taken_in_parts_is_written_whole(tmp_path):
    class Slow:
        def __init__(self, file):
            self._file = file

        def write(self, line):
            return self._file.write(line[:3])

        def __getattr__(self, name):
            return getattr(self._file, name)

    with closing(Appender(tmp_path / "x.jsonl")) as file:
        file._file = Slow(file._file)
        file.append(LINES[1])
    assert read(tmp_path / "x.jsonl") == [LINES[1]]


def test_a_file_that_cannot_be_opened_is_a_run_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written: Not a directory"):
        Appender(tmp_path / "file" / "x.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunError, match="cannot be read: Is a directory"):
        read(tmp_path / "folder")
