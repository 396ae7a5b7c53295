"""A panel on a socket: sends messages, waits for their answers, tells what came and how long it took (``simulate``)."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from protocols import dc09
from protocols.errors import ProtocolError
from receiver import clock

_AWAY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Orders:
    """What a simulated panel is to do. ``rate`` is in messages a second over all connections, 0 as fast as answered."""

    host: str
    port: int
    account: str
    token: str
    data: str
    key: dc09.Key | None = field(default=None, repr=False)
    udp: bool = False
    count: int = 1
    rate: float = 0.0
    connections: int = 1
    line: str | None = "0"
    receiver_number: str | None = None
    retry: int = 0
    timeout_seconds: float = 5.0
    first_sequence: int = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one message. ``verdict`` is ACK, NAK, DUH, ``silence`` or ``invalid``."""

    sequence: str
    verdict: str
    seconds: float
    tries: int
    reply: bytes | None


async def report(orders: Orders, tell: Callable[[Answer], None]) -> None:
    """Send what is ordered and ``tell`` what became of each message, as it becomes known.

    A receiver that goes away on the way is silence, and is called again with the next message or try.

    Raises:
        ExceptionGroup: of OSError, the receiver cannot be reached at all.
    """
    numbers = iter(range(orders.count))

    async def one_connection() -> None:
        link = await _connect(orders)
        began = clock.monotonic()
        for sent in numbers:
            if orders.rate:
                await asyncio.sleep(max(0.0, began + sent / orders.rate - clock.monotonic()))
            tell(await _send(orders, link, sent))
        link.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(orders.connections, orders.count)):
            group.create_task(one_connection())


class _Link(asyncio.Protocol, asyncio.DatagramProtocol):
    """Either kind of socket, its replies in a queue; None stands for the end."""

    def __init__(self, udp: bool) -> None:
        self._udp = udp
        self.replies: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._framer = dc09.Framer()
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        for found in self._framer.feed(data):
            self.replies.put_nowait(found.raw)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.replies.put_nowait(data)

    def error_received(self, exc: Exception) -> None:
        self.replies.put_nowait(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.replies.put_nowait(None)

    @property
    def broken(self) -> bool:
        """Whether the other side has closed it."""
        return self.transport is None or self.transport.is_closing()

    def send(self, frame: bytes) -> None:
        if self._udp:
            cast("asyncio.DatagramTransport", self.transport).sendto(frame)
        else:
            cast("asyncio.WriteTransport", self.transport).write(frame)

    def take_over(self, fresh: "_Link") -> None:
        """Go on over a fresh socket after this one broke."""
        self.close()
        fresh.replies, self.transport = self.replies, fresh.transport
        while not self.replies.empty():
            self.replies.get_nowait()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


async def _connect(orders: Orders) -> _Link:
    loop = asyncio.get_running_loop()
    if orders.udp:
        _, link = await loop.create_datagram_endpoint(lambda: _Link(udp=True), remote_addr=(orders.host, orders.port))
    else:
        _, link = await loop.create_connection(lambda: _Link(udp=False), orders.host, orders.port)
    return link


async def _send(orders: Orders, link: _Link, number: int) -> Answer:
    """Send one message, again up to ``retry`` times with the same sequence, as panels do."""
    null = orders.token == dc09.LINK_TEST
    sequence = "0000" if null else f"{(orders.first_sequence - 1 + number) % 9999 + 1:04d}"
    began = clock.monotonic()
    for tries in range(1, orders.retry + 2):
        try:
            if link.broken:
                link.take_over(await _connect(orders))
            link.send(frame(orders, sequence))
            reply = await asyncio.wait_for(link.replies.get(), orders.timeout_seconds)
        except TimeoutError:
            continue
        except OSError:
            reply = None
        seconds = clock.monotonic() - began
        if reply is not None:
            return Answer(sequence, read_reply(reply, sequence, orders.key), seconds, tries, reply)
        if tries <= orders.retry:
            await asyncio.sleep(_AWAY_SECONDS)  # nobody is there: a panel that tries at once would not find anybody either
    return Answer(sequence, "silence", clock.monotonic() - began, orders.retry + 1, None)


def frame(orders: Orders, sequence: str) -> bytes:
    """Return the frame of one message.

    Raises:
        UnicodeError: something outside the data is not ASCII, or the data is no text.
        ProtocolError: it is too long.
    """
    address = dc09.Address(orders.receiver_number, orders.line, orders.account)
    panel_time = clock.now_us() // clock.SECOND_US
    return dc09.encode(orders.token, sequence, address, orders.data.encode(), (), panel_time, orders.key)


def read_reply(reply: bytes, sequence: str, key: dc09.Key | None) -> str:
    """Return the verdict that a reply carries, ``invalid`` when a panel could not use it."""
    found = dc09.split_datagram(reply)
    if len(found) != 1 or not isinstance(found[0], dc09.Frame):
        return "invalid"
    if found[0].body.startswith(b'"NAK"'):
        return "NAK"
    try:
        envelope = dc09.open_envelope(found[0])
        dc09.unseal(envelope, key)
    except ProtocolError:
        return "invalid"
    fits = envelope.sequence == sequence and (envelope.encrypted == (key is not None) or envelope.token == "DUH")
    return envelope.token if fits else "invalid"
