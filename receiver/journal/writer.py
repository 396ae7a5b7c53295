"""The one thread that writes: takes groups of work, commits each in one transaction, tells the loop how it went.

Everything that goes into the journal's file comes through here: signals, cursors, refusals, deletions. With
``synchronous=FULL`` in WAL mode SQLite syncs its log at every commit, so a group that is reported stored is on disk.
"""

import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from receiver import clock
from receiver.journal.records import APPEND, KEEP_REFUSAL, Refusal, Row

Job = Callable[[sqlite3.Connection], None]
CURSOR = "INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (output, lane) DO UPDATE SET position = excluded.position"


@dataclass(slots=True)
class Batch:
    """The work of one commit. ``first_position`` and ``sync_seconds`` are set once it is on disk, else ``error`` is."""

    rows: list[Row] = field(default_factory=list)
    cursors: dict[tuple[str, int], int] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    first_position: int = 0
    sync_seconds: float = 0.0
    error: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self.rows or self.cursors or self.refusals or self.jobs)


def connect(file: Path) -> sqlite3.Connection:
    """Open the journal's file for writing, durable at every commit."""
    connection = sqlite3.connect(file, isolation_level=None, check_same_thread=False, timeout=5.0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA wal_autocheckpoint = 4000")  # pages: 16 MB of log between checkpoints
    connection.execute("PRAGMA journal_size_limit = 67108864")
    return connection


def _append(write: sqlite3.Connection, rows: list[Row], first: int) -> None:
    """Insert rows in as few statements as their number has binary digits, 64 at most in each.

    A statement a row would let go of the interpreter's lock twice a row, and each time the loop may take it.
    """
    done = 0
    while done < len(rows):
        size = 1 << (min(len(rows) - done, 64).bit_length() - 1)
        values: list[object] = []
        for position, row in enumerate(rows[done : done + size], first + done):
            values.append(position)
            values += row
        write.execute(APPEND[size], values)
        done += size


class Writer(threading.Thread):
    """The thread. ``report`` is called from it with each batch, committed or failed."""

    def __init__(self, file: Path, next_position: int, report: Callable[[Batch], None]) -> None:
        super().__init__(name="journal-writer", daemon=True)
        self._file = file
        self._next_position = next_position
        self._report = report
        self._work: SimpleQueue[Batch | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = connect(file)

    def submit(self, batch: Batch) -> None:
        """Hand a batch over; it is not to be touched again until it is reported."""
        self._work.put(batch)

    def stop(self) -> None:
        """Finish what was handed over, close the file and end the thread."""
        self._work.put(None)
        self.join()

    def run(self) -> None:
        """Commit batches until told to stop."""
        while (batch := self._work.get()) is not None:
            try:
                self._commit(batch)
            except (sqlite3.Error, OSError) as error:
                batch.error = error
                self._abandon()
            self._report(batch)
        if self._connection is not None:
            self._connection.close()

    def _commit(self, batch: Batch) -> None:
        if self._connection is None:
            self._connection = connect(self._file)
        write = self._connection
        write.execute("BEGIN IMMEDIATE")
        first = self._next_position
        _append(write, batch.rows, first)
        if batch.cursors:
            write.executemany(CURSOR, ((output, lane, position) for (output, lane), position in batch.cursors.items()))
        if batch.refusals:
            write.executemany(KEEP_REFUSAL, batch.refusals)
        for job in batch.jobs:
            job(write)
        began = clock.monotonic()
        write.execute("COMMIT")
        batch.sync_seconds = clock.monotonic() - began
        batch.first_position = first
        self._next_position = first + len(batch.rows)

    def _abandon(self) -> None:
        """After a failure trust nothing of the connection: close it and open it anew for the next batch."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()  # rolls back
            except sqlite3.Error:
                return  # the file is not to be reached; the next batch will say so
