"""The journal: durable, ordered, acknowledged only after the sync.

Signals that arrive while a commit runs form the next group; one commit and one sync serve them all. ``append`` returns a
``Receipt`` when its group is on disk, and the first one again for a repeat. Nothing else in the receiver makes one.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from receiver import clock
from receiver.config import JournalSettings
from receiver.errors import JournalUnavailable
from receiver.journal.cursor import Cursor
from receiver.journal.deliveries import Span
from receiver.journal.folder import Folder
from receiver.journal.jobs import Job, deletion, probe
from receiver.journal.lanes import Lane
from receiver.journal.opening import open_journal, recall_repeats
from receiver.journal.records import MOST_ROWS, Entry, Origin, Receipt, Refusal
from receiver.journal.repeats import Repeats
from receiver.journal.writer import Adopted, Batch, Writer

_REFUSALS_HELD = 1000
_OWN_HELD = 1000
"""Path and trouble events that are kept over a failure, and that find room above the limits."""
_CLOSE_SECONDS = 5.0


class _Stored(asyncio.Future[None]):
    """Done when a group is on disk. Many wait for it: one who gives up must not take it from the others."""

    def cancel(self, msg: object = None) -> bool:
        """Refuse; the task that was cancelled ends when the group is on disk."""
        return False


class _Group:
    """Signals that will be stored by one commit, and those who wait for it."""

    __slots__ = ("batch", "done", "identities", "known")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.batch = Batch()
        self.identities: dict[bytes, int] = {}  # where in the group each message begins
        self.known: dict[bytes, int] = {}  # messages that were found on disk meanwhile, and their positions
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
        self._folder = Folder(data_dir)
        self._file = self._folder.file
        self._repeats = Repeats(settings.repeat_window_seconds, settings.repeat_max)
        self._cursors: dict[tuple[str, Lane], Cursor] = {}
        self._listeners: list[Callable[[], None]] = []
        self.failure: JournalUnavailable | None = None
        self.failures = self.slow_syncs = 0
        self.on_sync: Callable[[float, int], None] = lambda _seconds, _rows: None
        self._backlog = 0
        try:
            found = open_journal(self._file, origins, self._recall_repeats)
            self._writer = Writer(self._folder, found.position + 1, found.identity, self._reported)
        except BaseException:
            self._folder.close()
            raise
        self.origins, self.damage, self.checked = found.origins, found.damage, found.checked
        self.newest_us, self.newest_stamp_us = found.newest_us, found.newest_stamp_us
        """When the newest event was received, and the stamp of the newest encrypted one; as found at start, 0 is none."""
        self._group = _Group(self._loop)
        self._busy: _Group | None = None
        self._busy_since = 0.0
        self._gathering = False
        self._gathered = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer.start()

    def _recall_repeats(self, db: sqlite3.Connection) -> None:
        recall_repeats(db, self._repeats, self._settings, self._now(), self._steady())

    # -- storing --------------------------------------------------------------------------------------------------

    async def append(self, entries: Sequence[Entry]) -> list[Receipt | JournalUnavailable]:
        """Store messages that arrived together; return for each, in order, its receipt, after the sync.

        A repeat gets the first receipt. What is not on disk, and must not be acknowledged, has why not in its place.
        """
        found: list[Receipt | JournalUnavailable | tuple[_Group, bool]] = [self._take(entry) for entry in entries]
        waits = {place[0] for place in found if type(place) is tuple}  # type: ignore[misc]
        for group in waits:
            with suppress(JournalUnavailable):
                await group.done  # type: ignore[union-attr]
        return [
            self._outcome(entry, *place) if type(place) is tuple else place  # type: ignore[misc]
            for entry, place in zip(entries, found, strict=True)
        ]

    def _take(self, entry: Entry) -> "Receipt | JournalUnavailable | tuple[_Group, bool]":
        """Put a message into the group, unless it is known; return the group it is in and whether it is a repeat."""
        identity = entry.identity
        if self._repeats.recall(identity) is not None:
            position = self._repeats.find(identity, self._steady())
            if position is not None:
                return Receipt(position, repeat=True)
        group, busy = self._group, self._busy
        if busy is not None and identity in busy.identities:  # the same message is on its way to the disk
            return busy, True
        if identity in group.identities:
            return group, True
        try:
            self.check_room(len(entry.events))
        except JournalUnavailable as error:
            return error
        group.identities[identity] = group.batch.events
        group.batch.add(entry)
        self._wake_writer()
        return group, False

    def _outcome(self, entry: Entry, group: _Group, repeat: bool) -> Receipt | JournalUnavailable:
        error = group.done.exception()
        if isinstance(error, JournalUnavailable):
            return error
        return Receipt(group.batch.first_position + group.identities[entry.identity], repeat)

    def knows(self, identity: bytes) -> bool:
        """Tell whether a message with this identity was stored, in the window of repeats or just out of it."""
        return self._repeats.recall(identity) is not None

    def append_later(self, entries: Sequence[Entry]) -> None:
        """Store path and trouble events with the next group; nobody waits for them.

        They find a little room above the limits, for the event that says a limit was reached, and are kept over a failure.

        Raises:
            JournalUnavailable: too much is waiting for the disk.
        """
        self.check_room(len(entries) - _OWN_HELD)
        for entry in entries:
            self._group.batch.add(entry)
        self._wake_writer()

    def check_room(self, count: int = 1) -> None:
        """Refuse what would go over the limits.

        Raises:
            JournalUnavailable: too much waits for the disk or for the outputs.
        """
        if self._group.batch.events + count > self._settings.max_waiting:
            raise JournalUnavailable(f"{self._settings.max_waiting} signals wait for the disk already")
        if self._backlog + self._group.batch.events + count > self._settings.max_backlog:
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
        count = self._group.batch.events
        if self._gathered < count < MOST_ROWS:
            self._gathered = count
            self._loop.call_soon(self._gather)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._gathering = False
        if self._busy is not None or not self._group.batch:
            return
        if self.failure is None:
            self._busy, self._group = self._group, _Group(self._loop)
        else:  # the group waits until the journal is mended
            self._busy = _Group(self._loop)
            self._busy.batch.mend = True
        self._idle.clear()
        self._busy_since = clock.monotonic()
        self._writer.submit(self._busy.batch)

    def _reported(self, batch: Batch) -> None:
        """In the writer's thread: wake the loop once for the whole group."""
        with suppress(RuntimeError):  # the loop has ended: it did not wait for a disk that hung
            self._loop.call_soon_threadsafe(self._finish, batch)

    def _finish(self, batch: Batch) -> None:
        """Back in the loop: the group is on disk, or it is not."""
        group, self._busy = self._busy, None
        assert group is not None
        assert group.batch is batch
        self.failure = batch.error
        if batch.error is not None:
            self._fail(group, batch.error)
        elif batch.mend:
            self._adopt(batch.adopted)
        else:
            self._remember(group)
            group.done.set_result(None)
        self._backlog = self.backlog()
        self._idle.set()
        if self._group.identities or (self._group.batch and batch.error is None):
            self._wake_writer()  # after a failure only a panel or the next flush tries the disk again

    def _remember(self, group: _Group) -> None:
        batch = group.batch
        first = batch.first_position
        self.on_sync(batch.sync_seconds, batch.events)
        if batch.sync_seconds > self._settings.slow_sync_seconds:
            self.slow_syncs += 1
        if batch.entries:
            for identity in group.known:
                del group.identities[identity]
            positions = {identity: first + number for identity, number in group.identities.items()}
            self._repeats.add(positions, self._steady())
            self._count(batch.urgent, batch.events - batch.urgent)
        if group.known:
            group.identities |= {identity: position - first for identity, position in group.known.items()}

    def _count(self, urgent: int, normal: int) -> None:
        """Note that so many events of each lane more wait for the outputs, and wake them."""
        for cursor in self._cursors.values():
            cursor.waiting += urgent if cursor.lane is Lane.URGENT else normal
        for listener in self._listeners:
            listener()

    def _fail(self, group: _Group, error: JournalUnavailable) -> None:
        """Tell everybody who waits that it is not on disk; keep for later what no panel will send again."""
        self.failures += 1
        waiting = [group]
        if group.batch.mend:
            waiting.append(self._group)
            self._group = _Group(self._loop)
        for failed in waiting:
            self._give_back(failed.batch)
            failed.done.set_exception(JournalUnavailable(f"the journal cannot be written: {error}"))
            failed.done.exception()  # read, in case nobody waits

    def _give_back(self, batch: Batch) -> None:
        """Keep for the next commit what no panel will send again; newer cursors win."""
        following = self._group.batch
        following.cursors = batch.cursors | following.cursors
        following.spans = batch.spans | following.spans
        following.refusals = (batch.refusals + following.refusals)[-_REFUSALS_HELD:]
        room = _OWN_HELD - sum([entry.kind != 0 for entry in following.entries])
        for entry in [entry for entry in batch.entries if entry.kind != 0][: max(0, room)]:
            following.add(entry)

    def _adopt(self, adopted: list[Adopted]) -> None:
        """Take in rows that a failed commit left on disk: they are stored, and a repeat of one gets its receipt."""
        if not adopted:
            return
        messages = {row.identity: row.position for row in adopted if row.kind == 0 and row.number == 0}
        self._repeats.add(messages, self._steady())
        urgent = sum(row.lane == Lane.URGENT for row in adopted)
        self._count(urgent, len(adopted) - urgent)
        group, found = self._group, {row.identity for row in adopted}
        group.known = {identity: messages[identity] for identity in group.identities if identity in messages}
        fresh = [entry for entry in group.batch.entries if entry.identity not in found]
        group.batch.entries, group.batch.events, group.batch.urgent = [], 0, 0
        group.identities = dict.fromkeys(group.known, 0)
        for entry in fresh:
            if entry.kind == 0:
                group.identities.setdefault(entry.identity, group.batch.events)
            group.batch.add(entry)
        group.batch.jobs.append(probe)  # so that there is something to commit for those who wait

    # -- cursors --------------------------------------------------------------------------------------------------

    def cursor(self, output: str, lane: Lane) -> Cursor:
        """Return an output's place in a lane; a new output begins with what is stored from now on."""
        with sqlite3.connect(self._file) as db:
            found = db.execute("SELECT position FROM cursors WHERE output = ? AND lane = ?", (output, lane.value)).fetchone()
            last = db.execute("SELECT COALESCE(MAX(position), 0) FROM signals").fetchone()[0]
            # A new output begins with what comes; one whose place was lost is handed everything again.
            first = last if self.damage is None or self.damage.cursors_kept else 0
            position = first if found is None else int(found[0])
            try:
                waiting = db.execute(
                    "SELECT COUNT(*) FROM signals WHERE position > ? AND lane = ?", (position, lane.value)
                ).fetchone()[0]
            except sqlite3.DatabaseError:  # damaged; the check in the background tells, and signals are taken meanwhile
                waiting = max(0, last - position)
        db.close()
        cursor = self._cursors[output, lane] = Cursor(output, lane, position, waiting)
        self._backlog = self.backlog()
        if found is None:
            self.save(cursor)
        return cursor

    def save(self, cursor: Cursor, span: Span | None = None) -> None:
        """Write a cursor and what it passed with the next group; a crash before that delivers again, under the same ids."""
        batch = self._group.batch
        batch.cursors[cursor.output, cursor.lane.value] = cursor.position
        if span is not None:
            batch.spans[span[:3]] = span
        self._wake_writer()

    async def do(self, job: Job) -> None:
        """Commit a job with the next group and return when it is on disk.

        Raises:
            JournalUnavailable: it is not.
        """
        group = self._group
        group.batch.jobs.append(job)
        self._wake_writer()
        await group.done

    def backlog(self) -> int:
        """Return how many events the slowest output has before it."""
        return max(self._waiting().values(), default=0)

    def slowest(self) -> str:
        """Return the output that has most before it."""
        waiting = self._waiting()
        return max(waiting, key=lambda output: waiting[output], default="")

    def _waiting(self) -> dict[str, int]:
        waiting: dict[str, int] = {}
        for cursor in self._cursors.values():
            waiting[cursor.output] = waiting.get(cursor.output, 0) + cursor.waiting
        return waiting

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

    def flush(self, ask: bool = False) -> None:
        """Commit what waits, refusals included; called at intervals. After a failure, or to ``ask``, it tries the disk."""
        if ask or self.failure is not None:
            self._group.batch.jobs.append(probe)
        if self._group.batch:
            self._wake_writer()

    def tidy(self, keep_old: bool = False) -> None:
        """Delete, in small steps, delivered events past retention (not while the clock is in doubt: ``keep_old``) and the
        oldest refusals; called at intervals.
        """
        before_us = 0 if keep_old else self._now() - round(self._settings.retention_days * 86400) * clock.SECOND_US
        delivered = min((c.position for c in self._cursors.values()), default=None)
        self._group.batch.jobs.append(deletion(before_us, delivered, self._settings.refusals_kept))
        self._wake_writer()

    async def close(self) -> None:
        """Write everything that waits, cursors included, and close the file; a disk that hangs is not waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS - self.busy_seconds):
                self._hand_over()  # also to a disk that failed: it is asked once more
                while self._busy is not None or (self._group.batch and self.failure is None):
                    self._hand_over()
                    await self._idle.wait()
        await asyncio.to_thread(self._writer.stop)
        self._folder.close()

    @property
    def busy_seconds(self) -> float:
        """How long the writer has been at the group it has in hand."""
        return 0.0 if self._busy is None else clock.monotonic() - self._busy_since

    @property
    def alive(self) -> bool:
        """Whether the writer's thread lives."""
        return self._writer.is_alive()

    @property
    def remembered(self) -> int:
        """How many messages are remembered to recognise repeats."""
        return len(self._repeats)
