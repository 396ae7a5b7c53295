"""What stands, in a worker, for the parts that only worker 0 has: the same calls, sent there.

Messages of one turn of the loop go out together, and nothing is sent while a turn still brings new ones. The story in
``receiver/pipeline.py`` runs as it does in worker 0, with these in the places of journal, senders, paths and troubles. Its
two waits stay what they are: ``RemoteJournal.append`` returns with what ``Journal.append`` said in worker 0, after the sync.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from protocols import dc09
from receiver.accounts import Account
from receiver.arrivals import Route
from receiver.errors import JournalUnavailable
from receiver.journal import Entry, Receipt, Refusal
from receiver.paths import PathChange
from receiver.pipeline import repeat_identity
from receiver.senders import STALE, Heard, Notice
from receiver.troubles import Trouble
from receiver.workers.link import Link, Message

_PEER = 9  # in an item
_MOST_ITEMS = 500  # sent at once; the other process is not to be kept from its loop for longer

Outcome = Receipt | JournalUnavailable


class _Batch:
    """What goes out together: ``items`` are messages as ``desk`` reads them, the last place is what to store."""

    __slots__ = ("done", "items", "outcomes", "refusals", "stale", "stored", "troubles")

    def __init__(self, done: "asyncio.Future[None]") -> None:
        self.items: list[list[Any]] = []
        self.stored = 0  # items that are to be stored
        self.refusals: list[Refusal] = []
        self.troubles: list[tuple[Any, ...]] = []
        self.stale: list[tuple[Any, ...]] = []
        self.outcomes: list[Outcome] = []
        self.done = done


class Outbox:
    """Gathers what the story tells, sends it, and gives back the receipts."""

    def __init__(self) -> None:
        """Belongs to the running event loop; ``link`` must be set before the first message."""
        self.link: Link
        self._loop = asyncio.get_running_loop()
        self._batch = _Batch(self._loop.create_future())
        self._unstored: deque[tuple[list[Any], bytes]] = deque()  # signals of this turn that append has not been given yet
        self._sent: dict[int, _Batch] = {}
        self._number = 0
        self._gathering = False
        self._gathered = 0

    def check_room(self) -> None:
        """Refuse while the receiver does not take what we send.

        Raises:
            JournalUnavailable: it must not be acknowledged.
        """
        if self.link.full:
            raise JournalUnavailable("the receiver's main process does not take what this worker sends")

    def tell(self, message: dc09.Message, way: Route, key: dc09.Key | None = None) -> None:
        """Tell of a valid message and which key opened it; of a signal ``store`` is told next."""
        envelope = message.envelope
        is_test = envelope.token == dc09.LINK_TEST
        raw = envelope.frame.raw
        item = [
            raw if is_test else b"", envelope.token, envelope.encrypted, envelope.sequence, envelope.address.account,
            envelope.content if is_test else b"", message.data, message.panel_time, way.origin, way.peer,
            key.check if envelope.encrypted and key is not None else b"", None,
        ]  # fmt: skip
        self._batch.items.append(item)
        if not is_test:
            self._unstored.append((item, raw))
        self._wake()

    def store(self, entries: Sequence[Entry]) -> tuple[_Batch, int]:
        """Ask for a receipt for each entry; return the batch they go with and where in it their outcomes begin."""
        batch = self._batch
        first = batch.stored
        for entry in entries:
            item = self._item_of(entry)
            item[-1] = entry
        batch.stored += len(entries)
        self._wake()
        return batch, first

    def _item_of(self, entry: Entry) -> list[Any]:
        """Find what was told of an entry's message; it is the next, unless the story stumbled over one between."""
        waiting = self._unstored
        while waiting:
            item, raw = waiting.popleft()
            if raw is entry.raw or (item[_PEER] == entry.peer and len(raw) == len(entry.raw)):
                return item
        raise AssertionError("an entry of a message that was not heard")

    def refuse(self, refusal: Refusal) -> None:
        """Send a refused frame, for the log."""
        self._batch.refusals.append(refusal)
        self._wake()

    def raise_trouble(self, trouble: Trouble, origin: int, _now_us: int) -> None:
        """Send a trouble; worker 0 counts its like together, and may know better words."""
        self._batch.troubles.append((astuple(trouble), origin))
        self._wake()

    def tell_stale(self, item: tuple[Any, ...]) -> None:
        """Tell of a message that was refused for its time stamp."""
        self._batch.stale.append(item)
        self._wake()

    def _wake(self) -> None:
        if not self._gathering:
            self._gathering = True
            self._gathered = -1
            self._loop.call_soon(self._gather)

    def _gather(self) -> None:
        """Send once a turn of the loop brought nothing new, so that what arrives together is one message."""
        count = len(self._batch.items)
        if self._gathered < count < _MOST_ITEMS:
            self._gathered = count
            self._loop.call_soon(self._gather)
        else:
            self.flush()

    def flush(self) -> None:
        """Send what was gathered."""
        self._gathering = False
        batch, self._batch = self._batch, _Batch(self._loop.create_future())
        self._unstored.clear()
        if batch.stored:
            self._number += 1
            self._sent[self._number] = batch
        self.link.send(("batch", self._number, batch.items, batch.refusals, batch.troubles, batch.stale))

    def receive(self, message: Message) -> None:
        """Take the outcomes of a batch, in the order its entries were stored."""
        _, number, outcomes = message
        batch = self._sent.pop(number)
        batch.outcomes = [_outcome(told) for told in outcomes]
        batch.done.set_result(None)


