"""What is said of supervised paths: their states, changes and terms, and how all of them are written down."""

from array import array
from typing import NamedTuple

ALIVE, LOST, HELD, AWAITED, NEVER, FREE = range(6)
"""``HELD`` is lost and not told singly yet, ``AWAITED`` never heard and not told yet, ``FREE`` a number without a path."""
NOWHERE = ""
"""The listener of an account that was heard at none."""
NOWHERE_OF_ROLE = {"primary": "?primary", "backup": "?backup"}
"""The listener of an account of two paths that was heard at none of a role; no real one has such a name."""


class PathChange(NamedTuple):
    """A path was lost, restored, or never seen; ``last_seen_us`` is the last message before that, in steady time.

    Of a path not heard since the receiver started it is before that: the time the receiver was down is taken off. ``role``
    is the listener's role: ``primary``, ``backup`` or empty.
    """

    account: str
    listener: str
    state: str
    last_seen_us: int
    interval_seconds: int
    role: str = ""


class Terms(NamedTuple):
    """How long a path may be silent, and how much longer before it is called lost."""

    interval_seconds: int
    margin_seconds: int = 0


class Kept(NamedTuple):
    """All paths as they are written down; arrays in one order. Ages are steady time since the last message.

    ``gap_us`` is how long the receiver was down since a path that was not heard again.
    """

    accounts: list[str]
    listeners: list[str]
    listener: "array[int]"
    state: bytes
    interval_seconds: "array[int]"
    margin_seconds: "array[int]"
    age_us: "array[int]"
    gap_us: "array[int]"
