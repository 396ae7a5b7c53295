"""One frame through the story, without a loop: what fuzzing and tests of single answers need."""

from protocols import dc09
from receiver.pipeline import Arrival, Pipeline, Route
from receiver.telemetry import Telemetry


class Strict(Telemetry):
    """What would be logged as our own bug is raised."""

    def crashed(self, where: str, error: BaseException) -> None:
        """Raise it."""
        raise error


class _Nobody:
    def answered(self, arrival: Arrival, now: float) -> None:
        """Take no note."""

    def let_close(self, ours: bool) -> None:
        """Take no note."""


async def handle_one(pipeline: Pipeline, frame: dc09.Frame, route: Route) -> bytes | None:
    """Return the reply to one frame that arrived alone, or None for silence."""
    arrival = Arrival(frame, route, _Nobody(), 0.0)
    await pipeline.handle([arrival])
    assert arrival.done
    return arrival.reply
