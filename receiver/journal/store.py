"""The journal: durable, ordered, acknowledged only after the sync.

Signals that arrive while a commit runs form the next group; one commit and one sync serve them all. ``append`` returns a
``Receipt`` when its group is on disk, and the first one again for a repeat. Nothing else in the receiver makes one.
"""

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from receiver import clock
from receiver.config import JournalSettings
from receiver.errors import ConfigError, JournalInUse, JournalUnavailable
from receiver.journal.cursor import Cursor
from receiver.journal.lanes import Lane
from receiver.journal.reader import FILE_NAME
from receiver.journal.records import FORMAT_VERSION, MOST_ROWS, SCHEMA, Origin, Receipt, Refusal, Row
from receiver.journal.repeats import Repeats
from receiver.journal.writer import Batch, Job, Writer, connect

_REFUSALS_HELD = 1000
_DELETED_AT_ONCE = 2000
_BUSY_TEXT = "another receiver runs on {}: two must not share a journal"


class _Stored(asyncio.Future[None]):
    """Done when a group is on disk. Many wait for it: one who gives up must not take it from the others."""

    def cancel(self, msg: object = None) -> bool:
        """Refuse; the task that was cancelled ends when the group is on disk."""
        return False


class _Group:
    """Signals that will be stored by one commit, and those who wait for it."""

    __slots__ = ("batch", "done", "identities")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.batch = Batch()
        self.identities: dict[bytes, int] = {}  # where in the group each message begins
        self.done = _Stored(loop=loop)


