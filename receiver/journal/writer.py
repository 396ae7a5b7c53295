"""The one thread that writes: takes groups of work, commits each in one transaction, tells the loop how it went.

Everything that goes into the journal's file comes through here: signals, cursors, refusals, deletions. With
``synchronous=FULL`` in WAL mode SQLite syncs its log at every commit, so a group that is reported stored is on disk.
"""

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from receiver import clock
from receiver.journal.deliveries import SPAN, Span
from receiver.journal.records import KEEP_REFUSAL, MOST_ROWS, Refusal, Row, append_statement

Job = Callable[[sqlite3.Connection], None]
_LOG_PAGES = 4000  # 16 MB between checkpoints
CURSOR = "INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (output, lane) DO UPDATE SET position = excluded.position"


@dataclass(slots=True)
class Batch:
    """The work of one commit. ``first_position`` and ``sync_seconds`` are set once it is on disk, else ``error`` is."""

    rows: list[Row] = field(default_factory=list)
    cursors: dict[tuple[str, int], int] = field(default_factory=dict)
    spans: dict[tuple[str, int, int], Span] = field(default_factory=dict)
    refusals: list[Refusal] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    first_position: int = 0
    sync_seconds: float = 0.0
    error: Exception | None = None

    @property
    def only_rows(self) -> bool:
        """Whether there is nothing to write but rows."""
        return bool(self.rows) and not (self.cursors or self.refusals or self.jobs)  # spans come with cursors

    def __bool__(self) -> bool:
        return bool(self.rows or self.cursors or self.refusals or self.jobs)


def connect(file: Path) -> sqlite3.Connection:
    """Open the journal's file for writing, durable at every commit."""
    connection = sqlite3.connect(
        file, isolation_level=None, check_same_thread=False, timeout=5.0, cached_statements=MOST_ROWS * 2
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    return connection


def lengthen_log(connection: sqlite3.Connection) -> None:
    """Make SQLite's log as long as it gets between checkpoints, before the first signal needs it.

    A sync of a file that grows writes the file system's own journal too: 0.33 ms a commit against 0.24, measured on ext4.
    """
    size = _LOG_PAGES * int(connection.execute("PRAGMA page_size").fetchone()[0])
    connection.execute("CREATE TABLE IF NOT EXISTS filler (content BLOB)")
    connection.execute("INSERT INTO filler VALUES (zeroblob(?))", (size,))
    connection.execute("DROP TABLE filler")
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def _append(write: sqlite3.Connection, rows: list[Row], first: int) -> None:
    """Insert rows by one statement.

    A statement a row would let go of the interpreter's lock for each, and the loop would take it each time: with 25 rows
    a commit that cost 10 µs of CPU a signal more.
    """
    values: list[object] = []
    for position, row in enumerate(rows, first):
        values.append(position)
        values += row
    write.execute(append_statement(len(rows)), values)


class Writer(threading.Thread):
    """The thread. ``report`` is called from it with each batch, committed or failed."""

    def __init__(self, file: Path, next_position: int, report: Callable[[Batch], None]) -> None:
        super().__init__(name="journal-writer", daemon=True)
        self._file = file
        self._next_position = next_position
        self._report = report
        self._work: SimpleQueue[Batch | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = connect(file)
        with suppress(sqlite3.Error):  # a full disk: the first append finds it, and tells
            lengthen_log(self._connection)

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
        write, first, began = self._connection, self._next_position, clock.monotonic()
        if batch.only_rows and len(batch.rows) <= MOST_ROWS:
            _append(write, batch.rows, first)  # a statement on its own is a transaction on its own
        else:
            write.execute("BEGIN IMMEDIATE")
            for done in range(0, len(batch.rows), MOST_ROWS):
                _append(write, batch.rows[done : done + MOST_ROWS], first + done)
            write.executemany(CURSOR, [(output, lane, at) for (output, lane), at in batch.cursors.items()])
            write.executemany(SPAN, batch.spans.values())
            write.executemany(KEEP_REFUSAL, batch.refusals)
            for job in batch.jobs:
                job(write)
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
