"""One more process at the port: what runs in worker 1 and above.

It has no journal, no outputs and no state that another worker would need. It ends when worker 0 tells it to, or has gone.
"""

import asyncio
import contextlib
import gc
import os
import resource
import socket
import sys
from dataclasses import replace
from typing import Any, cast

from receiver import clock, process
from receiver.accounts import Accounts
from receiver.clockwatch import ClockWatch
from receiver.config import ListenerSettings, Settings
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.journal import Origin
from receiver.listeners import Port, TcpListener, UdpListener, open_port
from receiver.managed import load_accounts
from receiver.pipeline import Pipeline
from receiver.telemetry import Telemetry, start_logging
from receiver.troubles import Trouble
from receiver.workers import counts, orders
from receiver.workers.link import Link, Message
from receiver.workers.orders import Opening, Orders
from receiver.workers.remote import Outbox, RemoteJournal, RemotePaths, RemoteSenders

_TELL_SECONDS = 1.0
_PART_SECONDS = 1.0
_PANELS_ONLY = "clock-suspect"  # all else that can be found of our clock, worker 0 finds


class Worker:
    """The listeners of one worker, and the story between them and worker 0."""

    def __init__(self, told: Orders, accounts: Accounts, opening: Opening, handles: list[int]) -> None:
        settings = told.settings
        self._settings = settings
        self._opening = opening
        self._handles = handles
        self._telemetry = Telemetry()
        self._outbox = Outbox()
        self._link = self._outbox.link = Link(self._heard, self._lost)
        found = opening.newest_us, opening.newest_stamp_us
        self._watch = ClockWatch(settings.clock, *clock.both_us(), *found)
        journal: Any = RemoteJournal(self._outbox)
        self._pipeline = Pipeline(
            accounts, settings.clock, journal, self._telemetry, clock.now_us, clock.steady_us, self._watch
        )
        self._pipeline.senders = cast("Any", RemoteSenders(self._outbox))
        self._pipeline.paths = cast("Any", RemotePaths())
        self._pipeline.raise_trouble = self._outbox.raise_trouble
        self._tcp: list[TcpListener] = []
        self._udp: list[UdpListener] = []
        self._drain_seconds = 0.0
        self._stop = asyncio.Event()

    async def run(self, sock: socket.socket) -> None:
        """Serve until worker 0 says that it is enough."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=sock)
        shared = [share_of(listener, self._settings.receiver.workers) for listener in self._settings.listeners]
        for (number, transport), handle in zip(self._opening.ports, self._handles, strict=True):
            await self._open(Port(shared[number], transport, socket.socket(fileno=handle), inherited=True))
        gc.freeze()
        gc.enable()
        gc.set_threshold(20_000, 20, 50)
        self._link.send(("ready",))
        async with asyncio.TaskGroup() as standing:
            tasks = [standing.create_task(listener.sweep()) for listener in self._tcp]
            tasks.append(standing.create_task(self._look()))
            await self._stop.wait()
            async with asyncio.TaskGroup() as draining:
                for tcp in self._tcp:
                    draining.create_task(tcp.drain(self._drain_seconds))
                for udp in self._udp:
                    draining.create_task(udp.drain(self._drain_seconds))
            for task in tasks:
                task.cancel()
        self._outbox.flush()
        self._tell("drained")
        async with asyncio.TaskGroup() as parting:
            for tcp in self._tcp:
                parting.create_task(tcp.part(_PART_SECONDS))

    async def _open(self, port: Port) -> None:
        origin = self._origin(port.settings, port.transport)
        opened = await open_port(port, origin, self._pipeline, self._telemetry)
        if isinstance(opened, TcpListener):
            self._tcp.append(opened)
        else:
            self._udp.append(opened)

    def _origin(self, settings: ListenerSettings, transport: str) -> int:
        return self._opening.origins[Origin(self._settings.receiver.number, settings.line, settings.name, transport)]

    # -- what worker 0 says -----------------------------------------------------------------------------------------

    def _heard(self, message: Message) -> None:
        match message[0]:
            case "receipts":
                self._outbox.receive(message)
            case "tell":
                self._tell("told")
            case "reload":
                self._reload(orders.unpack(message[1]))
            case "drain":
                self._drain_seconds = message[1]
                self._stop.set()

    def _lost(self) -> None:
        """Worker 0 has gone: nothing can be stored, and whoever comes next has the port."""
        os._exit(0)

    def _reload(self, settings: Settings) -> None:
        try:
            found = load_accounts(settings, self._pipeline.accounts)
        except ConfigError as error:
            self._link.send(("reloaded", error.mistakes))
            return
        before, self._pipeline.accounts = self._pipeline.accounts, found
        if found is not before:
            before.close()
        self._pipeline.clock_settings = self._watch.settings = settings.clock
        self._link.send(("reloaded", ()))

    # -- what is told -----------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Once a second: our clock by what our panels say, the lines left out, and a sign of life with what was counted."""
        while True:
            await asyncio.sleep(_TELL_SECONDS)
            now_us, steady_us = clock.both_us()
            for finding in self._watch.look(now_us, steady_us, clock.synchronised()):
                if finding.reason == _PANELS_ONLY:
                    self._outbox.raise_trouble(Trouble(*finding, now_us), self._opening.home, now_us)
            self._refresh_accounts()
            self._telemetry.tick()
            self._tell("told")

    def _refresh_accounts(self) -> None:
        """Take what commands have changed in a managed register; worker 0 tells when it cannot be read."""
        with contextlib.suppress(RegisterUnavailable):
            self._pipeline.accounts.refresh()

    def _tell(self, name: str) -> None:
        connections = sum(len(listener.crowd.all) for listener in self._tcp)
        drops = sum(listener.kernel_drops() for listener in self._udp)
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        self._link.send((name, counts.take(self._telemetry), connections, drops, resident))


def share_of(listener: ListenerSettings, workers: int) -> ListenerSettings:
    """Return a listener with one worker's share of what is bounded by number; all together stay within the bound."""
    if workers == 1:
        return listener
    bounds = ("max_connections", "max_connections_per_source", "refused_frames_burst", "max_frames_in_hand")
    shares: dict[str, Any] = {name: -(-getattr(listener, name) // workers) for name in bounds}
    shares["refused_frames_per_second"] = max(0.1, listener.refused_frames_per_second / workers)
    shares["refused_datagrams_per_second"] = -(-listener.refused_datagrams_per_second // workers)
    return replace(listener, **shares)


def main(handle: int, parent: int) -> None:
    """Be a worker: take orders on a socket that worker 0 has left open for us."""
    process.follow(parent)
    process.harden()
    gc.disable()  # until ready: a large register is made of objects that stay
    with socket.socket(fileno=handle) as sock:
        try:
            told, _ = orders.receive(sock)
            assert isinstance(told, Orders)
            start_logging(told.settings.log, worker=told.number)
            accounts = load_accounts(told.settings)
            opening, handles = orders.receive(sock)
            assert isinstance(opening, Opening)
        except EOFError:
            return
        except ConfigError as error:
            sys.exit("\n".join(error.mistakes))
        sock.setblocking(False)

        async def run() -> None:
            await Worker(told, accounts, opening, handles).run(sock.dup())

        with asyncio.Runner(loop_factory=process.loop_factory()) as runner:
            runner.run(run())
