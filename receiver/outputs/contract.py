"""What every output can do. One file a bus; the forwarder does the rest: order, cursors, filters, retries."""

from collections.abc import Sequence
from typing import Protocol

from receiver.events import OutEvent


class Output(Protocol):
    """One bus.

    ``deliver`` returns when the other side has taken every event, in order, as surely as that side can promise; else it
    raises ``DeliveryError`` and will get the same events again, under the same ids.
    """

    batch_limit: int
    """How many events one call of ``deliver`` may be given."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Hand events over, oldest first.

        Raises:
            DeliveryError: not all of them were taken.
        """

    def reopen(self) -> None:
        """Let go of files and connections that the outside has replaced (SIGHUP)."""

    async def close(self) -> None:
        """Put everything away."""
