"""What is known of each path, in columns under its number: room for it, and copies of it a little at a time.

Columns that grow are copied, and memory that is new to the process costs more than what is done with it: a copy of a million
paths took 60 to 100 ms, and one step of growth 40 ms. So there is room for all from the beginning, and copies are made of
2,000 paths a step.
"""

from array import array
from collections.abc import Iterator

from receiver.path_values import FREE, NAME_BYTES, Block, Kept, padded
from receiver.tables import Table

UNSET = 0xFFFF
"""The slot of a path that is on none."""
PATHS_A_BLOCK = 2000
"""Copied in one step, 0.1 ms."""
_CHANGED_AT_ONCE = 500  # 50,000 a second: more than are heard for the first time
_LEAST_ROOM = 16
_ROOM = 250  # made in one step, 6 µs


class Hearing:
    """The paths of one listener, by account."""

    __slots__ = ("alive", "heard_us", "number", "paths")

    def __init__(self, number: int) -> None:
        self.number = number
        self.paths: Table[int] = Table()
        self.alive = 0
        self.heard_us = -(1 << 62)


class Columns:
    """The columns, and which numbers are free."""

    def __init__(self) -> None:
        self.account: list[str] = []
        self.names = bytearray()  # the same, to be copied: a copy of the list would touch a million texts
        self.listener = array("H")
        self.state = bytearray()
        self.seen_us = array("q")
        self.interval = array("I")
        self.margin = array("I")
        self.gap_us = array("q")
        self.slot = array("H")
        self.round_of = bytearray()  # the review in which the register was last found to want it
        self.used = 0
        """Numbers from here on were never given to a path."""
        self._free: list[int] = []
        self._copied = 0  # numbers below it are in the copy that is being made
        self._changed: list[int] = []  # those of them that became another path since, or none

    @property
    def room(self) -> int:
        """For how many paths there is room."""
        return len(self.state)

    def make_room(self, paths: int) -> None:
        """Make room for so many paths in all."""
        more = max(0, paths - self.room)
        self.account += [""] * more
        self.names += padded("") * more
        self.state += bytes([FREE]) * more
        for column in (self.listener, self.seen_us, self.interval, self.margin, self.gap_us):
            column.frombytes(bytes(column.itemsize * more))
        self.slot += array("H", [UNSET]) * more
        self.round_of += bytes(more)

    def making_room(self, paths: int) -> Iterator[None]:
        """Do the same, for some of them a step."""
        for room in range(self.room, paths, _ROOM):
            self.make_room(min(room + _ROOM, paths))
            yield

    def extend(self, block: Block, kept: Kept, now_us: int, gap_us: int) -> int:
        """Go on with the paths of a block that was written down ``gap_us`` ago; return the first one's number.

        They keep their age: no time passed while we were down.
        """
        first, self.used = self.used, self.used + len(block.state)
        self.make_room(self.used)
        part, later_us, ended_us = slice(first, self.used), now_us - 1 - kept.now_us, kept.now_us
        self.names[first * NAME_BYTES : self.used * NAME_BYTES] = block.names
        self.listener[part], self.state[part] = block.listener, block.state
        self.interval[part], self.margin[part] = block.interval_seconds, block.margin_seconds
        self.seen_us[part] = array("q", [min(seen_us, ended_us) + later_us for seen_us in block.seen_us])
        gaps = zip(block.gap_us, block.seen_us, strict=True)
        self.gap_us[part] = array("q", [gap_us + (gap if seen_us < kept.began_us else 0) for gap, seen_us in gaps])
        return first

    def take(self, account: str) -> int:
        """Return a number for a path of an account: one that is free, or the next."""
        if self._free:
            number = self._free.pop()
        else:
            number = self.used
            self.used += 1
            if number == self.room:
                self.make_room(number + max(_LEAST_ROOM, number // 8))
        self.account[number] = account
        self.names[number * NAME_BYTES : (number + 1) * NAME_BYTES] = padded(account)
        self.gap_us[number] = 0
        if number < self._copied:
            self._changed.append(number)
        return number

    def give_back(self, number: int) -> None:
        """Let a number be another path's."""
        self.account[number] = ""
        self.slot[number] = UNSET
        self._free.append(number)
        if number < self._copied:
            self._changed.append(number)

    def copy(self, blocks: list[Block]) -> Iterator[None]:
        """Copy all paths into blocks, some of them a step; paths may come and go between steps.

        Each path is in the copy once, as it stood at some moment meanwhile.
        """
        self._copied, self._changed = 0, []
        while self._copied < self.used:
            part = slice(self._copied, self._copied + PATHS_A_BLOCK)
            blocks.append(Block(
                self.names[part.start * NAME_BYTES : part.stop * NAME_BYTES], self.listener[part], self.state[part],
                self.interval[part], self.margin[part], self.seen_us[part], self.gap_us[part],
            ))  # fmt: skip
            self._copied = part.stop
            yield
        while self._changed:
            some = set(self._changed[-_CHANGED_AT_ONCE:])  # one freed and taken again is there twice
            del self._changed[-_CHANGED_AT_ONCE:]
            for number in some:
                self._copy_one(number, blocks[number // PATHS_A_BLOCK], number % PATHS_A_BLOCK)
            yield
        self._copied = 0

    def _copy_one(self, number: int, block: Block, at: int) -> None:
        name = self.names[number * NAME_BYTES : (number + 1) * NAME_BYTES]
        block.names[at * NAME_BYTES : (at + 1) * NAME_BYTES] = name
        block.listener[at], block.state[at] = self.listener[number], self.state[number]
        block.interval_seconds[at], block.margin_seconds[at] = self.interval[number], self.margin[number]
        block.seen_us[at], block.gap_us[at] = self.seen_us[number], self.gap_us[number]
