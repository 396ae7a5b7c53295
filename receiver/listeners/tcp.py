"""TCP: many frames a connection, answered in the order they came, however the segments were cut.

All frames of one segment are in hand at once, so they share a commit; their replies go out in order and, where they are
ready together, in one write. A client that has closed its half still gets its answers.

What a hostile peer can cost is bounded here: time, noise, refused frames, unread replies, memory of the kernel.
"""

import asyncio
from typing import TYPE_CHECKING, cast

from protocols.dc09 import Damage, Frame, Framer, exactly_one
from receiver import clock
from receiver.arrivals import Arrival, Route
from receiver.listeners.budget import source_of
from receiver.listeners.sockets import shown

if TYPE_CHECKING:
    from receiver.listeners.door import TcpListener

_IN_HAND_LIMIT = 512  # frames of one connection; above, reading pauses until half are answered
_LIGHT_BYTES = 2048  # what a panel sends at once; what is more is worked off by turns
_SLICE_BYTES = 8192  # taken in one turn, about 3 ms of the shortest frames; limits are looked at between slices
_IN_FLIGHT_SECONDS = 2.0  # the answer to a frame that came so lately may not have reached the panel yet
_UNREAD_BYTES = 16384  # replies held for a panel that does not take them, beside what the kernel holds; then it is not read


