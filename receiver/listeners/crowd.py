"""Who holds a listener's connections, and who makes room when there are no more. Pure state, with time passed in.

A connection that has had an answer belongs to a panel. One that has not is a stranger's: a scanner, a slow sender, or a
panel that is about to speak. Where connections run out, the oldest stranger that had its time makes room for the next
caller; so thousands of silent connections cannot keep a panel out. A panel's connection never makes room for anybody.
"""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

_LOOKED_AT = 8  # oldest strangers looked at for each caller, so that the work is bounded


class Guest(Protocol):
    """What must be known of a connection."""

    source: str
    opened: float

    @property
    def owed(self) -> bool:
        """Whether a frame of it is in hand, whose answer may prove it a panel's."""
        ...


G = TypeVar("G", bound=Guest)


class Crowd(Generic[G]):
    """The open connections of one listener, by source, the strangers among them by age."""

    def __init__(self, most: int, most_per_source: int, grace_seconds: float) -> None:
        """Take the limits, and how long a stranger is left in peace."""
        self._most = most
        self._most_per_source = most_per_source
        self._grace_seconds = grace_seconds
        self.all: set[G] = set()
        self._count: dict[str, int] = {}
        self._strangers: OrderedDict[G, None] = OrderedDict()
        self._strangers_of: dict[str, OrderedDict[G, None]] = {}

    def too_many(self, source: str) -> str:
        """Return which limit one more connection of ``source`` would break; the empty text when none."""
        if len(self.all) >= self._most:
            return "max-connections"
        if self._count.get(source, 0) >= self._most_per_source:
            return "max-connections-per-source"
        return ""

    def makes_room(self, limit: str, source: str, now: float) -> G | None:
        """Return the stranger that is to make room for a caller, where ``limit`` stands in its way; None when nobody is."""
        strangers = self._strangers_of.get(source) if limit == "max-connections-per-source" else self._strangers
        for guest, _ in zip(strangers or (), range(_LOOKED_AT), strict=False):
            if guest.opened > now - self._grace_seconds:
                return None
            if not guest.owed:
                return guest
        return None

    def enter(self, guest: G) -> None:
        """Count a connection in, as a stranger."""
        self.all.add(guest)
        self._count[guest.source] = self._count.get(guest.source, 0) + 1
        self._strangers[guest] = None
        self._strangers_of.setdefault(guest.source, OrderedDict())[guest] = None

    def prove(self, guest: G) -> None:
        """Take a connection from among the strangers: it was given an answer."""
        if guest not in self._strangers:
            return
        del self._strangers[guest]
        strangers = self._strangers_of[guest.source]
        del strangers[guest]
        if not strangers:
            del self._strangers_of[guest.source]

    def leave(self, guest: G) -> None:
        """Count a connection out; to leave twice is nothing."""
        if guest not in self.all:
            return
        self.prove(guest)
        self.all.discard(guest)
        self._count[guest.source] -= 1
        if not self._count[guest.source]:
            del self._count[guest.source]
