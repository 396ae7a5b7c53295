"""What one message costs in the loop's thread, sockets and disk left out: ``python -m bench.story``.

50 connections are handed one frame each, as the loop would; the journal says at once that all is on disk, and replies go
nowhere. Printed is the cheapest twentieth of many rounds, which other programs cannot make cheaper: a change of a few per
cent shows, where a rate shows only noise.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

from bench.frames import frames, small
from protocols.dc09 import Key
from receiver import clock
from receiver.accounts import Account, Accounts
from receiver.clockwatch import ClockWatch
from receiver.config import ClockSettings, ListenerSettings
from receiver.errors import JournalUnavailable
from receiver.journal import Entry, Journal, Receipt
from receiver.listeners import TcpListener
from receiver.listeners.tcp import Connection
from receiver.pipeline import Pipeline
from receiver.telemetry import Telemetry

PANELS, ROUNDS = 50, 2000
KEY_128 = "000102030405060708090A0B0C0D0E0F"


class _Disk:
    """A journal that has stored everything already."""

    async def append(self, entries: Sequence[Entry]) -> list[Receipt | JournalUnavailable]:
        """Return receipts."""
        return [Receipt(number, False) for number, _ in enumerate(entries)]


class _Transport:
    """A connection that leads nowhere."""

    def set_write_buffer_limits(self, high: int) -> None:
        """Take a limit."""

    def write(self, data: bytes) -> None:
        """Take a reply."""


async def measure(key: str, token: str) -> float:
    """Return the microseconds a message, of the cheapest twentieth of the rounds."""
    rows = {small(n): Account(small(n), key=Key.parse(key) if key else None) for n in range(PANELS)}
    settings = ClockSettings()
    watch = ClockWatch(settings, *clock.both_us())  # counts each encrypted message's stamp, as in a receiver
    pipeline = Pipeline(
        Accounts(rows), settings, cast("Journal", _Disk()), Telemetry(), clock.now_us, clock.steady_us, watch
    )
    listener = TcpListener(ListenerSettings(), 1, pipeline, pipeline._telemetry)
    connections = []
    for number in range(PANELS):
        connection = Connection(listener, ("127.0.0.1", 40_000 + number))
        connection.connection_made(cast("asyncio.Transport", _Transport()))
        listener.crowd.enter(connection)
        connections.append(connection)
    order: dict[str, Any] = {"key": key, "token": token, "round": 1}
    feeds = [frames(order, number, ROUNDS) for number in range(PANELS)]
    took = []
    for together in zip(*feeds, strict=True):
        began = time.perf_counter()
        for connection, frame in zip(connections, together, strict=True):
            connection.data_received(frame)
        pipeline.arrivals._begin()
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0)
    took.sort()
    return took[len(took) // 20] / PANELS * 1e6


def main() -> None:
    """Measure and print a line for each kind of message."""
    for name, key, token in (
        ("plain signal", "", "ADM-CID"), ("AES-128 signal", KEY_128, "ADM-CID"), ("AES-256 signal", KEY_128 * 2, "ADM-CID"),
        ("encrypted link test", KEY_128, "NULL"),
    ):  # fmt: skip
        print(f"{name:20} {asyncio.run(measure(key, token)):6.2f} µs")


if __name__ == "__main__":
    main()