class Connection(asyncio.Protocol):
    """One panel's connection."""

    __slots__ = (
        "_answers", "_asked_to_close", "_began", "_closing", "_closing_since", "_eof", "_framer", "_full", "_heard", "_held",
        "_held_at", "_held_since", "_listener", "_noise_bytes", "_proven", "_reading_ended", "_route", "_settings",
        "_take_arrival", "_telemetry", "_transport", "_unread_since", "opened", "source",
    )  # fmt: skip

    def __init__(self, listener: "TcpListener", address: tuple[str, int]) -> None:
        self._listener = listener
        self._settings = listener.settings
        self._telemetry = listener.telemetry
        self._take_arrival = listener.take
        self.source = source_of(address[0])
        self._route = Route(listener.settings.name, "tcp", shown(address), listener.origin, self._spend, listener.defaults)
        self._transport = cast("asyncio.Transport", None)  # until the loop's next turn
        self._framer: Framer | None = None  # until something comes that is not one whole frame
        self._answers: list[Arrival] = []  # an empty deque holds 600 bytes, and most connections are idle
        self.opened = self._began = clock.monotonic()
        self._heard: float | None = None  # when the last frame came; none came from a stranger
        self._noise_bytes = 0  # since the last frame
        self._full = False  # too many frames in hand
        self._unread_since: float | None = None  # the panel does not read our replies
        self._proven = False  # it was given an answer
        self._asked_to_close: bool | None = None  # by the dialect of an account in hand
        self._held, self._held_at, self._held_since = b"", 0, 0.0  # read and not yet taken, from where on, when it came
        self._reading_ended = self._eof = self._closing = False
        self._closing_since = 0.0

    @property
    def owed(self) -> bool:
        """Whether a frame is in hand."""
        return bool(self._answers)

    @property
    def begun(self) -> bool:
        """Whether a frame may have begun that is not whole yet."""
        return self._framer is not None and self._framer.begun

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport; the listener has let the connection in."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_UNREAD_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out; frames in hand are stored all the same."""
        self._listener.leave(self)
        if isinstance(exc, TimeoutError) and not self._closing:  # the kernel's keepalive gave it up
            self._telemetry.connection_refused("keepalive", listener=self._route.listener, peer=self._route.peer)
        self._closing = True
        for found in self._framer.end() if self._framer is not None else ():
            if isinstance(found, Damage):
                self._listener.handle_damage(found, self._route)
        del self._route  # it knows us: without this only the garbage collector would find the two

    def data_received(self, data: bytes) -> None:
        """Take the next bytes; every frame they complete goes in hand at once."""
        arrived = clock.monotonic()
        if len(data) <= _LIGHT_BYTES:
            framer = self._framer
            frame = exactly_one(data) if framer is None or framer.empty else None
            if frame is None:
                self._take(data, arrived)
            else:
                self._take_frame(frame, arrived)
            return
        self._held, self._held_at, self._held_since = data, 0, arrived
        self._read_or_pause()
        self._listener.turns.add(self)

    def work(self) -> bool:
        """Take the next slice of what is held; tell whether there is more that can be taken now."""
        if self._closing or self._reading_ended:
            self._held = b""
            return False
        at, self._held_at = self._held_at, self._held_at + _SLICE_BYTES
        last = self._held_at >= len(self._held)
        self._take(self._held[at : self._held_at], self._held_since)
        if last:
            self._held = b""
            self._read_or_pause()
        return not last and not self._full

    def _take(self, data: bytes, arrived: float) -> None:
        framer = self._framer = self._framer or Framer(over_cr=True)
        if not framer.begun:
            self._began = arrived
        self._noise_bytes += len(data)
        for found in framer.feed(data):
            if isinstance(found, Frame):
                self._take_frame(found, arrived)
            else:
                self._listener.handle_damage(found, self._route)
            if self._reading_ended:
                return
        if self._noise_bytes > self._settings.max_noise_bytes:
            self._end("noise")

    def _take_frame(self, frame: Frame, arrived: float) -> None:
        """Put a frame in hand."""
        self._heard = self._began = arrived
        self._noise_bytes = 0
        arrival = Arrival(frame, self._route, self, arrived)
        self._answers.append(arrival)
        self._take_arrival(arrival)
        if len(self._answers) > _IN_HAND_LIMIT and not self._full:
            self._full = True
            self._read_or_pause()

    def eof_received(self) -> bool:
        """Keep our half open while answers are owed."""
        self._reading_ended = self._eof = True
        return bool(self._answers)

    def _spend(self, _: str, proven: bool) -> bool:
        """Take one refused frame off the budget of our source; over it, the connection it came on ends."""
        if self._listener.budgets.take(self.source, clock.monotonic()):
            return True
        self._end("refused-too-often")
        return False

    def answered(self, arrival: Arrival, now: float) -> None:
        """Write every reply that is ready and has none before it that is not."""
        answers = self._answers
        if not answers or answers[0] is not arrival:  # written with an earlier one, or it waits for one
            return
        if len(answers) == 1:
            answers.clear()
            if replies := arrival.reply or b"":
                self._telemetry.ack_seconds.observe(now - arrival.arrived)
        else:
            replies = self._all_ready(now)
        if self._closing:
            return
        if replies:
            self._write(replies)
        if not answers:
            self._close_if_done()
        if self._full and len(answers) < _IN_HAND_LIMIT // 2:
            self._go_on()

    def let_close(self, ours: bool) -> None:
        """Take note of who closes once all that is in hand is answered; it counts for that once."""
        self._asked_to_close = ours

    def _all_ready(self, now: float) -> bytes:
        """Take out the answers that are ready and have none before them that is not."""
        replies, count = b"", 0
        for ready in self._answers:
            if not ready.done:
                break
            count += 1
            if ready.reply is not None:
                replies += ready.reply
                self._telemetry.ack_seconds.observe(now - ready.arrived)
        del self._answers[:count]
        return replies

    def _write(self, replies: bytes) -> None:
        if not self._proven:
            self._proven = True
            self._listener.crowd.prove(self)
        self._transport.write(replies)

    def _go_on(self) -> None:
        """Take what is held, and read again, now that enough frames were answered."""
        self._full = False
        if self._held:
            self._listener.turns.add(self)
        else:
            self._read_or_pause()

    def _close_if_done(self) -> None:
        """Close when nothing is owed and there is a reason to."""
        asked, self._asked_to_close = self._asked_to_close, None
        to_close = (self._settings.close_after_ack if asked is None else asked) and self._proven and not self.begun
        if self._listener.stopping:
            self._part()
        elif to_close or self._reading_ended:
            self._close()

    def pause_writing(self) -> None:
        """The panel does not read our replies: read no more of it until it does."""
        self._unread_since = clock.monotonic()
        self._read_or_pause()

    def resume_writing(self) -> None:
        """The panel reads again."""
        self._unread_since = None
        self._read_or_pause()

    def _read_or_pause(self) -> None:
        if self._closing or self._reading_ended:
            return
        if self._held or self._full or self._unread_since is not None:
            self._transport.pause_reading()
        else:
            self._began = clock.monotonic()  # while we did not read, a frame could not end
            self._transport.resume_reading()

    def check(self, now: float) -> None:
        """Close when a time limit has passed."""
        settings = self._settings
        if self._closing:
            if now - self._closing_since > settings.unread_timeout_seconds:
                self._transport.abort()  # it does not even take the last of its answers
        elif self._unread_since is not None:  # we do not read either: what has begun cannot end, and no frame can come
            if now - self._unread_since > settings.unread_timeout_seconds:
                self.abort("unread-timeout")
        elif self._answers or self._held:
            return
        elif self.begun and now - self._began > settings.frame_timeout_seconds:
            self.abort("frame-timeout")
        elif self._heard is None and now - self.opened > settings.first_frame_timeout_seconds:
            self.abort("first-frame-timeout")
        elif now - (self._heard or self.opened) > settings.idle_timeout_seconds:
            self.abort("idle-timeout")

    def finish(self, strangers_since: float) -> None:
        """Take no more frames and part as soon as nothing is owed; a stranger that came later may send its first."""
        if self._closing:
            self._listener.part_with(self)
        elif self._answers:
            self._held = b""  # the panel sends it again
            self._reading_ended = True
            self._transport.pause_reading()
        elif self._transport is not None and (self._heard is not None or self.opened <= strangers_since):
            self._part()

    def _part(self) -> None:
        """Nothing is owed any more: end our half of the connection.

        To close it while something lies unread would send a reset, and a reset may overtake our last reply. So the panel
        is heard out, unheeded, until it closes too; unless no reply can be under way.
        """
        if self._closing:
            return
        transport, now = self._transport, clock.monotonic()
        self._closing, self._closing_since = True, now
        self._listener.part_with(self)
        if self._eof or self._heard is None or now - self._heard > _IN_FLIGHT_SECONDS:
            transport.close()
            return
        transport.set_protocol(_Parting(self))
        transport.resume_reading()
        transport.write_eof()

    def hang_up(self) -> None:
        """Close now; nothing is owed."""
        self._transport.abort()

    def _end(self, reason: str) -> None:
        """Read no more, give the answers that are owed, then close; count why."""
        if self._closing or self._reading_ended:
            return
        self._telemetry.connection_refused(reason, listener=self._route.listener, peer=self._route.peer)
        self._reading_ended = True
        self._transport.pause_reading()
        if not self._answers:
            self._close()

    def _close(self) -> None:
        if not self._closing:
            self._closing = True
            self._closing_since = clock.monotonic()
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Close now, and count why."""
        if not self._closing:
            self._telemetry.connection_refused(reason, listener=self._route.listener, peer=self._route.peer)
            self._closing = True
            self._closing_since = clock.monotonic()
            self._transport.abort()


class _Parting(asyncio.Protocol):
    """What a connection becomes when it has nothing more to say: it reads and forgets until the panel closes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def connection_lost(self, exc: Exception | None) -> None:
        """Count the connection out."""
        self._connection.connection_lost(exc)
