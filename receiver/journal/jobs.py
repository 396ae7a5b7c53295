"""What is asked of the journal and written beside signals: whose it is, origins, newest moments, the probe, deletions."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing

from receiver import clock
from receiver.journal.groups import unpack
from receiver.journal.lanes import Lane
from receiver.journal.records import FORMAT_VERSION, SIGNAL, TABLES, Origin

Job = Callable[[sqlite3.Connection], None]
_DELETED_AT_ONCE = 50_000
_GROUPS_AT_ONCE = 5000
"""So much is deleted each time at most; asked for every ten seconds, it keeps up with 5,000 signals a second."""
_NEWEST_LOOKED_AT = 2000


def is_foreign(db: sqlite3.Connection) -> bool:
    """Tell another program's database from a journal, from one whose making was cut short and from an empty one.

    What was ours once is ours, whatever else is in it: earlier versions added their tables to any file they found.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    version = db.execute("PRAGMA user_version").fetchone()[0]
    found = db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*'")
    tables = {name for (name,) in found}
    if version == FORMAT_VERSION:
        return bool(tables) and not tables & TABLES
    return version == 0 and not tables <= TABLES


def learn_origins(db: sqlite3.Connection, origins: Sequence[Origin]) -> dict[Origin, int]:
    """Write down origins not seen before and return the number of each, which stands for it in what is stored."""
    columns = ", ".join(Origin._fields)
    known = _origins(db, columns)
    unknown = [origin for origin in origins if origin not in known]
    if unknown:  # else nothing is written: a receiver must start on a full disk too
        db.executemany(f"INSERT OR IGNORE INTO origins ({columns}) VALUES (?, ?, ?, ?)", unknown)  # noqa: S608 - our own names
        known = _origins(db, columns)
    return known


def _origins(db: sqlite3.Connection, columns: str) -> dict[Origin, int]:
    return {Origin(*row): number for number, *row in db.execute(f"SELECT origin, {columns} FROM origins")}  # noqa: S608


def count_after(db: sqlite3.Connection, position: int, lane: Lane) -> int:
    """Return how many events of a lane follow a position."""
    events, urgent = db.execute(
        "SELECT COALESCE(SUM(last - first + 1), 0), COALESCE(SUM(urgent), 0) FROM groups WHERE last > ?", (position,)
    ).fetchone()
    here = "SELECT last, first, parts, content FROM groups WHERE last > ? AND first <= ? ORDER BY last LIMIT 1"
    for group in db.execute(here, (position, position)):  # the position lies within a group
        before = Counter[int]()
        for first, entry in unpack(*group).messages:
            before.update([event[0] for number, event in enumerate(entry.events, first) if number <= position])
        events, urgent = events - before.total(), urgent - before[Lane.URGENT]
    return int(urgent if lane is Lane.URGENT else events - urgent)


def newest_moments(db: sqlite3.Connection) -> tuple[int, int]:
    """Return when the newest event was received and the stamp of the newest encrypted one, of the last few, or 0."""
    received_us = looked_at = 0
    newest = db.execute("SELECT last, first, received_us, parts, content FROM groups ORDER BY last DESC")
    with closing(newest):
        for last, first, received, parts, content in newest:
            received_us = received_us or received
            for _, entry in reversed(unpack(last, first, parts, content).messages):
                if entry.kind == SIGNAL and entry.panel_time and entry.body is not None:
                    return received_us, entry.panel_time * clock.SECOND_US
            looked_at += last - first + 1
            if looked_at >= _NEWEST_LOOKED_AT:
                break
    return received_us, 0


def probe(db: sqlite3.Connection) -> None:
    """Write something harmless, so that a disk that works again is noticed without a panel's help."""
    db.execute("INSERT INTO probe VALUES (1, 0) ON CONFLICT (probe) DO UPDATE SET count = count + 1")


def _oldest(db: sqlite3.Connection, limit: int, before_us: int) -> list[tuple[int]]:
    """Return the oldest groups that may go: wholly before a position, received before a moment, some at a time."""
    old, events = list[tuple[int]](), 0
    with closing(
        db.execute("SELECT last, first, received_us FROM groups ORDER BY last LIMIT ?", (_GROUPS_AT_ONCE,))
    ) as found:
        for last, first, received_us in found:
            if last >= limit or events >= _DELETED_AT_ONCE:
                break
            if received_us < before_us:
                old.append((last,))
            events += last - first + 1
    return old


def deletion(before_us: int, delivered: int | None, refusals_kept: int) -> Job:
    """Return the job that deletes, in one small step, delivered events past retention and the oldest refusals."""

    def delete(db: sqlite3.Connection) -> None:
        # Never the newest row: positions go on from it.
        last = db.execute("SELECT COALESCE(MAX(last), 0) FROM groups").fetchone()[0]
        limit = last if delivered is None else min(delivered + 1, last)
        old = _oldest(db, limit, before_us)
        db.executemany("DELETE FROM groups WHERE last = ?", old)
        db.execute("DELETE FROM refusals WHERE refusal <= (SELECT MAX(refusal) FROM refusals) - ?", (refusals_kept,))
        db.execute(
            "DELETE FROM spans WHERE rowid IN (SELECT rowid FROM "
            "(SELECT rowid, confirmed_us FROM spans ORDER BY rowid LIMIT ?) WHERE confirmed_us < ?)",
            (_DELETED_AT_ONCE, before_us),
        )
        db.execute("DELETE FROM dead_letters WHERE taken_us < ?", (before_us,))  # never one that still lies dead

    return delete
