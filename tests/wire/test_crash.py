"""kill -9 in the middle of the load, again and again: what was acknowledged is there, once, under one id, and handed on.

Panels behave as panels do: what got no ACK before the kill they send again, with the same sequence, encrypted anew, until
it gets one. So at the end every message was acknowledged, and each must be in the journal exactly once, whichever side of a
kill it was written on. ``CYCLES`` sets the number of kills: 20 in ``make test``, 100 in ``make crash``.
"""

import os
import random
import socket
import sys
import threading
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any

from protocols import dc09
from tests.wire.running import SECRET, Running, frame, read_replies, said, wait_until

CYCLES = int(os.environ.get("CYCLES", "20"))
PANELS = 8
MOST_AT_ONCE = 12
ACCOUNTS = "account,key\n" + "".join(f"CA{number:02d},{SECRET if number % 2 else ''}\n" for number in range(PANELS))


class _Panel:
    """One account that sends messages of its own: TCP or UDP, in clear or encrypted, some at a time."""

    def __init__(self, number: int, port: int) -> None:
        self._account = f"CA{number:02d}"
        self._key = dc09.Key.parse(SECRET) if number % 2 else None  # a key serves one thread
        self._kind = socket.SOCK_DGRAM if number % 4 > 1 else socket.SOCK_STREAM
        self._port = port
        self._chance = random.Random(number)
        self._count = 0
        self._unanswered: deque[tuple[str, str]] = deque()  # sequence and tag, in the order of their making
        self.acknowledged: list[str] = []
        self.sent_again = 0

    def run(self, going: threading.Event, patience_seconds: float) -> None:
        """Send until told to stop or until the receiver is gone; begin with what is still unanswered."""
        self.sent_again += len(self._unanswered)
        try:
            with socket.socket(socket.AF_INET, self._kind) as link:
                link.settimeout(5)
                link.connect(("127.0.0.1", self._port))
                while self._unanswered or going.is_set():
                    if not self._unanswered:
                        self._make(self._chance.randint(1, MOST_AT_ONCE if self._kind == socket.SOCK_STREAM else 1))
                    if not self._exchange(link, patience_seconds):
                        return
        except OSError:
            return

    def _make(self, count: int) -> None:
        for _ in range(count):
            self._count += 1
            self._unanswered.append((f"{self._count % 9999 + 1:04d}", f"{self._account}/{self._count}"))

    def _exchange(self, link: socket.socket, patience_seconds: float) -> bool:
        """Send what is unanswered (a datagram holds one) and note each ACK; return whether all that was sent got one."""
        sent = [
            frame(sequence, "1121 01 005", self._account, self._key, extended=(("S", tag.encode()),))
            for sequence, tag in self._unanswered
        ]
        if self._kind == socket.SOCK_STREAM:
            link.sendall(b"".join(sent))
        else:
            sent = sent[:1]
            link.send(sent[0])
        replies = read_replies(link, len(sent), patience_seconds)
        for reply in replies:
            sequence, tag = self._unanswered[0]
            assert said(reply, self._key) == f"ACK {sequence}"
            self.acknowledged.append(tag)
            self._unanswered.popleft()
        return len(replies) == len(sent)


def _live_once(panels: list[_Panel], running: Running, chance: random.Random | None) -> None:
    """Put the receiver under load and kill it after a number of ACKs; without ``chance`` let all panels come to an end."""
    going = threading.Event()
    if chance is not None:
        going.set()
    patience_seconds = 10.0 if chance is None else 0.5  # after a kill nobody answers a datagram
    threads = [threading.Thread(target=panel.run, args=(going, patience_seconds)) for panel in panels]
    for thread in threads:
        thread.start()
    if chance is not None:
        enough = sum(len(panel.acknowledged) for panel in panels) + chance.randint(1, 800)
        wait_until(lambda: sum(len(panel.acknowledged) for panel in panels) >= enough)
        running.kill()
        going.clear()
    for thread in threads:
        thread.join()


def _by_tag(events: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        found[event["data"]["extended"]["site_name"]].append(event)
    return found


def test_what_was_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    sys.stdout.write(f"\nseed {seed}\n")
    chance = random.Random(seed)
    with Running(tmp_path, accounts=ACCOUNTS) as running:
        panels = [_Panel(number, running.port) for number in range(PANELS)]
        for _ in range(CYCLES):
            _live_once(panels, running, chance)
            running.start()
        _live_once(panels, running, None)
        acknowledged = {tag for panel in panels for tag in panel.acknowledged}
        stored = _by_tag(running.export())
        wait_until(lambda: acknowledged <= _by_tag(running.events()).keys(), 30)
        handed_over = _by_tag(running.events())

        lost = acknowledged - stored.keys()
        twice = {tag for tag, events in stored.items() if len(events) > 1}
        strangers = {tag for tag, events in handed_over.items() if {e["id"] for e in events} != {stored[tag][0]["id"]}}
        again = sum(panel.sent_again for panel in panels)
        sys.stdout.write(
            f"{CYCLES} kills: {len(acknowledged)} messages acknowledged, {again} of them sent again after a kill; "
            f"{len(lost)} lost, {len(twice)} stored twice, {len(strangers)} under another id, "
            f"{sum(map(len, handed_over.values())) - len(handed_over)} handed over again\n"
        )
        assert len(acknowledged) > CYCLES * PANELS
        assert not lost
        assert not twice
        assert not strangers
        assert stored.keys() == acknowledged
        assert Counter(events[0]["id"] for events in stored.values()).most_common(1)[0][1] == 1
        for panel in panels:
            positions = [stored[tag][0]["data"]["position"] for tag in panel.acknowledged]
            assert positions == sorted(positions)
        assert running.command("journal", "verify", "--config", str(running.config)).returncode == 0
