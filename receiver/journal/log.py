"""SQLite's write-ahead log, frame by frame: what SQLite itself leaves out without a word.

SQLite takes a log as ended at the first frame that does not fit. After a crash that is right: what follows was being written
and nobody was told of it. After damage it is not: acknowledged groups behind a bad frame would vanish silently. A group is
written only when the one before it is synced, so a whole group behind the first bad one proves damage.

Layout (https://www.sqlite.org/fileformat2.html, section 4): a header of 32 bytes (magic, version, page size, checkpoint
number, two salts, two checksums), then frames of 24 bytes (page number, size of the database after a commit or 0, salts,
checksums) and a page. Numbers are big-endian. The checksum of a frame goes on from that of the frame before it.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from receiver.errors import JournalUnavailable

_HEADER, _FRAME = struct.Struct(">8I"), struct.Struct(">6I")
_MAGIC = 0x377F0682  # the lowest bit tells that checksums take words as big-endian
_INDEX_FRAMES, _INDEX_WRITTEN_BACK = 16, 96  # where the index (the -shm file) keeps its counts of frames
_FRAMES_CHECKED = 256
PAGE_BYTES = 4096
"""The size of SQLite's pages; we never ask for another."""
Sums = tuple[int, int]


class Frame(NamedTuple):
    """One frame: its number from 1, its page, the size after a commit (0 within a group), its salts and checksums."""

    number: int
    page: int
    commit: int
    salts: tuple[int, int]
    sums: Sums
    content: bytes


def checksum(data: bytes, sums: Sums, big_endian: bool) -> Sums:
    """Return SQLite's checksum of ``data`` (a multiple of 8 bytes), going on from ``sums``."""
    first, second = sums
    words = iter(struct.unpack(f"{'>' if big_endian else '<'}{len(data) // 4}I", data))
    for one, two in zip(words, words, strict=True):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + two + first) & 0xFFFFFFFF
    return first, second


class Log:
    """One log file, open for reading."""

    def __init__(self, file: Path) -> None:
        """Open the log at ``file``; ``sound`` says whether its header can be used, ``blank`` that nothing was written."""
        self._file = file.open("rb")
        header = self._file.read(_HEADER.size)
        self.header = header
        self.blank = not header.strip(b"\0") and not self._file.read(_FRAME.size).strip(b"\0")
        self.sound, self.frames = False, 0
        if len(header) < _HEADER.size:
            return
        magic, _, self.page_bytes, _, salt1, salt2, *sums = _HEADER.unpack(header)
        self.salts, self.sums = (salt1, salt2), (sums[0], sums[1])
        self.big_endian = bool(magic & 1)
        self.sound = magic & ~1 == _MAGIC and checksum(header[:24], (0, 0), self.big_endian) == self.sums
        size = os.fstat(self._file.fileno()).st_size
        self.frames = (size - _HEADER.size) // (_FRAME.size + self.page_bytes) if self.sound else 0

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def frame(self, number: int, with_content: bool = True) -> Frame:
        """Return one frame, by its number from 1."""
        self._file.seek(_HEADER.size + (number - 1) * (_FRAME.size + self.page_bytes))
        page, commit, salt1, salt2, sum1, sum2 = _FRAME.unpack(self._file.read(_FRAME.size))
        content = self._file.read(self.page_bytes) if with_content else b""
        return Frame(number, page, commit, (salt1, salt2), (sum1, sum2), content)

    def own(self, first: int) -> Iterator[Frame]:
        """Return the frames from ``first`` on that belong to this log, without content; older ones have other salts."""
        for number in range(first, self.frames + 1):
            frame = self.frame(number, with_content=False)
            if frame.salts == self.salts:
                yield frame

    def fits(self, frame: Frame, before: Sums) -> bool:
        """Tell whether a frame is as it was written, after one with the checksums ``before``."""
        start = struct.pack(">2I", frame.page, frame.commit)
        return checksum(start + frame.content, before, self.big_endian) == frame.sums


def log_of(file: Path) -> Path:
    """Return where SQLite keeps the log of a database."""
    return file.with_name(file.name + "-wal")


