"""TCP as panels use it."""

import socket
from pathlib import Path

import pytest

from tests.wire.running import KEY, KEYED, PLAIN, Running, frame, read_replies, said, wait_until


def test_frames_of_one_segment_are_answered_in_order(receiver: Running) -> None:
    sent = b"".join(frame(f"{n:04d}") for n in range(1000, 1100))
    assert [said(reply) for reply in receiver.tcp(sent, replies=100)] == [f"ACK {n:04d}" for n in range(1000, 1100)]


def test_a_frame_in_many_pieces_is_one_frame(receiver: Running) -> None:
    whole = frame("1100")
    assert [said(reply) for reply in receiver.tcp(*[whole[n : n + 1] for n in range(len(whole))])] == ["ACK 1100"]


def test_damage_gets_silence_and_the_connection_stays_open(receiver: Running) -> None:
    with receiver.connect() as link:
        link.sendall(frame("1101").replace(b"130", b"131"))
        assert read_replies(link, 1, 0.2) == []
        link.sendall(b"\x00\r\n" + frame("1102"))
        assert [said(reply) for reply in read_replies(link, 1, 5)] == ["ACK 1102"]


def test_a_half_closed_panel_gets_its_answers_and_then_the_end(receiver: Running) -> None:
    with receiver.connect() as link:
        link.sendall(b"".join(frame(f"{n:04d}") for n in range(1110, 1130)))
        link.shutdown(socket.SHUT_WR)
        assert len(read_replies(link, 20, 5)) == 20
        assert link.recv(100) == b""


def test_a_duress_is_on_disk_when_its_ack_arrives(receiver: Running) -> None:
    assert said(receiver.tcp(frame("1140", "1121 01 005", KEYED, KEY))[0], KEY) == "ACK 1140"
    stored = [event["data"] for event in receiver.export() if event["data"]["sequence"] == "1140"]
    assert [(data["event_code"], data["duress"], data["silent"], data["priority"]) for data in stored] == [
        ("121", True, True, 1)
    ]


def test_a_repeat_over_another_connection_and_transport_makes_no_second_signal(receiver: Running) -> None:
    for _ in range(2):
        assert said(receiver.tcp(frame("1141", "1121 01 006", KEYED, KEY))[0], KEY) == "ACK 1141"
    assert said(receiver.udp(frame("1141", "1121 01 006", KEYED, KEY)), KEY) == "ACK 1141"
    assert said(receiver.tcp(frame("1141", "1121 01 007", KEYED, KEY))[0], KEY) == "ACK 1141"
    users = [event["data"]["user"] for event in receiver.export() if event["data"]["sequence"] == "1141"]
    assert users == ["006", "007"]


def test_a_panel_that_never_reads_does_not_grow_us_or_harm_others(receiver: Running) -> None:
    with receiver.connect() as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        rude.setblocking(False)
        sent, flood = 0, b"".join(frame(f"{n:04d}", "1602 99 999") for n in range(2000, 2500))
        before = receiver.metric("receiver_resident_bytes")
        for _ in range(2000):
            try:
                sent += rude.send(flood)
            except BlockingIOError:
                if said(receiver.tcp(frame("1150"))[0]) == "ACK 1150" and sent > 2_000_000:
                    break
        assert receiver.metric("receiver_resident_bytes") - before < 60_000_000


@pytest.mark.parametrize(
    ("setting", "sent", "reason"),
    [
        ("first_frame_timeout_seconds = 0.3", b"", "first-frame-timeout"),
        ("frame_timeout_seconds = 0.3", frame("0001")[:20], "frame-timeout"),
        ("idle_timeout_seconds = 0.3", frame("0001"), "idle-timeout"),
    ],
)
def test_a_time_limit_closes_and_is_counted(tmp_path: Path, setting: str, sent: bytes, reason: str) -> None:
    with Running(tmp_path, listener=setting) as running, running.connect() as link:
        link.sendall(sent)
        link.settimeout(10)
        while link.recv(1000):
            continue
        assert f'receiver_connections_closed_total{{reason="{reason}"}} 1.0' in running.get("/metrics")[1]


def test_close_after_ack_closes_once_all_is_answered(tmp_path: Path) -> None:
    with Running(tmp_path, listener="close_after_ack = true") as running, running.connect() as link:
        link.sendall(frame("0001") + frame("0002"))
        assert len(read_replies(link, 3, 5)) == 2


@pytest.mark.parametrize("setting", ["max_connections = 3", "max_connections_per_source = 3"])
def test_a_connection_too_many_is_closed_at_once(tmp_path: Path, setting: str) -> None:
    with Running(tmp_path, listener=setting) as running:
        links = [running.connect() for _ in range(4)]
        try:
            for link in links[:3]:
                link.sendall(frame("0001"))
                assert said(read_replies(link, 1, 5)[0]) == "ACK 0001"
            links[3].settimeout(5)
            assert links[3].recv(1) == b""
        finally:
            for link in links:
                link.close()
        wait_until(lambda: running.metric("receiver_connections") == 0)
        assert said(running.tcp(frame("0002"))[0]) == "ACK 0002"


def test_one_port_serves_both_address_families(tmp_path: Path) -> None:
    with Running(tmp_path, listener='host = "::"') as running:
        for number, host in enumerate(("127.0.0.1", "::1"), 1):
            with running.connect(host) as link:
                link.sendall(frame(f"000{number}"))
                assert said(read_replies(link, 1, 5)[0]) == f"ACK 000{number}"
            assert said(running.udp(frame(f"001{number}"), host=host)) == f"ACK 001{number}"
        peers = [event["data"]["peer"].rsplit(":", 1)[0] for event in running.export()]
        assert peers == ["127.0.0.1", "127.0.0.1", "[::1]", "[::1]"]


def test_a_port_or_folder_in_use_is_a_clear_error(receiver: Running, tmp_path: Path) -> None:
    port_taken = tmp_path / "port.toml"
    port_taken.write_text(f'[[listeners]]\nhost = "127.0.0.1"\nport = {receiver.port}\n[http]\nport = 0\n', "utf-8")
    done = Running.command("serve", "--config", str(port_taken))
    assert done.returncode == 2
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
    folder_taken = tmp_path / "folder.toml"
    data = receiver.folder / "data"
    folder_taken.write_text(f'[receiver]\ndata_dir = "{data}"\n[[listeners]]\nport = 0\n[http]\nport = 0\n', "utf-8")
    done = Running.command("serve", "--config", str(folder_taken))
    assert done.returncode == 2
    assert "another receiver" in done.stderr
    assert "Traceback" not in done.stderr


def test_strangers_are_refused_and_told_of(receiver: Running) -> None:
    assert receiver.tcp(frame("1160", "1121 01 001", "9999"), seconds=0.3) == []
    assert receiver.tcp(frame("1161", "1121 01 001", KEYED), seconds=0.3) == []
    told = wait_until(
        lambda: {e["data"]["reason"]: e["data"] for e in receiver.events("receiver.trouble.v1")}.get("unknown-account")
    )
    assert bytes.fromhex(told["raw"]) == frame("1160", "1121 01 001", "9999") or told["account"] == "9999"
    assert PLAIN not in {e["data"]["account"] for e in receiver.events("receiver.trouble.v1")}
