"""Keeps the tests of a running receiver: takes orders, ends what is over, tells both, and writes down what is in force.

The file may be on a disk that is away, so it is touched in a thread. A beginning counts once it is written down. An ending
counts at once, whatever the disk does: its order stays until it is written down, so a restart does not undo it.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from receiver import clock
from receiver.on_test import orders
from receiver.on_test.tickets import OnTest, Ticket
from receiver.troubles import Trouble

_LOOK_SECONDS = 1.0


class Desk:
    """The desk of one receiver; ``tell`` takes each trouble at once."""

    def __init__(self, data_dir: Path, on_test: OnTest, tell: Callable[[Trouble], None]) -> None:
        self._data_dir = data_dir
        self._on_test = on_test
        self._tell = tell
        self._unsaved = False

    def load(self) -> None:
        """Put in force again what was before a restart, and tell of what ended meanwhile; before panels are heard."""
        now_us, steady_us = clock.both_us()
        try:
            tickets = orders.in_force(self._data_dir)
        except (OSError, ValueError) as error:
            text = f"what was on test before the restart cannot be read, and nothing is on test now: {error}"
            self._tell(Trouble("on-test-ended", text, now_us))
            return
        for ticket in tickets:
            if not self._on_test.begin(ticket, now_us, steady_us):
                self._ended(ticket, "its time was over before the receiver started", now_us)

    async def run(self) -> None:
        """Look each second, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Carry out the orders that wait, and end what is over."""
        waiting = await asyncio.to_thread(orders.waiting, self._data_dir)
        now_us, steady_us = clock.both_us()
        for ticket in self._on_test.ended(now_us, steady_us):
            self._ended(ticket, "its time is over", now_us)
        for order in waiting:
            await self._carry_out(order, now_us, steady_us)
        if self._unsaved:
            with contextlib.suppress(OSError):  # the journal tells of the disk
                await self._save()

    async def _carry_out(self, order: orders.Order, now_us: int, steady_us: int) -> None:
        if order.ticket is None:
            ticket = self._on_test.end(order.account)
            if ticket is not None:
                why = f" ({order.reason})" if order.reason else ""
                self._ended(ticket, f"{order.by} ended it{why}", now_us)
        else:
            before = self._on_test.tickets.get(order.account)
            if self._on_test.begin(order.ticket, now_us, steady_us):
                try:
                    await self._save()
                except OSError:
                    self._on_test.end(order.account)  # not in force before it is written down: it is tried again
                    if before is not None:
                        self._on_test.tickets[order.account] = before
                    return
                self._began(order.ticket, before[0] if before else None, now_us)
        with contextlib.suppress(OSError):
            if self._unsaved:
                await self._save()
            await asyncio.to_thread(order.file.unlink, missing_ok=True)

    async def _save(self) -> None:
        await asyncio.to_thread(orders.keep, self._data_dir, [ticket for ticket, _ in self._on_test.tickets.values()])
        self._unsaved = False

    def _began(self, ticket: Ticket, before: Ticket | None, now_us: int) -> None:
        text = (
            f"account {ticket.account} is on test until {clock.to_text(ticket.until_us)[:19]}Z: {ticket.scope()}; "
            f"reason: {ticket.reason}; by {ticket.by}"
        )
        text += f"; this takes the place of a test by {before.by}" if before else ""
        self._tell(Trouble("on-test-began", text, now_us, account=ticket.account))

    def _ended(self, ticket: Ticket, why: str, now_us: int) -> None:
        self._unsaved = True
        text = f"account {ticket.account} is no longer on test: {why}. It was {ticket.scope()}; by {ticket.by}"
        self._tell(Trouble("on-test-ended", text, ticket.since_us, account=ticket.account))
