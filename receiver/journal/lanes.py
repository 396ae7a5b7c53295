"""The two lanes: an urgent signal never waits behind an ordinary one on its way out."""

from enum import IntEnum


class Lane(IntEnum):
    """Which queue an event takes; outputs empty the urgent one first."""

    URGENT = 0
    NORMAL = 1

    @property
    def word(self) -> str:
        """The lane's name in settings, metrics and subjects."""
        return self.name.lower()


def lane_of(priority: int) -> Lane:
    """Return the lane of a priority: 1 is urgent, the rest normal."""
    return Lane.URGENT if priority == 1 else Lane.NORMAL
