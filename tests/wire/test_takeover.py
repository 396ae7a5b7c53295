"""A new process takes the ports over: nobody is refused, nothing acknowledged is lost, every message gets its ACK.

``TAKE_OVERS`` sets how often it happens under load: 3 in ``make test``.
"""

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from protocols import dc09
from tests.wire.running import SECRET, Running, frame, read_replies, said, wait_until

TAKE_OVERS = int(os.environ.get("TAKE_OVERS", "3"))
PANELS = 9
ACCOUNTS = "account,key\n" + "".join(f"CA{number:02d},{SECRET if number % 2 else ''}\n" for number in range(PANELS))


class Relay(Running):
    """A receiver that is followed by another on the same ports."""

    def successor(self, *more: str) -> "subprocess.Popen[bytes]":
        """Start a process that takes over."""
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "receiver", "serve", "--config", str(self.config), "--take-over", *more]
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL)

    def take_over(self) -> int:
        """Let a new process take over; return the exit code of the old one."""
        old, self.process = self.process, self.successor()
        assert old is not None
        code = old.wait(20)
        wait_until(self._ready, 20)
        return code


class _Panel(threading.Thread):
    """An account that sends one message after the other: over one connection, over one each, or as datagrams."""

    def __init__(self, number: int, port: int, going: threading.Event) -> None:
        super().__init__()
        self.account = f"CA{number:02d}"
        self._key = dc09.Key.parse(SECRET) if number % 2 else None
        self._way = (self._one_shot, self._long_lived, self._datagrams)[number % 3]
        self._port, self._going = port, going
        self._link: socket.socket | None = None
        self.acknowledged: list[str] = []
        self.moments: list[float] = []
        self.troubles: Counter[str] = Counter()

    def run(self) -> None:
        number = 0
        while self._going.is_set():
            number += 1
            sequence = f"{number % 9999 + 1:04d}"
            sent = frame(sequence, "1121 01 005", self.account, self._key)
            while not self._told(sent, sequence):  # as panels do: again, until there is an ACK
                self.troubles["sent again"] += 1
            self.acknowledged.append(sequence)
            self.moments.append(time.monotonic())
        if self._link is not None:
            self._link.close()

    def _told(self, sent: bytes, sequence: str) -> bool:
        try:
            replies = self._way(sent)
        except ConnectionRefusedError:
            self.troubles["refused"] += 1
            return False
        except OSError:
            self.troubles["broken"] += 1
            replies = []
        if not replies and self._link is not None:
            self._link.close()
            self._link = None
        return bool(replies) and said(replies[0], self._key) == f"ACK {sequence}"

    def _one_shot(self, sent: bytes) -> list[bytes]:
        with socket.create_connection(("127.0.0.1", self._port), timeout=10) as link:
            link.sendall(sent)
            return read_replies(link, 1, 5)

    def _long_lived(self, sent: bytes) -> list[bytes]:
        if self._link is None:
            self._link = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self._link.sendall(sent)
        return read_replies(self._link, 1, 5)

    def _datagrams(self, sent: bytes) -> list[bytes]:
        if self._link is None:
            self._link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._link.connect(("127.0.0.1", self._port))
        self._link.send(sent)
        return read_replies(self._link, 1, 2)


def test_processes_follow_each_other_under_load_and_no_panel_notices(tmp_path: Path) -> None:
    chance = random.Random(8)
    with Relay(tmp_path, accounts=ACCOUNTS) as running:
        going = threading.Event()
        going.set()
        panels = [_Panel(number, running.port, going) for number in range(PANELS)]
        for panel in panels:
            panel.start()
        codes = []
        for _ in range(TAKE_OVERS):
            time.sleep(chance.uniform(0.1, 0.5))
            codes.append(running.take_over())
        wanted = sum(len(panel.acknowledged) for panel in panels) + 20 * PANELS
        wait_until(lambda: sum(len(panel.acknowledged) for panel in panels) > wanted)
        going.clear()
        for panel in panels:
            panel.join(30)
        moments = sorted(moment for panel in panels for moment in panel.moments)
        gap = max(after - before for before, after in zip(moments, moments[1:], strict=False))
        troubles = sum((panel.troubles for panel in panels), Counter())
        sys.stdout.write(
            f"\n{TAKE_OVERS} take-overs: {len(moments)} messages acknowledged, longest time without an ACK {gap * 1000:.0f} ms, "
            f"{troubles['refused']} connections refused, {troubles['broken']} broken, {troubles['sent again']} messages sent again\n"
        )
        assert codes == [0] * TAKE_OVERS
        assert troubles["refused"] == 0
        stored = Counter((event["subject"], event["data"]["sequence"]) for event in running.export())
        assert {(panel.account, sequence) for panel in panels for sequence in panel.acknowledged} <= stored.keys()
        assert max(stored.values()) == 1
        assert running.stop() == 0
