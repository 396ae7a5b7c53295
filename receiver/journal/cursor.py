"""How far the outputs have come in each lane."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from receiver.journal.jobs import count_after
from receiver.journal.lanes import Lane


@dataclass(slots=True)
class Cursor:
    """The place of one output in one lane: everything up to ``position`` was handed over, ``waiting`` events were not."""

    output: str
    lane: Lane
    position: int
    waiting: int

    def advance(self, position: int, count: int) -> None:
        """Note that ``count`` more events, up to ``position``, were handed over or left out by a filter."""
        self.position = position
        self.waiting = max(0, self.waiting - count)


class Places:
    """The cursors of all outputs, and what waits before each. ``listeners`` are called when there is more."""

    def __init__(self) -> None:
        self._cursors: dict[tuple[str, Lane], Cursor] = {}
        self.listeners: list[Callable[[], None]] = []

    def recall(self, db: sqlite3.Connection, output: str, lane: Lane, again: bool) -> tuple[Cursor, bool]:
        """Read an output's place in a lane; say whether it had one. A new one is at the end, with ``again`` at the begin."""
        found = db.execute("SELECT position FROM cursors WHERE output = ? AND lane = ?", (output, lane.value)).fetchone()
        last = int(db.execute("SELECT COALESCE(MAX(last), 0) FROM groups").fetchone()[0])
        position = int(found[0]) if found is not None else 0 if again else last
        try:
            waiting = count_after(db, position, lane)
        except sqlite3.DatabaseError:  # damaged; the check in the background tells, and signals are taken meanwhile
            waiting = max(0, last - position)
        cursor = self._cursors[output, lane] = Cursor(output, lane, position, waiting)
        return cursor, found is not None

    def count(self, urgent: int, normal: int) -> None:
        """Note that so many events of each lane more wait, and wake the outputs."""
        for cursor in self._cursors.values():
            cursor.waiting += urgent if cursor.lane is Lane.URGENT else normal
        for listener in self.listeners:
            listener()

    def delivered(self) -> int | None:
        """Return the position up to which every output has come; None without outputs."""
        return min((cursor.position for cursor in self._cursors.values()), default=None)

    def backlog(self) -> int:
        """Return how many events the slowest output has before it."""
        return max(self._waiting().values(), default=0)

    def slowest(self) -> str:
        """Return the output that has most before it."""
        waiting = self._waiting()
        return max(waiting, key=lambda output: waiting[output], default="")

    def _waiting(self) -> Counter[str]:
        waiting = Counter[str]()
        for cursor in self._cursors.values():
            waiting[cursor.output] += cursor.waiting
        return waiting
