"""The door of a TCP port, in this process: what it leaves behind, and what accepted sockets inherit."""

import asyncio
import gc
import socket
from collections.abc import Sequence
from typing import Any

import pytest
import uvloop

from protocols import dc09
from receiver.arrivals import Arrival, Arrivals, Route
from receiver.config import ListenerSettings
from receiver.listeners import TcpListener
from receiver.listeners.sockets import bind_tcp
from receiver.listeners.tcp import Connection
from receiver.telemetry import Telemetry

LINK_TEST = dc09.encode("NULL", "0000", dc09.Address(None, "0", "1A01"))


class Echo:
    """A pipeline that answers a frame with itself and refuses damage."""

    def __init__(self) -> None:
        self.arrivals = Arrivals(self.handle, lambda _arrivals, _error: None)

    async def handle(self, arrivals: Sequence[Arrival]) -> None:
        for arrival in arrivals:
            arrival.reply, arrival.done = arrival.frame.raw, True
            arrival.panel.answered(arrival, 0.0)

    def handle_damage(self, _: dc09.Damage, route: Route) -> None:
        route.spend(route.peer, False)


def _calls(port: int) -> None:
    """Come in three ways: hang up at once, get an answer, be cut off for noise."""
    for number in range(30):
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall((b"", LINK_TEST, b"x" * 20_000)[number % 3])
            if number % 3:
                assert link.recv(100) == (LINK_TEST if number % 3 == 1 else b"")


@pytest.mark.parametrize("loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_connection_that_is_gone_leaves_nothing_for_the_garbage_collector(loop: Any) -> None:
    settings = ListenerSettings(host="127.0.0.1", port=0)

    async def run() -> int:
        listener = TcpListener(settings, 1, Echo(), Telemetry())  # type: ignore[arg-type]
        sock = bind_tcp(settings)
        port = sock.getsockname()[1]
        await listener.open(sock)
        gc.collect()
        gc.disable()
        try:
            await asyncio.to_thread(_calls, port)
            while listener.crowd.all:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            return sum(isinstance(found, Connection) for found in gc.get_objects())
        finally:
            gc.enable()
            await listener.drain(1.0)

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(run()) == 0


def test_an_accepted_socket_has_the_limits_of_its_listener() -> None:
    settings = ListenerSettings(host="127.0.0.1", port=0, keepalive_seconds=90)

    async def run() -> socket.socket:
        sock = bind_tcp(settings)
        listener = TcpListener(settings, 1, Echo(), Telemetry())  # type: ignore[arg-type]
        await listener.open(sock.dup())
        with socket.create_connection(sock.getsockname()):
            while not listener.crowd.all:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.01)
            accepted = next(iter(listener.crowd.all))._transport.get_extra_info("socket")
            kept = socket.socket(fileno=socket.dup(accepted.fileno()))
            await listener.drain(1.0)
        sock.close()
        return kept

    with uvloop_runner() as runner, runner.run(run()) as accepted:
        tcp = {
            name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
            for name in ("TCP_NODELAY", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
        }
        assert tcp == {
            "TCP_NODELAY": 1, "TCP_KEEPIDLE": 90, "TCP_KEEPINTVL": 30, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 180_000,
        }  # fmt: skip
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for name in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            assert accepted.getsockopt(socket.SOL_SOCKET, name) == 2 * settings.connection_buffer_bytes  # as Linux tells it


def uvloop_runner() -> asyncio.Runner:
    """Return what runs a coroutine as the receiver's command does."""
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)
