"""Rows of ``groups`` straight from the pages of a damaged file, where the tree above them cannot be followed any more.

Layout (https://www.sqlite.org/fileformat2.html, sections 1.6 and 2.1): a leaf of a table begins with 0x0D, has the number of
its cells at 3 and their offsets, two bytes each, from 8 on. A cell is the length of its record, the row's number, and the
record: a head of types, then the values. A record too long for its page goes on in a chain of overflow pages. Where a page
of the chain is damaged, so is its word on which one follows: that is mostly the next page of the file or the one before, so
the row is read both ways. The checksums of ``groups.py`` tell what of it is so.
"""

from collections.abc import Callable, Iterator

_LEAF = 0x0D
_COLUMNS = 6
_WIDTHS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}
_LONGEST_RECORD = 1 << 22
Value = int | str | bytes | None
PageOf = Callable[[int], bytes]
"""Returns a page by its number from 1; empty when there is none."""


def rows_of(page: bytes, wanted: Callable[[int], bool], page_of: PageOf) -> Iterator[tuple[Value, ...]]:
    """Return the rows of a leaf whose position is wanted and that can be read; of any other page nothing."""
    if len(page) < 512 or page[0] != _LEAF:
        return
    cells = int.from_bytes(page[3:5], "big")
    for at in range(8, min(8 + 2 * cells, len(page) - 1), 2):
        start = int.from_bytes(page[at : at + 2], "big")
        try:
            size, start = _varint(page, start)
            position, start = _varint(page, start)
            if size < _LONGEST_RECORD and wanted(position):
                for record in _records(page, start, size, page_of):
                    values = _values(record)
                    if len(values) == _COLUMNS:
                        yield (position, *values[1:])
        except (IndexError, ValueError, UnicodeDecodeError):
            continue  # not a cell, or not whole


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of one to nine bytes; return it and where it ends."""
    value = 0
    for count in range(8):
        byte = data[at + count]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + count + 1
    return value << 8 | data[at + 8], at + 9


def _records(page: bytes, start: int, size: int, page_of: PageOf) -> list[bytes]:
    """Return a record or, where its chain is broken, what it may be; what is behind an end that is missing is left out."""
    usable = len(page)
    if size <= usable - 35:
        return [page[start : start + size]]
    least = (usable - 12) * 32 // 255 - 23
    here = least + (size - least) % (usable - 4)
    here = here if here <= usable - 35 else least
    following = int.from_bytes(page[start + here : start + here + 4], "big")
    forward = _chain(following, size - here, 1, usable, page_of)
    back = _chain(following, size - here, -1, usable, page_of)
    return [page[start : start + here] + rest for rest in ([forward] if forward == back else [forward, back])]


def _chain(number: int, size: int, step: int, usable: int, page_of: PageOf) -> bytes:
    """Read a chain of pages; ``step`` leads on from one that names a page which is not there."""
    found = b""
    while len(found) < size:
        page = page_of(number)
        if len(page) != usable:
            break
        found += page[4:]
        following = int.from_bytes(page[:4], "big")
        number = following if following > 1 and page_of(following) else number + step
    return found[:size]


def _values(record: bytes) -> list[Value]:
    head, at = _varint(record, 0)
    values: list[Value] = []
    place = head
    while at < head:
        kind, at = _varint(record, at)
        value, place = _value(record, kind, place)
        values.append(value)
    if place < len(record):
        raise ValueError("the record has another length")
    return values


def _value(record: bytes, kind: int, at: int) -> tuple[Value, int]:
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind in _WIDTHS:
        end = at + _WIDTHS[kind]
        return int.from_bytes(record[at:end], "big", signed=True), end
    if kind < 12:
        raise ValueError("a type that is never written")
    end = at + (kind - 12) // 2
    data = record[at:end]
    return (data.decode("utf-8") if kind % 2 else data), end
