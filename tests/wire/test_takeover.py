"""A new process takes the ports over: nobody is refused, nothing acknowledged is lost, every message gets its ACK.

``TAKE_OVERS`` sets how often it happens under load: 3 in ``make test``.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from protocols import dc09
from receiver.journal import Reader
from receiver.listeners.handover import HATCH, knock
from tests.wire.running import SECRET, Running, frame, free_port, read_replies, said, wait_until

TAKE_OVERS = int(os.environ.get("TAKE_OVERS", "3"))
PANELS = 9
AS_SYSTEMD_DOES = """
import os, sys
for place, handle in enumerate([os.dup(int(handle)) for handle in sys.argv[1:3]], 3):
    os.set_inheritable(os.dup2(handle, place), True)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": "dc09.socket:dc09.socket"}
os.execv(sys.executable, [sys.executable, "-m", "receiver", *sys.argv[3:]])
"""
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
    running = Relay(tmp_path, accounts=ACCOUNTS)
    with running:
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
        gap = max(after - before for before, after in pairwise(moments))
        troubles = sum((panel.troubles for panel in panels), Counter())
        sys.stdout.write(
            f"\n{TAKE_OVERS} take-overs: {len(moments)} messages acknowledged, longest time without an ACK "
            f"{gap * 1000:.0f} ms, {troubles['refused']} connections refused, {troubles['broken']} broken, "
            f"{troubles['sent again']} messages sent again\n"
        )
        assert codes == [0] * TAKE_OVERS
        assert troubles["refused"] == 0
        stored = Counter((event["subject"], event["data"]["sequence"]) for event in running.export())
        assert {(panel.account, sequence) for panel in panels for sequence in panel.acknowledged} <= stored.keys()
        assert max(stored.values()) == 1
        assert running.stop() == 0


def test_without_a_receiver_to_take_over_from_it_starts_as_usual(tmp_path: Path) -> None:
    running = Relay(tmp_path)
    running.process = running.successor()
    try:
        wait_until(running._ready)
        assert "nobody to take over from" in running.log()
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
    finally:
        running.kill()


def test_the_hatch_a_killed_process_left_behind_is_replaced(tmp_path: Path) -> None:
    running = Relay(tmp_path)
    with running:
        running.kill()
        running.start()
        assert (tmp_path / "data" / HATCH).stat().st_mode & 0o777 == 0o600
        assert running.take_over() == 0
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        assert running.stop() == 0
        assert not (tmp_path / "data" / HATCH).exists()


def test_a_successor_that_cannot_serve_leaves_the_old_one_alone(tmp_path: Path) -> None:
    running = Relay(tmp_path)
    with running:
        good = running.config.read_text("utf-8")
        running.config.write_text(good.replace('host = "127.0.0.1"', 'host = "192.0.2.1"'), "utf-8")
        assert running.successor().wait(20) == 2
        assert "serves on" in running.log().splitlines()[-1]
        running.config.write_text(good + "nonsense = 1\n", "utf-8")
        assert running.successor().wait(20) == 2
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        running.config.write_text(good, "utf-8")
        assert running.take_over() == 0


def test_one_who_asks_and_goes_away_changes_nothing(tmp_path: Path) -> None:
    running = Relay(tmp_path)
    with running:
        for _ in range(3):
            asked = knock(tmp_path / "data")
            assert asked is not None
            assert asked.pid == running.process.pid if running.process else 0
            assert {sock.getsockname()[1] for sock in asked.sockets} == {running.port}
            asked.close()
            for sock in asked.sockets:
                sock.close()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(5)
            link.connect(str(tmp_path / "data" / HATCH))
            link.sendall(b"something else")
            assert link.recv(64) == b""
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        assert running.take_over() == 0


def test_changed_listeners_are_bound_anew_and_what_nobody_wants_is_closed(tmp_path: Path) -> None:
    running = Relay(tmp_path)
    with running:
        old = running.port
        running.port = free_port()
        told = running.config.read_text("utf-8")
        running.config.write_text(told.replace(f"port = {old}\n", f"port = {running.port}\n"), "utf-8")
        assert running.take_over() == 0
        assert running.log().count("an inherited socket fits no listener and was closed") == 2
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", old), timeout=5)


def test_a_data_folder_with_a_long_name_has_a_hatch_too(tmp_path: Path) -> None:
    long = "x" * 120
    running = Relay(tmp_path, more=f'[receiver]\ndata_dir = "{long}"\n')
    with running:
        assert running.take_over() == 0
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"


def test_systemds_sockets_are_taken_and_what_waits_in_them_is_answered(tmp_path: Path) -> None:
    running = Relay(tmp_path)
    tcp, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with tcp, udp, running.log_file.open("ab") as log:
        for sock in (tcp, udp):
            sock.bind(("127.0.0.1", running.port))
        tcp.listen(100)
        early = running.connect()
        early.sendall(frame("0001"))

        handles = [str(tcp.fileno()), str(udp.fileno())]
        for code in (0, 0):  # the sockets outlive the process: a restart refuses nobody either
            running.process = subprocess.Popen(
                [sys.executable, "-c", AS_SYSTEMD_DOES, *handles, "serve", "--config", str(running.config)],
                stdout=subprocess.DEVNULL, stderr=log, pass_fds=[int(handle) for handle in handles],
            )  # fmt: skip
            wait_until(running._ready, 20)
            assert said(read_replies(early, 1, 5)[0]) == "ACK 0001"
            assert said(running.udp(frame("0002"))) == "ACK 0002"
            assert running.stop() == code
            early.close()
            early = running.connect()
            early.sendall(frame("0001"))
        early.close()
    assert "inherited=True" in running.log()
    reader = Reader(tmp_path / "data")
    assert len(list(reader.all())) == 2
    reader.close()


def test_sigterm_while_waiting_for_the_journal_ends_the_wait(tmp_path: Path) -> None:
    running = Relay(tmp_path)
    with running:
        (tmp_path / "data" / HATCH).unlink()  # nobody to ask, and the journal is in use
        waiting = running.successor()
        wait_until(lambda: "nobody to take over from" in running.log())
        waiting.send_signal(signal.SIGTERM)
        assert waiting.wait(5) == 2
        assert "it was left alone" in running.log()
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
