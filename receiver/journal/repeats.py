"""Which messages are on disk already: the memory behind "acknowledged again, and no second signal".

Pure state, in steady time: a jump of the wall clock neither forgets a message nor keeps it. An identity is a 16-byte digest
of what makes two messages the same; its value is the position of the message. Positions grow with time, so one note a
second of "this position was reached" tells exactly what has left the window. The entries lie in slices of half a window; a
slice that has left the window is taken apart two entries at a time, so that no moment has to pay for a million.
"""

from collections import deque

from receiver.clock import SECOND_US

_SLICES = 3  # of half a window each: what is in the window fits into three at any moment


class Repeats:
    """Remembers identities for a window of time, and at most ``limit`` of them."""

    def __init__(self, window_seconds: int, limit: int) -> None:
        self._window_us = window_seconds * SECOND_US
        self._limit = max(1, limit // _SLICES)
        self._slices: deque[dict[bytes, int]] = deque([{}])  # newest first
        self._slice_began_us = 0
        self._leaving: list[dict[bytes, int]] = []
        self._marks: deque[tuple[int, int]] = deque()  # (moment, first position at or after it), one a second
        self._oldest = 0  # positions before this have left the window
        self._last = 0  # the newest position of all

    def __len__(self) -> int:
        return sum(map(len, self._slices)) + sum(map(len, self._leaving))

    def recall(self, identity: bytes) -> int | None:
        """Return the position of the message with this identity, in the window or just out of it; needs no clock."""
        for entries in self._slices:
            if identity in entries:
                return entries[identity]
        return None

    def find(self, identity: bytes, now_us: int) -> int | None:
        """Return the position of the message with this identity, or None when there is none in the window."""
        position = self.recall(identity)
        if position is None:
            return None
        self._age(now_us)
        return position if position >= self._oldest else None

    def add(self, positions: dict[bytes, int], now_us: int) -> None:
        """Remember messages that have just reached the disk together: identity to position, none older than before."""
        if not positions:
            return
        marks = self._marks
        if not marks or now_us - marks[-1][0] >= SECOND_US or now_us < marks[-1][0]:
            marks.append((now_us, min(positions.values())))
            self._age(now_us)
        newest = self._slices[0]
        if len(newest) >= self._limit or not 0 <= now_us - self._slice_began_us < self._window_us // 2:
            newest = self._turn(now_us)
        newest.update(positions)
        self._last = max(self._last, next(reversed(positions.values())))
        if self._leaving:
            self._let_go(2 * len(positions))

    def _turn(self, now_us: int) -> dict[bytes, int]:
        """Begin a new slice and let the oldest leave."""
        self._slice_began_us = now_us
        self._slices.appendleft({})
        if len(self._slices) > _SLICES:
            self._leaving.append(self._slices.pop())
        return self._slices[0]

    def _let_go(self, count: int) -> None:
        leaving = self._leaving[-1]
        for _ in range(min(count, len(leaving))):
            leaving.popitem()
        if not leaving:
            self._leaving.pop()

    def _age(self, now_us: int) -> None:
        marks = self._marks
        while len(marks) > 1 and marks[1][0] <= now_us - self._window_us:
            marks.popleft()
        if marks and marks[0][0] <= now_us - self._window_us:
            # What was stored after a mark was so within its second: it leaves with the mark.
            self._oldest = marks[1][1] if len(marks) > 1 else self._last + 1
