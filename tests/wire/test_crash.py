"""kill -9 at random instants under mixed load: what was acknowledged is there, once, in order, and handed on.

Panels behave as panels do: what got no ACK before the kill they send again, with the same sequence, encrypted anew, until
it gets one. So at the end every message was acknowledged, and each must be in the journal exactly once, whichever side of a
kill it was written on. Half of the panels speak UDP, half encrypt; messages are urgent, ordinary, or hold an event of each,
with link tests between them. One output follows, another is away until the end. ``CYCLES`` sets the number of kills: 12 in
``make test``, 300 in ``make crash``.
"""

import os
import random
import socket
import sys
import threading
import time
from collections import Counter, defaultdict, deque
from pathlib import Path
from typing import Any, NamedTuple

from protocols import dc09
from receiver import clock
from tests.wire.running import SECRET, Running, read_replies, said, wait_until

CYCLES = int(os.environ.get("CYCLES", "12"))
PANELS = 8
MOST_AT_ONCE = 12
LONGEST_LIFE_SECONDS = 0.4
ACCOUNTS = "account,key\n" + "".join(f"CA{number:02d},{SECRET if number % 2 else ''}\n" for number in range(PANELS))
OUTPUT = '[[outputs]]\nname = "{0}"\ntype = "jsonl"\npath = "{0}.jsonl"\n'
Event = dict[str, Any]


class _Message(NamedTuple):
    """One message: its token, sequence, data and the name it bears; a link test has no name."""

    token: str
    sequence: str
    data: str
    tag: str
    events: int


class _Panel:
    """One account that sends messages of its own: TCP or UDP, in clear or encrypted, some at a time."""

    def __init__(self, number: int, port: int) -> None:
        self._account = f"CA{number:02d}"
        self._key = dc09.Key.parse(SECRET) if number % 2 else None  # a key serves one thread
        self._kind = socket.SOCK_DGRAM if number % 4 > 1 else socket.SOCK_STREAM
        self._port = port
        self._chance = random.Random(number)
        self._count = 0
        self._unanswered: deque[_Message] = deque()  # in the order of their making
        self.acknowledged: list[_Message] = []
        self.link_tests = 0
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
            sequence, tag, account = f"{self._count % 9999 + 1:04d}", f"{self._account}/{self._count}", self._account
            kind = self._chance.randrange(10)
            if kind < 3:
                message = _Message("ADM-CID", sequence, f"#{account}|1121 01 005", tag, 1)
            elif kind < 7:
                message = _Message("ADM-CID", sequence, f"#{account}|1602 00 000", tag, 1)
            elif kind < 9:
                message = _Message(
                    "SIA-DCS", sequence, f"#{account}|Nri1/HA5/CL7", tag, 2
                )  # an urgent event, an ordinary one
            else:
                message = _Message("NULL", sequence, "", "", 0)
            self._unanswered.append(message)

    def _encode(self, message: _Message) -> bytes:
        address, now = dc09.Address(None, "0", self._account), clock.now_us() // clock.SECOND_US
        extended = (("S", message.tag.encode()),) if message.tag else ()
        data = message.data.encode()
        return dc09.encode(message.token, message.sequence, address, data, extended, panel_time=now, key=self._key)

    def _exchange(self, link: socket.socket, patience_seconds: float) -> bool:
        """Send what is unanswered (a datagram holds one) and note each ACK; return whether all that was sent got one."""
        sent = [self._encode(message) for message in self._unanswered]
        if self._kind == socket.SOCK_STREAM:
            link.sendall(b"".join(sent))
        else:
            sent = sent[:1]
            link.send(sent[0])
        replies = read_replies(link, len(sent), patience_seconds)
        for reply in replies:
            message = self._unanswered[0]
            assert said(reply, self._key) == f"ACK {message.sequence}"
            if message.tag:
                self.acknowledged.append(message)
            else:
                self.link_tests += 1
            self._unanswered.popleft()
        return len(replies) == len(sent)


def _live(panels: list[_Panel], going: threading.Event, patience_seconds: float) -> list[threading.Thread]:
    threads = [threading.Thread(target=panel.run, args=(going, patience_seconds)) for panel in panels]
    for thread in threads:
        thread.start()
    return threads


