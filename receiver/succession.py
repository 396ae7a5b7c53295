"""One receiver after another on the same ports and journal: what a new process does before it serves.

In this order, so that a new process that cannot serve leaves the old one alone: settings and accounts are read, the
sockets are handed over, those that are missing are bound; only then the old one is told to go. The new one waits for the
journal and serves; what came meanwhile waits in the kernel.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from receiver import clock
from receiver.errors import ConfigError, JournalInUse
from receiver.journal import Journal
from receiver.listeners.handover import Hatch, Ports, knock
from receiver.telemetry import Telemetry

LET_GO_SECONDS = 15.0
"""A receiver that was told to go exits within 10 s, whatever its disk and its outputs do."""
_LOOK_SECONDS = 0.005


class Succession:
    """The way from the receiver that runs, if one does, to this one."""

    def __init__(self, data_dir: Path, ports: Ports, telemetry: Telemetry, take_over: bool) -> None:
        """Without ``take_over`` nobody is asked, and a journal that is in use is an error at once."""
        self._data_dir = data_dir
        self._ports = ports
        self._telemetry = telemetry
        self._take_over = take_over
        self._pid: int | None = None

    def begin(self) -> None:
        """Get the sockets of the receiver that runs, and tell it to go.

        Raises:
            ConfigError: that cannot be; it serves on.
        """
        if not self._take_over:
            return
        predecessor = knock(self._data_dir)
        if predecessor is None:
            self._telemetry.warned("nobody to take over from: starting as usual", data_dir=self._data_dir)
            return
        try:
            self._ports.inherit(predecessor.sockets)
            self.claim()
            predecessor.send_off()
        except ConfigError as error:
            raise ConfigError(*error.mistakes, f"the receiver that runs (process {predecessor.pid}) serves on") from None
        finally:
            predecessor.close()
        self._pid = predecessor.pid
        self._telemetry.taking_over(predecessor=predecessor.pid, sockets=len(self._ports.claimed))

    def claim(self) -> None:
        """Have every socket; those of others that no listener wants are closed and told.

        Raises:
            ConfigError: an address is not ours or in use.
        """
        for left in self._ports.claim():
            self._telemetry.warned("an inherited socket fits no listener and was closed", socket=left)

    async def open_journal(self, make: Callable[[], Journal], stop: asyncio.Event) -> Journal:
        """Open the journal as soon as the one before lets go of it.

        Raises:
            ConfigError: it does not, or the journal cannot be used.
        """
        until = clock.monotonic() + (LET_GO_SECONDS if self._take_over else 0.0)
        while True:
            try:
                return make()
            except JournalInUse as error:
                if clock.monotonic() >= until or stop.is_set():
                    raise ConfigError(*error.mistakes, *self._what_became_of_it()) from None
            await asyncio.sleep(_LOOK_SECONDS)

    def open_hatch(self, stop: Callable[[], None]) -> Hatch:
        """Let the next process take over from us; without it, it has to wait until we have stopped."""
        handles = [port.sock.fileno() for port in self._ports.claimed]
        hatch = Hatch(self._data_dir, lambda: handles, stop)
        try:
            hatch.open()
        except OSError as error:
            self._telemetry.warned("no other process can take over: the data folder takes no socket", error=error)
        return hatch

    def _what_became_of_it(self) -> list[str]:
        if self._pid is not None:
            return [
                f"process {self._pid} was told to go, takes no more signals, and still holds the journal after "
                f"{LET_GO_SECONDS:.0f} s: nobody serves now; end that process and start again"
            ]
        if self._take_over:
            return [
                "it hands nothing over: it is starting or stopping, or is of a version without take-over; it was left alone"
            ]
        return []
