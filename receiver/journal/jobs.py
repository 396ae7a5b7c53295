"""What is asked of the journal and written into it beside signals: origins, newest moments, the probe, deletions."""

import sqlite3
from collections.abc import Callable, Sequence

from receiver import clock
from receiver.journal.records import Origin

Job = Callable[[sqlite3.Connection], None]
_DELETED_AT_ONCE = 2000


def learn_origins(db: sqlite3.Connection, origins: Sequence[Origin]) -> dict[Origin, int]:
    """Write down origins not seen before and return the number of each, which stands for it in rows."""
    columns = ", ".join(Origin._fields)
    known = _origins(db, columns)
    unknown = [origin for origin in origins if origin not in known]
    if unknown:  # else nothing is written: a receiver must start on a full disk too
        db.executemany(f"INSERT OR IGNORE INTO origins ({columns}) VALUES (?, ?, ?, ?)", unknown)  # noqa: S608 - our own names
        known = _origins(db, columns)
    return known


def _origins(db: sqlite3.Connection, columns: str) -> dict[Origin, int]:
    return {Origin(*row): number for number, *row in db.execute(f"SELECT origin, {columns} FROM origins")}  # noqa: S608


def newest_moments(db: sqlite3.Connection) -> tuple[int, int]:
    """Return when the newest event was received and the stamp of the newest encrypted one, of the last few, or 0."""
    last = "SELECT received_us, kind, panel_time, body IS NULL FROM signals ORDER BY position DESC LIMIT 2000"
    received_us = stamp_us = 0
    for received, kind, panel_time, in_clear in db.execute(last):
        received_us = received_us or received
        if kind == 0 and panel_time and not in_clear:
            return received_us, panel_time * clock.SECOND_US
    return received_us, stamp_us


def probe(db: sqlite3.Connection) -> None:
    """Write something harmless, so that a disk that works again is noticed without a panel's help."""
    db.execute("INSERT INTO probe VALUES (1, 0) ON CONFLICT (probe) DO UPDATE SET count = count + 1")


def deletion(before_us: int, delivered: int | None, refusals_kept: int) -> Job:
    """Return the job that deletes, in one small step, delivered events past retention and the oldest refusals."""

    def delete(db: sqlite3.Connection) -> None:
        # Never the newest row: positions go on from it.
        last = db.execute("SELECT COALESCE(MAX(position), 0) FROM signals").fetchone()[0]
        limit = last if delivered is None else min(delivered + 1, last)
        db.execute(
            "DELETE FROM signals WHERE position IN (SELECT position FROM "
            "(SELECT position, received_us FROM signals ORDER BY position LIMIT ?) WHERE position < ? AND received_us < ?)",
            (_DELETED_AT_ONCE, limit, before_us),
        )
        db.execute("DELETE FROM refusals WHERE refusal <= (SELECT MAX(refusal) FROM refusals) - ?", (refusals_kept,))
        db.execute(
            "DELETE FROM spans WHERE rowid IN (SELECT rowid FROM "
            "(SELECT rowid, confirmed_us FROM spans ORDER BY rowid LIMIT ?) WHERE confirmed_us < ?)",
            (_DELETED_AT_ONCE, before_us),
        )
        db.execute("DELETE FROM dead_letters WHERE taken_us < ?", (before_us,))  # never one that still lies dead

    return delete
