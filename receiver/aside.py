"""Frames set aside while their account is read from the disk: the loop goes on, and each connection keeps its order.

The frames of a panel that has one here wait behind it. What several wait for is read at once, in one turn of the reading
thread; meanwhile the next is gathered. A disk that hangs makes them wait for ``PATIENCE_SECONDS``, and then nobody any more.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence

from receiver.accounts import Accounts, Found
from receiver.arrivals import Arrival, Panel

PATIENCE_SECONDS = 2.0
"""A panel waits some seconds for its ACK, and a UDP listener has only so many frames in hand."""


class Aside:
    """The frames that wait. ``again`` takes them back, in order, when their accounts are in memory."""

    def __init__(self, accounts: Callable[[], Accounts], again: Callable[[Sequence[Arrival]], None]) -> None:
        """``accounts`` returns the register of now: it may be another one after each wait."""
        self._accounts = accounts
        self._again = again
        self.held: dict[Panel, list[Arrival]] = {}
        """What waits, by panel; the first of each waits for its account."""
        self._waiting: dict[str, list[Panel]] = {}
        self._wanted: list[str] = []  # to be read next
        self._reading = False
        self._patience: asyncio.TimerHandle | None = None

    def put(self, arrival: Arrival, name: str | None = None) -> None:
        """Set a frame aside, behind those of its panel, or until ``name`` is in memory where it is the first."""
        queue = self.held.setdefault(arrival.panel, [])
        queue.append(arrival)
        if name is None:
            return
        if name not in self._waiting:
            self._waiting[name] = []
            self._wanted.append(name)
            if not self._reading:
                self._reading = True
                asyncio.get_running_loop().call_soon(self._read)
        self._waiting[name].append(arrival.panel)

    def _read(self) -> None:
        names, self._wanted = self._wanted, []
        register, loop = self._accounts(), asyncio.get_running_loop()
        patience = self._patience = loop.call_later(PATIENCE_SECONDS, self._lose_patience, register)
        register.read(names, lambda found: _say(loop, lambda: self._have(patience, register, names, found)))

    def _have(self, patience: asyncio.TimerHandle, register: Accounts, names: Collection[str], found: Found) -> None:
        """Take back what waited for accounts that were read, then read what was wanted meanwhile."""
        register.keep(found)
        if patience is not self._patience:
            return  # it came too late, and nobody waits for it
        patience.cancel()
        self._patience = None
        more = self._reading = bool(self._wanted)
        self._release(names)  # some may want to be read again
        if more:
            self._read()

    def _lose_patience(self, register: Accounts) -> None:
        """Let everybody go; who is not in memory is refused until the disk answers."""
        register.despair()
        self._patience, self._reading = None, False
        self._wanted.clear()
        self._release(list(self._waiting))

    def _release(self, names: Collection[str]) -> None:
        ready: list[Arrival] = []
        for name in names:
            for panel in self._waiting.pop(name, ()):
                ready += self.held.pop(panel)
        if ready:
            self._again(ready)


def _say(loop: asyncio.AbstractEventLoop, what: Callable[[], None]) -> None:
    with contextlib.suppress(RuntimeError):  # too late: the loop is closed
        loop.call_soon_threadsafe(what)
