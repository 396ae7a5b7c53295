"""The one thread that writes: takes groups of work, commits each in one transaction, tells the loop how it went.

Everything that goes into the journal's file comes through here: signals, cursors, refusals, deletions. With
``synchronous=FULL`` in WAL mode SQLite syncs its log at every commit, so a group that is reported stored is on disk.

After any failure nothing of the connection is trusted. A commit whose sync failed may stand in the log all the same, whole
for whoever opens it next, though no sync vouches for it. So a failed journal is *mended* before it takes anything: what the
log holds is written into the file and synced, and groups that nobody was told of are adopted (``docs/decisions/0008``).
"""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from receiver import clock
from receiver.errors import JournalUnavailable, ReceiverError
from receiver.journal.deliveries import SPAN, Span
from receiver.journal.folder import Folder, Place
from receiver.journal.groups import INSERT_GROUP, pack, unpack
from receiver.journal.jobs import Job, probe
from receiver.journal.log import check_log
from receiver.journal.records import KEEP_REFUSAL, Entry, Refusal
from receiver.journal.salvage import mark_if_damaged

_LOG_PAGES = 4000  # 16 MB between checkpoints
_ROOM_FOR_LOGS = 4
_STOP_SECONDS = 1.0
CURSOR = "INSERT INTO cursors VALUES (?, ?, ?) ON CONFLICT (output, lane) DO UPDATE SET position = excluded.position"


@dataclass(slots=True)
class Batch:
    """The work of one commit. ``first_position`` and ``sync_seconds`` are set once it is on disk, else ``error`` is.

    With ``mend`` the journal is opened anew after a failure, and ``adopted`` is what was found there beyond what was told,
    by the position of each message's first event.
    """

    entries: list[Entry] = field(default_factory=list)
    events: int = 0
    """How many are in the entries."""
    urgent: int = 0
    """How many of them are urgent; set once they are on disk."""
    cursors: dict[tuple[str, int], int] = field(default_factory=dict)
    spans: dict[tuple[str, int, int], Span] = field(default_factory=dict)
    """These come with cursors, never alone."""
    refusals: list[Refusal] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)
    mend: bool = False
    first_position: int = 0
    sync_seconds: float = 0.0
    adopted: list[tuple[int, Entry]] = field(default_factory=list)
    error: JournalUnavailable | None = None

    def add(self, entries: Sequence[Entry]) -> None:
        """Take messages in."""
        self.entries += entries
        self.events += sum([len(entry.events) for entry in entries])

    @property
    def only_entries(self) -> bool:
        """Whether there is nothing to write but messages."""
        return bool(self.entries) and not (self.cursors or self.refusals or self.jobs)

    @property
    def presses(self) -> bool:
        """Whether somebody waits for it; cursors and refusals can wait a moment."""
        return bool(self.entries or self.jobs)

    def __bool__(self) -> bool:
        return bool(self.entries or self.cursors or self.refusals or self.jobs)


def connect(file: Path, create: bool = False) -> sqlite3.Connection:
    """Open the journal's file for writing, durable at every commit; it is made only with ``create``."""
    connection = sqlite3.connect(
        f"{file.absolute().as_uri()}?mode={'rwc' if create else 'rw'}", uri=True,
        isolation_level=None, check_same_thread=False, timeout=5.0,
    )  # fmt: skip
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        connection.execute("PRAGMA journal_size_limit = 67108864")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def lengthen_log(connection: sqlite3.Connection, folder: Path) -> None:
    """Make SQLite's log as long as it gets between checkpoints, before the first signal needs it.

    A sync of a file that grows writes the file system's own journal too: 0.33 ms a commit against 0.24, measured on ext4.
    What is written for it is more than SQLite keeps in memory, so that it goes into the log, and is taken back: nothing of
    it reaches the database, whose free pages would be found and counted again with each commit.
    On a disk with little room it stays short: the room is for signals.
    """
    size = _LOG_PAGES * int(connection.execute("PRAGMA page_size").fetchone()[0])
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < _ROOM_FOR_LOGS * size:
        return
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE filler (content BLOB)")
    connection.execute("INSERT INTO filler VALUES (zeroblob(?))", (size,))
    connection.execute("ROLLBACK")
    connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()


def in_words(error: Exception) -> JournalUnavailable:
    """Return a failure of the disk or of SQLite as one sentence for a person."""
    if isinstance(error, JournalUnavailable):
        return error
    if isinstance(error, FileNotFoundError):
        return JournalUnavailable(f"{error.filename} is gone; is the volume mounted? It is waited for, no new one is made")
    if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorname", None):
        return JournalUnavailable(f"{error} ({error.sqlite_errorname})")
    return JournalUnavailable(str(error))


