"""UDP: one frame a datagram is expected, more are taken; the answer goes from this port to the port it came from.

A fixed number of frames is in hand at a time: what comes above that is dropped and counted, and the panel repeats it.
The address a datagram came from may be forged: no reply is longer than the frame it answers, garbage gets none, and what a
refused frame may cost is bounded for each address and for all of them together.

We read the socket ourselves and not through the loop's transport: 2 µs a datagram less (``docs/decisions/0015``).
"""

import asyncio
import contextlib
import os
import socket
from collections import deque
from functools import lru_cache
from pathlib import Path

from protocols.dc09 import Damage, Frame, exactly_one, split_datagram
from protocols.errors import BadLength
from receiver import clock
from receiver.arrivals import Arrival, Route
from receiver.config import ListenerSettings
from receiver.defaults import defaults
from receiver.listeners.budget import Budgets, source_of_peer
from receiver.listeners.sockets import shown
from receiver.pipeline import Pipeline
from receiver.telemetry import Telemetry

Address = tuple[str, int]
_PROC = (Path("/proc/net/udp"), Path("/proc/net/udp6"))
_KEPT_BYTES = 512  # of a datagram that is not read
_EVERYBODY = "everybody"
_MOST_A_TURN = 256  # datagrams read in one turn of the loop; as many as have signals go first
_REMEMBERED = 1024  # addresses; to write one down anew costs 1 µs, and to let go of one that is out of the cache more


class Caller:
    """An address datagrams come from, and how its replies get there."""

    __slots__ = ("_address", "_listener", "route")

    def __init__(self, listener: "UdpListener", address: Address, route: Route) -> None:
        self._listener = listener
        self._address = address
        self.route = route

    def answered(self, arrival: Arrival, now: float) -> None:
        """Send the reply."""
        self._listener.answer(arrival, self._address, now)

    def let_close(self, ours: bool) -> None:
        """There is nothing to close."""


