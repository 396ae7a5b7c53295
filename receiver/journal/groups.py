"""What a commit writes of signals: its messages as one row, and how such a row is read again.

A row of ``groups`` holds messages in order: ``last`` is the position of its last event, ``content`` their fields packed with
msgpack, a few messages a *part*, and ``parts`` twelve bytes for each part: how many events are in it, how many bytes, and
a CRC-32 that begins with the position of its first event. So an altered byte costs the messages of its part, and is never
taken for a message. The other columns are there to find a row by and follow from these. Positions in a row have no gaps.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec import MsgspecError, msgpack

from receiver.journal.records import Entry

MOST_BYTES = 64 * 1024
"""A group that would be longer goes on in another row: what a damaged row can cost stays small, and so does reading one."""
PART_MESSAGES = 16
_PART = struct.Struct("<III")
_WORD = 0xFFFFFFFF
_pack = msgpack.Encoder().encode
_unpack = msgpack.Decoder(list[Entry]).decode


class Group(NamedTuple):
    """A row of ``groups``: ``urgent`` counts the urgent events, ``received_us`` is when the newest message came."""

    last: int
    first: int
    urgent: int
    received_us: int
    parts: bytes
    content: bytes


class Opened(NamedTuple):
    """What could be read of a group: messages by the position of their first event, and the positions that are lost."""

    messages: list[tuple[int, Entry]]
    holes: list[tuple[int, int]]


INSERT_GROUP = f"INSERT INTO groups VALUES (?{', ?' * (len(Group._fields) - 1)})"  # noqa: S608 - our own names


def pack(first: int, entries: Sequence[Entry]) -> list[Group]:
    """Return the rows for messages that stand together from position ``first`` on."""
    groups: list[Group] = []
    heads, contents, size, begin, position = b"", list[bytes](), 0, 0, first
    for start in range(0, len(entries), PART_MESSAGES):
        some = entries[start : start + PART_MESSAGES]
        content = _pack(some)
        if contents and size + len(content) > MOST_BYTES:
            groups.append(_group(first, position - 1, entries[begin:start], heads, contents))
            heads, contents, size, begin, first = b"", [], 0, start, position
        events = sum([len(entry.events) for entry in some])
        heads += _PART.pack(events, len(content), zlib.crc32(content, position & _WORD))
        contents.append(content)
        size += len(content)
        position += events
    groups.append(_group(first, position - 1, entries[begin:], heads, contents))
    return groups


def _group(first: int, last: int, entries: Sequence[Entry], heads: bytes, contents: list[bytes]) -> Group:
    return Group(last, first, count_urgent(entries), entries[-1].received_us, heads, b"".join(contents))


def count_urgent(entries: Sequence[Entry]) -> int:
    """Return how many events of these messages take the urgent lane."""
    return sum([event[0] == 0 for entry in entries for event in entry.events])


def unpack(last: int, first: int, parts: bytes, content: bytes) -> Opened:
    """Return what can be read of a group, and what cannot. ``content`` may be cut short: then its end is lost."""
    heads = _heads(last, parts)
    if not heads:
        return Opened([], [(min(first, last), last)])
    messages: list[tuple[int, Entry]] = []
    holes: list[tuple[int, int]] = []
    for position, events, packed in _parts(last, heads, content):
        found = _messages(position, events, packed)
        if found is not None:
            messages += found
        elif holes and holes[-1][1] == position - 1:
            holes[-1] = holes[-1][0], position + events - 1
        else:
            # Of a first part that is lost, the number of events is not sure; the row says where it began.
            begin = position if messages or holes or first >= position + events else first
            holes.append((begin, position + events - 1))
    return Opened(messages, holes)


def is_whole(last: int, first: int, parts: bytes, content: bytes) -> bool:
    """Tell whether every part of a group fits its checksum; faster than to unpack it."""
    heads = _heads(last, parts)
    if not heads or last - sum([events for events, _, _ in heads]) + 1 != first:
        return False
    if sum([length for _, length, _ in heads]) != len(content):
        return False
    return all(packed is not None for _, _, packed in _parts(last, heads, content))


def _heads(last: int, parts: bytes) -> list[tuple[int, int, int]]:
    """Read the index of a group; empty when it makes no sense."""
    if not parts or len(parts) % _PART.size:
        return []
    heads = list(_PART.iter_unpack(parts))
    events = sum([head[0] for head in heads])
    return heads if 0 < events <= last and all(head[0] for head in heads) else []


def _parts(last: int, heads: list[tuple[int, int, int]], content: bytes) -> Iterator[tuple[int, int, bytes | None]]:
    """Return position, number of events and bytes of each part, None for bytes that do not fit their checksum."""
    position, at = last - sum([head[0] for head in heads]) + 1, 0
    for events, length, crc in heads:
        packed = content[at : at + length]
        sound = len(packed) == length and zlib.crc32(packed, position & _WORD) == crc
        yield position, events, packed if sound else None
        position, at = position + events, at + length


def _messages(position: int, events: int, packed: bytes | None) -> list[tuple[int, Entry]] | None:
    if packed is None:
        return None
    try:
        entries = _unpack(packed)
    except MsgspecError:  # a checksum that fits by chance
        return None
    messages: list[tuple[int, Entry]] = []
    for entry in entries:
        messages.append((position, entry))
        position += len(entry.events)
        events -= len(entry.events)
    return messages if not events else None
