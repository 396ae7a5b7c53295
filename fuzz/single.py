"""One frame through the story, without a loop: what fuzzing and tests of single answers need."""

import asyncio

from protocols import dc09
from receiver.pipeline import Arrival, Pipeline, Route
from receiver.telemetry import Telemetry


class Strict(Telemetry):
    """What would be logged as our own bug is raised."""

    def crashed(self, where: str, error: BaseException) -> None:
        """Raise it."""
        raise error


class _Nobody:
    waiting: "asyncio.Future[None] | None" = None

    def answered(self, arrival: Arrival, now: float) -> None:
        """Take note where somebody waits for it."""
        if self.waiting is not None:
            self.waiting.set_result(None)

    def let_close(self, ours: bool) -> None:
        """Take no note."""


async def handle_one(pipeline: Pipeline, frame: dc09.Frame, route: Route) -> bytes | None:
    """Return the reply to one frame that arrived alone, or None for silence."""
    panel = _Nobody()
    arrival = Arrival(frame, route, panel, 0.0)
    await pipeline.handle([arrival])
    if not arrival.done:  # its account is read first
        panel.waiting = asyncio.get_running_loop().create_future()
        await panel.waiting
    assert arrival.done
    return arrival.reply
