"""Append-only JSON Lines files that survive whatever stops the program.

A line is handed to the operating system whole and at once, so a killed process loses nothing that it received;
at worst the last line is torn, which is work still owed and is cut off by the next writer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from orbench.errors import RunError

T = TypeVar("T")
_CHUNK = 1 << 20


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
            self._mend()
        except OSError as error:
            raise _cannot_write(path, error) from None

    def append(self, record: T) -> None:
        """Write one record as one line.

        Raises:
            RunError: Disk full, or the like; the lines before are safe.
        """
        line = self._encoder.encode(record) + b"\n"
        try:
            written = self._file.write(line)
            while written < len(line):  # a disk that fills may take a part; the rest then raises
                written += self._file.write(line[written:])
        except OSError as error:
            raise _cannot_write(self.path, error) from None

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
