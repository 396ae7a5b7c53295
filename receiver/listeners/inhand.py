"""A frame in hand: runs the pipeline's coroutine for one frame without a task of its own.

The story in ``pipeline.handle`` waits once, for the disk, on a future that all frames of a group share. A task for each
frame costs about 5 µs, driving the coroutine from that future's callback costs one; ``docs/decisions/0004`` has the figures.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Finished = Callable[["InHand"], None]


class InHand:
    """One frame between its arrival and its reply. ``reply`` is valid once ``done``; ``error`` is our own bug."""

    __slots__ = ("_finished", "_send", "arrived", "done", "error", "reply")

    def __init__(self, coroutine: Coroutine[Any, Any, bytes | None], arrived: float, finished: Finished) -> None:
        """Take the coroutine; nothing happens before ``begin``."""
        self._send = coroutine.send
        self._finished = finished
        self.arrived = arrived
        self.reply: bytes | None = None
        self.error: Exception | None = None
        self.done = False

    def begin(self, _: "asyncio.Future[Any] | None" = None) -> None:
        """Run on until the story waits or ends; ``finished`` is called when it ends, perhaps before this returns."""
        try:
            waiting: asyncio.Future[Any] = self._send(None)
        except StopIteration as stop:
            self.reply = stop.value
        except Exception as error:  # noqa: BLE001 - the one place for a listener's frames: told by the listener, the peer hears nothing
            self.error = error
        else:
            waiting._asyncio_future_blocking = False  # as a task does: tells the future that its waiter has it
            waiting.add_done_callback(self.begin)
            return
        self.done = True
        self._finished(self)