def _outcome(told: int | str) -> Outcome:
    """Read an outcome; the receipt is that of ``Journal.append`` in worker 0, which made it after the sync."""
    if isinstance(told, str):
        return JournalUnavailable(told)
    return Receipt(abs(told), repeat=told < 0)


class RemoteJournal:
    """The journal as far as the story knows it."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def append(self, entries: Sequence[Entry]) -> list[Outcome]:
        """Store messages that arrived together; return for each its receipt, after the sync, or why there is none."""
        batch, first = self._outbox.store(entries)
        await batch.done
        return batch.outcomes[first : first + len(entries)]

    def knows(self, _identity: bytes) -> bool:
        """Leave the question to worker 0, which is told the identity of each message refused as stale."""
        return False

    def refuse(self, refusal: Refusal) -> bool:
        """Send a refused frame; False when it was dropped."""
        if self._outbox.link.full:
            return False
        self._outbox.refuse(refusal)
        return True


class RemoteSenders:
    """What is known of senders, asked without waiting: worker 0 acts on what it finds."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def heard(self, message: dc09.Message, _account: Account, key: dc09.Key | None, way: Route, _now_us: int) -> Heard:
        """Tell worker 0 of a message that policy lets through; it notes the path too, so here nothing is fresh.

        Raises:
            JournalUnavailable: worker 0 does not take it, so it must not be acknowledged.
        """
        self._outbox.check_room()
        self._outbox.tell(message, way, key)
        return STALE

    def refused_as_stale(
        self, message: dc09.Message, _account: Account, raw: bytes, way: Route, _known: bool, wall_us: int, _now_us: int
    ) -> Notice | None:
        """Tell worker 0 of a message whose stamp was stale; what is odd about it, it tells itself."""
        envelope = message.envelope
        told = (
            dc09.mask_keys(raw), envelope.token, envelope.encrypted, envelope.sequence, envelope.address.account, b"",
            message.data, message.panel_time, way.origin, way.peer,
        )  # fmt: skip
        self._outbox.tell_stale((*told, repeat_identity(message), wall_us))
        return None

    def why_unopened(self, _name: str, _account: Account, _key: dc09.Key | None) -> str | None:
        """Leave the words to worker 0."""
        return None


class RemotePaths:
    """The paths, which worker 0 keeps: the story never comes here, for nothing is fresh in a worker."""

    def seen(self, _account: str, _listener: str, _interval_seconds: int, _now_us: int) -> PathChange | None:
        """Note nothing."""
        return None