class Writer(threading.Thread):
    """The thread. ``report`` is called from it with each batch, committed or failed."""

    def __init__(
        self, folder: Folder, next_position: int, last_parts: bytes | None, report: Callable[[Batch], None]
    ) -> None:
        """Open the file; ``last_parts`` are those of the newest group, by which the journal is known again."""
        super().__init__(name="journal-writer", daemon=True)
        self._folder = folder
        self._next_position = next_position
        self._last_parts = last_parts
        self._report = report
        self._work: SimpleQueue[Batch | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = connect(folder.file)
        self._place: Place | None = None
        self._opened: Place | None = None
        """What was open last, also after a failure."""
        self._why: Exception = JournalUnavailable("the journal is not open")
        self._begin()

    def submit(self, batch: Batch) -> None:
        """Hand a batch over; it is not to be touched again until it is reported."""
        self._work.put(batch)

    def stop(self) -> None:
        """Finish what was handed over, close the file and end the thread; a disk that hangs is not waited for."""
        self._work.put(None)
        self.join(_STOP_SECONDS)

    def run(self) -> None:
        """Commit batches until told to stop."""
        while (batch := self._work.get()) is not None:
            try:
                if batch.mend:
                    self._mend(batch)
                else:
                    self._commit(batch)
            except (sqlite3.Error, OSError, ReceiverError) as error:
                mark_if_damaged(self._folder.file, error)
                batch.error = in_words(error)
                self._abandon(error)
            self._report(batch)
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()

    def _begin(self) -> None:
        """Prepare the log, so that no signal waits for that; if it fails, the first batch tells of it."""
        assert self._connection is not None
        try:
            lengthen_log(self._connection, self._folder.path)
            self._place = self._opened = self._folder.place()
        except (sqlite3.Error, OSError) as error:
            self._abandon(error)

    def _commit(self, batch: Batch) -> None:
        if self._connection is None:
            raise self._why
        write, first, began = self._connection, self._next_position, clock.monotonic()
        groups = pack(first, batch.entries) if batch.entries else []
        if batch.only_entries and len(groups) == 1:
            write.execute(INSERT_GROUP, groups[0])  # a statement on its own is a transaction on its own
            if self._place is None or self._folder.log_place() != self._place[0]:
                self._check_place()
        else:
            write.execute("BEGIN IMMEDIATE")
            write.executemany(INSERT_GROUP, groups)
            write.executemany(CURSOR, [(output, lane, at) for (output, lane), at in batch.cursors.items()])
            write.executemany(SPAN, batch.spans.values())
            write.executemany(KEEP_REFUSAL, batch.refusals)
            for job in batch.jobs:
                job(write)
            write.execute("COMMIT")
            self._check_place()
        batch.sync_seconds = clock.monotonic() - began
        batch.first_position, batch.urgent = first, sum([group.urgent for group in groups])
        if groups:
            self._next_position, self._last_parts = groups[-1].last + 1, groups[-1].parts

    def _check_place(self) -> None:
        """Refuse to call stored what went into a file that nobody will find.

        Raises:
            OSError: the file or its log is not at its path any more.
            JournalUnavailable: another is.
        """
        if self._folder.place() != self._place:
            raise JournalUnavailable(f"{self._folder.file} was replaced while the receiver wrote to it")

    def _check_pair(self) -> None:
        """Keep our log from being written into another journal: what is in it would destroy that one, and be lost.

        Raises:
            JournalUnavailable: another file was put beside it.
        """
        with suppress(FileNotFoundError):  # without a log there is nothing to be written
            log, file = self._folder.place()
            if self._opened is not None and log == self._opened[0] and file != self._opened[1]:
                raise JournalUnavailable(
                    f"{self._folder.file} is not the journal that was written, and the -wal file beside it is that one's: "
                    "put the right file back; or, to go on with this one, stop the receiver, move the -wal and -shm files "
                    "away, and start it"
                )

    def _mend(self, batch: Batch) -> None:
        """Open the journal after a failure: make durable what it holds, take in what nobody was told of, write a little."""
        self._abandon(self._why)
        self._folder.reclaim()
        self._check_pair()
        check_log(self._folder.file)
        connection = connect(self._folder.file)
        try:
            # Writes every page of the log into the file and syncs it, so that nothing hangs on a sync that failed.
            if connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise JournalUnavailable("another program reads the journal, its log cannot be emptied; tried again")
            beyond = self._beyond(connection)
            lengthen_log(connection, self._folder.path)
            probe(connection)
            self._place = self._opened = self._folder.place()
        except (sqlite3.Error, OSError, ReceiverError):
            with suppress(sqlite3.Error):
                connection.close()
            raise
        self._connection = connection  # only now: a mend that failed half way finds the same again
        for last, first, parts, content in beyond:
            batch.adopted += unpack(last, first, parts, content).messages
            self._next_position, self._last_parts = last + 1, parts

    def _beyond(self, connection: sqlite3.Connection) -> list[tuple[int, int, bytes, bytes]]:
        """Return the groups after the last one that was reported, once that one is found.

        Raises:
            JournalUnavailable: this is not the journal that was written.
        """
        if self._last_parts is not None:
            last = self._next_position - 1
            found = connection.execute("SELECT parts FROM groups WHERE last = ?", (last,)).fetchone()
            if found is None or found[0] != self._last_parts:
                raise JournalUnavailable(
                    f"{self._folder.file} is not the journal that was written: position {last} is missing or another; "
                    "put the right file back, or restart the receiver to go on with this one"
                )
        beyond = "SELECT last, first, parts, content FROM groups WHERE last >= ? ORDER BY last"
        return connection.execute(beyond, (self._next_position,)).fetchall()

    def _abandon(self, error: Exception) -> None:
        """After a failure trust nothing of the connection; the journal is mended before it takes the next batch."""
        connection, self._connection, self._why = self._connection, None, error
        self._place = None
        if connection is not None:
            with suppress(sqlite3.Error):  # the file is not to be reached; the next batch will say so
                connection.close()  # rolls back
