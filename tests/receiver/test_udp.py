"""A UDP socket in this process: what becomes of replies when the kernel has no room for them."""

import asyncio
import socket
from collections.abc import Sequence
from typing import Any

import uvloop

from protocols import dc09
from receiver.arrivals import Arrival
from receiver.config import ListenerSettings
from receiver.listeners import UdpListener
from receiver.telemetry import Telemetry
from tests.receiver.test_door import Echo

LINK_TESTS = [dc09.encode("NULL", f"{number:04d}", dc09.Address(None, "0", "1A01")) for number in range(1, 41)]


class Narrow(socket.socket):
    """A socket whose buffer is full every other time, and that cannot reach anybody now and then."""

    sent = 0

    def sendto(self, *args: Any) -> int:
        self.sent += 1
        if self.sent % 2:
            raise BlockingIOError
        if self.sent % 10 == 0:
            raise PermissionError
        return super().sendto(*args)


class Gathering(Echo):
    """Answers all at once, in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Arrival] = []

    async def handle(self, arrivals: Sequence[Arrival]) -> None:
        self.held += arrivals
        if len(self.held) == len(LINK_TESTS):
            await super().handle(self.held)


def test_replies_wait_for_room_in_the_kernel_and_one_that_cannot_be_sent_holds_up_no_other() -> None:
    settings = ListenerSettings(host="127.0.0.1", port=0)

    async def run() -> list[bytes]:
        listener = UdpListener(settings, 1, Gathering(), Telemetry())  # type: ignore[arg-type]
        sock = Narrow(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        await listener.open(sock)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as panel:
            panel.connect(sock.getsockname())
            panel.setblocking(False)
            for frame in LINK_TESTS:
                panel.send(frame)
            heard: list[bytes] = []
            async with asyncio.timeout(5):
                while len(heard) < 32:
                    heard.append(await asyncio.get_running_loop().sock_recv(panel, 4096))
            await listener.drain(1.0)
        assert listener._sock is None
        assert sock.sent > len(LINK_TESTS)
        return heard

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        heard = runner.run(run())
    assert set(heard) <= set(LINK_TESTS)
    assert len(set(heard)) == len(heard)