def _live_once(panels: list[_Panel], running: Running, chance: random.Random) -> None:
    """Put the receiver under load and kill it at a random instant."""
    going = threading.Event()
    going.set()
    threads = _live(panels, going, 0.2)  # after a kill nobody answers a datagram
    time.sleep(chance.uniform(0.0, LONGEST_LIFE_SECONDS))
    running.kill()
    going.clear()
    for thread in threads:
        thread.join()


def _settle(panels: list[_Panel]) -> None:
    """Let all panels come to an end."""
    for thread in _live(panels, threading.Event(), 10.0):
        thread.join()


def _by_tag(events: list[Event]) -> dict[str, list[Event]]:
    found: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        found[event["data"]["extended"]["site_name"]].append(event)
    return found


def _check_order(events: list[Event], where: str) -> None:
    """In each lane of each account, positions only grow, whatever was handed over again left out."""
    newest: dict[tuple[str, bool], int] = {}
    seen: set[str] = set()
    for event in events:
        data = event["data"]
        lane = data["account"], data["priority"] == 1
        if event["id"] not in seen:
            assert data["position"] > newest.get(lane, 0), (where, lane, data["position"])
            newest[lane] = data["position"]
        seen.add(event["id"])


def _wait_for(running: Running, file: Path, ids: set[str]) -> None:
    wait_until(lambda: {event["id"] for event in running.events(file=file)} >= ids, 90)


def _check_output(events: list[Event], ids: set[str], where: str) -> int:
    """Every event reached the output, in order, under its one id; return how many were handed over again."""
    assert {event["id"] for event in events} == ids, where
    _check_order(events, where)
    content: dict[str, Event] = {}
    for event in events:
        assert content.setdefault(event["id"], event) == event, "one id, two events"
    return len(events) - len(ids)


def test_what_was_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    sys.stdout.write(f"\nseed {seed}\n")
    chance = random.Random(seed)
    behind = tmp_path / "behind.jsonl"
    behind.mkdir()  # an output that can not be written, until the end
    with Running(tmp_path, accounts=ACCOUNTS, outputs=OUTPUT.format("events") + OUTPUT.format("behind")) as running:
        panels = [_Panel(number, running.port) for number in range(PANELS)]
        for _ in range(CYCLES):
            _live_once(panels, running, chance)
            running.start()
        behind.rmdir()
        _settle(panels)
        acknowledged = {message.tag: message for panel in panels for message in panel.acknowledged}
        events = running.export()
        stored = _by_tag(events)
        lost = [tag for tag, message in acknowledged.items() if len(stored[tag]) < message.events]
        twice = [tag for tag, message in acknowledged.items() if len(stored[tag]) > message.events]
        ids = {event["id"] for event in events}
        outputs = {name: tmp_path / f"{name}.jsonl" for name in ("events", "behind")}
        for file in outputs.values():
            _wait_for(running, file, ids)
        again = {name: _check_output(running.events(file=file), ids, name) for name, file in outputs.items()}
        sys.stdout.write(
            f"{CYCLES} kills: {len(acknowledged)} messages ({len(events)} events) acknowledged, "
            f"{sum(panel.sent_again for panel in panels)} sent again after a kill; {len(lost)} lost, "
            f"{len(twice)} stored twice, {again['events']} events handed over again under their ids\n"
        )
        assert len(acknowledged) > CYCLES * PANELS / 2
        assert sum(panel.link_tests for panel in panels) > 0
        assert not lost
        assert not twice
        assert stored.keys() == acknowledged.keys()
        assert len(ids) == len(events)
        assert Counter(event["data"]["position"] for event in events).most_common(1)[0][1] == 1
        _check_order(events, "journal")
        for panel in panels:
            positions = [stored[message.tag][0]["data"]["position"] for message in panel.acknowledged]
            assert positions == sorted(positions)
        assert running.command("journal", "verify", "--config", str(running.config)).returncode == 0
        assert not list((tmp_path / "data").glob("damaged-*")), "a crash was taken for damage"
