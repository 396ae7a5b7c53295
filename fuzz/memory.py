"""A journal of lists: what the pipeline asks of the real one, without a disk. It can be made to fail, and to be full."""

from collections import deque
from collections.abc import Sequence

from receiver.errors import JournalUnavailable
from receiver.journal import Entry, Receipt, Refusal, Row
from receiver.journal.repeats import Repeats

_REFUSALS_HELD = 1000
_FAILING = "the journal was told to fail"


class MemoryJournal:
    """Stores rows in order; the position of a row is its place in the list, from 1."""

    def __init__(self, repeat_window_seconds: int = 600, max_backlog: int = 1_000_000) -> None:
        self.rows: list[Row] = []
        self.refusals: deque[Refusal] = deque(maxlen=_REFUSALS_HELD)
        self.failing = False
        self.max_backlog = max_backlog
        self._repeats = Repeats(repeat_window_seconds, 1_000_000)

    async def append(self, entries: Sequence[Entry]) -> list[Receipt | JournalUnavailable]:
        """Store messages; return for each its receipt, of a repeat the first one, or why it was not stored."""
        return [self._append(entry) for entry in entries]

    def _append(self, entry: Entry) -> Receipt | JournalUnavailable:
        position = self._repeats.find(entry.identity, entry.received_us)
        if position is not None:
            return Receipt(position, repeat=True)
        if self.failing:
            return JournalUnavailable(_FAILING)
        count = len(self.signals())
        if count + len(entry.events) > self.max_backlog:
            return JournalUnavailable(f"{count} signals are not delivered; max_backlog is {self.max_backlog}")
        position = len(self.rows) + 1
        self.rows += entry.rows()
        self._repeats.add({entry.identity: position}, entry.received_us)
        return Receipt(position, repeat=False)

    def knows(self, identity: bytes) -> bool:
        """Tell whether a message with this identity was stored, in the window of repeats or just out of it."""
        return self._repeats.recall(identity) is not None

    def append_later(self, entries: Sequence[Entry]) -> None:
        """Store path and trouble events, for which there is room when there is none for signals.

        Raises:
            JournalUnavailable: it is failing.
        """
        if self.failing:
            raise JournalUnavailable(_FAILING)
        for entry in entries:
            self.rows += entry.rows()

    def refuse(self, refusal: Refusal) -> bool:
        """Keep what was refused; say whether there was room."""
        self.refusals.append(refusal)
        return not self.failing

    def signals(self) -> list[Row]:
        """Return the rows that panels sent, without path and trouble events."""
        return [row for row in self.rows if row.kind == 0]
