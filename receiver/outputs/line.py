"""The sockets between us and automation software: we listen and it connects, or we connect to it.

With ``clients = "one"`` events go to the connection that has stood longest and answers; with ``"all"`` each event goes to
every connection that answers, and is taken when none of them is waited for any more and one has taken it. What a connection
says is its ``Session``'s matter; here are sockets, timers and the choice between them.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple, cast

from receiver import clock
from receiver.config.automation import LinkSettings
from receiver.errors import DeliveryError, EventRefused, FailedAtEvent
from receiver.outputs.contract import Surroundings
from receiver.outputs.lostmark import LostMark
from receiver.outputs.session import Answer, Outcome, Said, Session, Step, Timing
from receiver.troubles import Trouble

Reader = Callable[[bytes], Sequence[tuple[Answer, str | None]]]
"""Takes what one connection received and returns the answers in it, each with its number."""
_CHOOSE_SECONDS = 5.0  # an event in hand waits so long at most for a connection; then the choice between events is made anew
_WATCH_SECONDS = 0.25
_CONNECT_SECONDS = 10.0
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.25, 5.0
_MAX_UNREAD_BYTES = 65536  # of heartbeats that the other side does not read; above, the connection ends
_NOBODY = "nobody has connected"


class Style(NamedTuple):
    """What a format says when there is nothing to say, and how it reads answers; ``reader`` makes one a connection."""

    heartbeat: Callable[[], Said] | None
    heartbeat_seconds: float
    reader: Callable[[], Reader]


class Line:
    """All connections of one output."""

    def __init__(self, settings: LinkSettings, style: Style, surroundings: Surroundings) -> None:
        self.settings = settings
        self.style = style
        self._surroundings = surroundings
        self._allowed = [ipaddress.ip_network(text, strict=False) for text in settings.allow]
        self._connections: list[_Connection] = []
        self._changed = asyncio.Event()
        self._why = _NOBODY if settings.mode == "server" else "not connected yet"
        self._server: asyncio.Server | None = None
        self._next_try, self._backoff = 0.0, _FIRST_RETRY_SECONDS
        self._down_since: float | None = clock.monotonic()
        self._mark: LostMark | None = None
        self._doubtful = False  # who left last had answered nothing

    @property
    def place(self) -> str:
        """Where the other side is met, for people."""
        return f"{self.settings.host}:{self.settings.port}"

    @property
    def patience(self) -> float:
        """How many seconds the other side has to answer, all tries together."""
        return self.settings.ack_seconds * self.settings.tries

    # -- beside the deliveries ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the port or the connection open for ever, and tell when nobody answers."""
        mark = self._mark = self._mark or LostMark(self._surroundings.data_dir, self.settings.name)
        while True:
            if clock.monotonic() >= self._next_try:
                await (self._listen() if self.settings.mode == "server" else self._connect())
            self._watch(mark)
            await asyncio.sleep(_WATCH_SECONDS)

    async def _listen(self) -> None:
        if self._server is not None:
            return
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(partial(_Connection, self), self.settings.host, self.settings.port)
        except OSError as error:
            why = f"cannot listen: {error.strerror}"
            if why != self._why:  # at once, and not when the patience with the automation is over
                told = {"output": self.settings.name, "place": self.place, "error": error.strerror}
                self._surroundings.telemetry.warned("an output cannot listen; it tries again", **told)
            self._put_off(why)
            return
        self._why = _NOBODY
        self._surroundings.telemetry.output_link(self.settings.name, "listening", self.place)
        if not self._allowed and not _is_loopback(self.settings.host):
            self._surroundings.telemetry.warned(
                "whoever reaches this port can take alarms away; set allow to the automation's addresses",
                output=self.settings.name, port=self.settings.port,
            )  # fmt: skip

    async def _connect(self) -> None:
        if self._connections:
            return
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await loop.create_connection(partial(_Connection, self), self.settings.host, self.settings.port)
        except OSError as error:
            self._put_off(error.strerror or type(error).__name__)
        except TimeoutError:
            self._put_off(f"no connection within {_CONNECT_SECONDS:g} s")

    def _put_off(self, why: str) -> None:
        self._why = why
        self._next_try = clock.monotonic() + self._backoff
        self._backoff = min(self._backoff * 2, _LONGEST_RETRY_SECONDS)

    def _watch(self, mark: LostMark) -> None:
        """Tell once when the link is lost and once when it is back; a client who only reconnects is no trouble."""
        failed = any(connection.session.failed for connection in self._connections)
        now = clock.monotonic()
        good = any(c.session.good and (c.holds(now) or not self._doubtful) for c in self._connections)
        if good and not (failed and self.settings.clients == "all"):
            self._down_since = None
        elif self._down_since is None:
            self._down_since = now
        patience = 0.0 if failed else self.patience
        if self._down_since is not None and now >= self._down_since + patience and not mark.lost:
            mark.set(True)
            self._trouble("automation-lost", f"no automation software answers at {self.place}: {self._state()}")
        elif self._down_since is None and mark.lost:
            mark.set(False)
            self._trouble("automation-restored", f"automation software answers again at {self.place}")

    def _trouble(self, reason: str, text: str) -> None:
        name = self.settings.name
        self._surroundings.raise_trouble(Trouble(reason, f"output {name}: {text}", clock.now_us(), output=name))

    def _state(self) -> str:
        if not self._connections:
            return self._why
        return "; ".join(f"{connection.peer} {connection.session.why}" for connection in self._connections)

    # -- deliveries -----------------------------------------------------------------------------------------------

    async def hand_over(self, said: Said) -> None:
        """Send one event and return when it was taken.

        Raises:
            DeliveryError: nobody is there to take it.
            FailedAtEvent: the connection ended with it in flight, or nothing came back where only events try the link.
            EventRefused: who is there refuses it.
        """
        pending = [connection.offer(said) for connection in await self._choose()]
        outcomes = [await outcome for outcome in pending]
        if Outcome.TAKEN in outcomes:
            return
        if Outcome.REFUSED in outcomes:
            raise EventRefused(f"{self.place} refused it {self.settings.tries} times")
        if Outcome.BROKEN in outcomes:
            raise FailedAtEvent(f"{self.place}: {self._why}")
        if not self.has_heartbeats:  # silence about one event and a dead link are the same to us
            raise FailedAtEvent(f"{self.place}: {self._state()}")
        raise DeliveryError(f"{self.place}: {self._state()}")

    @property
    def has_heartbeats(self) -> bool:
        """Whether something besides events shows that the link is good."""
        return self.style.heartbeat is not None and self.style.heartbeat_seconds > 0

    async def _choose(self) -> list["_Connection"]:
        """Wait a while until those who are to get the next event are free, and return them."""
        try:
            async with asyncio.timeout(min(_CHOOSE_SECONDS, self.patience)):
                while True:
                    found = sorted((c for c in self._connections if c.session.usable), key=lambda c: c.session.failed)
                    found = found if self.settings.clients == "all" else found[:1]
                    if found and all(connection.session.free for connection in found):
                        return found
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise DeliveryError(f"{self.place}: {self._state()}") from None

    # -- connections ----------------------------------------------------------------------------------------------

    def session(self) -> Session:
        """Return the state of a new connection."""
        timing = Timing(self.settings.ack_seconds, self.settings.tries, self.style.heartbeat_seconds)
        return Session(timing, self.style.heartbeat, clock.monotonic())

    def admit(self, connection: "_Connection", peer: str) -> bool:
        """Take a new connection, unless its address is not allowed or there are too many that answer."""
        telemetry, name = self._surroundings.telemetry, self.settings.name
        if not self._allows(peer):
            telemetry.connection_refused("not-allowed", output=name, peer=peer)
            return False
        if len(self._connections) >= self.settings.max_clients:
            silent = next((c for c in self._connections if c.session.failed), None)
            if silent is None:
                telemetry.connection_refused("max-connections", output=name, peer=peer)
                return False
            silent.abort()
        self._connections.append(connection)
        telemetry.output_link(name, "connected", connection.peer)
        self.changed()
        return True

    def _allows(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return not self._allowed
        return not self._allowed or any(address in network for network in self._allowed)

    def left(self, connection: "_Connection", why: str) -> None:
        """Forget a connection that ended."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._why = why
            self._doubtful = not connection.holds(clock.monotonic())
            if not self._doubtful:
                self._backoff = _FIRST_RETRY_SECONDS
            elif self.settings.mode == "client":  # a tunnel without anybody behind it hangs up at once, each time
                self._put_off(why)
            self._surroundings.telemetry.output_link(self.settings.name, "disconnected", connection.peer)
            self.changed()

    def changed(self) -> None:
        """Look again at who is free."""
        self._changed.set()

    def close(self) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()


class _Connection(asyncio.Protocol):
    """One socket, its timer and its session."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._read = line.style.reader()
        self._timer: asyncio.TimerHandle | None = None
        self._pending: asyncio.Future[Outcome] | None = None
        self._transport: asyncio.Transport | None = None
        self.session = line.session()
        self.peer = ""
        self._since = clock.monotonic()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        host, port = transport.get_extra_info("peername")[:2]
        self.peer = f"{host}:{port}"
        if self._line.admit(self, str(host).removeprefix("::ffff:")):
            self._take(Step())
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        for answer, number in self._read(data):
            self._take(self.session.hear(answer, number, clock.monotonic()))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._line.left(self, "the connection broke" if exc else "the other side closed the connection")
        self._settle(Outcome.BROKEN)

    def holds(self, now: float) -> bool:
        """Whether the other side has answered, or at least not hung up for a good while."""
        return self.session.heard or now - self._since > self._line.patience / 2

    def offer(self, said: Said) -> "asyncio.Future[Outcome]":
        """Send an event; the future tells how it ended."""
        self._pending = asyncio.get_running_loop().create_future()
        pending = self._pending
        self._take(self.session.offer(said, clock.monotonic()))
        return pending

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
        self._line.left(self, "closed by us")

    def _take(self, step: Step) -> None:
        """Do what the session wants, and set the timer for what it will want next."""
        assert self._transport is not None
        if step.frame and not self._transport.is_closing():
            if self._transport.get_write_buffer_size() > _MAX_UNREAD_BYTES:
                self.abort()
                return
            self._transport.write(step.frame)
        if step.outcome is not None:
            self._settle(step.outcome)
        if self._timer is not None:
            self._timer.cancel()
        wait = self.session.deadline - clock.monotonic()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, wait), self._wake) if wait < float("inf") else None
        self._line.changed()

    def _wake(self) -> None:
        self._timer = None
        self._take(self.session.wake(clock.monotonic()))

    def _settle(self, outcome: Outcome) -> None:
        if self._pending is not None and not self._pending.done():
            self._pending.set_result(outcome)
        self._pending = None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
