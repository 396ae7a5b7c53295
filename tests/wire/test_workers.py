"""Several workers at one port: what one process keeps right for itself stays right across them.

Real processes, two workers; connections are told apart by which of them answers while worker 1 is stopped.
"""

import os
import select
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire.running import (
    KEY,
    KEYED,
    PLAIN,
    SECRET,
    Running,
    connect_from,
    frame,
    is_closed,
    read_replies,
    said,
    wait_until,
)
from tests.wire.test_takeover import Relay

WATCHED, MIXED = "3C03", "4D04"
ACCOUNTS = (
    f"account,key,plaintext,supervision_seconds\n{PLAIN},,,\n{KEYED},{SECRET},,\n{WATCHED},{SECRET},,2\n{MIXED},{SECRET},accept,\n"
    + "".join(f"CA{number:02d},,,\n" for number in range(8))
)
TWO = "[receiver]\nworkers = 2\n"


def worker_of(running: Running) -> int:
    """Return the process id of worker 1."""
    assert running.process is not None
    pid = running.process.pid
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return int(found[0]) if found else 0


def gone(pid: int) -> bool:
    """Tell whether a process runs no more."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def links_apart(running: Running, source: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """Return a connection to worker 0 and one to worker 1."""
    other = worker_of(running)
    links = [connect_from(source, running.port) for _ in range(12)]
    os.kill(other, signal.SIGSTOP)
    try:
        for link in links:
            link.sendall(frame("0000", account=PLAIN, event="1602 00 000"))
        time.sleep(0.3)
        answered = select.select(links, [], [], 0)[0]
    finally:
        os.kill(other, signal.SIGCONT)
    late = [link for link in links if link not in answered]
    for link in links:
        assert read_replies(link, 1, 5)
    first, second = answered[0], late[0]  # chance leaves one empty once in two thousand runs
    for link in links:
        if link not in (first, second):
            link.close()
    return first, second


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("workers"), accounts=ACCOUNTS, more=TWO) as running:
        yield running


@pytest.fixture
def links(desk: Running) -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = links_apart(desk)
    with first, second:
        yield first, second


def ask(link: socket.socket, sent: bytes) -> bytes:
    link.sendall(sent)
    (reply,) = read_replies(link, 1, 5)
    return reply


def troubles(running: Running, reason: str, account: str | None) -> list[dict[str, Any]]:
    found = {event["id"]: event["data"] for event in running.events("receiver.trouble.v1")}
    return [data for data in found.values() if (data["reason"], data["account"]) == (reason, account)]


def paths(running: Running, account: str) -> list[str]:
    return [event["data"]["state"] for event in running.events("receiver.path.v1") if event["data"]["account"] == account]


Links = tuple[socket.socket, socket.socket]


def test_a_message_that_comes_again_at_another_worker_is_one_signal(desk: Running, links: Links) -> None:
    for number, (first, second) in enumerate([links, links[::-1]]):
        sent = frame(f"10{number:02d}", "1130 01 007")
        assert said(ask(first, sent)) == said(ask(second, sent)) == f"ACK 10{number:02d}"
    sent = frame("1010", "1130 01 007", KEYED, KEY)
    again = frame("1010", "1130 01 007", KEYED, KEY)  # other padding
    for link in links:
        link.sendall(sent + again)
    assert all(len(read_replies(link, 2, 5)) == 2 for link in links)
    stored = Counter(event["data"]["sequence"] for event in desk.export() if event["data"]["sequence"].startswith("10"))
    assert stored == {"1000": 1, "1001": 1, "1010": 1}


def test_a_path_heard_at_any_worker_lives_and_is_lost_and_restored_once(desk: Running, links: Links) -> None:
    started = time.monotonic()
    number = 0
    while time.monotonic() < started + 3.5:  # each worker alone would be silent for longer than the interval, in turn
        link = links[int((time.monotonic() - started) // 1.75)]
        number += 1
        reply = ask(link, frame(f"{number:04d}", "1602 00 000", WATCHED, KEY))
        assert said(reply, KEY).startswith("ACK")
        time.sleep(0.2)
    assert paths(desk, WATCHED) == []
    assert desk.metric("receiver_paths", 'state="alive"') == 1
    wait_until(lambda: paths(desk, WATCHED) == ["lost"])
    ask(links[1], frame("0999", "1602 00 000", WATCHED, KEY))
    wait_until(lambda: paths(desk, WATCHED) == ["lost", "restored"])


def test_what_is_known_of_a_sender_is_known_to_every_worker(desk: Running, links: Links) -> None:
    ask(links[0], frame("0001", account=MIXED, key=KEY))
    assert said(ask(links[1], frame("0002", account=MIXED))) == "ACK 0002"
    wait_until(lambda: troubles(desk, "downgraded", MIXED))
    (signal_in_clear,) = [e["data"] for e in desk.export() if (e["subject"], e["data"]["sequence"]) == (MIXED, "0002")]
    assert signal_in_clear["flags"] == ["plaintext"]
    first, second = links_apart(desk, "127.0.0.2")
    with first, second:
        assert ask(second, frame("0003", account=KEYED, key=KEY))
        ask(links[0], frame("0004", account=KEYED, key=KEY))
    (told,) = wait_until(lambda: troubles(desk, "second-address", KEYED))
    assert "127.0.0." in told["text"]
    ask(links[1], frame("0005", account=KEYED, key=KEY))
    links[1].sendall(frame("0006", account=KEYED, key=type(KEY).parse("FF" * 16)))
    (told,) = wait_until(lambda: troubles(desk, "undecryptable", KEYED))
    assert "no longer does" in told["text"]


def test_metrics_are_sums_and_refusals_of_every_worker_are_kept(desk: Running, links: Links) -> None:
    def counted(*labels: str) -> float:
        return desk.metric("receiver_frames_total", *labels)

    before, refused = counted(), counted('reason="unknown-account"')
    for number, link in enumerate((*links, *links)):
        ask(link, frame(f"20{number:02d}"))
        link.sendall(frame(f"20{number:02d}", account=f"DEAD{number}"))
        ask(link, frame(f"20{number:02d}"))
    assert (counted(), counted('reason="unknown-account"')) == (before + 12, refused + 4)
    assert desk.metric("receiver_workers") == 2
    assert desk.metric("receiver_connections") == 2
    wait_until(lambda: all(troubles(desk, "unknown-account", f"DEAD{number}") for number in range(4)))
    kept = desk.command("journal", "show", "--refused", "--config", str(desk.config)).stdout
    assert all(f"DEAD{number}" in kept for number in range(4))
    assert "worker=1" in desk.log()


def test_a_new_register_is_read_by_every_worker(tmp_path: Path) -> None:
    with Running(tmp_path, more=TWO) as running:
        (tmp_path / "accounts.csv").write_text(f"account\n{PLAIN}\nFEED\n", "utf-8")
        running.signal(signal.SIGHUP)
        for link in links_apart(running):
            with link:

                def accepted(link: socket.socket = link) -> bool:
                    link.sendall(frame("0001", account="FEED"))
                    return bool(read_replies(link, 1, 0.2))

                wait_until(accepted)


def test_limits_hold_for_all_workers_together(tmp_path: Path) -> None:
    with Running(tmp_path, "max_connections = 6\ncrowded_out_after_seconds = 60", TWO) as running:
        links = [running.connect() for _ in range(40)]
        wait_until(lambda: running.metric("receiver_connections_closed_total", 'reason="max-connections"') == 40 - 6)
        assert running.metric("receiver_connections") == 6
        for link in links:
            link.close()


class _Panel(threading.Thread):
    """An account that sends one message after the other, each until it is acknowledged."""

    def __init__(self, number: int, port: int, going: threading.Event) -> None:
        super().__init__()
        self.account = f"CA{number:02d}"
        self._kind = socket.SOCK_DGRAM if number % 2 else socket.SOCK_STREAM
        self._port, self._going = port, going
        self.acknowledged: list[str] = []

    def run(self) -> None:
        number = 0
        while self._going.is_set():
            number += 1
            sequence = f"{number % 9999 + 1:04d}"
            if self._told(frame(sequence, f"1130 01 {number % 1000:03d}", self.account), sequence):
                self.acknowledged.append(sequence)

    def _told(self, sent: bytes, sequence: str) -> bool:
        while self._going.is_set():
            try:
                with socket.socket(socket.AF_INET, self._kind) as link:
                    link.settimeout(5.0)
                    link.connect(("127.0.0.1", self._port))
                    link.sendall(sent)
                    replies = read_replies(link, 1, 5.0 if self._kind == socket.SOCK_STREAM else 2.0)
            except OSError:
                time.sleep(0.02)
                continue
            if replies:
                return said(replies[0]) == f"ACK {sequence}"
        return False


def under_load(running: Running) -> tuple[list[_Panel], threading.Event]:
    going = threading.Event()
    going.set()
    panels = [_Panel(number, running.port, going) for number in range(8)]
    for panel in panels:
        panel.start()
    wait_until(lambda: all(panel.acknowledged for panel in panels))
    return panels, going


def all_go_on(panels: list[_Panel]) -> None:
    before = [len(panel.acknowledged) for panel in panels]
    wait_until(lambda: all(len(panel.acknowledged) > count + 5 for panel, count in zip(panels, before, strict=True)))


def everything_is_there_once(running: Running, panels: list[_Panel]) -> bool:
    stored = Counter((event["subject"], event["data"]["sequence"]) for event in running.export())
    acknowledged = {(panel.account, sequence) for panel in panels for sequence in panel.acknowledged}
    return acknowledged <= stored.keys() and max(stored.values()) == 1


def test_a_killed_worker_loses_nothing_and_is_started_again(tmp_path: Path) -> None:
    with Running(tmp_path, accounts=ACCOUNTS, more=TWO) as running:
        panels, going = under_load(running)
        for killing in range(2):
            os.kill(worker_of(running), signal.SIGKILL)
            wait_until(lambda: running.metric("receiver_workers") == 1)
            wait_until(lambda: running.metric("receiver_workers") == 2)
            all_go_on(panels)
            assert running.metric("receiver_worker_restarts_total") == killing + 1
        going.clear()
        for panel in panels:
            panel.join(10)
        assert everything_is_there_once(running, panels)
        assert troubles(running, "worker-lost", None)[0]["text"].startswith("worker 1 was ended by signal 9")


def test_going_down_every_worker_answers_what_it_has_in_hand(tmp_path: Path) -> None:
    with Running(tmp_path, accounts=ACCOUNTS, more=TWO) as running:
        panels, going = under_load(running)
        worker = worker_of(running)
        assert running.stop() == 0
        wait_until(lambda: gone(worker))
        going.clear()
        for panel in panels:
            panel.join(10)
        assert everything_is_there_once(running, panels)
        stored = {(event["subject"], event["data"]["sequence"]) for event in running.export()}
        answered = {(panel.account, sequence) for panel in panels for sequence in panel.acknowledged}
        assert stored == answered


def test_workers_end_with_the_receiver_and_leave_its_ports(tmp_path: Path) -> None:
    with Running(tmp_path, more=TWO) as running:
        worker = worker_of(running)
        os.kill(worker, signal.SIGTERM)  # as when a whole group is told to stop: worker 0 decides
        os.kill(worker, signal.SIGSTOP)
        running.kill()
        wait_until(lambda: gone(worker))
        running.start()
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"


def test_a_worker_that_hangs_is_told_of_ended_and_started_again(tmp_path: Path) -> None:
    with Running(tmp_path, more=TWO + "worker_hung_seconds = 3\n") as running:
        hung = worker_of(running)
        os.kill(hung, signal.SIGSTOP)
        _, text = wait_until(lambda: (found := running.get("/readyz"))[0] == 503 and found)
        assert "worker 1 has said nothing for" in text
        wait_until(lambda: worker_of(running) not in (0, hung))
        wait_until(lambda: running.get("/readyz")[0] == 200)
        assert [said(running.udp(frame(f"{number:04d}"))) for number in range(1, 9)]
        assert "a worker hangs and is ended" in running.log()


def test_take_overs_change_the_number_of_workers_and_refuse_nobody(tmp_path: Path) -> None:
    running = Relay(tmp_path, accounts=ACCOUNTS, more=TWO)
    with running:
        panels, going = under_load(running)
        for count in (3, 1, 2):
            told = running.config.read_text("utf-8")
            running.config.write_text(
                told[: (at := told.index("workers = "))] + f"workers = {count}" + told[at + 11 :], "utf-8"
            )
            assert running.take_over() == 0
            assert running.metric("receiver_workers") == count
        all_go_on(panels)
        going.clear()
        for panel in panels:
            panel.join(10)
        assert everything_is_there_once(running, panels)


def test_a_port_of_another_program_is_never_shared(tmp_path: Path) -> None:
    with Running(tmp_path, more=TWO) as running:
        second = Running(tmp_path / "second", more=TWO)
        second.config.write_text(second.config.read_text("utf-8").replace(f"port = {second.port}", f"port = {running.port}"))
        second.start(wait=False)
        assert second.process is not None
        assert second.process.wait(10) == 2
        assert "Address already in use" in second.log()


def test_a_panel_that_closes_its_half_is_answered_by_any_worker(desk: Running, links: Links) -> None:
    for number, link in enumerate(links):
        link.sendall(frame(f"30{number:02d}"))
        link.shutdown(socket.SHUT_WR)
        assert said(read_replies(link, 1, 5)[0]) == f"ACK 30{number:02d}"
        assert is_closed(link, 5)
