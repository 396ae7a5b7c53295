"""How soon after one another an output that keeps up is handed ordinary events: those that come close together go together.

A hand-over costs a flush, a cursor and, behind most buses, a sync of a disk, for one event as for ten. The first event after
a pause goes at once. Those that come within the moment after it wait for the end of that moment, or until there are many.
What is urgent waits for none of this.
"""

import asyncio
from collections.abc import Callable, Mapping

from receiver.journal import Cursor, Lane

_MOMENT_SECONDS = 0.005
_MANY = 100


class Pace:
    """The moment after a hand-over. ``wake`` is called when the output has something to do."""

    def __init__(self, cursors: Mapping[Lane, Cursor], batch_limit: int, wake: Callable[[], None]) -> None:
        self._urgent, self._normal = cursors[Lane.URGENT], cursors[Lane.NORMAL]
        self._many = min(_MANY, batch_limit)
        self._wake = wake
        self._end: asyncio.TimerHandle | None = None

    @property
    def resting(self) -> bool:
        """Whether ordinary events wait for more of them."""
        return self._end is not None and self._normal.waiting < self._many

    def handed_over(self, began: float) -> None:
        """Begin the moment: all ordinary events that waited at ``began``, in the loop's time, were handed over."""
        loop = asyncio.get_running_loop()
        if self._end is None and loop.time() < began + _MOMENT_SECONDS:
            self._end = loop.call_at(began + _MOMENT_SECONDS, self._over)

    def stored(self) -> None:
        """Take note that the journal has more, and wake the output unless that may wait."""
        if self._urgent.waiting or not self.resting:
            self._wake()

    def _over(self) -> None:
        self._end = None
        self._wake()
