"""Takes events from the journal to one output: in order within a lane, the urgent lane first, until they are taken.

A dead output delays only itself. After each failure the choice is made anew, so a duress that arrives meanwhile goes first,
and the next batch is a small one, so that little stands before it should the output come back with that batch in hand. An
event that the other side refuses while it takes others becomes a dead letter after a number of tries (``deadletters``).
"""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from receiver import clock
from receiver.accounts import Accounts, Unread
from receiver.config import OutputSettings
from receiver.errors import DeliveryError, EventRefused, JournalUnavailable, RegisterUnavailable
from receiver.events import InMemory, OutEvent, render_or_tell
from receiver.journal import SPAN_US, Cursor, Journal, Lane, Reader, Span, Stored
from receiver.outputs import orders
from receiver.outputs.contract import Output, Surroundings
from receiver.outputs.deadletters import DeadLetters
from receiver.outputs.filters import Filter
from receiver.outputs.pace import Pace
from receiver.outputs.poison import Patience, Suspects

_READ_AT_ONCE = 500
_AFTER_A_FAILURE = 20
_RENDERED_AT_ONCE = 4  # then the loop may answer a panel
_FEW = 20  # ordinary events that wait besides for the commit under way, so that no panel waits for them
_FIRST_RETRY_SECONDS = 0.1
_ORDERS_SECONDS = 1.0
_STAND_AGAIN_SECONDS = 1.0
_LONGEST_RETRY_SECONDS = 5.0
_URGENT_RETRY_SECONDS = 1.0  # the longest while something urgent waits
_DIRECT_HELD = 100
_REGISTER_SECONDS = 5.0  # waited for an account that is on the disk only; then it is tried again later


async def _turn() -> None:
    """Give the loop one turn."""
    await asyncio.sleep(0)


