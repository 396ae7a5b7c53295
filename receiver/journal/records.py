"""What the journal holds, and its tables.

``groups`` is the hot table: a commit appends one row, all its messages in it (``groups.py``), and nothing else. It has one
index, over the rows with urgent events alone, because they are few; whatever else people look things up by is read from it,
off the path. What was decided when the signal came (lane, priority, duress, flags, the panel's time in UTC) is stored; the
rest is decoded again when it is read.
"""

import re
from enum import IntEnum
from hashlib import blake2b
from typing import NamedTuple

from msgspec import Struct

from receiver.journal.lanes import Lane

FORMAT_VERSION = 2
SCHEMA = f"""
CREATE TABLE IF NOT EXISTS groups (
    last INTEGER PRIMARY KEY, first INTEGER NOT NULL, urgent INTEGER NOT NULL, received_us INTEGER NOT NULL,
    parts BLOB NOT NULL, content BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS urgent ON groups (last) WHERE urgent > 0;
CREATE TABLE IF NOT EXISTS origins (
    origin INTEGER PRIMARY KEY, receiver_number TEXT NOT NULL, line TEXT NOT NULL, listener TEXT NOT NULL,
    transport TEXT NOT NULL, UNIQUE (receiver_number, line, listener, transport)
);
CREATE TABLE IF NOT EXISTS cursors (
    output TEXT NOT NULL, lane INTEGER NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (output, lane)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refusals (
    refusal INTEGER PRIMARY KEY, received_us INTEGER NOT NULL, reason TEXT NOT NULL, text TEXT NOT NULL,
    account TEXT, listener TEXT NOT NULL, transport TEXT NOT NULL, peer TEXT NOT NULL, raw BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS spans (
    output TEXT NOT NULL, lane INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    sent_us INTEGER NOT NULL, confirmed_us INTEGER NOT NULL, PRIMARY KEY (output, lane, first)
);
CREATE TABLE IF NOT EXISTS dead_letters (
    output TEXT NOT NULL, refused_us INTEGER NOT NULL, tries INTEGER NOT NULL, text TEXT NOT NULL,
    state INTEGER NOT NULL, taken_us INTEGER, position INTEGER NOT NULL, kind INTEGER NOT NULL, lane INTEGER NOT NULL,
    priority INTEGER NOT NULL, duress INTEGER NOT NULL, received_us INTEGER NOT NULL, panel_time INTEGER,
    identity BLOB NOT NULL, number INTEGER NOT NULL, origin INTEGER NOT NULL, peer TEXT NOT NULL, flags TEXT NOT NULL,
    raw BLOB NOT NULL, body BLOB, PRIMARY KEY (output, position)
);
CREATE TABLE IF NOT EXISTS probe (probe INTEGER PRIMARY KEY, count INTEGER NOT NULL);
PRAGMA user_version = {FORMAT_VERSION};
"""
TABLES = frozenset(re.findall(r"CREATE TABLE IF NOT EXISTS (\w+)", SCHEMA))


class Kind(IntEnum):
    """What an event is about; each is a CloudEvents type."""

    SIGNAL = 0
    PATH = 1
    TROUBLE = 2


SIGNAL = Kind.SIGNAL.value
"""For what is asked of every event: to look an enum's member up costs ten times as much as a name of a module."""


class Row(NamedTuple):
    """One stored event; a signal's ``body`` is its content in clear when it came encrypted, else None.

    ``identity`` is equal for repeats of one message; ``number`` counts the events of one message from 0. The body of path
    and trouble events is their data as JSON, and ``raw`` is empty.
    """

    kind: int
    lane: int
    priority: int
    duress: int
    received_us: int
    panel_time: int | None
    identity: bytes
    number: int
    origin: int
    peer: str
    flags: str
    raw: bytes
    body: bytes | None


class Entry(Struct, frozen=True, gc=False, array_like=True):
    """What the journal keeps of one message: stored once, whatever number of events is in it.

    ``identity`` is 16 bytes, equal for repeats of the message. ``body`` is the content in clear of a signal that came
    encrypted, else None; that of path and trouble events is their data as JSON, and ``raw`` is empty. ``events`` has the
    lane, priority and duress (1 or 0) of each event, at least one; event ``n`` has the position of the first plus ``n``.
    """

    kind: int
    identity: bytes
    received_us: int
    panel_time: int | None
    origin: int
    peer: str
    flags: str
    raw: bytes
    body: bytes | None
    events: tuple[tuple[int, int, int], ...]

    def rows(self) -> list[Row]:
        """Return the events of the message, one by one, as they are read."""
        return [
            Row(
                self.kind, *event, self.received_us, self.panel_time, self.identity, number, self.origin, self.peer,
                self.flags, self.raw, self.body,
            )
            for number, event in enumerate(self.events)
        ]  # fmt: skip


def wrong_version(version: int) -> str:
    """Return what to say of a journal that this program cannot use."""
    if version > FORMAT_VERSION:
        return f"has format {version}, this program reads format {FORMAT_VERSION}: use the newer program that wrote it"
    if version == 0:
        return "is a database, and no journal of this program; move it away, or look at [receiver] data_dir"
    return (
        f"has format {version}, this program reads format {FORMAT_VERSION}: let the program that wrote it hand everything "
        "over (or `journal export` it), then move the data folder away and start with a new one"
    )


class Origin(NamedTuple):
    """Where an event came in: our numbers, and the listener and transport."""

    receiver_number: str
    line: str
    listener: str
    transport: str


class Stored(NamedTuple):
    """An event on disk: its position, the row, and its origin in full.

    Where events cannot be read any more, one that says so stands for them: ``lost`` tells their positions in words, and
    ``stands_for`` how many of its lane they are. Else ``lost`` is empty.
    """

    position: int
    row: Row
    origin: Origin
    lost: str = ""
    stands_for: int = 1

    @property
    def event_id(self) -> str:
        """The event's stable id, 32 hex digits, the same in every output and after every restart.

        Path and trouble events have a random identity of their own, and may go out before they have a position.
        """
        row = self.row
        if row.kind != SIGNAL:
            return blake2b(row.identity, digest_size=16).hexdigest()
        return blake2b(b"%b%d %d" % (row.identity, self.position, row.received_us), digest_size=16).hexdigest()

    @property
    def lane(self) -> Lane:
        """The lane the event goes out by."""
        return Lane(self.row.lane)


class Receipt(Struct, frozen=True, gc=False):
    """Proof that a message is on disk. Only ``Journal.append`` makes one, after the sync."""

    position: int
    repeat: bool


class Refusal(NamedTuple):
    """One refused frame, for the refusals log."""

    received_us: int
    reason: str
    text: str
    account: str | None
    listener: str
    transport: str
    peer: str
    raw: bytes


KEEP_REFUSAL = f"INSERT INTO refusals VALUES (NULL{', ?' * len(Refusal._fields)})"  # noqa: S608 - our own names