class Journal:
    """The journal of one data folder. Made with ``open``; belongs to the running event loop."""

    def __init__(
        self, data_dir: Path, settings: JournalSettings, origins: Sequence[Origin] = (),
        now_us: clock.Clock = clock.now_us, steady_us: clock.Clock = clock.steady_us,
    ) -> None:  # fmt: skip
        """Open or create the journal; no other process may have it open. ``origins`` are all places events will come from.

        Raises:
            ConfigError: the folder cannot be used, is in use, or holds a journal of another version.
        """
        self._settings = settings
        self._now = now_us
        self._steady = steady_us
        self._loop = asyncio.get_running_loop()
        self._lock = _lock(data_dir)
        self._file = data_dir / FILE_NAME
        self._repeats = Repeats(settings.repeat_window_seconds, settings.repeat_max)
        self.origins: dict[Origin, int] = {}
        self.newest_us = self.newest_stamp_us = 0
        """When the newest event was received, and the stamp of the newest encrypted one; as found at start, 0 is none."""
        self._cursors: dict[tuple[str, Lane], Cursor] = {}
        self._listeners: list[Callable[[], None]] = []
        self.failure: Exception | None = None
        self.on_sync: Callable[[float, int], None] = lambda _seconds, _rows: None
        self._backlog = 0
        position = self._read_state(origins)
        self._group = _Group(self._loop)
        self._busy: _Group | None = None
        self._gathering = False
        self._gathered = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer = Writer(self._file, position + 1, self._reported)
        self._writer.start()

    def _read_state(self, origins: Sequence[Origin]) -> int:
        """Create what is missing, read what is there, and return the last position."""
        try:
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))
            db = connect(self._file)
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, FORMAT_VERSION):
                raise ConfigError(f"{self._file} has format {version}, this program writes format {FORMAT_VERSION}")
            db.executescript(SCHEMA)
            position = int(db.execute("SELECT COALESCE(MAX(position), 0) FROM signals").fetchone()[0])
            self.origins = _learn_origins(db, origins)
            self.newest_us, self.newest_stamp_us = _newest(db)
            self._recall_repeats(db)
            db.close()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(f"the journal {self._file} cannot be opened: {error}") from None
        return position

    def _recall_repeats(self, db: sqlite3.Connection) -> None:
        """Learn again which messages came within the window, so that a restart makes no second signal.

        How long ago that was, only the wall clock can say; what bears a later time than it came just now.
        """
        now_us, steady_us = self._now(), self._steady()
        since_us = now_us - self._settings.repeat_window_seconds * clock.SECOND_US
        last = db.execute("SELECT COALESCE(MAX(position), 0) FROM signals").fetchone()[0]
        old = db.execute(
            "SELECT position FROM signals WHERE received_us < ? ORDER BY position DESC LIMIT 1", (since_us,)
        ).fetchone()
        recent = db.execute(
            "SELECT identity, position, MAX(0, ? - received_us) / 1000000 FROM signals "
            "WHERE position > ? AND kind = 0 AND number = 0 ORDER BY position",
            (now_us, max(old[0] if old else 0, last - self._settings.repeat_max)),
        )
        came_us = steady_us - self._settings.repeat_window_seconds * clock.SECOND_US
        for age, together in groupby(recent, itemgetter(2)):
            came_us = max(came_us, steady_us - age * clock.SECOND_US)
            self._repeats.add({identity: position for identity, position, _ in together}, came_us)

    # -- storing --------------------------------------------------------------------------------------------------

    async def append(self, rows: Sequence[Row]) -> Receipt:
        """Store the events of one message and return its receipt, after the sync; of a repeat, the first receipt.

        Raises:
            JournalUnavailable: it is not on disk and must not be acknowledged.
        """
        identity = rows[0].identity
        if self._repeats.recall(identity) is not None:
            position = self._repeats.find(identity, self._steady())
            if position is not None:
                return Receipt(position, repeat=True)
        group, busy = self._group, self._busy
        if busy is not None and identity in busy.identities:  # the same message is on its way to the disk
            group = busy
        repeat = identity in group.identities
        if not repeat:
            self.check_room(len(rows))
            group.identities[identity] = len(group.batch.rows)
            group.batch.rows += rows
            self._wake_writer()
        await group.done
        return Receipt(group.batch.first_position + group.identities[identity], repeat)

    def knows(self, identity: bytes) -> bool:
        """Tell whether a message with this identity was stored, in the window of repeats or just out of it."""
        return self._repeats.recall(identity) is not None

    def append_later(self, rows: Sequence[Row]) -> None:
        """Store path and trouble events with the next group; nobody waits for them.

        Raises:
            JournalUnavailable: too much is waiting for the disk.
        """
        self.check_room(len(rows))
        self._group.batch.rows += rows
        self._wake_writer()

    def check_room(self, count: int = 1) -> None:
        """Refuse what would go over the limits.

        Raises:
            JournalUnavailable: too much waits for the disk or for the outputs.
        """
        if len(self._group.batch.rows) + count > self._settings.max_waiting:
            raise JournalUnavailable(f"{self._settings.max_waiting} signals wait for the disk already")
        if self._backlog + len(self._group.batch.rows) + count > self._settings.max_backlog:
            raise JournalUnavailable(
                f"{self._backlog} signals are not delivered; max_backlog is {self._settings.max_backlog}"
            )

    def _wake_writer(self) -> None:
        """Begin to gather a group, unless one is being gathered or written."""
        if self._busy is None and not self._gathering:
            self._gathering = True
            self._gathered = -1
            self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        """Hand the group over once a turn of the loop brought nothing new, so that what arrives together shares a sync."""
        count = len(self._group.batch.rows)
        if self._gathered < count < MOST_ROWS:
            self._gathered = count
            self._loop.call_soon(self._gather)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._gathering = False
        if self._busy is None and self._group.batch:
            self._busy, self._group = self._group, _Group(self._loop)
            self._idle.clear()
            self._writer.submit(self._busy.batch)

    def _reported(self, batch: Batch) -> None:
        """In the writer's thread: wake the loop once for the whole group."""
        self._loop.call_soon_threadsafe(self._finish, batch)

    def _finish(self, batch: Batch) -> None:
        """Back in the loop: the group is on disk, or it is not."""
        group, self._busy = self._busy, None
        assert group is not None
        assert group.batch is batch
        self.failure = batch.error
        if batch.error is None:
            self._remember(group)
            group.done.set_result(None)
        else:
            self._give_back(batch)
            group.done.set_exception(JournalUnavailable(f"the journal cannot be written: {batch.error}"))
            group.done.exception()  # read, in case nobody waits
        self._backlog = self.backlog()
        self._idle.set()
        if self._group.batch.rows or (self._group.batch and batch.error is None):
            self._wake_writer()  # after a failure only a panel or the next flush tries the disk again

    def _remember(self, group: _Group) -> None:
        batch = group.batch
        first, rows = batch.first_position, batch.rows
        self.on_sync(batch.sync_seconds, len(rows))
        if rows:
            positions = {identity: first + number for identity, number in group.identities.items()}
            self._repeats.add(positions, self._steady())
            urgent = sum([row.lane == 0 for row in rows])
            for cursor in self._cursors.values():
                cursor.waiting += urgent if cursor.lane is Lane.URGENT else len(rows) - urgent
            for listener in self._listeners:
                listener()

    def _give_back(self, batch: Batch) -> None:
        """Keep for the next commit what no panel will send again; newer cursors win."""
        following = self._group.batch
        following.cursors = batch.cursors | following.cursors
        following.refusals = (batch.refusals + following.refusals)[-_REFUSALS_HELD:]

    # -- cursors --------------------------------------------------------------------------------------------------

    def cursor(self, output: str, lane: Lane) -> Cursor:
        """Return an output's place in a lane; a new output begins with what is stored from now on."""
        with sqlite3.connect(self._file) as db:
            found = db.execute("SELECT position FROM cursors WHERE output = ? AND lane = ?", (output, lane.value)).fetchone()
            last = db.execute("SELECT COALESCE(MAX(position), 0) FROM signals").fetchone()[0]
            position = last if found is None else int(found[0])
            waiting = db.execute(
                "SELECT COUNT(*) FROM signals WHERE position > ? AND lane = ?", (position, lane.value)
            ).fetchone()[0]
        db.close()
        cursor = self._cursors[output, lane] = Cursor(output, lane, position, waiting)
        self._backlog = self.backlog()
        if found is None:
            self.save(cursor)
        return cursor

    def save(self, cursor: Cursor) -> None:
        """Write a cursor with the next group; a crash before that delivers again, under the same ids."""
        self._group.batch.cursors[cursor.output, cursor.lane.value] = cursor.position
        self._wake_writer()

    def backlog(self) -> int:
        """Return how many events the slowest output has before it."""
        waiting: dict[str, int] = {}
        for cursor in self._cursors.values():
            waiting[cursor.output] = waiting.get(cursor.output, 0) + cursor.waiting
        return max(waiting.values(), default=0)

    def notify(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every commit that stored events."""
        self._listeners.append(listener)

    # -- the rest -------------------------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> bool:
        """Keep a refused frame with the next group; return False when too many wait and it was dropped."""
        held = self._group.batch.refusals
        if len(held) >= _REFUSALS_HELD:
            return False
        held.append(refusal)
        return True

    def flush(self) -> None:
        """Commit what waits, refusals included; called at intervals. After a failure it also tries the disk again."""
        if self.failure is not None:
            self._group.batch.jobs.append(_probe)
        if self._group.batch:
            self._wake_writer()

    def tidy(self, keep_old: bool = False) -> None:
        """Delete, in small steps, delivered events past retention (not while the clock is in doubt: ``keep_old``) and the
        oldest refusals; called at intervals.
        """
        before_us = 0 if keep_old else self._now() - round(self._settings.retention_days * 86400) * clock.SECOND_US
        delivered = min((c.position for c in self._cursors.values()), default=None)
        self._group.batch.jobs.append(_deletion(before_us, delivered, self._settings.refusals_kept))
        self._wake_writer()

    async def close(self) -> None:
        """Write everything that waits, cursors included, and close the file."""
        while self._busy is not None or (self._group.batch and self.failure is None):
            self._hand_over()
            await self._idle.wait()
        await asyncio.to_thread(self._writer.stop)
        os.close(self._lock)

    @property
    def alive(self) -> bool:
        """Whether the writer's thread lives."""
        return self._writer.is_alive()

    @property
    def remembered(self) -> int:
        """How many messages are remembered to recognise repeats."""
        return len(self._repeats)


def _lock(data_dir: Path) -> int:
    """Make the folder and hold it against a second receiver."""
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"data_dir {data_dir} cannot be used: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise JournalInUse(_BUSY_TEXT.format(data_dir)) from None
    return handle


def _learn_origins(db: sqlite3.Connection, origins: Sequence[Origin]) -> dict[Origin, int]:
    """Write down origins not seen before and return the number of each, which stands for it in rows."""
    columns = ", ".join(Origin._fields)
    db.executemany(f"INSERT OR IGNORE INTO origins ({columns}) VALUES (?, ?, ?, ?)", origins)  # noqa: S608 - our own names
    return {Origin(*row): number for number, *row in db.execute(f"SELECT origin, {columns} FROM origins")}  # noqa: S608


def _newest(db: sqlite3.Connection) -> tuple[int, int]:
    """Return when the newest event was received and the stamp of the newest encrypted one, of the last few, or 0."""
    last = "SELECT received_us, kind, panel_time, body IS NULL FROM signals ORDER BY position DESC LIMIT 2000"
    received_us = stamp_us = 0
    for received, kind, panel_time, in_clear in db.execute(last):
        received_us = received_us or received
        if kind == 0 and panel_time and not in_clear:
            return received_us, panel_time * clock.SECOND_US
    return received_us, stamp_us


def _probe(db: sqlite3.Connection) -> None:
    """Write something harmless, so that a disk that works again is noticed without a panel's help."""
    db.execute("INSERT INTO probe VALUES (1, 0) ON CONFLICT (probe) DO UPDATE SET count = count + 1")


def _deletion(before_us: int, delivered: int | None, refusals_kept: int) -> Job:
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

    return delete
