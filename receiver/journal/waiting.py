"""Messages on their way to the disk, and those who wait for them."""

import asyncio

from receiver.errors import JournalUnavailable
from receiver.journal.writer import Batch


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
