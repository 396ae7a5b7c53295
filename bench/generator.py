"""The load: panels on bare sockets, every frame made before the clock starts.

Runs as a process of its own, told by one line of JSON on standard input, answering with one on standard output. Its share of
its core is in the answer: well below 1, it was waiting for the server and is not the limit.
"""

import gc
import json
import os
import resource
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import cycle
from typing import Any

from bench import datagrams
from bench.frames import STEP, frame, frames
from bench.watch import PATIENCE_SECONDS, Stopwatch, is_ack

_READ_BYTES = 480  # an answer is shorter; up to 512 bytes Python takes no memory from the system for it
_BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT of Linux


def _is_frame(reply: bytes) -> bool:
    return reply[:1] == b"\n" and reply[9:10] == b'"'


def tcp_link(port: int, source: str = "127.0.0.1") -> socket.socket:
    """Connect from an address of loopback; the kernel chooses the port when it knows both ends."""
    link = socket.socket()
    if source != "127.0.0.1":
        link.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        link.bind((source, 0))
    link.connect(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    return link


def udp_link(port: int) -> socket.socket:
    """Return a UDP socket that talks to one port."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.connect(("127.0.0.1", port))
    link.setblocking(False)
    return link


def _source(number: int) -> str:
    """Return one loopback address for 1,000 connections: a receiver bounds how many one address may have."""
    return f"127.0.0.{2 + number // 1000}"


def _links(order: dict[str, Any]) -> list[socket.socket]:
    if order["transport"] == "udp":
        return [udp_link(order["port"]) for _ in range(order["connections"])]
    return [tcp_link(order["port"], _source(number)) for number in range(order["connections"])]


def _large_feeds(order: dict[str, Any], links: int) -> list[Callable[[], bytes]]:
    """Return a source of frames for each link; all accounts of a large register take turns, each always by one link."""
    accounts, now = order["large"], int(time.time())  # noqa: TID251 - a panel's clock
    piles: list[list[bytes]] = [[] for _ in range(links)]
    for at in range(order.get("skip", 0), order.get("skip", 0) + order["frames"] * links):
        panel = at * STEP % accounts
        piles[panel % links].append(frame(order, panel, at // accounts, now))
    return [iter(pile).__next__ for pile in piles]


def _feeds(order: dict[str, Any], links: int) -> list[Callable[[], bytes]]:
    if order.get("large"):
        return _large_feeds(order, links)
    if order["echo"]:  # the same again does it
        return [cycle(frames(order, number, 100)).__next__ for number in range(links)]
    return [iter(frames(order, number, order["frames"])).__next__ for number in range(links)]


def closed_loop(order: dict[str, Any]) -> dict[str, Any]:
    """Keep ``in_flight`` messages under way, at most one a link, until the time is over or a link has sent all it has.

    With fewer messages than links, the links take turns. The last answer of each turn is looked into. At the end the answers
    under way are waited for: what the server has spent on them is in its CPU time.
    """
    links = _links(order)
    poll, looks_right = select.epoll(), _is_frame if order["echo"] else is_ack
    feed = {link.fileno(): feed for link, feed in zip(links, _feeds(order, len(links)), strict=True)}
    for number in feed:
        poll.register(number, select.EPOLLIN)
    read, write, wait, clock = os.read, os.write, poll.poll, time.perf_counter
    idle = deque(feed)
    done = wrong = 0
    reply = b""
    watch, until = Stopwatch(order["pid"]), clock() + order["seconds"]
    try:
        for _ in range(min(order.get("in_flight") or len(links), len(links))):
            number = idle.popleft()
            write(number, feed[number]())
        while clock() < until:
            ready = wait(1.0)
            for reader, _ in ready:
                reply = read(reader, _READ_BYTES)
                idle.append(reader)
                number = idle.popleft()
                write(number, feed[number]())
            done += len(ready)
            wrong += bool(ready) and not looks_right(reply)
    except StopIteration:
        done += [at for at, _ in ready].index(reader) + 1
        idle.append(number)
    under_way = len(links) - len(idle)
    while under_way > 0 and (ready := wait(1.0)):
        for reader, _ in ready:
            read(reader, _READ_BYTES)
        done, under_way = done + len(ready), under_way - len(ready)
    told = watch.told()
    for link in links:
        link.close()
    return {"done": done, "wrong": wrong, **told}


def _plan(order: dict[str, Any], links: int, count: int) -> list[tuple[int, bytes]]:
    """Return who sends what, in order: by turns, or each account of a large register once, then again."""
    now, first = int(time.time()), order.get("skip", 0)  # noqa: TID251 - a panel's clock
    if order.get("large"):
        accounts = order["large"]
        panels = [at * STEP % accounts for at in range(first, first + count)]
        return [(panel % links, frame(order, panel, (first + at) // accounts, now)) for at, panel in enumerate(panels)]
    return [(at % links, frame(order, at % links, at // links, now)) for at in range(count)]


def open_loop(order: dict[str, Any]) -> dict[str, Any]:
    """Send at due times whatever the answers do; a latency runs from the due time to the last byte of the ACK.

    ``held``: all is made, then we wait to be told to begin. ``due``: when each was due, in seconds from then.
    """
    links = _links(order)
    poll, rate, count = select.epoll(), order["rate"], round(order["rate"] * order["seconds"])
    numbers = [link.fileno() for link in links]
    for number in numbers:
        poll.register(number, select.EPOLLIN)
    due: dict[int, deque[float]] = {number: deque() for number in numbers}
    plan, ends = _plan(order, len(links), count), order["transport"] == "tcp"
    if order.get("held"):
        print("ready", flush=True)
        sys.stdin.readline()
    answered: list[tuple[float, float]] = []
    clock, sent, wrong = time.perf_counter, 0, 0
    watch, began = Stopwatch(order["pid"]), clock() + 0.05
    until = began + order["seconds"] + PATIENCE_SECONDS
    while len(answered) < count and (now := clock()) < until:
        while sent < count and began + sent / rate <= now:
            at, told = plan[sent]
            os.write(numbers[at], told)
            due[numbers[at]].append(began + sent / rate)
            sent += 1
        pause = began + sent / rate - clock() if sent < count else 0.1
        select.select([poll], (), (), max(0.0, pause))  # to the microsecond, which epoll's own waiting is not
        for number, _ in poll.poll(0):
            reply = os.read(number, 65536)
            now, waiting = clock(), due[number]
            wrong += not is_ack(reply)
            answered += [(waiting.popleft(), now) for _ in range(reply.count(b"\r") if ends else 1)]
    latencies, moments = [at - due_at for due_at, at in answered], [due_at - began for due_at, _ in answered]
    return {
        "done": len(answered), "sent": sent, "wrong": wrong, "latencies": latencies, "due": moments, **watch.told(),
    }  # fmt: skip


def one_shot(order: dict[str, Any]) -> dict[str, Any]:
    """One connection a message: ``connections`` panels at a time connect, send, read, close, and come again."""
    poll, feeds = select.epoll(), _feeds(order, order["connections"])
    under_way: dict[int, tuple[socket.socket, int]] = {}
    looks_right = _is_frame if order["echo"] else is_ack
    done = wrong = 0

    def send(panel: int) -> None:
        link = tcp_link(order["port"], f"127.0.1.{1 + panel}")  # an address each: 28,000 ports each for the minute after
        link.send(feeds[panel]())
        under_way[link.fileno()] = link, panel
        poll.register(link.fileno(), select.EPOLLIN)

    watch, until = Stopwatch(order["pid"]), time.perf_counter() + order["seconds"]
    try:
        for panel in range(order["connections"]):
            send(panel)
        while time.perf_counter() < until:
            for number, _ in poll.poll(1.0):
                link, panel = under_way.pop(number)
                wrong += not looks_right(link.recv(_READ_BYTES))
                link.close()
                done += 1
                send(panel)
    except StopIteration:
        pass
    return {"done": done, "wrong": wrong, **watch.told()}


def idle(order: dict[str, Any]) -> dict[str, Any]:
    """Connect many panels, one after the other, each with one acknowledged message; hold them until told to end.

    Those behind one address are one account: what is kept of an account is not what a connection holds.
    """
    held, first = [], order.get("first", 0)
    for number in range(first, first + order["connections"]):
        link = tcp_link(order["port"], _source(number))
        link.send(frames(order, number // 1000, 1)[0])
        link.setblocking(True)
        link.settimeout(PATIENCE_SECONDS)
        if not is_ack(link.recv(_READ_BYTES)):
            break
        held.append(link)
    print(json.dumps({"done": len(held)}), flush=True)
    sys.stdin.readline()
    return {"done": len(held)}


MODES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "closed": closed_loop, "open": open_loop, "one-shot": one_shot, "burst": datagrams.burst, "beats": datagrams.beats,
    "idle": idle,
}  # fmt: skip


def main() -> None:
    """Do what the order says."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    order = json.loads(sys.stdin.readline())
    gc.disable()  # what is made here stays until the end
    print(json.dumps(MODES[order["mode"]](order)))


if __name__ == "__main__":
    main()
