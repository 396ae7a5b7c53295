"""Heavy senders take turns: in each turn of the loop a bounded time goes to them, and the rest of it to everybody else.

One read may bring hundreds of frames. Fifty connections that send as much as we take would make a turn of the loop last for
seconds, and a duress on the fifty-first would wait as long. So what is more than a panel sends at once is held, is not
added to, and is worked off slice by slice, one connection after the other.
"""

import asyncio
from collections import deque
from typing import Protocol

from receiver import clock
from receiver.arrivals import Arrivals

_SHARE_SECONDS = 0.005  # of one turn of the loop


class Sender(Protocol):
    """One who has more to be worked off."""

    def work(self) -> bool:
        """Work off one slice; tell whether there is more that can be worked off now."""
        ...


class Turns:
    """The senders that wait for their next slice."""

    def __init__(self, arrivals: Arrivals) -> None:
        """Take who gathers the frames that the senders bring."""
        self._arrivals = arrivals
        self._waiting: deque[Sender] = deque()
        self._coming = False

    def add(self, sender: Sender) -> None:
        """Give a sender its turn after those who wait already."""
        self._waiting.append(sender)
        self._come_back()

    def _come_back(self) -> None:
        if self._waiting and not self._coming:
            self._coming = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._coming = False
        until = clock.monotonic() + _SHARE_SECONDS
        while self._waiting:
            sender = self._waiting.popleft()
            if sender.work():
                self._waiting.append(sender)
            if self._arrivals.many or clock.monotonic() > until:
                break
        self._come_back()
