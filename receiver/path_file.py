"""The file that carries supervised paths over a restart: written whole beside the old one, synced, then put in its place.

Heartbeats are not synced one by one: what was heard since the file was written last is forgotten by a crash, and then a path
has that much longer until it is lost. Layout: a line of JSON, which says how many paths each block has; the blocks, each its
accounts padded to 17 bytes and then its columns as little-endian numbers; and a CRC-32 of all that. Nothing is worked out
path by path when it is written: the thread that does it would hold the interpreter for a second, and each answer with it.
"""

import json
import os
import sys
import tempfile
from array import array
from itertools import chain
from pathlib import Path
from typing import Any
from zlib import crc32

from receiver.errors import PathsUnreadable
from receiver.path_values import NAME_BYTES, Block, Kept, Told

FILE_NAME = "paths.state"
_FORMAT = "dc09-receiver paths 3"
_READ = (_FORMAT, "dc09-receiver paths 2")
"""Format 2 knew no ``NEVER_AS_ONE``, and is else the same."""
_COLUMNS = (("", NAME_BYTES), ("H", 2), ("", 1), ("I", 4), ("I", 4), ("q", 8), ("q", 8))
"""Of a block: each one's code, none for plain bytes, and its bytes for a path."""
_PATH_BYTES = sum(width for _, width in _COLUMNS)


def write(file: Path, kept: Kept, wall_us: int) -> None:
    """Write the file; it is the old or the new one at any moment.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    head = {
        "format": _FORMAT, "wall_us": wall_us, "began_us": kept.began_us, "now_us": kept.now_us, "listeners": kept.listeners,
        "counts": [len(block.state) for block in kept.blocks], "told": kept.told._asdict(),
    }  # fmt: skip
    parts = chain([json.dumps(head).encode() + b"\n"], map(_packed, kept.blocks))
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


def _packed(block: Block) -> bytes:
    return b"".join(column if isinstance(column, bytearray) else _swapped(column) for column in block)


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
    if head.get("format") not in _READ:
        raise PathsUnreadable(f"{file} is of another version of the receiver")
    blocks, at = [], line + 1
    for count in head["counts"]:
        blocks.append(_unpacked(raw, at, count))
        at += count * _PATH_BYTES
    told = Told(**head.get("told", {}))
    return Kept(head["listeners"], head["began_us"], head["now_us"], blocks, told), int(head["wall_us"])


def _unpacked(raw: bytes, at: int, count: int) -> Block:
    columns: list[Any] = []
    for code, width in _COLUMNS:
        part = raw[at : at + width * count]
        columns.append(_swapped(array(code, part)) if code else bytearray(part))
        at += len(part)
    return Block(*columns)


def _swapped(column: "array[int]") -> "array[int]":
    """Return a column in little-endian order, or back."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column


def gap_us(wall_us: int, now_us: int) -> int:
    """Return how long the receiver was down, by the wall clock; a clock that was set back says nothing."""
    return max(0, now_us - wall_us)
