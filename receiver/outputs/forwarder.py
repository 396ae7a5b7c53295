"""Takes events from the journal to one output: in order within a lane, the urgent lane first, until they are taken.

A dead output delays only itself. After each failure the choice is made anew, so a duress that arrives meanwhile goes first.
"""

import asyncio
import random
from collections.abc import Sequence

from receiver import clock
from receiver.accounts import Accounts
from receiver.config import OutputSettings
from receiver.errors import DeliveryError, JournalUnavailable
from receiver.events import OutEvent, render_or_tell
from receiver.journal import Cursor, Journal, Kind, Lane, Reader, Stored
from receiver.outputs.contract import Output
from receiver.telemetry import Telemetry

_READ_AT_ONCE = 200
_RENDERED_AT_ONCE = 10  # then the loop may answer a panel
_FIRST_RETRY_SECONDS = 0.2
_LONGEST_RETRY_SECONDS = 30.0


class Forwarder:
    """One output's way through the journal."""

    def __init__(
        self, settings: OutputSettings, output: Output, journal: Journal, reader: Reader, telemetry: Telemetry
    ) -> None:
        self._settings = settings
        self._output = output
        self._journal = journal
        self._reader = reader
        self._telemetry = telemetry
        self._accounts_wanted = {account.upper() for account in settings.accounts}
        self._stored = asyncio.Event()
        self._stored.set()
        self._failures = 0
        self._oldest: dict[Lane, tuple[int, int] | None] = dict.fromkeys(Lane)  # position; since when, in steady time
        self.cursors: dict[Lane, Cursor] = {lane: journal.cursor(settings.name, lane) for lane in Lane}
        self.accounts: Accounts | None = None
        journal.notify(self._stored.set)

    async def run(self, accounts: Accounts) -> None:
        """Hand over what the journal holds, for ever; ``accounts`` name the events until the register is read again."""
        self.accounts = accounts
        while True:
            try:
                lane, batch = await self._next_batch()
                if batch:
                    await self._hand_over(lane, batch)
                    self._failures = 0
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
        limit = min(_READ_AT_ONCE, self._output.batch_limit)
        urgent = await self._read(Lane.URGENT, limit)
        if urgent and not urgent[0].row.number:
            return Lane.URGENT, urgent
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
        if cursor.waiting:
            batch = await asyncio.to_thread(self._reader.after, lane, cursor.position, limit)
        if not batch:
            self._oldest[lane] = None
        elif (self._oldest[lane] or (0, 0))[0] != batch[0].position:
            # How old it is, the wall clock says once; from then on a jump of it moves nothing.
            now_us, steady_us = clock.both_us()
            self._oldest[lane] = batch[0].position, steady_us - max(0, now_us - batch[0].row.received_us)
        return batch

    async def _hand_over(self, lane: Lane, batch: Sequence[Stored]) -> None:
        wanted: list[OutEvent] = []
        for number, stored in enumerate(batch, 1):
            if self._wants(stored):
                assert self.accounts is not None
                event = render_or_tell(stored, self.accounts)
                if not self._accounts_wanted or (event.account or "").upper() in self._accounts_wanted:
                    wanted.append(event)
            if number % _RENDERED_AT_ONCE == 0:
                await asyncio.sleep(0)
        if wanted:
            await self._output.deliver(wanted)
            self._telemetry.handed_over(self._settings.name, len(wanted))
        cursor = self.cursors[lane]
        cursor.advance(batch[-1].position, len(batch))
        self._journal.save(cursor)

    def _wants(self, stored: Stored) -> bool:
        settings = self._settings
        if stored.row.kind != Kind.SIGNAL:
            return settings.troubles
        return stored.row.priority <= settings.min_priority and stored.lane.word in settings.lanes

    async def _wait_after(self, error: DeliveryError | JournalUnavailable) -> None:
        """Back off, longer each time, with jitter, so that outputs of many receivers do not return at once."""
        self._failures += 1
        ceiling = min(_LONGEST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(self._failures, 12))
        seconds = random.uniform(ceiling / 2, ceiling)  # noqa: S311 - jitter, not a secret
        self._telemetry.delivery_failed(self._settings.name, str(error), seconds)
        await asyncio.sleep(seconds)

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
