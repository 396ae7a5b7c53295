"""Those who attack a receiver on this machine, each in a process of its own, for so many seconds and not longer.

``python -m tests.wire.attackers KIND PORT SECONDS`` says ``ready`` when the attack is under way and at its end one JSON
object with what was sent and what came back. All talk to 127.0.0.1 only, from addresses in 127.0.0.0/8.
"""

import contextlib
import json
import os
import random
import select
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from protocols import dc09
from tests.wire import running

SLOW_CONNECTIONS = 2000
UNKNOWN, KEYED = "F00D", "2B02"
_WRONG_KEY = dc09.Key(bytes(range(32)))
_NICE = 10  # in the field an attacker has a machine of his own: here he must not take the processor from the receiver


@dataclass
class Score:
    """What an attack did."""

    connections: int = 0
    refused: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    frames: int = 0


def _link(port: int, source: str = "127.0.0.1") -> socket.socket:
    return running.connect_from(source, port, timeout=2)


def _ready() -> None:
    print("ready", flush=True)


def slow(port: int, until: float, score: Score, count: int = SLOW_CONNECTIONS, source: str = "127.0.0.1") -> None:
    """Hold many connections, each with a frame begun and one more byte a second; who is closed comes again."""
    links: list[socket.socket | None] = [None] * count
    started = False
    while time.monotonic() < until:
        turn = time.monotonic()
        for place, link in enumerate(links):
            if time.monotonic() > until:
                break
            if link is None:
                with contextlib.suppress(OSError):
                    links[place] = link = _link(port, source)
                    link.setblocking(False)
                    link.send(b'\n00000FFF"')
                    score.connections += 1
                continue
            try:
                score.sent_bytes += link.send(b"x")
            except BlockingIOError:
                continue
            except OSError:
                score.refused += 1
                link.close()
                links[place] = None
        if not started:
            started = True
            _ready()
        time.sleep(max(0.0, min(until, turn + 1.0) - time.monotonic()))
    for link in links:
        if link is not None:
            link.close()


def _pour(port: int, until: float, score: Score, pieces: Iterator[bytes], source: str, most_bytes: int) -> None:
    """Send pieces as fast as they are taken, reading nothing; connect again whenever the connection is closed."""
    while time.monotonic() < until and score.sent_bytes < most_bytes:
        try:
            with _link(port, source) as link:
                score.connections += 1
                while time.monotonic() < until and score.sent_bytes < most_bytes:
                    piece = next(pieces)
                    link.sendall(piece)
                    score.sent_bytes += len(piece)
                    score.frames += piece.count(b"\r")
        except OSError:
            score.refused += 1


def line(port: int, until: float, score: Score, megabytes: int = 20) -> None:
    """Send one line without an end; where it is cut off, go on with the rest of it on a new connection."""
    _ready()
    piece = b"\n" + b"A" * 65535
    _pour(port, until, score, iter(lambda: piece, b""), "127.0.0.1", megabytes * 1_000_000)


def garbage(port: int, until: float, score: Score) -> None:
    """Send random bytes, line feeds and half headers among them."""
    _ready()
    chance = random.Random(1)
    pieces = [chance.randbytes(4000) for _ in range(20)] + [b'\n00000FFF"' * 400, b"\n" * 4000, b'\nFFFF0010"' * 300]
    _pour(port, until, score, iter(lambda: chance.choice(pieces), b""), "127.0.0.1", sys.maxsize)


def unknown(port: int, until: float, score: Score) -> None:
    """Send whole frames of an account that nobody registered."""
    _ready()
    address = dc09.Address(None, "0", UNKNOWN)
    piece = b"".join(dc09.encode("ADM-CID", f"{n:04d}", address, b"#F00D|1130 01 001") for n in range(40))
    _pour(port, until, score, iter(lambda: piece, b""), "127.0.0.1", sys.maxsize)


def junk(port: int, until: float, score: Score) -> None:
    """Send long encrypted frames for an account that has a key, under a key that does not fit: dear to refuse."""
    _ready()
    data = b"#2B02|1130 01 001][Sjunk" + b"j" * 1500
    piece = dc09.encode("ADM-CID", "0001", dc09.Address(None, "0", KEYED), data, (), 1_790_000_000, _WRONG_KEY)
    _pour(port, until, score, iter(lambda: piece, b""), "127.0.0.1", sys.maxsize)


def connects(port: int, until: float, score: Score) -> None:
    """Connect and hang up, as fast as it goes."""
    _ready()
    while time.monotonic() < until:
        try:
            with _link(port):
                score.connections += 1
        except OSError:
            score.refused += 1


def forged(port: int, until: float, score: Score) -> None:
    """Send datagrams from thousands of addresses: garbage, strangers, tokens of one letter, our own replies, junk."""
    _ready()
    chance = random.Random(2)
    stranger, known = dc09.Address(None, "0", UNKNOWN), dc09.Address(None, "0", "1A01")
    datagrams = [
        b"\xff" * 30, b"\n" * 1400, dc09.encode("ADM-CID", "0001", stranger, b"#F00D|1130 01 001"),
        dc09.wrap(b'"X"0001L0#1A01[]'), dc09.encode("NO-SUCH-TOKEN", "0001", known), dc09.wrap(b'"ACK"0001L0#1A01[]'),
        dc09.encode("ADM-CID", "0001", dc09.Address(None, "0", KEYED), b"#2B02|1130 01 001", (), 1_790_000_000, _WRONG_KEY),
    ]  # fmt: skip
    links: list[socket.socket] = []
    while time.monotonic() < until:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.bind((f"127.{chance.randrange(1, 255)}.{chance.randrange(256)}.{chance.randrange(1, 255)}", 0))
            link.connect(("127.0.0.1", port))
            for datagram in datagrams:
                with contextlib.suppress(OSError):
                    score.sent_bytes += link.send(datagram)
                    score.frames += 1
            links.append(link.dup())
        if len(links) == 200:
            _hear(links, score)
    _hear(links, score)


def _hear(links: list[socket.socket], score: Score) -> None:
    """Count what came back, and let the sockets go."""
    poll = select.poll()
    by_number = {link.fileno(): link for link in links}
    for number in by_number:
        poll.register(number, select.POLLIN)
    while heard := poll.poll(50):
        for number, _ in heard:
            with contextlib.suppress(OSError):
                score.received_bytes += len(by_number[number].recv(65536, socket.MSG_DONTWAIT))
    for link in links:
        link.close()
    links.clear()


def unread(port: int, until: float, score: Score) -> None:
    """Send good link tests on many connections and never read an answer."""
    _ready()
    piece = dc09.encode("NULL", "0000", dc09.Address(None, "0", "1A01")) * 100
    links: list[socket.socket] = []
    while time.monotonic() < until:
        while len(links) < 50:
            link = _link(port)
            link.setblocking(False)
            links.append(link)
            score.connections += 1
        for link in list(links):
            try:
                score.sent_bytes += link.send(piece)
            except BlockingIOError:
                continue
            except OSError:
                score.refused += 1
                links.remove(link)
                link.close()
        time.sleep(0.01)


KINDS: dict[str, Callable[[int, float, Score], None]] = {
    "slow": slow, "line": line, "garbage": garbage, "unknown": unknown, "junk": junk, "connects": connects, "forged": forged,
    "unread": unread,
}  # fmt: skip


def main() -> None:
    """Run one attack."""
    kind, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    os.nice(_NICE)
    score = Score()
    KINDS[kind](port, time.monotonic() + seconds, score)
    print(json.dumps(score.__dict__), flush=True)


if __name__ == "__main__":
    main()