class Forwarder:
    """One output's way through the journal."""

    def __init__(
        self, settings: OutputSettings, output: Output, journal: Journal, reader: Reader, surroundings: Surroundings
    ) -> None:
        self._settings = settings
        self._output = output
        self._journal = journal
        self._reader = reader
        self._telemetry = surroundings.telemetry
        self._filter = Filter(settings)
        self._loop = asyncio.get_running_loop()
        self._stored = asyncio.Event()
        self._stored.set()
        self._data_dir = surroundings.data_dir
        self._failures = 0
        self._oldest: dict[Lane, tuple[int, int] | None] = dict.fromkeys(Lane)  # position; since when, in steady time
        self._spans: dict[Lane, Span] = {}
        self._ahead: dict[Lane, set[int]] = {lane: set() for lane in Lane}  # taken, though one before them was not
        self._suspects = Suspects(settings.max_tries)
        self._patience, self._letter_patience = Patience(settings.max_tries), Patience(settings.max_tries)
        self.cursors: dict[Lane, Cursor] = {lane: journal.cursor(settings.name, lane) for lane in Lane}
        self.dead_letters = DeadLetters(settings, journal, reader.count_dead(settings.name), surroundings)
        self.accounts: Accounts | None = None
        self._pace = Pace(self.cursors, output.batch_limit, self._stored.set)
        journal.notify(self._pace.stored)
        self._direct: deque[Stored] = deque(maxlen=_DIRECT_HELD)
        self._called = asyncio.Event()

    async def run(self, accounts: Accounts) -> None:
        """Hand over what the journal holds, for ever; ``accounts`` name the events until the register is read again."""
        self.accounts = accounts
        del accounts  # we run for ever, and another register will have been read
        async with asyncio.TaskGroup() as standing:
            standing.create_task(self._stand())
            standing.create_task(self._attend())
            await self._follow()

    async def _stand(self) -> None:
        """Keep what stands beside the deliveries going; a line of it that fails must not end the reception."""
        while True:
            try:
                return await self._output.run()
            except DeliveryError as error:
                self._telemetry.delivery_failed(self._settings.name, str(error), _STAND_AGAIN_SECONDS)
            except Exception as error:  # noqa: BLE001 - as in _deliver
                self._telemetry.output_broke(self._settings.name, error)
            await asyncio.sleep(_STAND_AGAIN_SECONDS)

    async def _attend(self) -> None:
        """Look each second whether a command wants dead letters to go out again."""
        while True:
            for file, positions in orders.waiting(self._data_dir, self._settings.name):
                with contextlib.suppress(JournalUnavailable, OSError):  # then the order stays
                    await self.dead_letters.recall(positions)
                    file.unlink(missing_ok=True)
                    self._stored.set()
            await asyncio.sleep(_ORDERS_SECONDS)

    async def _follow(self) -> None:
        while True:
            try:
                if self._direct:
                    await self._hand_over_directly()
                    continue
                lane, batch = await self._next_batch()
                if self.dead_letters.wanted and lane is not Lane.URGENT:
                    await self._send_letters_again()
                if self._suspects[lane].wants_probe(self.cursors[lane].position):
                    await self._try_another(lane)
                if batch:
                    began, all_that_waited = self._loop.time(), self.cursors[lane].waiting == len(batch)
                    await self._hand_over(lane, batch)
                    self._failures = 0
                    if all_that_waited and lane is Lane.NORMAL:
                        self._pace.handed_over(began)
                    continue
            except (DeliveryError, JournalUnavailable) as error:
                await self._wait_after(error)
                continue
            await self._stored.wait()
            self._stored.clear()

    async def _next_batch(self) -> tuple[Lane, list[Stored]]:
        """Return the next events of the most urgent lane that has any.

        Of one message with several events, those that stand before an urgent one and are next in their own lane go first.
        """
        limit = min(_READ_AT_ONCE, self._output.batch_limit, *((_AFTER_A_FAILURE,) if self._failures else ()))
        urgent = await self._read(Lane.URGENT, limit)
        if urgent and not urgent[0].row.number:
            return Lane.URGENT, urgent
        if not urgent and self._pace.resting:
            return Lane.NORMAL, []
        normal = await self._read(Lane.NORMAL, limit)
        if not urgent:
            return Lane.NORMAL, normal
        first = urgent[0]
        before = [e for e in normal if e.position < first.position and e.row.identity == first.row.identity]
        if before and before[0] is normal[0]:
            return Lane.NORMAL, before
        return Lane.URGENT, urgent

    async def _read(self, lane: Lane, limit: int) -> list[Stored]:
        cursor, batch = self.cursors[lane], list[Stored]()
        limit = self._suspects[lane].limit(limit, cursor.position)
        if cursor.waiting:
            newest = self._journal.newest(lane, cursor.position, limit)
            batch = await asyncio.to_thread(self._reader.after, lane, cursor.position, limit) if newest is None else newest
        if not batch:
            self._oldest[lane] = None
        elif (self._oldest[lane] or (0, 0))[0] != batch[0].position:
            # How old it is, the wall clock says once; from then on a jump of it moves nothing.
            now_us, steady_us = clock.both_us()
            self._oldest[lane] = batch[0].position, steady_us - max(0, now_us - batch[0].row.received_us)
        return batch

    async def _hand_over(self, lane: Lane, batch: Sequence[Stored]) -> None:
        """Deliver what is wanted of a batch and move the cursor past what was taken, however it ends."""
        ahead = self._ahead[lane]
        give_way: Callable[[], Awaitable[None]] = _turn
        if lane is Lane.NORMAL and len(batch) <= _FEW:
            give_way = self._journal.quiet
            await give_way()
        wanted = await self._render([s for s in batch if self._filter.takes_row(s) and s.position not in ahead], give_way)
        sent_us = clock.now_us()
        try:
            if wanted:
                await self._deliver(wanted)
        except DeliveryError as failure:
            error = self._suspects[lane].judge(wanted, failure)
            self._passed(lane, batch, wanted, error.taken, sent_us)
            self._went_ahead(lane, [wanted[number] for number in error.also])
            if not isinstance(error, EventRefused):
                raise
            await self._refused(lane, wanted[error.taken], error)
        else:
            self._passed(lane, batch, wanted, len(wanted), sent_us)
        ahead.difference_update([stored.position for stored in batch if stored.position <= self.cursors[lane].position])

    async def _try_another(self, lane: Lane) -> None:
        """Hand over one event that is not the lane's suspect: of the other lane, or a later one of another account.

        Raises:
            DeliveryError: it was not taken.
        """
        other, suspect = Lane.NORMAL if lane is Lane.URGENT else Lane.URGENT, self._suspects[lane]
        if self._suspects[other].position < 0 and (batch := await self._read(other, 1)):
            return await self._hand_over(other, batch)
        for stored in await asyncio.to_thread(self._reader.after, lane, suspect.position, _READ_AT_ONCE):
            if stored.position in self._ahead[lane] or not self._filter.takes_row(stored):
                continue
            for event in await self._render([stored]):
                if event.account not in suspect.spared:
                    return await self._probe(lane, event)
        suspect.spare_none()
        return None

    async def _probe(self, lane: Lane, event: OutEvent) -> None:
        try:
            await self._deliver([event])
        except DeliveryError as error:
            self._suspects[lane].spared.add(event.account)  # a later event of this account may not overtake it
            raise DeliveryError(str(error)) from None
        self._went_ahead(lane, [event])

    def _went_ahead(self, lane: Lane, events: Sequence[OutEvent]) -> None:
        """Note that events were taken though one before them was not."""
        self._ahead[lane].update([event.stored.position for event in events])
        self._suspects.saw_taken(events)
        self._count(lane, events, clock.now_us())

    def _count(self, lane: Lane, events: Sequence[OutEvent], now_us: int) -> None:
        waited = [max(0, now_us - event.stored.row.received_us) / clock.SECOND_US for event in events]
        self._telemetry.handed_over(self._settings.name, lane.word, waited)

    async def _deliver(self, events: Sequence[OutEvent]) -> None:
        """Hand events to the output. What its library did not foresee is an outage: it must not end the reception.

        Raises:
            DeliveryError: they were not all taken.
        """
        try:
            await self._output.deliver(events)
        except DeliveryError:
            raise
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise DeliveryError("the output's library gave up what it was doing") from None  # nobody cancelled us
        except Exception as error:  # noqa: BLE001 - whatever a library does; told with its place in the code, tried again
            self._telemetry.output_broke(self._settings.name, error)
            raise DeliveryError(f"unexpected {type(error).__name__} in the output") from None

    async def _render(self, batch: Sequence[Stored], give_way: Callable[[], Awaitable[None]] = _turn) -> list[OutEvent]:
        assert self.accounts is not None
        wanted: list[OutEvent] = []
        register = InMemory(self.accounts)
        for number, stored in enumerate(batch, 1):
            try:
                event = render_or_tell(stored, register)
            except Unread as unread:
                event = await self._render_after_reading(stored, unread)
            if self._filter.takes(event):
                wanted.append(event)
            if number % _RENDERED_AT_ONCE == 0:
                await give_way()
        return wanted

    async def _render_after_reading(self, stored: Stored, unread: Unread) -> OutEvent:
        """Write an event out whose account has to be read from the disk first: only this output waits for that.

        Raises:
            RegisterUnavailable: the disk does not answer.
        """
        loop = asyncio.get_running_loop()
        while True:
            register, read = self.accounts, loop.create_future()
            assert register is not None
            register.read([unread.name], partial(_say, loop, read))
            try:
                register.keep(await asyncio.wait_for(read, _REGISTER_SECONDS))
                return render_or_tell(stored, InMemory(register))
            except TimeoutError:
                raise RegisterUnavailable("the account register does not answer: its disk hangs") from None
            except Unread as another:
                unread = another

    def tell_directly(self, stored: Stored) -> None:
        """Hand over a path or trouble event that the journal cannot store now; it comes again once stored, with the same id.

        Best effort: it is held in memory, the newest hundred.
        """
        self._direct.append(stored)
        self._stored.set()
        self._called.set()

    async def _hand_over_directly(self) -> None:
        self._called.clear()
        batch = list(self._direct)[: self._output.batch_limit]
        wanted = await self._render([stored for stored in batch if self._filter.takes_row(stored)])
        try:
            if wanted:
                await self._deliver(wanted)
        except DeliveryError as error:
            over = self._patience.is_over(batch[0].position, error)
            if not over and not isinstance(error, EventRefused):
                raise  # else it comes again from the journal, where it may become a dead letter
        self._patience.begin()
        for stored in batch:
            if self._direct and self._direct[0] is stored:  # else newer ones have pushed it out
                self._direct.popleft()

    def _passed(self, lane: Lane, batch: Sequence[Stored], wanted: Sequence[OutEvent], taken: int, sent_us: int) -> None:
        """Move the cursor past the first ``taken`` wanted events, and what the filter left out before the next one."""
        self._suspects.saw_taken(wanted[:taken])
        end = batch[-1].position if taken == len(wanted) else wanted[taken].stored.position - 1
        count = sum([stored.stands_for for stored in batch if stored.position <= end])
        if not count:
            return
        cursor, now_us, name = self.cursors[lane], clock.now_us(), self._settings.name
        span = Span(name, lane.value, cursor.position + 1, end, sent_us, now_us)
        last = self._spans.get(lane)
        if last is not None and last.last == cursor.position and now_us - last.sent_us < SPAN_US:
            span = span._replace(first=last.first, sent_us=last.sent_us)
        self._spans[lane] = span
        cursor.advance(end, count)
        self._journal.save(cursor, span)
        self._count(lane, wanted[:taken], now_us)

    async def _refused(self, lane: Lane, event: OutEvent, error: EventRefused) -> None:
        """Try again later or, when that was tried often enough, go on without the event."""
        if not await self.dead_letters.take(event, error):
            raise error
        self.cursors[lane].advance(event.stored.position, event.stored.stands_for)

    async def _send_letters_again(self) -> None:
        """Hand over dead letters that somebody wants to go out again; a failure leaves them for later."""
        limit = min(_AFTER_A_FAILURE, self._output.batch_limit)
        self.dead_letters.wanted = False  # a command that comes while they are read says so again
        try:
            letters = await asyncio.to_thread(self._reader.wanted_letters, self._settings.name, limit)
        except JournalUnavailable:
            self.dead_letters.wanted = True
            raise
        events = await self._render([stored for _, stored in letters])
        if not events:
            return
        self.dead_letters.wanted = True
        try:
            await self._deliver(events)
        except DeliveryError as error:
            first = events[error.taken]
            lies = isinstance(error, EventRefused) or self._letter_patience.is_over(first.stored.position, error)
            refused = first if lies else None
            taken = [*events[: error.taken], *[events[number] for number in sorted(error.also)]]
            await self.dead_letters.settle(taken, refused, error)
            if refused is None:
                raise
        else:
            await self.dead_letters.settle(events)
        self._stored.set()  # there may be more

    async def _wait_after(self, error: DeliveryError | JournalUnavailable) -> None:
        """Back off, longer each time, with jitter, so that outputs of many receivers do not return at once."""
        self._failures += 1
        ceiling = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(self._failures, 12))
        seconds = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret
        if self._called.is_set():
            seconds = 0.0
        elif self.cursors[Lane.URGENT].waiting:
            seconds = min(seconds, _URGENT_RETRY_SECONDS)
        if not isinstance(error, EventRefused):  # that was told already
            self._telemetry.delivery_failed(self._settings.name, str(error), seconds)
        while seconds > 0 and not self._called.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, _URGENT_RETRY_SECONDS)):
                    await self._called.wait()  # something urgent of our own: try at once
            seconds -= _URGENT_RETRY_SECONDS
            if self.cursors[Lane.URGENT].waiting:
                break
        self._called.clear()

    def oldest_seconds(self, lane: Lane) -> float:
        """Return how long the oldest event not handed over has waited, 0 when none waits."""
        oldest = self._oldest[lane]
        if oldest is None or not self.cursors[lane].waiting:
            return 0.0
        return (clock.steady_us() - oldest[1]) / clock.SECOND_US

    def reopen(self) -> None:
        """Pass SIGHUP on."""
        self._output.reopen()

    async def close(self) -> None:
        """Put the output and its reader away."""
        await self._output.close()
        self._reader.close()


def _answer(read: "asyncio.Future[Any]", found: Any) -> None:
    if not read.done():  # else its patience is over
        read.set_result(found)


def _say(loop: asyncio.AbstractEventLoop, read: "asyncio.Future[Any]", found: Any) -> None:
    with contextlib.suppress(RuntimeError):  # too late: the loop is closed
        loop.call_soon_threadsafe(_answer, read, found)
