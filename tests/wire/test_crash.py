"""kill -9 in the middle of the load, again and again: what was acknowledged is there, once, under one id, and handed on.

``CYCLES`` sets the number of kills: 20 in ``make test``, 100 in ``make crash``.
"""

import os
import random
import re
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from pathlib import Path

from protocols import dc09
from tests.wire.running import KEY, KEYED, PLAIN, Running, frame, read_replies, wait_until

CYCLES = int(os.environ.get("CYCLES", "20"))
PANELS = 8


class _Load:
    """Panels that send different messages, over TCP and UDP, plain and encrypted, and note which were acknowledged."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._lock = threading.Lock()
        self._count = 0
        self.acknowledged: dict[int, list[str]] = defaultdict(list)  # by panel and life, in the order acknowledged
        self.running = threading.Event()

    def _next(self) -> int:
        with self._lock:
            self._count += 1
            return self._count

    def panel(self, number: int) -> None:
        """Send until told to stop or until the receiver is gone."""
        account, key = (KEYED, KEY) if number % 2 else (PLAIN, None)
        kind = socket.SOCK_DGRAM if number % 4 > 1 else socket.SOCK_STREAM
        life = self._next()
        try:
            with socket.socket(socket.AF_INET, kind) as link:
                link.settimeout(2)
                link.connect(("127.0.0.1", self._port))
                while self.running.is_set():
                    count = self._next()
                    tag = f"T{count}"
                    link.sendall(
                        frame(
                            f"{count % 9999 + 1:04d}",
                            f"1602 00 {count % 1000:03d}",
                            account,
                            key,
                            extended=(("S", tag.encode()),),
                        )
                    )
                    reply = read_replies(link, 1, 2)
                    if not reply or b'ACK"' not in reply[0]:
                        return
                    self.acknowledged[life].append(tag)
        except OSError:
            return

    def all_tags(self) -> set[str]:
        """Return every message that was acknowledged."""
        return {tag for tags in self.acknowledged.values() for tag in tags}


def _tag(raw: str, account: str) -> str | None:
    found = dc09.split_datagram(bytes.fromhex(raw))[0]
    assert isinstance(found, dc09.Frame)
    body = dc09.unseal(dc09.open_envelope(found), KEY if account == KEYED else None).body
    match = re.search(rb"\[S(T[0-9]+)\]", body)
    return match[1].decode() if match else None


def test_what_was_acknowledged_survives_every_kill(tmp_path: Path) -> None:
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    with Running(tmp_path) as running:
        load = _Load(running.port)
        for _ in range(CYCLES):
            load.running.set()
            threads = [threading.Thread(target=load.panel, args=(number,)) for number in range(PANELS)]
            for thread in threads:
                thread.start()
            time.sleep(chance.uniform(0.05, 0.4))  # the kill comes at a random instant
            running.kill()
            load.running.clear()
            for thread in threads:
                thread.join()
            running.start()
        acknowledged = load.all_tags()
        stored: Counter[str] = Counter()
        ids: dict[str, str] = {}
        order: dict[str, int] = {}
        for event in running.export():
            tag = _tag(event["data"]["raw"], event["data"]["account"])
            assert tag is not None
            stored[tag] += 1
            ids[tag], order[tag] = event["id"], event["data"]["position"]
        lost, double = acknowledged - set(stored), [tag for tag, count in stored.items() if count > 1]

        def handed_over() -> bool:
            return acknowledged <= {_tag(e["data"]["raw"], e["data"]["account"]) for e in running.events()}

        wait_until(handed_over, 20)
        strangers = [e for e in running.events() if ids.get(_tag(e["data"]["raw"], e["data"]["account"]) or "") != e["id"]]
        sys.stdout.write(
            f"\n{CYCLES} kills, seed {seed}: {len(acknowledged)} acknowledged, {len(stored)} stored, lost {len(lost)}, "
            f"stored twice {len(double)}, handed over under another id {len(strangers)}\n"
        )
        assert len(acknowledged) > CYCLES * PANELS
        assert not lost
        assert not double
        assert not strangers
        assert len(set(ids.values())) == len(ids)
        for tags in load.acknowledged.values():
            positions = [order[tag] for tag in tags]
            assert positions == sorted(positions)
        assert Running.command("journal", "verify", "--config", str(running.config)).returncode == 0
