"""A journal of lists: what the pipeline asks of the real one, without a disk. It can be made to fail, and to be full."""

from collections import deque
from collections.abc import Sequence

from receiver.errors import JournalUnavailable
from receiver.journal import Receipt, Refusal, Row
from receiver.journal.repeats import Repeats

_REFUSALS_HELD = 1000


class MemoryJournal:
    """Stores rows in order; the position of a row is its place in the list, from 1."""

    def __init__(self, repeat_window_seconds: int = 600, max_backlog: int = 1_000_000) -> None:
        self.rows: list[Row] = []
        self.refusals: deque[Refusal] = deque(maxlen=_REFUSALS_HELD)
        self.failing = False
        self.max_backlog = max_backlog
        self._repeats = Repeats(repeat_window_seconds, 1_000_000)

    async def append(self, rows: Sequence[Row]) -> Receipt:
        """Store the events of one message; of a repeat, return the first receipt.

        Raises:
            JournalUnavailable: it is failing or full.
        """
        identity, now_us = rows[0].identity, rows[0].received_us
        position = self._repeats.find(identity, now_us)
        if position is not None:
            return Receipt(position, repeat=True)
        self._check()
        count = len(self.signals())
        if count + len(rows) > self.max_backlog:
            raise JournalUnavailable(f"{count} signals are not delivered; max_backlog is {self.max_backlog}")
        self.rows += rows
        position = len(self.rows) - len(rows) + 1
        self._repeats.add({identity: position}, now_us)
        return Receipt(position, repeat=False)

    def knows(self, identity: bytes) -> bool:
        """Tell whether a message with this identity was stored, in the window of repeats or just out of it."""
        return self._repeats.recall(identity) is not None

    def append_later(self, rows: Sequence[Row]) -> None:
        """Store path and trouble events, for which there is room when there is none for signals.

        Raises:
            JournalUnavailable: it is failing.
        """
        self._check()
        self.rows += rows

    def _check(self) -> None:
        if self.failing:
            raise JournalUnavailable("the journal was told to fail")

    def refuse(self, refusal: Refusal) -> bool:
        """Keep what was refused; say whether there was room."""
        self.refusals.append(refusal)
        return not self.failing

    def signals(self) -> list[Row]:
        """Return the rows that panels sent, without path and trouble events."""
        return [row for row in self.rows if row.kind == 0]
