"""How far an output has come in one lane."""

from dataclasses import dataclass

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
