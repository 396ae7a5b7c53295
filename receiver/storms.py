"""Notices when many paths are lost at once, and says what is to be told then: pure state, with steady time passed in.

20 losses within 5 s begin a storm (the contract's numbers). While it lasts, losses are told together; each path still
silent when it is over is told singly, few a second. So an outage of our own line is one event for an operator, and a panel
that really is gone shows up among them.
"""

from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

from receiver.clock import SECOND_US
from receiver.paths import PathChange

STORM_COUNT = 20
STORM_US = 5 * SECOND_US
_LISTED = 100
"""Accounts named in the one event; the count has all."""


class Burst(NamedTuple):
    """Losses that are told as one: how many, since when (steady time), the first 100 accounts, and how many a listener."""

    lost: int
    since_us: int
    accounts: tuple[str, ...]
    listeners: dict[str, int]


class Storm:
    """One storm after another. ``hold_us``: so long after the last 20 losses within 5 s it is over."""

    def __init__(self, hold_us: int = 60 * SECOND_US) -> None:
        self.hold_us = hold_us
        self._recent: deque[tuple[int, int]] = deque()
        self._until_us: int | None = None
        self._tell_at_us = 0
        self._clear()

    def _clear(self) -> None:
        self._count, self._since_us = 0, 0
        self._accounts: list[str] = []
        self._listeners: Counter[str] = Counter()

    def rages(self, now_us: int) -> bool:
        """Tell whether losses are to be held back."""
        return self._until_us is not None and now_us < self._until_us

    def resume(self, now_us: int) -> None:
        """Go on with a storm that raged when the receiver was killed."""
        self._until_us = now_us + self.hold_us

    def add(self, lost: Sequence[PathChange], now_us: int) -> bool:
        """Note losses and tell whether they are part of a storm, to be told together."""
        if lost:
            self._recent.append((now_us, len(lost)))
        while self._recent and self._recent[0][0] < now_us - STORM_US:
            self._recent.popleft()
        if not lost:
            return False
        recent = sum(count for _, count in self._recent)
        if recent >= STORM_COUNT:
            if not self.rages(now_us):  # those before were told singly; they count all the same
                self._count, self._since_us, self._tell_at_us = recent - len(lost), self._recent[0][0], now_us
            self._until_us = now_us + self.hold_us
        if not self.rages(now_us):
            return False
        self._since_us = self._since_us or now_us
        self._count += len(lost)
        self._listeners.update(change.listener for change in lost)
        self._accounts += [change.account for change in lost[: _LISTED - len(self._accounts)]]
        return True

    def due(self, now_us: int) -> Burst | None:
        """Return what is to be told as one: at once when a storm begins, then each 5 s what was added."""
        if not self._count or now_us < self._tell_at_us:
            return None
        burst = Burst(self._count, self._since_us, tuple(self._accounts), dict(self._listeners))
        self._tell_at_us = now_us + STORM_US
        self._clear()
        return burst

    def over(self, now_us: int) -> bool:
        """Tell, once, that a storm has ended."""
        if self._until_us is None or now_us < self._until_us:
            return False
        self._until_us = None
        return True
