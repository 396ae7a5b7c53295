"""What every output can do. One file a type; the forwarder does the rest: order, cursors, filters, retries, dead letters.

An output keeps no event to itself: what ``deliver`` has not handed over when it ends is given to it again. It makes its
connections when it needs them and never lets a library reconnect and send by itself: between two calls of ``deliver`` a
more urgent event may have come.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from receiver.events import OutEvent
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble


class Output(Protocol):
    """One bus, or one automation link."""

    batch_limit: int
    """How many events one call of ``deliver`` may be given."""

    async def run(self) -> None:
        """Do what stands beside the deliveries, such as a listening socket or heartbeats; return when there is none.

        Runs for as long as the receiver, beside ``deliver``. An exception is told, and it is begun again.
        """

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Hand events over, oldest first; return when the other side has taken every one, as surely as it can promise.

        Raises:
            DeliveryError: the other side cannot be had now. The first ``taken`` events were taken; the rest come again,
                under the same ids, for as long as it takes. So do not those in ``also``, taken though they stand later.
            FailedAtEvent: the same, and it was reached: it failed with events in hand, such as a connection that stood and
                broke. An event at which that happens each time, while others get through, ends as one that is refused.
            EventRefused: it is there and refuses the event after the first ``taken``. That one comes again ``max_tries``
                times and is then a dead letter; ``for_ever`` says that no further try can end otherwise.
        """

    def reopen(self) -> None:
        """Let go of files and connections that the outside has replaced (SIGHUP)."""

    async def close(self) -> None:
        """Put everything away."""


class Surroundings(NamedTuple):
    """What an output may use of the receiver around it."""

    receiver_number: str
    data_dir: Path
    telemetry: Telemetry
    raise_trouble: Callable[[Trouble], None]
    """Stores and logs a trouble; its like are counted together for a minute."""
    tell_trouble: Callable[[Trouble], None]
    """Stores and logs a trouble at once, whatever was told before."""
