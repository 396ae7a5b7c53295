"""The newest events, in memory: what an output that keeps up is given without a look at the disk.

Only groups that are on disk come in. An output whose place lies before what is kept reads the file, as it does after a
restart. For a lane that is told by ``_floors``: the position up to which events of it may exist that are not here.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from receiver.journal.lanes import Lane
from receiver.journal.records import Entry, Origin, Stored

_MOST_EVENTS = 1000
_MOST_GROUPS = 100


class _Group(NamedTuple):
    """Messages that share a commit, the positions of their first and last event, and how many of these are urgent."""

    first: int
    last: int
    urgent: int
    entries: Sequence[Entry]


class Tail:
    """The newest groups of a journal."""

    def __init__(self, origins: Mapping[Origin, int], position: int) -> None:
        """Take the origins by their numbers, and the last position that is on disk already."""
        self._origins = {number: origin for origin, number in origins.items()}
        self._groups: deque[_Group] = deque()
        self._events = 0
        self._floors = dict.fromkeys(Lane, position)

    def add(self, first: int, count: int, urgent: int, entries: Sequence[Entry]) -> None:
        """Take a group that has just reached the disk, of ``count`` events from position ``first`` on."""
        groups = self._groups
        groups.append(_Group(first, first + count - 1, urgent, entries))
        self._events += count
        while self._events > _MOST_EVENTS or len(groups) > _MOST_GROUPS:
            oldest = groups.popleft()
            self._events -= oldest.last - oldest.first + 1
            self._floors[Lane.NORMAL] = oldest.last
            if oldest.urgent:
                self._floors[Lane.URGENT] = oldest.last

    def forget(self, position: int) -> None:
        """Let go of everything; events up to ``position`` came to the disk in another way."""
        self._groups.clear()
        self._events = 0
        self._floors = dict.fromkeys(Lane, position)

    def newest(self) -> int:
        """Return the last position that is on disk."""
        return self._groups[-1].last if self._groups else self._floors[Lane.NORMAL]

    def after(self, lane: Lane, position: int, limit: int) -> list[Stored] | None:
        """Return up to ``limit`` events of a lane that follow ``position``; None when some may be on disk only."""
        if position < self._floors[lane]:
            return None
        found: list[Stored] = []
        for group in self._since(position):
            if lane is Lane.URGENT and not group.urgent:
                continue
            for stored in self._events_of(group, lane):
                if stored.position > position:
                    found.append(stored)
                    if len(found) == limit:
                        return found
        return found

    def _since(self, position: int) -> list[_Group]:
        """Return the groups that reach beyond a position, oldest first; an output that keeps up is near the end."""
        found: list[_Group] = []
        for group in reversed(self._groups):
            if group.last <= position:
                break
            found.append(group)
        found.reverse()
        return found

    def _events_of(self, group: _Group, lane: Lane) -> Iterator[Stored]:
        position = group.first
        for entry in group.entries:
            origin = self._origins[entry.origin]
            for number, row in enumerate(entry.rows(), position):
                if row.lane == lane:
                    yield Stored(number, row, origin)
            position += len(entry.events)
