"""The file that carries supervised paths over a restart: written whole beside the old one, synced, then put in its place.

Heartbeats are not synced one by one: what was heard since the file was written last is forgotten by a crash, and then a path
has that much longer until it is lost. Layout: a line of JSON, the accounts one a line, the columns as little-endian numbers,
and a CRC-32 of all that.
"""

import json
import os
import sys
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from zlib import crc32

from receiver.errors import PathsUnreadable
from receiver.paths import Kept

FILE_NAME = "paths.state"
_LINES_AT_ONCE = 5000
_FORMAT = "dc09-receiver paths 1"
_CODES = {"listener": "H", "interval_seconds": "I", "margin_seconds": "I", "age_us": "q", "gap_us": "q"}


def write(file: Path, kept: Kept, wall_us: int) -> None:
    """Write the file; it is the old or the new one at any moment.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    head = {"format": _FORMAT, "wall_us": wall_us, "count": len(kept.state), "listeners": kept.listeners}
    parts = [json.dumps(head).encode() + b"\n", *_lines(kept.accounts), kept.state]
    parts += [_swapped(getattr(kept, name)).tobytes() for name in _CODES]
    crc = 0
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".new")  # mode 0600
    try:
        with os.fdopen(handle, "wb") as out:
            for part in parts:
                crc = crc32(part, crc)
                out.write(part)
            out.write(crc.to_bytes(4, "little"))
            out.flush()
            os.fsync(out.fileno())
        Path(name).replace(file)
    finally:
        Path(name).unlink(missing_ok=True)


def _lines(accounts: Iterable[str]) -> Iterator[bytes]:
    rest = iter(accounts)
    while some := list(islice(rest, _LINES_AT_ONCE)):
        yield ("\n".join(some) + "\n").encode("ascii")


def read(file: Path) -> tuple[Kept, int] | None:
    """Return the paths and the wall time they were written at; None when there is no file.

    Raises:
        PathsUnreadable: it is damaged, or cannot be read.
    """
    try:
        raw = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PathsUnreadable(f"{file} cannot be read: {error.strerror}") from None
    if crc32(raw[:-4]).to_bytes(4, "little") != raw[-4:]:
        raise PathsUnreadable(f"{file} is damaged")
    line = raw.index(b"\n") if b"\n" in raw else 0
    head = json.loads(raw[:line] or b"{}")
    if head.get("format") != _FORMAT:
        raise PathsUnreadable(f"{file} is of another version of the receiver")
    return _columns(head, raw[line + 1 : -4]), int(head["wall_us"])


def _columns(head: dict[str, "int | list[str]"], raw: bytes) -> Kept:
    count = head["count"]
    assert isinstance(count, int)
    numbers = count * (1 + sum(array(code).itemsize for code in _CODES.values()))
    names = raw[: len(raw) - numbers].decode("ascii").split("\n")[:count]
    at = len(raw) - numbers
    state, at = raw[at : at + count], at + count
    columns = {}
    for name, code in _CODES.items():
        column = array(code)
        size = column.itemsize * count
        column.frombytes(raw[at : at + size])
        columns[name], at = _swapped(column), at + size
    listeners = head["listeners"]
    assert isinstance(listeners, list)
    return Kept(accounts=names, listeners=listeners, state=state, **columns)


def _swapped(column: "array[int]") -> "array[int]":
    """Return a column in little-endian order, or back."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column


def gap_us(wall_us: int, now_us: int) -> int:
    """Return how long the receiver was down, by the wall clock; a clock that was set back says nothing."""
    return max(0, now_us - wall_us)
