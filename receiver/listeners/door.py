"""The door of a TCP port: takes connections as long as there is room, and turns away what is too much.

We accept ourselves and do not leave it to the loop's server: a caller is turned away before anything is built for it, a
flood of callers gets a share of each turn of the loop and no more, and when the system has no descriptor left the callers
wait in the kernel's queue until there is one (uvloop's server would drop them, or close the port for good).
"""

import asyncio
import contextlib
import errno
import resource
import socket
from collections.abc import Coroutine
from functools import partial
from typing import Any

from receiver import clock
from receiver.config import ListenerSettings
from receiver.defaults import defaults
from receiver.listeners.budget import Budgets, source_of
from receiver.listeners.crowd import Crowd
from receiver.listeners.tcp import Connection
from receiver.listeners.turns import Turns
from receiver.pipeline import Pipeline
from receiver.telemetry import Telemetry

RESERVED_FILES = 200  # descriptors that no connection gets: journal, outputs, HTTP
_MOST_A_TURN = 32  # callers taken in one turn of the loop
_SWEEP_SECONDS = 0.5
_JUST_CAME_SECONDS = 0.5  # going down, a panel that connected so lately may still say what it came for
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_KEEPALIVE_PROBES = 3


class TcpListener:
    """One listening socket and its connections."""

    def __init__(self, settings: ListenerSettings, origin: int, pipeline: Pipeline, telemetry: Telemetry) -> None:
        self.settings = settings
        self.take = pipeline.arrivals.take  # looked up once for all connections
        self.handle_damage = pipeline.handle_damage
        self.telemetry = telemetry
        self.origin = origin
        self.defaults = defaults(settings.dialect, settings.time_zone)
        self.budgets = Budgets(settings.refused_frames_burst, settings.refused_frames_per_second, settings.refused_sources)
        self.crowd = Crowd[Connection](
            settings.max_connections, settings.max_connections_per_source, settings.crowded_out_after_seconds
        )
        self.parting: set[Connection] = set()  # nothing is owed any more; they are heard out and close
        self.turns = Turns(pipeline.arrivals)
        self.stopping = False
        self._sock: socket.socket | None = None
        self._taking = False
        self._exhausted = False  # the last attempt to accept found no descriptor or no memory
        self._at_once = 1  # callers taken in this turn: mostly one comes, and to look for a second costs a tenth of it
        self._emptied = asyncio.Event()

    async def open(self, sock: socket.socket) -> None:
        """Begin to take connections on a bound, listening socket."""
        _tune(sock, self.settings)
        self._sock = sock
        self._take_on()

    def _take_on(self) -> None:
        if self._sock is not None and not self._taking:
            asyncio.get_running_loop().add_reader(self._sock, self._accept)
            self._taking = True

    def _take_no_more(self) -> None:
        if self._sock is not None and self._taking:
            asyncio.get_running_loop().remove_reader(self._sock)
            self._taking = False

    # -- one caller -------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        """Take some of the callers in the kernel's queue; the loop comes back for the others."""
        assert self._sock is not None
        files = files_for_connections()
        for _ in range(self._at_once):
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                self._at_once = 1
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._rest(error)
                    return
                continue  # this caller has gone again
            if self._exhausted:
                self._exhausted = False
                self.telemetry.accepting_again(listener=self.settings.name)
            self._let_in(sock, address, files)
        self._at_once = min(self._at_once * 2, _MOST_A_TURN)

    def _rest(self, error: OSError) -> None:
        """Accept nothing until the next sweep: the callers wait in the kernel's queue, and we do not spin."""
        self._take_no_more()
        self.telemetry.accept_failed(
            not self._exhausted, listener=self.settings.name, error=error.strerror, connections=len(self.crowd.all)
        )
        self._exhausted = True

    def _let_in(self, sock: socket.socket, address: tuple[str, int], files: int) -> None:
        """Make a connection of an accepted socket, or close it where there is no room."""
        source = source_of(address[0])
        limit = "max-files" if sock.fileno() >= files else self.crowd.too_many(source)
        if limit:
            stranger = self.crowd.makes_room(limit, source, clock.monotonic())
            if stranger is None:
                self.telemetry.connection_refused(limit, listener=self.settings.name, peer=source)
                sock.close()
                return
            stranger.abort("crowded-out")
            self.leave(stranger)
        connection = Connection(self, address)
        self.crowd.enter(connection)
        opening = asyncio.get_running_loop().connect_accepted_socket(lambda: connection, sock)
        self._drive(opening, connection)

    def _drive(
        self, opening: Coroutine[Any, Any, object], connection: Connection, _: "asyncio.Future[Any] | None" = None
    ) -> None:
        """Run the coroutine that opens a connection; it waits once, for the loop's next turn (a task would cost 5 µs)."""
        try:
            waiting: asyncio.Future[Any] = opening.send(None)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - one connection must not take the door with it
            self.leave(connection)
            self.telemetry.crashed("opening a connection", error)
            return
        waiting._asyncio_future_blocking = False
        waiting.add_done_callback(partial(self._drive, opening, connection))

    def leave(self, connection: Connection) -> None:
        """Count a connection out."""
        self.crowd.leave(connection)
        self.parting.discard(connection)
        if not self.crowd.all:
            self._emptied.set()

    # -- all of them --------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Close, for ever, the connections that have been silent for too long."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            if not self.stopping:
                self._take_on()
            now = clock.monotonic()
            for number, connection in enumerate(list(self.crowd.all)):
                connection.check(now)
                if number % 1000 == 999:
                    await asyncio.sleep(0)

    async def drain(self, seconds: float) -> None:
        """Take no new connections and no more frames, answer those in hand.

        What a panel sent and we did not read stays without an answer, and the panel sends it again. Only ``part`` waits for
        the connections to close: before that the journal can be put away, so that another process may have it.
        """
        self.stopping = True
        self._take_no_more()
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        for connection in list(self.crowd.all):
            connection.finish(clock.monotonic() - _JUST_CAME_SECONDS)
        await self._wait(self.crowd.all, _JUST_CAME_SECONDS)
        for connection in list(self.crowd.all):
            connection.finish(clock.monotonic())
        await self._wait(self.crowd.all, seconds - _JUST_CAME_SECONDS)
        for connection in list(self.crowd.all):
            connection.abort("shutdown")

    def part_with(self, connection: Connection) -> None:
        """Count a connection out to which nothing is owed and which is only to be closed."""
        self.parting.add(connection)
        self.crowd.leave(connection)
        if not self.crowd.all:
            self._emptied.set()

    async def part(self, seconds: float) -> None:
        """Give panels the time to read their last reply and to close; then close."""
        await self._wait(self.parting, seconds)
        for connection in list(self.parting):
            connection.hang_up()

    async def _wait(self, connections: set[Connection], seconds: float) -> None:
        """Wait until there are none of these any more, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while connections:
                    self._emptied.clear()
                    await self._emptied.wait()


def files_for_connections() -> int:
    """Return the descriptor number from which on connections are refused: the system's limit less what others need.

    Descriptors are given out lowest first, so the number of a new one tells how many are in use. Asked anew each time: the
    limit may be lowered while we run. Of a very low limit the connections get half.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(soft // 2, soft - RESERVED_FILES) if soft != resource.RLIM_INFINITY else 2**31


def _tune(sock: socket.socket, settings: ListenerSettings) -> None:
    """Set what every accepted socket inherits (Linux): no delay for replies, bounded buffers, and an end for dead peers."""
    tcp, probe_seconds = socket.IPPROTO_TCP, max(1, settings.keepalive_seconds // _KEEPALIVE_PROBES)
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, settings.connection_buffer_bytes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, settings.connection_buffer_bytes)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", settings.keepalive_seconds),
        ("TCP_KEEPINTVL", probe_seconds),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", (settings.keepalive_seconds + probe_seconds * _KEEPALIVE_PROBES) * 1000),
    ):
        if hasattr(socket, name):  # Linux has them all
            sock.setsockopt(tcp, getattr(socket, name), value)
