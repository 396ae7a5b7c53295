"""What became of each event at each output: spans of positions that were taken, and the dead letters.

A span is one row for what an output took within about a second in one lane, so that a flood costs one row a second and not
one an event: everything of that lane in ``first`` to ``last`` was sent at ``sent_us`` or after and confirmed by
``confirmed_us``. What the output's filter left out lies in spans too. A dead letter holds a copy of the stored row, so that
it outlives retention.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from receiver.journal.jobs import Job
from receiver.journal.lanes import Lane
from receiver.journal.records import Row

SPAN = (
    "INSERT INTO spans VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (output, lane, first) "
    "DO UPDATE SET last = excluded.last, confirmed_us = excluded.confirmed_us"
)
DEAD, WANTED, TAKEN = range(3)
"""States of a dead letter: it lies there; it is to go out again; it was taken after all."""
SPAN_US = 1_000_000
_COLUMNS = 6 + 1 + len(Row._fields)
_BURY = f"INSERT OR REPLACE INTO dead_letters VALUES (?{', ?' * (_COLUMNS - 1)})"  # noqa: S608 - our own names
_CURSOR = "INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (output, lane) DO UPDATE SET position = excluded.position"


class Span(NamedTuple):
    """Positions of one lane that an output has taken, from when it was sent until the last of it was confirmed."""

    output: str
    lane: int
    first: int
    last: int
    sent_us: int
    confirmed_us: int


class Letter(NamedTuple):
    """Why an event lies dead at an output, or what became of it since."""

    output: str
    refused_us: int
    tries: int
    text: str
    state: int
    taken_us: int | None


def burial(letter: Letter, position: int, row: Row) -> Job:
    """Return the job that keeps a dead letter and moves the cursor past it: both, or neither."""

    def bury(db: sqlite3.Connection) -> None:
        db.execute(_BURY, (*letter, position, *row))
        db.execute(_CURSOR, (letter.output, row.lane, position))

    return bury


def recall(output: str, positions: Iterable[int] | None) -> Job:
    """Return the job that asks for dead letters to go out again: these, or all of the output's."""

    def mark(db: sqlite3.Connection) -> None:
        if positions is None:
            db.execute("UPDATE dead_letters SET state = ? WHERE output = ? AND state = ?", (WANTED, output, DEAD))
            return
        change = "UPDATE dead_letters SET state = ? WHERE output = ? AND state = ? AND position = ?"
        db.executemany(change, [(WANTED, output, DEAD, position) for position in positions])

    return mark


def settlement(output: str, taken: Iterable[int], taken_us: int, refused: tuple[int, str] | None) -> Job:
    """Return the job that notes how sending dead letters again went: ``taken``, and the one that was refused once more."""

    def note(db: sqlite3.Connection) -> None:
        change = "UPDATE dead_letters SET state = ?, taken_us = ? WHERE output = ? AND position = ?"
        db.executemany(change, [(TAKEN, taken_us, output, position) for position in taken])
        if refused is not None:
            position, text = refused
            db.execute(
                "UPDATE dead_letters SET state = ?, refused_us = ?, tries = tries + 1, text = ? "
                "WHERE output = ? AND position = ?", (DEAD, taken_us, text, output, position),
            )  # fmt: skip

    return note


def span_at(db: sqlite3.Connection, output: str, lane: Lane, position: int) -> Span | None:
    """Return the span of an output that holds a position of a lane, if there is one."""
    found = db.execute(
        "SELECT output, lane, first, last, sent_us, confirmed_us FROM spans WHERE output = ? AND lane = ? AND first <= ? "
        "ORDER BY first DESC LIMIT 1", (output, lane.value, position),
    ).fetchone()  # fmt: skip
    span = None if found is None else Span(*found)
    return span if span is not None and span.last >= position else None


def count_dead(db: sqlite3.Connection) -> dict[str, int]:
    """Return how many dead letters of each output have not been taken."""
    found = db.execute("SELECT output, COUNT(*) FROM dead_letters WHERE state <> ? GROUP BY output", (TAKEN,))
    return dict(found)
