"""Messages on their way to the disk, those who wait for them, and how long a group is gathered."""

import asyncio

from receiver.errors import JournalUnavailable
from receiver.journal.writer import Batch

_ENOUGH = 100
"""Events that go to the disk without asking whether more arrive: what a commit costs by itself is spread thin by then."""
_PATIENCE = 4
"""Turns of the loop that may bring nothing new while a group is less than half as large as the one before."""


class _Done(asyncio.Future[JournalUnavailable | None]):
    """Done when a group is on disk (None), or is not (why not). One who gives up must not take it from the others."""

    def cancel(self, msg: object = None) -> bool:
        """Refuse; the task that was cancelled ends when the group is on disk."""
        return False


class Waiting:
    """Messages that will be stored by one commit, and those who wait for it."""

    __slots__ = ("batch", "done", "identities", "known")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.batch = Batch()
        self.identities: dict[bytes, int] = {}  # how many events of the group stand before each message
        self.known: dict[bytes, int] = {}  # messages that were found on disk meanwhile, and their positions
        self.done = _Done(loop=loop)


class Gathering:
    """Says how long a group is gathered: until a turn of the loop brought nothing new.

    So what arrives together shares a sync. Panels that were answered together do not come back in one turn where outputs are
    at work too and turns are short. A group less than half as large as the last one is given a few turns more; a lone signal
    waits so once at most.
    """

    __slots__ = ("_count", "_last", "_patience", "under_way")

    def __init__(self) -> None:
        self.under_way = False
        self._count = self._last = 0
        self._patience = _PATIENCE

    def begin(self) -> None:
        """Begin with a new group."""
        self.under_way = True
        self._count, self._patience = -1, _PATIENCE

    def goes_on(self, count: int) -> bool:
        """Tell, after a turn of the loop, whether to wait for another one; ``count`` events are in the group by now."""
        if count >= _ENOUGH:
            return False
        if count > self._count:
            self._count = count
            return True
        self._patience -= 1
        return self._patience >= 0 and count < self._last // 2

    def end(self, count: int) -> None:
        """End with a group of so many events."""
        self.under_way = False
        self._last = count