class UdpListener:
    """One UDP socket."""

    def __init__(self, settings: ListenerSettings, origin: int, pipeline: Pipeline, telemetry: Telemetry) -> None:
        self.settings = settings
        self.origin = origin
        self._defaults = defaults(settings.dialect, settings.time_zone)
        self._pipeline = pipeline
        self._arrivals = pipeline.arrivals
        self._take_arrival = pipeline.arrivals.take
        self._telemetry = telemetry
        self._budgets = Budgets(settings.refused_frames_burst, settings.refused_frames_per_second, settings.refused_sources)
        everybody = settings.refused_datagrams_per_second
        self._budget_of_all = Budgets(everybody, everybody, 1)
        self._caller = lru_cache(_REMEMBERED)(self._meet)
        self._spending = self._spend  # bound once: each account keeps the route by which it was heard last
        self._in_hand = 0
        self._sock: socket.socket | None = None
        self._inode = ""
        self._at_once = 1  # datagrams read in this turn: to look for one that is not there costs as much as to read one
        self._unsent: deque[tuple[bytes, Address]] = deque(maxlen=settings.max_frames_in_hand)  # the kernel has no room
        self._emptied = asyncio.Event()

    async def open(self, sock: socket.socket) -> int:
        """Begin to take datagrams on a bound socket; return the size of its buffer in bytes."""
        self._inode = str(os.fstat(sock.fileno()).st_ino)
        granted = sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        sock.setblocking(False)
        self._sock = sock
        asyncio.get_running_loop().add_reader(sock, self._read, sock)
        return granted

    def _read(self, sock: socket.socket) -> None:
        """Read some of the datagrams that lie in the kernel; the loop comes back for the others."""
        most = self.settings.max_datagram_bytes + 1
        for _ in range(self._at_once):
            try:
                data, addr = sock.recvfrom(most)
            except BlockingIOError:
                self._at_once = max(1, self._at_once // 2)
                return
            except OSError:  # what became of an earlier answer says nothing about the next datagram
                continue
            self._take(data, addr)
        self._at_once = min(self._at_once * 2, _MOST_A_TURN, self.settings.max_frames_in_hand // 2 or 1)

    def _take(self, data: bytes, addr: Address) -> None:
        arrived = clock.monotonic()
        caller = self._caller(addr)
        frame = exactly_one(data) if len(data) <= self.settings.max_datagram_bytes else None
        if frame is not None:
            self._take_frame(frame, caller, arrived)
        else:
            self._take_what_is_in(data, caller, arrived)

    def _take_what_is_in(self, data: bytes, caller: Caller, arrived: float) -> None:
        """Take a datagram that is not one good frame and nothing else."""
        if len(data) > self.settings.max_datagram_bytes:
            wrong = BadLength(f"a datagram of {len(data)} bytes; {self.settings.max_datagram_bytes} are read at most")
            self._pipeline.handle_damage(Damage(wrong, data[:_KEPT_BYTES]), caller.route)
            return
        for found in split_datagram(data, over_cr=True):
            if isinstance(found, Damage):
                self._pipeline.handle_damage(found, caller.route)
            else:
                self._take_frame(found, caller, arrived)

    def _take_frame(self, frame: Frame, caller: Caller, arrived: float) -> None:
        """Put a frame in hand, unless there are too many."""
        most = self.settings.max_frames_in_hand
        if self._in_hand >= most and self._in_hand - self._arrivals.tests_waiting >= most:
            self._telemetry.datagram_dropped()
            return
        self._in_hand += 1
        self._take_arrival(Arrival(frame, caller.route, caller, arrived))

    def _spend(self, peer: str, proven: bool) -> bool:
        """Take one refused frame off the budgets; a NAK, which only a key of ours earns, is none of everybody's business."""
        now = clock.monotonic()
        return self._budgets.take(source_of_peer(peer), now) and (proven or self._budget_of_all.take(_EVERYBODY, now))

    def _meet(self, address: Address) -> Caller:
        route = Route(self.settings.name, "udp", shown(address), self.origin, self._spending, self._defaults)
        return Caller(self, address, route)

    def answer(self, arrival: Arrival, address: Address, now: float) -> None:
        """Send a reply, if there is one; the frame is no longer in hand."""
        self._in_hand -= 1
        if not self._in_hand:
            self._emptied.set()
        if arrival.reply is not None:
            self._send(arrival.reply, address)
            self._telemetry.ack_seconds.observe(now - arrival.arrived)

    def _send(self, reply: bytes, address: Address) -> None:
        """Send a reply, or keep it until the kernel has room; the panel asks again for one that cannot be sent."""
        if self._sock is None:
            return
        try:
            self._sock.sendto(reply, address)
        except BlockingIOError:
            if not self._unsent:
                asyncio.get_running_loop().add_writer(self._sock, self._send_rest, self._sock)
            self._unsent.append((reply, address))
        except OSError:
            pass

    def _send_rest(self, sock: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                with contextlib.suppress(ConnectionError, PermissionError):
                    sock.sendto(*self._unsent[0])
                self._unsent.popleft()
        if not self._unsent:
            asyncio.get_running_loop().remove_writer(sock)

    async def drain(self, seconds: float) -> None:
        """Read no more, answer what is in hand, close. What lies in the kernel stays unread: for the next, or unanswered."""
        loop = asyncio.get_running_loop()
        if self._sock is not None:
            loop.remove_reader(self._sock)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._in_hand:
                    self._emptied.clear()
                    await self._emptied.wait()
        if self._sock is not None:
            loop.remove_writer(self._sock)
            self._sock.close()
            self._sock = None

    def kernel_drops(self) -> int:
        """Return how many datagrams the kernel dropped because our buffer was full (Linux; 0 elsewhere)."""
        for table in _PROC:
            try:
                lines = table.read_text("ascii").splitlines()[1:]
            except OSError:
                continue
            for columns in map(str.split, lines):
                if columns[9] == self._inode:
                    return int(columns[12])
        return 0
