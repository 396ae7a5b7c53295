"""Going down under load: nothing acknowledged is lost, no accepted frame is left without its answer, exit 0 in time.

``LONG=1`` adds a disk that hangs for ever, which takes ten seconds.
"""

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from protocols import dc09
from tests.wire.running import SECRET, Running, frame, said, wait_until
from tests.wire.shim import Dial, compile_shim, laid_over

PANELS = 8
IDLE = 1000
HANGING_SYNC = """
int fdatasync(int file) {
    while (dial && *dial) usleep(10000);
    return syscall(SYS_fdatasync, file);
}
int fsync(int file) {
    while (dial && *dial) usleep(10000);
    return syscall(SYS_fsync, file);
}
"""
ACCOUNTS = "account,key\nDEAF,\n" + "".join(f"CA{number:02d},{SECRET if number % 2 else ''}\n" for number in range(PANELS))
OUTPUTS = (
    '[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "events.jsonl"\n'
    '[[outputs]]\nname = "dead"\ntype = "webhook"\nurl = "http://127.0.0.1:1/"\n'
    '[[outputs]]\nname = "stuck"\ntype = "jsonl"\npath = "-"\n'
)


class _Panel(threading.Thread):
    """An account that sends without waiting for answers, and reads all there are until the receiver has gone."""

    def __init__(self, number: int, port: int) -> None:
        super().__init__()
        self.account = f"CA{number:02d}"
        self._key = dc09.Key.parse(SECRET) if number % 2 else None
        self._kind = socket.SOCK_DGRAM if number % 4 > 1 else socket.SOCK_STREAM
        self._port = port
        self.acknowledged: list[str] = []

    def run(self) -> None:
        with socket.socket(socket.AF_INET, self._kind) as link:
            link.connect(("127.0.0.1", self._port))
            link.settimeout(3.0)
            sender = threading.Thread(target=self._send, args=(link,))
            sender.start()
            self._read(link)
            sender.join()

    def _send(self, link: socket.socket) -> None:
        try:
            for number in range(1, 10_000):
                link.sendall(frame(f"{number:04d}", "1121 01 005", self.account, self._key))
                if self._kind == socket.SOCK_DGRAM or number % 20 == 0:
                    time.sleep(0.002)
        except OSError:
            return

    def _read(self, link: socket.socket) -> None:
        framer = dc09.Framer()
        try:
            while data := self._next(link):
                for reply in framer.feed(data):
                    verdict, sequence = said(reply.raw, self._key).split()
                    assert verdict == "ACK"
                    self.acknowledged.append(sequence)
        except OSError:
            return

    def _next(self, link: socket.socket) -> bytes:
        """Return what came; that nobody listens any more is told before the last answers in a UDP socket's queue."""
        while True:
            try:
                return link.recv(65536)
            except ConnectionRefusedError:
                if self._kind == socket.SOCK_STREAM:
                    raise
                link.setblocking(False)  # what lies there, and no more


@contextmanager
def _crowd(port: int, count: int) -> Iterator[None]:
    """Hold connections that say nothing."""
    links = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(count)]
    try:
        yield
    finally:
        for link in links:
            link.close()


def _never_reads(running: Running) -> socket.socket:
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect(("127.0.0.1", running.port))
    link.setblocking(False)
    sent = b"".join(frame(f"{number:04d}", account="DEAF") for number in range(1, 5000))
    try:
        for _ in range(100):
            link.send(sent)
    except BlockingIOError:
        return link
    return link


def test_what_was_stored_was_answered_and_what_was_answered_is_stored(tmp_path: Path) -> None:
    running = Running(tmp_path, accounts=ACCOUNTS, outputs=OUTPUTS)
    read, write = socket.socketpair()  # standard output that nobody reads
    running.start(stdout=write.fileno())
    with read, write, _crowd(running.port, IDLE), _never_reads(running):
        panels = [_Panel(number, running.port) for number in range(PANELS)]
        for panel in panels:
            panel.start()
        wait_until(lambda: all(len(panel.acknowledged) > 50 for panel in panels), 20)
        began = time.monotonic()
        running.signal(signal.SIGTERM)
        time.sleep(0.01)
        running.signal(signal.SIGTERM)  # the impatient ask twice
        running.signal(signal.SIGINT)
        assert running.process is not None
        assert running.process.wait(15) == 0
        took = time.monotonic() - began
        for panel in panels:
            panel.join(15)
    sys.stdout.write(f"\nended {took:.2f} s after SIGTERM, {sum(len(p.acknowledged) for p in panels)} acknowledged\n")
    assert took < 10
    assert "receiver stopped" in running.log()
    stored: dict[str, set[str]] = {}
    for event in running.export():
        stored.setdefault(event["subject"], set()).add(event["data"]["sequence"])
    for panel in panels:
        assert stored[panel.account] == set(panel.acknowledged), panel.account


