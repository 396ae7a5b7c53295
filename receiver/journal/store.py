"""The journal: durable, ordered, acknowledged only after the sync.

Signals that arrive while a commit runs form the next group; one commit and one sync serve them all. ``append`` returns a
``Receipt`` when its group is on disk, and the first one again for a repeat. Nothing else in the receiver makes one.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

from receiver import clock
from receiver.config import JournalSettings
from receiver.errors import JournalUnavailable
from receiver.journal.cursor import Cursor, Places
from receiver.journal.deliveries import Span
from receiver.journal.folder import Folder
from receiver.journal.groups import count_urgent
from receiver.journal.jobs import Job, deletion, probe
from receiver.journal.lanes import Lane
from receiver.journal.opening import open_journal, recall_repeats
from receiver.journal.records import SIGNAL, Entry, Origin, Receipt, Refusal, Stored
from receiver.journal.repeats import Repeats
from receiver.journal.tail import Tail
from receiver.journal.waiting import Gathering, Waiting
from receiver.journal.writer import Batch, Writer

_REFUSALS_HELD = 1000
_OWN_HELD = 1000
"""Path and trouble events that are kept over a failure, and that find room above the limits."""
_CLOSE_SECONDS = 5.0
_NOTHING: dict[bytes, int] = {}
_RIDE_SECONDS = 0.005
"""How long a cursor waits for signals to be committed with: a commit of its own would keep the next signal waiting."""


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
        self._places = Places()
        self.failure: JournalUnavailable | None = None
        self.failures = self.slow_syncs = 0
        self.on_sync: Callable[[float, int], None] = lambda _seconds, _rows: None
        self._backlog = 0
        try:
            recall = partial(recall_repeats, self._repeats, settings, now_us(), steady_us())
            found = open_journal(self._file, origins, recall)
            self._writer = Writer(self._folder, found.position + 1, found.parts, self._reported)
        except BaseException:
            self._folder.close()
            raise
        self.origins, self.damage, self.checked = found.origins, found.damage, found.checked
        self._tail = Tail(found.origins, found.position)
        self.newest_us, self.newest_stamp_us = found.newest_us, found.newest_stamp_us
        """When the newest event was received, and the stamp of the newest encrypted one; as found at start, 0 is none."""
        self._group = Waiting(self._loop)
        self._busy: Waiting | None = None
        self._busy_since = 0.0
        self._gathering = Gathering()
        self._riding = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._writer.start()

    async def append(self, entries: Sequence[Entry]) -> list[Receipt | JournalUnavailable]:
        """Store messages that arrived together; return for each, in order, its receipt, after the sync.

        A repeat gets the first receipt. What is not on disk, and must not be acknowledged, has why not in its place.
        """
        group = self._group
        known = self._take(entries, group)
        error = await group.done if len(known) < len(entries) else None
        if not known and error is None:
            first, offsets = group.batch.first_position, group.identities
            return [Receipt(first + offsets[entry.identity], False) for entry in entries]
        return [await self._outcome(entry, known.get(number), group) for number, entry in enumerate(entries)]

    def _take(self, entries: Sequence[Entry], group: Waiting) -> dict[int, Receipt | JournalUnavailable | Waiting]:
        """Put messages into the group; return, by their place, those that are known or find no room.

        Of one that is on its way to the disk already, that is the group it is in.
        """
        busy, recall, batch, waiting = self._busy, self._repeats.recall, group.batch, group.identities
        on_their_way = _NOTHING if busy is None else busy.identities
        known: dict[int, Receipt | JournalUnavailable | Waiting] = {}
        room, before = self._room(), batch.events
        for number, entry in enumerate(entries):
            identity, count = entry.identity, len(entry.events)
            if identity in waiting:
                known[number] = group
            elif identity in on_their_way and busy is not None:
                known[number] = busy
            elif recall(identity) is not None and (receipt := self._first_receipt(identity)) is not None:
                known[number] = receipt
            elif count > room:
                known[number] = self._no_room()
            else:
                waiting[identity] = batch.events
                batch.entries.append(entry)
                batch.events += count
                room -= count
        if batch.events > before:
            self._wake_writer()
        return known

    def _first_receipt(self, identity: bytes) -> Receipt | None:
        """Return the receipt of a message that is on disk, in the window of repeats."""
        position = self._repeats.find(identity, self._steady())
        return None if position is None else Receipt(position, repeat=True)

    async def _outcome(
        self, entry: Entry, known: Receipt | JournalUnavailable | Waiting | None, group: Waiting
    ) -> Receipt | JournalUnavailable:
        """Return what became of a message, once that is sure."""
        if isinstance(known, Receipt | JournalUnavailable):
            return known
        group = known or group
        error = await group.done
        if error is not None:
            return JournalUnavailable(str(error))  # each its own: it may be raised
        return Receipt(group.batch.first_position + group.identities[entry.identity], known is not None)

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
        self._group.batch.add(entries)
        self._wake_writer()

    def check_room(self, count: int = 1) -> None:
        """Refuse what would go over the limits.

        Raises:
            JournalUnavailable: too much waits for the disk or for the outputs.
        """
        if count > self._room():
            raise self._no_room()

    def _room(self) -> int:
        """Return how many more events can be taken."""
        room = min(self._settings.max_waiting, self._settings.max_backlog - self._backlog)
        return room - self._group.batch.events

    def _no_room(self) -> JournalUnavailable:
        most, backlog = self._settings.max_waiting, self._settings.max_backlog
        if most <= backlog - self._backlog:
            return JournalUnavailable(f"{most} signals wait for the disk already")
        return JournalUnavailable(f"{self._backlog} signals are not delivered; max_backlog is {backlog}")

    def _wake_writer(self) -> None:
        """Begin to gather a group, unless one is being gathered or written."""
        if self._busy is None and not self._gathering.under_way:
            self._gathering.begin()
            self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        """Come back with each turn of the loop until the group is gathered, then hand it over."""
        if self._gathering.goes_on(self._group.batch.events):
            self._loop.call_soon(self._gather)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._gathering.end(self._group.batch.events)
        if self._busy is not None or not self._group.batch:
            return
        if self.failure is None:
            self._busy, self._group = self._group, Waiting(self._loop)
        else:  # the group waits until the journal is mended
            self._busy = Waiting(self._loop)
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
        waiting = self._group.batch
        if self._group.identities or (waiting.presses and batch.error is None):
            self._wake_writer()  # after a failure only a panel or the next flush tries the disk again
        elif waiting.cursors and batch.error is None:
            self._let_ride()

    def _remember(self, group: Waiting) -> None:
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
            self._tail.add(first, batch.events, batch.urgent, batch.entries)
            self._places.count(batch.urgent, batch.events - batch.urgent)
        if group.known:
            group.identities |= {identity: position - first for identity, position in group.known.items()}

    def _fail(self, group: Waiting, error: JournalUnavailable) -> None:
        """Tell everybody who waits that it is not on disk; keep for later what no panel will send again."""
        self.failures += 1
        waiting = [group]
        if group.batch.mend:
            waiting.append(self._group)
            self._group = Waiting(self._loop)
        for failed in waiting:
            self._give_back(failed.batch)
            failed.done.set_result(JournalUnavailable(f"the journal cannot be written: {error}"))

    def _give_back(self, batch: Batch) -> None:
        """Keep for the next commit what no panel will send again; newer cursors win."""
        following = self._group.batch
        following.cursors = batch.cursors | following.cursors
        following.spans = batch.spans | following.spans
        following.refusals = (batch.refusals + following.refusals)[-_REFUSALS_HELD:]
        room = _OWN_HELD - sum([entry.kind != SIGNAL for entry in following.entries])
        following.add([entry for entry in batch.entries if entry.kind != SIGNAL][: max(0, room)])

    def _adopt(self, adopted: list[tuple[int, Entry]]) -> None:
        """Take in messages that a failed commit left on disk: they are stored, and a repeat of one gets its receipt."""
        if not adopted:
            return
        messages = {entry.identity: position for position, entry in adopted if entry.kind == SIGNAL}
        self._repeats.add(messages, self._steady())
        entries = [entry for _, entry in adopted]
        urgent, count = count_urgent(entries), sum([len(entry.events) for entry in entries])
        self._tail.forget(adopted[-1][0] + len(adopted[-1][1].events) - 1)
        self._places.count(urgent, count - urgent)
        group, found = self._group, {entry.identity for entry in entries}
        group.known = {identity: messages[identity] for identity in group.identities if identity in messages}
        group.identities = dict.fromkeys(group.known, 0)
        fresh = [entry for entry in group.batch.entries if entry.identity not in found]
        group.batch.entries, group.batch.events = [], 0
        for entry in fresh:
            if entry.kind == SIGNAL:
                group.identities.setdefault(entry.identity, group.batch.events)
            group.batch.add([entry])
        group.batch.jobs.append(probe)  # so that there is something to commit for those who wait

    def cursor(self, output: str, lane: Lane) -> Cursor:
        """Return an output's place in a lane; a new output begins with what is stored from now on."""
        # A new output begins with what comes; one whose place was lost is handed everything again.
        again = self.damage is not None and not self.damage.cursors_kept
        with closing(sqlite3.connect(self._file)) as db:
            cursor, known = self._places.recall(db, output, lane, again)
        self._backlog = self.backlog()
        if not known:
            self.save(cursor)
        return cursor

    def save(self, cursor: Cursor, span: Span | None = None) -> None:
        """Write a cursor and what it passed with the next group or in 5 ms; a crash before that delivers again, same ids."""
        batch = self._group.batch
        batch.cursors[cursor.output, cursor.lane.value] = cursor.position
        if span is not None:
            batch.spans[span[:3]] = span
        self._let_ride()

    def _let_ride(self) -> None:
        if not self._riding:
            self._riding = True
            self._loop.call_later(_RIDE_SECONDS, self._end_ride)

    def _end_ride(self) -> None:
        self._riding = False
        if self._group.batch.cursors:
            self._wake_writer()

    async def do(self, job: Job) -> None:
        """Commit a job with the next group and return when it is on disk.

        Raises:
            JournalUnavailable: it is not.
        """
        group = self._group
        group.batch.jobs.append(job)
        self._wake_writer()
        error = await group.done
        if error is not None:
            raise JournalUnavailable(str(error))

    def backlog(self) -> int:
        """Return how many events the slowest output has before it."""
        return self._places.backlog()

    def slowest(self) -> str:
        """Return the output that has most before it."""
        return self._places.slowest()

    async def quiet(self) -> None:
        """Return when nobody waits for the disk; after one commit at the latest."""
        if self._busy is not None or self._gathering.under_way:
            await (self._busy or self._group).done

    def notify(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` after every commit that stored events."""
        self._places.listeners.append(listener)

    def newest_position(self) -> int:
        """Return the last position on disk."""
        return self._tail.newest()

    def newest(self, lane: Lane, position: int, limit: int) -> list[Stored] | None:
        """Return up to ``limit`` events of a lane that follow ``position`` from memory; None: the file must be read."""
        return self._tail.after(lane, position, limit)

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
        self._group.batch.jobs.append(deletion(before_us, self._places.delivered(), self._settings.refusals_kept))
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
