"""The load: panels on bare sockets, one message in flight each, every frame made before the clock starts.

Runs as a process of its own, told by one JSON object on standard input, answering with one on standard output. Its own
CPU share is in the answer: below 1 it was waiting for the server and is not the limit.
"""

import json
import select
import socket
import sys
import time
from typing import Any

from protocols import dc09

_CHECK_EACH = 16  # replies looked into, one of so many


def frames(order: dict[str, Any], connection: int, count: int) -> list[bytes]:
    """Return up to 9,999 different messages of one panel; ``round``, as the partition, keeps the rounds of one run apart."""
    account = f"{0xA000 + connection:04X}"
    key = dc09.Key.parse(order["key"]) if order["key"] else None
    now = int(time.time())  # noqa: TID251 - the generator is a panel with a clock of its own
    address = dc09.Address(None, "0", account)
    if order["token"] == dc09.LINK_TEST:
        return [dc09.encode("NULL", "0000", address, panel_time=now, key=key)] * count
    place = f"{order['round'] % 100:02d}"
    urgent_each = order.get("urgent_each", count + 1)
    codes = ["1121" if n % urgent_each == urgent_each - 1 else "1130" for n in range(count)]
    return [
        dc09.encode(
            "ADM-CID", f"{n % 9999 + 1:04d}", address, f"#{account}|{code} {place} {n % 1000:03d}".encode(), (), now, key
        )
        for n, code in enumerate(codes)
    ]


def _looks_right(order: dict[str, Any], reply: bytes, sent: bytes) -> bool:
    return reply == sent if order["echo"] else b'ACK"' in reply[9:16]


def _tcp_link(port: int) -> socket.socket:
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    return link


def _udp_link(port: int) -> socket.socket:
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.connect(("127.0.0.1", port))
    link.setblocking(False)
    return link


def closed_loop(order: dict[str, Any]) -> dict[str, Any]:
    """Keep one message in flight on each connection, or from each UDP port, until the time is over."""
    connect = _udp_link if order["mode"] == "udp" else _tcp_link
    poll = select.epoll()
    links: dict[int, tuple[socket.socket, list[bytes]]] = {}
    for connection in range(order["connections"]):
        link = connect(order["port"])
        links[link.fileno()] = link, frames(order, connection, order["frames"])
        poll.register(link.fileno(), select.EPOLLIN)
    place = dict.fromkeys(links, 0)
    done = wrong = 0
    cpu, began = time.process_time(), time.perf_counter()
    until = began + order["seconds"]
    for link, prepared in links.values():
        link.send(prepared[0])
    exhausted = False
    while not exhausted and time.perf_counter() < until:
        for number, _ in poll.poll(1.0):
            link, prepared = links[number]
            reply = link.recv(4096)
            at = place[number]
            done += 1
            if at % _CHECK_EACH == 0 and not _looks_right(order, reply, prepared[at]):
                wrong += 1
            at += 1
            if at == len(prepared):
                exhausted = True
                break
            place[number] = at
            link.send(prepared[at])
    wall, spent = time.perf_counter() - began, time.process_time() - cpu
    for link, _ in links.values():
        link.close()
    return {"done": done, "wrong": wrong, "seconds": wall, "generator_cpu": spent / wall, "exhausted": exhausted}


def open_loop(order: dict[str, Any]) -> dict[str, Any]:
    """Send at due times whatever the answers do; a latency runs from the due time to the last byte of the ACK."""
    poll = select.epoll()
    links: list[socket.socket] = []
    waiting: dict[int, tuple[socket.socket, list[float]]] = {}
    count = round(order["rate"] * order["seconds"])
    for _ in range(order["connections"]):
        link = _tcp_link(order["port"])
        links.append(link)
        waiting[link.fileno()] = (link, [])
        poll.register(link.fileno(), select.EPOLLIN)
    prepared = [frames(order, connection, count // len(links) + 1) for connection in range(len(links))]
    latencies: list[float] = []
    began = time.perf_counter() + 0.05
    sent = 0
    cpu = time.process_time()
    while len(latencies) < count and time.perf_counter() < began + order["seconds"] + 5:
        now = time.perf_counter()
        while sent < count and began + sent / order["rate"] <= now:
            link = links[sent % len(links)]
            link.send(prepared[sent % len(links)][sent // len(links)])
            waiting[link.fileno()][1].append(began + sent / order["rate"])
            sent += 1
        for number, _ in poll.poll(0):
            link, due = waiting[number]
            replies = link.recv(65536).count(b"\r")
            now = time.perf_counter()
            for _ in range(replies):
                latencies.append(now - due.pop(0))
    wall = time.perf_counter() - began
    spent = (time.process_time() - cpu) / wall
    return {
        "done": len(latencies),
        "sent": sent,
        "latencies": latencies,
        "seconds": wall,
        "generator_cpu": spent,
    }


def one_shot(order: dict[str, Any]) -> dict[str, Any]:
    """One connection a message: connect, send, read, close."""
    prepared = frames(order, 0, order["frames"])
    done = 0
    cpu, began = time.process_time(), time.perf_counter()
    for frame in prepared:
        with socket.create_connection(("127.0.0.1", order["port"])) as link:
            link.send(frame)
            done += bool(link.recv(4096))
        if time.perf_counter() - began > order["seconds"]:
            break
    wall = time.perf_counter() - began
    return {
        "done": done,
        "wrong": 0,
        "seconds": wall,
        "generator_cpu": (time.process_time() - cpu) / wall,
        "exhausted": done == len(prepared),
    }


_MODES = {"tcp": closed_loop, "udp": closed_loop, "open-loop": open_loop, "one-shot": one_shot}

if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    json.dump(_MODES[wanted["mode"]](wanted), sys.stdout)
