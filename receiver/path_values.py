"""What is said of supervised paths: their states, changes and terms, and how all of them are written down."""

from array import array
from collections.abc import Iterable, Sequence
from typing import NamedTuple

ALIVE, LOST, HELD, AWAITED, NEVER, FREE = range(6)
"""``HELD`` is lost and not told singly yet, ``AWAITED`` never heard and not told yet, ``FREE`` a number without a path."""
NOWHERE = ""
"""The listener of an account that was heard at none."""
NOWHERE_OF_ROLE = {"primary": "?primary", "backup": "?backup"}
"""The listener of an account of two paths that was heard at none of a role; no real one has such a name."""


NAME_BYTES = 16
"""The longest account."""


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

    ``gap_us`` is how long the receiver was down since a path that was not heard again. ``accounts`` may be read once.
    """

    accounts: Iterable[str]
    listeners: list[str]
    listener: "array[int]"
    state: bytes
    interval_seconds: "array[int]"
    margin_seconds: "array[int]"
    age_us: "array[int]"
    gap_us: "array[int]"


def padded(account: str) -> bytes:
    """Return an account in the fixed width in which many are copied at once."""
    return account.encode("ascii").ljust(NAME_BYTES)


def keep(
    names: bytes, listeners: list[str], listener: "array[int]", states: bytes, interval: "array[int]", margin: "array[int]",
    seen_us: Sequence[int], gaps: Sequence[int], began_us: int, now_us: int,
) -> Kept:  # fmt: skip
    """Make what is written down of copies of the columns; for a thread: a million take a second.

    No list of a million is made: to let go of one holds the interpreter for 20 ms.
    """
    accounts = (names[at : at + NAME_BYTES].rstrip().decode("ascii") for at in range(0, len(names), NAME_BYTES))
    ages = array("q", (max(0, now_us - seen) for seen in seen_us))
    own_gaps = array("q", (gap if seen < began_us else 0 for gap, seen in zip(gaps, seen_us, strict=True)))
    return Kept(accounts, listeners, listener, states, interval, margin, ages, own_gaps)
