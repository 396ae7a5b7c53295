"""What is said of supervised paths: their states, changes and terms, and how all of them are written down."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

ALIVE, LOST, HELD, AWAITED, NEVER, FREE, NEVER_AS_ONE = STATES = range(7)
"""``HELD`` is lost and not told singly yet, ``AWAITED`` never heard and not told yet, ``FREE`` a number without a path.

An account never heard was told singly (``NEVER``) or together with others (``NEVER_AS_ONE``).
"""
NOWHERE = ""
"""The listener of an account that was heard at none."""
NOWHERE_OF_ROLE = {"primary": "?primary", "backup": "?backup"}
"""The listener of an account of two paths that was heard at none of a role; no real one has such a name."""


NAME_BYTES = 17
"""The longest account, and a space."""
_NOBODY = "-"


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


class Ended(NamedTuple):
    """What was told singly of a path, ``lost`` or ``never-seen``, has ended, and that is still to be told.

    An account never seen was heard, or, as a path that is lost, it is not supervised there any more.
    """

    account: str
    listener: str
    role: str
    state: str
    heard: bool


class Told(NamedTuple):
    """What was told and has no end yet, beside the states of paths, as it is written down.

    ``storm`` and ``never_as_one`` are what was told of many; ``silent`` the listeners told as silent, None where that was
    not written down; ``back`` how many paths of a storm were heard again; ``roles`` is of the listeners. What was told since
    is in the journal, after ``position`` at the most.
    """

    storm: bool = False
    never_as_one: bool = False
    back: int = 0
    silent: Sequence[str] | None = None
    ended: Sequence[Sequence[Any]] = ()
    roles: Mapping[str, str] | None = None
    position: int | None = None


class Terms(NamedTuple):
    """How long a path may be silent, and how much longer before it is called lost."""

    interval_seconds: int
    margin_seconds: int = 0


class Block(NamedTuple):
    """Some paths as they stood at one moment, copied. Moments are steady time; names are padded."""

    names: bytearray
    listener: "array[int]"
    state: bytearray
    interval_seconds: "array[int]"
    margin_seconds: "array[int]"
    seen_us: "array[int]"
    gap_us: "array[int]"


class Kept(NamedTuple):
    """All paths as they are written down, as of ``now_us`` in steady time, by a receiver that began at ``began_us``."""

    listeners: list[str]
    began_us: int
    now_us: int
    blocks: Sequence[Block]
    told: Told = Told()

    def paths(self) -> Iterator["KeptPath"]:
        """Return each path."""
        for block in self.blocks:
            names = block.names.decode("ascii").split()
            for name, listener, state, interval, margin, seen_us, gap_us in zip(names, *block[1:], strict=True):
                if state != FREE:
                    age_us, gap_us = max(0, self.now_us - seen_us), gap_us if seen_us < self.began_us else 0
                    yield KeptPath(name, listener, state, interval, margin, age_us, gap_us)


class KeptPath(NamedTuple):
    """One path as it was written down: its age is steady time since its last message.

    ``gap_us`` is how long the receiver was down since then, where it was not heard after a start.
    """

    account: str
    listener: int
    state: int
    interval_seconds: int
    margin_seconds: int
    age_us: int
    gap_us: int


def padded(account: str) -> bytes:
    """Return an account in the fixed width in which many are copied at once; they are split where there is space."""
    return (account or _NOBODY).encode("ascii").ljust(NAME_BYTES)