def test_a_slow_disk_is_waited_for_and_the_frames_in_hand_get_their_answer(tmp_path: Path) -> None:
    with Running(tmp_path) as running, running.connect() as link:
        disk = sqlite3.connect(tmp_path / "data" / "journal.sqlite", isolation_level=None)
        disk.execute("BEGIN IMMEDIATE")  # nobody else can commit while this lasts
        link.sendall(b"".join(frame(f"{number:04d}") for number in range(1, 21)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
            datagrams.connect(("127.0.0.1", running.port))
            datagrams.send(frame("0021"))
            time.sleep(0.3)
            running.signal(signal.SIGTERM)
            time.sleep(0.7)
            link.sendall(frame("0022"))  # too late: not stored, not answered, sent again to whoever is next
            disk.execute("ROLLBACK")
            disk.close()
            datagrams.settimeout(5)
            assert said(datagrams.recv(4096)) == "ACK 0021"
        link.settimeout(5)
        told = b""
        while data := link.recv(65536):
            told += data
        assert [said(reply.raw) for reply in dc09.Framer().feed(told) if isinstance(reply, dc09.Frame)] == [
            f"ACK {number:04d}" for number in range(1, 21)
        ]
        assert running.process is not None
        assert running.process.wait(15) == 0
        assert sorted(event["data"]["sequence"] for event in running.export()) == [f"{n:04d}" for n in range(1, 22)]


def test_a_disk_that_fails_does_not_keep_it_from_going(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        running.limit_files(1)
        assert running.tcp(frame("0002"), seconds=0.3) == []
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 10
        assert [event["data"]["sequence"] for event in running.export()] == ["0001"]


@pytest.mark.skipif(not os.environ.get("LONG"), reason="takes ten seconds; LONG=1 runs it")
def test_a_disk_that_hangs_for_ever_does_not_keep_it_from_going(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = Dial(tmp_path)
    for name, value in laid_over(compile_shim(HANGING_SYNC, tmp_path), hangs).items():
        monkeypatch.setenv(name, value)
    with Running(tmp_path) as running, running.connect() as link:
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        hangs.set(1)
        link.sendall(frame("0002"))
        time.sleep(0.2)
        began = time.monotonic()
        assert running.stop() == 0
        took = time.monotonic() - began
        link.settimeout(1)
        assert link.recv(4096) == b"", "answered without a receipt"
        sys.stdout.write(f"\nended {took:.2f} s after SIGTERM with a disk that hangs\n")
        assert took < 10


def test_sigint_is_as_good_as_sigterm(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        running.signal(signal.SIGINT)
        assert running.process is not None
        assert running.process.wait(15) == 0


def test_a_panel_that_has_just_connected_may_still_say_what_it_came_for(tmp_path: Path) -> None:
    with Running(tmp_path) as running, running.connect() as link:
        running.connect().close()
        running.signal(signal.SIGTERM)
        wait_until(lambda: "receiver stopping" in running.log())
        link.sendall(frame("0001"))
        link.settimeout(5)
        assert said(link.recv(4096)) == "ACK 0001"
        assert link.recv(4096) == b""
        assert running.process is not None
        assert running.process.wait(15) == 0


def test_sigterm_while_starting_ends_it_and_leaves_a_sound_journal(tmp_path: Path) -> None:
    running = Running(tmp_path)
    chance = random.Random(3)
    codes = []
    for _ in range(4):
        command = [sys.executable, "-m", "receiver", "serve", "--config", str(running.config)]
        with running.log_file.open("ab") as log:
            process = subprocess.Popen(command, stderr=log, stdout=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.02, 0.6))
        process.send_signal(signal.SIGTERM)
        codes.append(process.wait(15))
    assert set(codes) <= {0, -signal.SIGTERM}, "while Python itself starts, the signal ends it as it ends any program"
    assert "Traceback" not in running.log()
    with running:
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        assert running.stop() == 0
    assert Running.command("journal", "verify", "--config", str(running.config)).returncode == 0
