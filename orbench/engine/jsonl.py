"""Append-only JSON Lines files that survive whatever stops the program.

A line is handed to the operating system whole and at once, so a killed process loses nothing that it received;
at worst the last line is torn, which is work still owed and is cut off by the next writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from orbench.errors import RunError

T = TypeVar("T")
_CHUNK = 1 << 20


def without_surrogates(value: Any) -> Any:
    """A string, or strings in dicts and lists, as UTF-8 can hold them: halves of surrogate pairs become U+FFFD."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {key: without_surrogates(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_surrogates(inner) for inner in value]
    return value


def read_lines(path: Path, kind: type[T]) -> Iterator[T]:
    """Yield the records of a file, in order; a missing file has none, and a torn last line is passed over.

    Raises:
        RunError: A line other than the last cannot be read; names file and line.
    """
    decoder = msgspec.json.Decoder(kind)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}") from None
    with file:
        for number, line in enumerate(file, start=1):
            if line.isspace():
                continue
            try:
                record = decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                if not line.endswith(b"\n"):
                    return
                raise RunError(
                    f"{path}, line {number}: not a {kind.__name__} record ({error}). Delete that line "
                    f"(sed -i '{number}d' '{path}') and run the same command again: what it held is done anew"
                ) from None
            yield record


class Appender(Generic[T]):
    """Appends records to one JSON Lines file."""

    def __init__(self, path: Path) -> None:
        """Open the file for appending, made if need be; cut off a torn last line or end a whole one.

        Raises:
            RunError: The file cannot be written.
        """
        self.path = path
        self._encoder = msgspec.json.Encoder()
        try:
            # Unbuffered: a line is with the operating system before the next one is asked for.
            self._file = path.open("a+b", buffering=0)
        except OSError as error:
            raise _cannot_write(path, error) from None
        try:
            self._mend()
        except OSError as error:
            self._file.close()
            raise _cannot_write(path, error) from None

    def append(self, record: T) -> None:
        """Write one record as one line.

        A character that UTF-8 cannot hold (half of a surrogate pair, as some tokenizers leave it) becomes U+FFFD.

        Raises:
            RunError: Disk full, or the like; the lines before are safe.
        """
        try:
            line = self._encoder.encode(record) + b"\n"
        except UnicodeEncodeError:
            line = self._encoder.encode(without_surrogates(msgspec.to_builtins(record))) + b"\n"
        written = 0
        try:
            while written < len(line):  # a disk that fills may take a part; the rest then raises
                written += self._file.write(line[written:] if written else line)
        except OSError as error:
            self._take_back(written)
            raise _cannot_write(self.path, error) from None

    def _take_back(self, size: int) -> None:
        """Cut off a part of a line, so that a later one, for which there is room again, does not end up in it."""
        try:
            self._file.truncate(self._file.seek(0, os.SEEK_END) - size)
        except OSError:
            pass  # then it is a torn line for the next one who opens the file

    def close(self) -> None:
        """Bring everything to the disk and close the file."""
        try:
            os.fsync(self._file.fileno())
        except OSError:
            pass  # pipes and some network file systems cannot; the lines are written all the same
        self._file.close()

    def _mend(self) -> None:
        end = self._file.seek(0, os.SEEK_END)
        tail = b""
        start = end
        while start > 0 and b"\n" not in tail:
            step = min(_CHUNK, start)
            start -= step
            self._file.seek(start)
            tail = self._file.read(step) + tail
        torn = tail[tail.rfind(b"\n") + 1 :]
        if not torn:
            return
        try:
            msgspec.json.decode(torn)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._file.truncate(end - len(torn))
        else:
            self._file.write(b"\n")


def _cannot_write(path: Path, error: OSError) -> RunError:
    return RunError(
        f"{path}: cannot be written: {error.strerror}. Everything received before is saved; "
        "make room or choose another --out, and run the same command again to go on"
    )
