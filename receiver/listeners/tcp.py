"""TCP: many frames a connection, answered in the order they came, however the segments were cut.

All frames of one segment are in hand at once, so they share a commit; their replies go out in order and, where they are
ready together, in one write. A client that has closed its half still gets its answers.
"""

import asyncio
import contextlib
import socket
from collections import Counter, deque
from typing import cast

from protocols.dc09 import Damage, Framer
from receiver import clock
from receiver.config import ListenerSettings
from receiver.listeners.inhand import InHand
from receiver.listeners.sockets import BACKLOG, shown
from receiver.pipeline import Pipeline, Route
from receiver.telemetry import Telemetry

_IN_HAND_LIMIT = 512  # frames of one connection; above, reading pauses until half are answered
_SWEEP_SECONDS = 0.5
_JUST_CAME_SECONDS = 0.5  # going down, a panel that connected so lately may still say what it came for
_IN_FLIGHT_SECONDS = 2.0  # what was heard so lately may have an answer that has not reached the panel yet


class TcpListener:
    """One listening socket and its connections."""

    def __init__(self, settings: ListenerSettings, origin: int, pipeline: Pipeline, telemetry: Telemetry) -> None:
        self.settings = settings
        self.pipeline = pipeline
        self.telemetry = telemetry
        self.origin = origin
        self.connections: set[Connection] = set()
        self.parting: set[Connection] = set()  # nothing is owed any more; they are heard out and close
        self.sources: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self.stopping = False
        self.emptied = asyncio.Event()

    async def open(self, sock: socket.socket) -> None:
        """Begin to take connections on a bound, listening socket."""
        self._server = await asyncio.get_running_loop().create_server(lambda: Connection(self), sock=sock, backlog=BACKLOG)

    async def sweep(self) -> None:
        """Close, for ever, the connections that have been silent for too long."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = clock.monotonic()
            for number, connection in enumerate(list(self.connections)):
                connection.check(now)
                if number % 1000 == 999:
                    await asyncio.sleep(0)

    async def drain(self, seconds: float) -> None:
        """Take no new connections and no more frames, answer those in hand.

        What a panel sent and we did not read stays without an answer, and the panel sends it again. Only ``part`` closes
        the connections: before that the journal can be put away, so that another process may have it.
        """
        self.stopping = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.finish(clock.monotonic() - _JUST_CAME_SECONDS)
        await self._emptied(_JUST_CAME_SECONDS)
        for connection in list(self.connections):
            connection.finish(clock.monotonic())
        await self._emptied(seconds - _JUST_CAME_SECONDS)
        for connection in list(self.connections):
            connection.abort("shutdown")

    async def part(self, seconds: float) -> None:
        """Give panels the time to read their last reply and to close; then close."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.parting:
                    self.emptied.clear()
                    await self.emptied.wait()
        for connection in list(self.parting):
            connection.leave()

    async def _emptied(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.connections:
                    self.emptied.clear()
                    await self.emptied.wait()


class Connection(asyncio.Protocol):
    """One panel's connection."""

    def __init__(self, listener: TcpListener) -> None:
        self._listener = listener
        self._framer = Framer()
        self._answers: deque[InHand] = deque()
        self._stranger = True  # no frame came yet
        self._opened = self._heard = self._began = clock.monotonic()
        self._full = False  # too many frames in hand
        self._unread = False  # the panel does not read our replies
        self._closing = self._reading_ended = False
        self._handle = listener.pipeline.handle
        self._handle_damage = listener.pipeline.handle_damage
        self._telemetry = listener.telemetry
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection in, or close it when there are too many."""
        listener, settings = self._listener, self._listener.settings
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self._route = Route(settings.name, "tcp", shown(peer), listener.origin)
        self._source = str(peer[0]) if peer else "?"
        listener.connections.add(self)
        listener.sources[self._source] += 1
        if len(listener.connections) > settings.max_connections:
            self.abort("max-connections")
        elif listener.sources[self._source] > settings.max_connections_per_source:
            self.abort("max-connections-per-source")

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out; frames in hand are stored all the same."""
        listener = self._listener
        listener.connections.discard(self)
        listener.parting.discard(self)
        if not listener.connections:
            listener.emptied.set()
        listener.sources[self._source] -= 1
        if not listener.sources[self._source]:
            del listener.sources[self._source]
        self._closing = True
        for found in self._framer.end():
            if isinstance(found, Damage):
                self._handle_damage(found, self._route)

    def data_received(self, data: bytes) -> None:
        """Take the next bytes; every frame they complete goes in hand at once."""
        arrived = self._heard = clock.monotonic()
        framer, answers = self._framer, self._answers
        for found in framer.feed(data):
            if isinstance(found, Damage):
                self._handle_damage(found, self._route)
            else:
                self._stranger = False
                self._began = arrived
                answer = InHand(self._handle(found, self._route), arrived, self._finished)
                answers.append(answer)
                answer.begin()
        if not framer.begun:
            self._began = arrived
        if len(answers) > _IN_HAND_LIMIT and not self._full:
            self._full = True
            self._read_or_pause()

    def eof_received(self) -> bool:
        """Keep our half open while answers are owed."""
        self._reading_ended = True
        return bool(self._answers)

    def _finished(self, answer: InHand) -> None:
        """Write every reply that is ready and has none before it that is not."""
        if answer.error is not None:
            self._telemetry.crashed("handling a frame", answer.error)
        answers = self._answers
        if not answers or answers[0] is not answer:
            return
        replies = b""
        now, observe = clock.monotonic(), self._telemetry.ack_seconds.observe
        while answers and answers[0].done:
            ready = answers.popleft()
            if ready.reply is not None:
                replies += ready.reply
                observe(now - ready.arrived)
        if self._closing:
            return
        if replies:
            self._answered = True
            self._transport.write(replies)
        if not answers:
            self._close_if_done()
        if self._full and len(answers) < _IN_HAND_LIMIT // 2:
            self._full = False
            self._read_or_pause()

    def _close_if_done(self) -> None:
        """Close when nothing is owed and there is a reason to."""
        to_close = self._answered and self._listener.settings.close_after_ack and not self._framer.begun
        if self._listener.stopping:
            self._part()
        elif to_close or self._reading_ended:
            self._close()

    def pause_writing(self) -> None:
        """The panel does not read our replies: read no more of it until it does."""
        self._unread = True
        self._read_or_pause()

    def resume_writing(self) -> None:
        """The panel reads again."""
        self._unread = False
        self._read_or_pause()

    def _read_or_pause(self) -> None:
        if self._closing:
            return
        if self._full or self._unread or self._listener.stopping:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def check(self, now: float) -> None:
        """Close when a time limit has passed."""
        if self._answers or self._closing:
            return
        settings = self._listener.settings
        if self._framer.begun and now - self._began > settings.frame_timeout_seconds:
            self.abort("frame-timeout")
        elif self._stranger and now - self._opened > settings.first_frame_timeout_seconds:
            self.abort("first-frame-timeout")
        elif now - self._heard > settings.idle_timeout_seconds:
            self.abort("idle-timeout")

    def finish(self, strangers_since: float) -> None:
        """Take no more frames and part as soon as nothing is owed; a stranger that came later may send its first."""
        if self._answers:
            self._read_or_pause()
        elif not (self._stranger and self._opened > strangers_since):
            self._part()

    def _part(self) -> None:
        """Nothing is owed any more: end our half of the connection.

        To close it while something lies unread would send a reset, and a reset may overtake our last reply. So the panel
        is heard out, unheeded, until it closes too; unless it was silent for so long that no reply can be under way.
        """
        if self._closing:
            return
        listener, transport = self._listener, self._transport
        self._closing = True
        listener.connections.discard(self)
        listener.parting.add(self)
        if not listener.connections:
            listener.emptied.set()
        if self._reading_ended or clock.monotonic() - self._heard > _IN_FLIGHT_SECONDS:
            transport.close()
            return
        transport.set_protocol(_Parting(self))
        transport.resume_reading()
        transport.write_eof()

    def leave(self) -> None:
        """Close now; nothing is owed."""
        self._transport.abort()

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close now, and count why."""
        if not self._closing:
            self._telemetry.connection_refused(reason, listener=self._route.listener, peer=self._route.peer)
            self._closing = True
            self._transport.abort()


class _Parting(asyncio.Protocol):
    """What a connection becomes when it has nothing more to say: it reads and forgets until the panel closes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out."""
        self._connection.connection_lost(exc)