def index_of(file: Path) -> Path:
    """Return where SQLite keeps the index of that log."""
    return file.with_name(file.name + "-shm")


def indexed_frames(file: Path) -> tuple[int, int]:
    """Return how many frames the index of an open database counts, and how many of them are in the database already."""
    index = index_of(file)
    content = index.read_bytes()[:136] if index.exists() else b""
    if len(content) < 136:
        return 0, 0
    return struct.unpack_from("=I", content, _INDEX_FRAMES)[0], struct.unpack_from("=I", content, _INDEX_WRITTEN_BACK)[0]


def check_log(file: Path) -> None:
    """Make sure that the newest frames the index counts can be read as they were written.

    After a sync that failed, the kernel may drop what it could not write. SQLite checks frames when it finds a log, not
    when it writes one back; while a reader keeps the index, that would carry the hole into the database.

    Raises:
        JournalUnavailable: a frame is not as it was written.
    """
    counted, written_back = indexed_frames(file)
    path = log_of(file)
    if counted <= written_back or not path.exists():
        return
    log = Log(path)
    try:
        if not log.sound or counted > log.frames:
            raise JournalUnavailable(f"the log {path} is not as it was written")
        first = max(written_back + 1, counted - _FRAMES_CHECKED + 1)
        before = log.sums if first == 1 else log.frame(first - 1, with_content=False).sums
        for number in range(first, counted + 1):
            frame = log.frame(number)
            if frame.salts != log.salts or not log.fits(frame, before):
                raise JournalUnavailable(f"frame {number} of the log {path} is not as it was written: restart the receiver")
            before = frame.sums
    finally:
        log.close()


def lost_groups(path: Path, taken: int) -> str | None:
    """Tell, in words, what stands in a log behind the frame at which SQLite stopped (``taken`` are whole), None if nothing.

    One group at the end that is not whole was never acknowledged. Two commits, or a page twice, are more than one group.
    """
    if not path.exists():
        return None
    log = Log(path)
    try:
        if not log.sound:
            return None if log.blank else f"the header of the log {path.name} is damaged: nothing in it was read"
        commits, pages, twice = 0, set[int](), False
        for frame in log.own(taken + 1):
            twice = twice or frame.page in pages
            pages.add(frame.page)
            commits += frame.commit != 0
        if commits > 1 or (commits and twice):
            return f"frame {taken + 1} of the log {path.name} is damaged, and groups that were stored follow it"
        return None
    finally:
        log.close()


def pages_of(path: Path) -> dict[int, bytes]:
    """Return the newest content of each page that a log holds, up to its first bad frame."""
    pages: dict[int, bytes] = {}
    if path.exists():
        log = Log(path)
        before = log.sums if log.sound else (0, 0)
        for number in range(1, log.frames + 1):
            frame = log.frame(number)
            if frame.salts != log.salts or not log.fits(frame, before):
                break
            pages[frame.page], before = frame.content, frame.sums
        log.close()
    return pages


def mended(path: Path) -> bytes:
    """Return a log of what is whole in a damaged one: every frame as it was written, an unfinished last group left out."""
    log = Log(path)
    try:
        if not log.sound:
            return b""
        whole, group, broken = list[Frame](), list[Frame](), False
        before: Sums | None = log.sums
        for number in range(1, log.frames + 1):
            frame = log.frame(number)
            own = frame.salts == log.salts
            if own and before is not None and log.fits(frame, before):
                group.append(frame)
            else:
                broken = True
            before = frame.sums if own else None
            if own and frame.commit and group and group[-1] is frame:
                pending, group = (group, broken), []
                if not broken or _commit_follows(log, number):
                    whole += pending[0]
                broken = False
        return _written(log, whole)
    finally:
        log.close()


def _commit_follows(log: Log, number: int) -> bool:
    return any(frame.commit for frame in log.own(number + 1))


def _written(log: Log, frames: list[Frame]) -> bytes:
    sums, parts = log.sums, [log.header]
    for frame in frames:
        start = struct.pack(">2I", frame.page, frame.commit)
        sums = checksum(start + frame.content, sums, log.big_endian)
        parts += [start, struct.pack(">4I", *log.salts, *sums), frame.content]
    return b"".join(parts)
