"""The process as operators see it: health, metrics, reload, going down, secrets, commands."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from protocols import dc09
from tests import vectors
from tests.wire.running import ACCOUNTS, KEY, KEYED, PLAIN, SECRET, Running, frame, read_replies, said, wait_until

CONTRACT = (
    "receiver_frames_total", "receiver_signals_total", "receiver_duplicates_total", "receiver_ack_seconds_count",
    "receiver_journal_sync_seconds_count", "receiver_journal_backlog", "receiver_output_delivered_total",
    "receiver_output_backlog", "receiver_output_oldest_seconds", "receiver_connections", "receiver_paths",
    "receiver_udp_dropped_total",
)  # fmt: skip


def test_health_and_metrics_bear_the_contracts_names(receiver: Running) -> None:
    assert said(receiver.tcp(frame("0001"))[0]) == "ACK 0001"
    assert receiver.get("/healthz") == (200, "alive\n")
    assert receiver.get("/readyz") == (200, "ready\n")
    assert receiver.get("/")[0] == 404
    wait_until(lambda: receiver.metric("receiver_output_delivered_total") >= 1)
    page = receiver.get("/metrics")[1]
    assert [name for name in CONTRACT if f"\n{name}" not in page] == []
    assert Running.command("health", "--config", str(receiver.config)).returncode == 0


def test_a_full_backlog_withholds_acks_says_so_and_recovers(tmp_path: Path) -> None:
    blocked = tmp_path / "events.jsonl"
    blocked.mkdir()
    with Running(tmp_path, more="[journal]\nmax_backlog = 5\n") as running:
        assert len(running.tcp(*[frame(f"{n:04d}") for n in range(1, 6)], replies=5)) == 5
        assert running.tcp(frame("0006"), seconds=0.3) == []
        status, why = running.get("/readyz")
        assert (status, "max_backlog is 5" in why) == (503, True)
        done = Running.command("health", "--config", str(running.config))
        assert (done.returncode, "max_backlog" in done.stdout) == (1, True)
        assert said(running.tcp(dc09.encode("NULL", "0000", dc09.Address(None, "0", PLAIN)))[0]) == "ACK 0000"
        blocked.rmdir()
        wait_until(lambda: running.get("/readyz")[0] == 200, 40)
        assert said(running.tcp(frame("0006"))[0]) == "ACK 0006"


def test_accounts_are_read_again_and_a_mistake_keeps_the_old_ones(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        register = tmp_path / "accounts.csv"
        register.write_text(register.read_text() + "7777,new,\n", "utf-8")
        running.signal(signal.SIGHUP)
        wait_until(lambda: "settings reloaded" in running.log())
        assert said(running.tcp(frame("0001", account="7777"))[0]) == "ACK 0001"
        register.write_text("account\nno good\n", "utf-8")
        running.signal(signal.SIGHUP)
        wait_until(lambda: "reload failed" in running.log())
        assert "line 2" in running.log()
        assert said(running.tcp(frame("0002", account="7777"))[0]) == "ACK 0002"


def test_panels_are_answered_while_a_slow_register_is_read_again(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        register = tmp_path / "accounts.csv"
        before = register.read_text("utf-8")
        register.unlink()
        os.mkfifo(register)  # reading it waits until somebody writes
        running.signal(signal.SIGHUP)
        for number in range(1, 6):
            assert said(running.tcp(frame(f"000{number}"))[0]) == f"ACK 000{number}"
        assert running.get("/readyz")[0] == 200
        assert "settings reloaded" not in running.log()
        assert running.tcp(frame("0006", account="7777"), seconds=0.2) == []
        running.signal(signal.SIGHUP)  # one that comes meanwhile is not lost
        register.write_text(before + "7777,new,\n", "utf-8")
        wait_until(lambda: "settings reloaded" in running.log())
        assert said(running.tcp(frame("0006", account="7777"))[0]) == "ACK 0006"
        register.write_text(before, "utf-8")
        wait_until(lambda: running.log().count("settings reloaded") == 2)
        assert running.stop() == 0


def test_keys_and_accounts_of_the_new_register_count_at_once_also_on_open_connections(tmp_path: Path) -> None:
    def reload(rows: str, done: str) -> None:
        (tmp_path / "accounts.csv").write_text(f"account,name,key\n{rows}", "utf-8")
        before = running.log().count(done)
        running.signal(signal.SIGHUP)
        wait_until(lambda: running.log().count(done) == before + 1)

    with Running(tmp_path) as running, running.connect() as link:

        def send(told: bytes, seconds: float = 0.3) -> list[bytes]:
            link.sendall(told)
            return read_replies(link, 1, seconds)

        other = dc09.Key.parse(SECRET[::-1])
        assert said(send(frame("0001", account=KEYED, key=KEY), 5)[0], KEY) == "ACK 0001"
        assert said(send(frame("0001"), 5)[0]) == "ACK 0001"
        reload(f"{KEYED},,{SECRET[::-1]}\n7777,,\n", "settings reloaded")
        assert send(frame("0002", account=KEYED, key=KEY)) == []
        assert said(send(frame("0003", account=KEYED, key=other), 5)[0], other) == "ACK 0003"
        assert send(frame("0002")) == []  # taken out
        assert said(send(frame("0001", account="7777"), 5)[0]) == "ACK 0001"
        reload(f"{PLAIN},,\n{KEYED},,no key\n", "reload failed")
        assert said(send(frame("0004", account=KEYED, key=other), 5)[0], other) == "ACK 0004"
        assert send(frame("0003")) == []
        reload(f"{PLAIN},,\n{KEYED},,{SECRET}\n", "settings reloaded")
        assert said(send(frame("0005", account=KEYED, key=KEY), 5)[0], KEY) == "ACK 0005"
        assert said(send(frame("0004"), 5)[0]) == "ACK 0004"
        assert send(frame("0002", account="7777")) == []


def test_two_reloads_in_quick_succession_end_with_the_register_of_the_last(tmp_path: Path) -> None:
    rows = "".join(f"{n:05X},panel,\n" for n in range(20_000))
    with Running(tmp_path, accounts=ACCOUNTS + rows) as running:
        for name in ("FF01", "FF02", "FF03", "FF04"):
            (tmp_path / "new.csv").write_text(ACCOUNTS + rows + f"{name},,\n", "utf-8")
            (tmp_path / "new.csv").replace(tmp_path / "accounts.csv")
            running.signal(signal.SIGHUP)
            assert said(running.tcp(frame("0001", account="00001"))[0]) == "ACK 0001"
        wait_until(lambda: running.tcp(frame("0002", account="FF04"), seconds=0.2) != [])
        assert running.tcp(frame("0001", account="FF03"), seconds=0.2) == []
        assert running.metric("receiver_accounts") == 20_003


def test_sigterm_while_a_register_is_read_again_waits_for_no_disk(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        (tmp_path / "accounts.csv").unlink()
        os.mkfifo(tmp_path / "accounts.csv")  # reading it waits for ever
        running.signal(signal.SIGHUP)
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 5
        assert "stopped before everything was put away" not in running.log()
    assert [event["data"]["sequence"] for event in running.events()] == ["0001"]


def test_a_rotated_output_is_reopened_whatever_mistakes_the_register_has(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        running.tcp(frame("0001"))
        wait_until(lambda: len(running.events()) == 1)
        running.events_file.rename(tmp_path / "events.1")
        (tmp_path / "accounts.csv").write_text("account\nno good\n", "utf-8")
        running.signal(signal.SIGHUP)
        wait_until(lambda: "reload failed" in running.log())
        running.tcp(frame("0002"))
        wait_until(lambda: [event["data"]["sequence"] for event in running.events()] == ["0002"])
    assert len((tmp_path / "events.1").read_text("utf-8").splitlines()) == 1


def test_sigterm_under_load_loses_nothing_and_exits_0(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        acknowledged: list[str] = []

        def panel(first: int) -> None:
            try:
                with running.connect() as link:
                    for n in range(first, first + 2000):
                        link.sendall(frame(f"{n:04d}", "1602 00 000"))
                        replies = read_replies(link, 1, 5)
                        if not replies:
                            return
                        acknowledged.append(said(replies[0]).split()[1])
            except OSError:
                return

        threads = [threading.Thread(target=panel, args=(1 + 2000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(acknowledged) > 200)
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 10
        for thread in threads:
            thread.join()
        assert set(acknowledged) <= {event["data"]["sequence"] for event in running.export()}
        assert "receiver stopped" in running.log()


def test_keys_show_up_nowhere(tmp_path: Path) -> None:
    with Running(tmp_path, more='[log]\nlevel = "debug"\n') as running:
        running.tcp(frame("0001", "1121 01 005", KEYED, KEY))
        running.tcp(frame("0002", account=KEYED), seconds=0.2)
        running.tcp(frame("0003", account=KEYED, key=dc09.Key(bytes(16))), seconds=0.2)
        wait_until(lambda: len(running.events("receiver.trouble.v1")) == 2)
        page = running.get("/metrics")[1]
        running.stop()
        running.command("journal", "verify", "--config", str(running.config))
        seen = page.encode() + running.log_file.read_bytes() + running.events_file.read_bytes()
        for file in (tmp_path / "data").iterdir():
            seen += file.read_bytes()
    for form in (bytes.fromhex(SECRET), SECRET.encode(), SECRET.lower().encode(), repr(bytes.fromhex(SECRET)).encode()):
        assert form not in seen


@pytest.mark.parametrize(
    "more",
    [(), ("--udp",), ("--key", SECRET, "--account", KEYED), ("--event", "Nri1/HA003"), ("--line", "none"), ("--null",)],
)
def test_simulate_is_acknowledged(receiver: Running, more: tuple[str, ...]) -> None:
    first = str(100 * (1 + len("".join(more))))
    done = Running.command(
        "simulate", "127.0.0.1", str(receiver.port), "--account", PLAIN, "--count", "5", "--sequence", first, *more
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 messages, 5 acknowledged" in done.stdout


def test_simulate_says_what_was_not_acknowledged(receiver: Running) -> None:
    done = Running.command("simulate", "127.0.0.1", str(receiver.port), "--account", PLAIN, "--token", "XYZ", "--udp")
    assert done.returncode == 1
    assert "DUH" in done.stdout
    done = Running.command("simulate", "127.0.0.1", "1")
    assert done.returncode == 1
    assert "cannot reach" in done.stderr
    assert "Traceback" not in done.stderr


def test_whatever_panels_send_a_journal_that_nobody_touched_is_found_sound(tmp_path: Path) -> None:
    """A journal that is called altered at three in the morning, and is not, costs the trust in the next word of it."""
    address = dc09.Address(None, "0", PLAIN)
    sent = [
        *[bytes.fromhex(vector["frame"]) for vector in vectors.frames()],
        dc09.encode("ADM-CID", "0000", address, b"#1A01|1130 01 005"),  # Scantronic: 0000, and no time stamp
        dc09.encode("ADM-CID", "0009", address, b"#1A01|1130 01 005", (("K", SECRET.encode()), ("S", b"till"))),
        dc09.encode("ADM-CID", "0000", address, b"#1A01|1130 01 005", (("K", SECRET.encode()),), 1_700_000_000),
    ]
    with Running(tmp_path, accounts="account\n") as running:  # whoever calls is heard
        assert sum(running.udp(raw, seconds=0.05) is not None for raw in sent) > 90
    done = running.command("journal", "verify", "--config", str(running.config))
    assert (done.returncode, "none damaged" in done.stdout) == (0, True), done.stdout


def test_events_on_standard_output_are_json_lines_and_logs_are_not_among_them(tmp_path: Path) -> None:
    with Running(
        tmp_path, outputs='[[outputs]]\nname = "o"\ntype = "jsonl"\npath = "-"\n', more='[log]\nformat = "json"\n'
    ) as running:
        running.tcp(frame("0001"))
        wait_until(lambda: "specversion" in running.stdout_file.read_text())
        (event,) = [json.loads(line) for line in running.stdout_file.read_text().splitlines()]
        lines = [json.loads(line) for line in running.log().splitlines()]
    assert event["data"]["sequence"] == "0001"
    assert all({"time", "level", "event"} <= line.keys() for line in lines)
