"""Panels on UDP, each with an address of its own, as a receiver meets them: any address of 127.0.0.0/8 may be a source.

A few sockets send for all of them; the source is told with each datagram (IP_PKTINFO of Linux). An answer is matched with
its message by the account in it.
"""

import contextlib
import select
import socket
import struct
import sys
import time
from typing import Any, NamedTuple

from bench.frames import STEP, frame
from bench.watch import PATIENCE_SECONDS, Stopwatch, is_ack

_PKTINFO = 8
_SOCKETS = 8
_BUFFER_BYTES = 4 << 20
_ANSWER_BYTES = 480


class Datagram(NamedTuple):
    """A message ready to go: its account as the answer will show it, its source, its bytes."""

    account: bytes
    ancillary: list[tuple[int, int, bytes]]
    told: list[bytes]


def _datagram(order: dict[str, Any], panel: int, at: int, now: int) -> Datagram:
    source = bytes((127, 1 + (panel >> 16), panel >> 8 & 255, panel & 255))
    told = frame(order, panel, at, now)
    begin = told.index(b"#") + 1
    account = told[begin : told.index(b"[", begin)]
    return Datagram(account, [(socket.IPPROTO_IP, _PKTINFO, struct.pack("=I4s4s", 0, source, bytes(4)))], [told])


def _account_of(reply: bytes) -> bytes:
    begin = reply.index(b"#") + 1
    return reply[begin : reply.index(b"[", begin)]


class Sockets:
    """The sockets, by turns."""

    def __init__(self, port: int) -> None:
        self.poll, self.all, self._target = select.epoll(), [], ("127.0.0.1", port)
        for _ in range(_SOCKETS):
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            sock.bind(("0.0.0.0", 0))  # noqa: S104 - of loopback alone: answers come to any address of 127.0.0.0/8
            sock.setblocking(False)
            self.poll.register(sock.fileno(), select.EPOLLIN)
            self.all.append(sock)
        self._by_number = {sock.fileno(): sock for sock in self.all}

    def send(self, panel: int, datagram: Datagram) -> None:
        """Send one; a panel has always the same socket, and so the same port."""
        self.all[panel % _SOCKETS].sendmsg(datagram.told, datagram.ancillary, 0, self._target)

    def answers(self) -> list[bytes]:
        """Return the answers that are there."""
        found = []
        for number, _ in self.poll.poll(0):
            sock = self._by_number[number]
            with contextlib.suppress(BlockingIOError):
                for _ in range(64):
                    found.append(sock.recv(_ANSWER_BYTES))
        return found


def burst(order: dict[str, Any]) -> dict[str, Any]:
    """Send one datagram of each panel as fast as they go, then wait for the answers."""
    sockets, now = Sockets(order["port"]), int(time.time())  # noqa: TID251 - a panel's clock
    prepared = [_datagram(order, panel, order["round"], now) for panel in range(order["panels"])]
    watch, began = Stopwatch(order["pid"]), time.perf_counter()
    for panel, datagram in enumerate(prepared):
        sockets.send(panel, datagram)
    sent_seconds, last = time.perf_counter() - began, time.perf_counter()
    answered: set[bytes] = set()
    while len(answered) < len(prepared) and time.perf_counter() - last < PATIENCE_SECONDS:
        for reply in sockets.answers():
            assert is_ack(reply)
            answered.add(_account_of(reply))
            last = time.perf_counter()
        select.select([sockets.poll], (), (), 0.1)
    told = {"done": len(answered), "sent": len(prepared), "sent_seconds": sent_seconds}
    return told | watch.told() | {"seconds": last - began}


def beats(order: dict[str, Any]) -> dict[str, Any]:
    """Send the link tests of a large register at due times; a latency runs from the due time to the answer's arrival.

    ``held``: all is made, then we wait to be told to begin.
    """
    sockets, now = Sockets(order["port"]), int(time.time())  # noqa: TID251 - a panel's clock
    rate, count, accounts, first = order["rate"], round(order["rate"] * order["seconds"]), order["large"], order["skip"]
    plan = [(panel := at * STEP % accounts, _datagram(order, panel, 0, now)) for at in range(first, first + count)]
    if order.get("held"):
        print("ready", flush=True)
        sys.stdin.readline()
    due: dict[bytes, float] = {}
    latencies: list[float] = []
    clock, sent, wrong = time.perf_counter, 0, 0
    watch, began = Stopwatch(order["pid"]), clock() + 0.05
    until = began + order["seconds"] + PATIENCE_SECONDS
    while len(latencies) < count and (now_s := clock()) < until:
        while sent < count and began + sent / rate <= now_s:
            panel, datagram = plan[sent]
            sockets.send(panel, datagram)
            due[datagram.account] = began + sent / rate
            sent += 1
        pause = began + sent / rate - clock() if sent < count else 0.1
        select.select([sockets.poll], (), (), max(0.0, pause))
        for reply in sockets.answers():
            wrong += not is_ack(reply)
            latencies.append(clock() - due[_account_of(reply)])
    return {"done": len(latencies), "sent": sent, "wrong": wrong, "latencies": latencies, **watch.told()}
