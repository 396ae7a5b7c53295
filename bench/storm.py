"""How long a duress waits behind a storm of link tests: ``python -m bench.storm``.

14,400 panels with a key each send a link test at once, as after a power cut: over UDP from one socket, over TCP sixteen
on each of 900 connections. Right behind them 20 others send a duress. The first storm is of panels not heard before.
"""

import os
import socket
import statistics
import time

from bench import servers
from bench.big import write_register
from bench.frames import frame
from bench.servers import Server, Setup

PANELS, DURESS, CONNECTIONS, STORMS = 14_400, 20, 900, 4
_BUFFER_BYTES, _BUFFER_FORCED = 8 << 20, 33  # SO_RCVBUFFORCE of Linux: answers are not lost at the generator
_WAIT_SECONDS = 30.0


def _connect(server: Server, kind: socket.SocketKind) -> socket.socket:
    link = socket.socket(socket.AF_INET, kind)
    link.connect(("127.0.0.1", server.port))
    link.settimeout(_WAIT_SECONDS)
    return link


def _answer(link: socket.socket, frames: int) -> None:
    """Wait until so many frames were answered."""
    while frames > 0:
        answer = link.recv(1 << 16)
        if not answer:
            raise RuntimeError("the receiver closed a connection")
        frames -= answer.count(b"\r")


def storm(server: Server, kind: socket.SocketKind, number: int) -> tuple[list[float], float]:
    """Send one storm; return the milliseconds until each duress was acknowledged, and until everything was."""
    now = int(time.time())  # noqa: TID251 - the generator is a panel with a clock of its own
    order = {"key": "each", "large": 1, "round": number, "urgent_each": 1}
    tests = [frame(order | {"token": "NULL"}, panel, number, now) for panel in range(PANELS)]
    duress = [frame(order | {"token": "ADM-CID"}, PANELS + panel, number, now) for panel in range(DURESS)]
    links = [_connect(server, kind) for _ in range(CONNECTIONS if kind is socket.SOCK_STREAM else 1)]
    panels = [_connect(server, kind) for _ in range(DURESS)]
    time.sleep(0.5)  # all of them are let in
    each = PANELS // len(links)
    if kind is socket.SOCK_DGRAM:
        links[0].setsockopt(socket.SOL_SOCKET, _BUFFER_FORCED, _BUFFER_BYTES)
    began = time.perf_counter()
    for at, link in enumerate(links):
        if kind is socket.SOCK_STREAM:
            link.sendall(b"".join(tests[at * each : (at + 1) * each]))
        else:
            for test in tests:
                link.send(test)
    waited, due = [], time.perf_counter()
    for panel, signal in zip(panels, duress, strict=True):
        panel.sendall(signal)
    for panel in panels:
        _answer(panel, 1)
        waited.append((time.perf_counter() - due) * 1000)
    for link in links:
        _answer(link, each)
    took = (time.perf_counter() - began) * 1000
    for link in [*links, *panels]:
        link.close()
    return waited, took


def main() -> None:
    """Measure, and print a line for each storm."""

    with servers.scratch() as folder:
        write_register(folder / "register.csv", PANELS + DURESS, PANELS + DURESS, 900)
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with servers.receiver(Setup(register=folder / "register.csv")) as ours:
                os.sched_setaffinity(0, {servers.GENERATOR_CORE})
                for number in range(STORMS):
                    waited, took = storm(ours, kind, number)
                    name, heard = (
                        "UDP" if kind is socket.SOCK_DGRAM else "TCP",
                        "heard before" if number else "not heard before",
                    )
                    told = f"{statistics.median(waited):4.0f} ms, {max(waited):4.0f} at most"
                    print(
                        f"{name}, {heard:16}  duress acknowledged after {told}; all link tests after {took:5.0f} ms",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
