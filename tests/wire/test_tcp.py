"""TCP as panels use it."""

import socket
import struct
import time
from pathlib import Path

import pytest

from protocols import dc09
from tests.wire.running import KEY, KEYED, PLAIN, Running, frame, is_closed, read_replies, said, wait_until

LINK_TEST = dc09.encode("NULL", "0000", dc09.Address(None, "0", PLAIN))
HTTP = b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n"
TLS = b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(range(64))


def test_frames_of_one_segment_are_answered_in_order(receiver: Running) -> None:
    sent = b"".join(frame(f"{n:04d}") for n in range(1000, 1100))
    assert [said(reply) for reply in receiver.tcp(sent, replies=100)] == [f"ACK {n:04d}" for n in range(1000, 1100)]


def test_answers_that_need_no_disk_wait_for_those_before_them(receiver: Running) -> None:
    stale = dc09.encode("ADM-CID", "1002", dc09.Address(None, "0", KEYED), b"#2B02|1121 01 001", (), 1_700_000_000, KEY)
    unknown = dc09.encode("XYZ", "1003", dc09.Address(None, "0", PLAIN))
    sent = [frame("1201"), LINK_TEST, stale, frame("1202", account=KEYED, key=KEY), unknown, frame("1203", binary_crc=True)]
    replies = receiver.tcp(b"".join(sent), replies=6)
    assert [reply[9:].split(b"[")[0] for reply in replies[:3]] == [
        b'"ACK"1201L0#1A01',
        b'"ACK"0000L0#1A01',
        b'"NAK"0000R0L0A0',
    ]
    assert said(replies[3], KEY) == "ACK 1202"
    assert [said(reply) for reply in replies[4:]] == ["DUH 1003", "ACK 1203"]


def test_a_frame_in_many_pieces_is_one_frame(receiver: Running) -> None:
    whole = frame("1100")
    assert [said(reply) for reply in receiver.tcp(*[whole[n : n + 1] for n in range(len(whole))])] == ["ACK 1100"]


def test_frames_cut_anywhere_and_padded_with_filler_are_all_answered(receiver: Running) -> None:
    stream = b"\r\n\x00 ".join(frame(f"{n:04d}", account=KEYED, key=KEY) for n in range(1210, 1230)) + b"\x00\x00"
    pieces = [stream[at : at + 37] for at in range(0, len(stream), 37)]
    assert [said(reply, KEY) for reply in receiver.tcp(*pieces, replies=20)] == [f"ACK {n:04d}" for n in range(1210, 1230)]


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("numbers", "echo"),
    [
        ((None, None), "#1A01"), ((None, ""), "L#1A01"), (("1", "0"), "R1L0#1A01"), (("01", None), "R01#1A01"),
        (("FFFFFF", "000000"), "RFFFFFFL000000#1A01"),
    ],
)  # fmt: skip
def test_what_came_goes_back_as_it_came(
    receiver: Running, numbers: tuple[str | None, str | None], echo: str, binary: bool
) -> None:
    (reply,) = receiver.tcp(dc09.encode("NULL", "00AF", dc09.Address(*numbers, PLAIN), binary_crc=binary))
    assert reply == dc09.wrap(f'"ACK"00AF{echo}[]'.encode(), binary)


def test_damage_gets_silence_and_the_connection_stays_open(receiver: Running) -> None:
    with receiver.connect() as link:
        link.sendall(frame("1101").replace(b"130", b"131"))
        assert read_replies(link, 1, 0.2) == []
        link.sendall(b"\x00\r\n" + frame("1102"))
        assert [said(reply) for reply in read_replies(link, 1, 5)] == ["ACK 1102"]


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        (HTTP, "not-dc09"), (TLS, "not-dc09"), (b"\xff" * 5000, "not-dc09"), (frame("1103")[:25], "truncated"),
        (frame("1104")[:5] + b"1" + frame("1104")[6:], "bad-length"), (b"\nFFFF" + frame("1105")[5:], "bad-crc"),
        (dc09.wrap(b'"ACK"1106L0#1A01[]'), "from-receiver"), (dc09.wrap(b"no quote at all"), "not-dc09"),
    ],
    ids=["web", "tls", "long", "cut off", "first digit", "crc", "our own reply", "no quote"],
)  # fmt: skip
def test_the_frame_after_any_noise_is_answered_and_the_noise_is_counted(
    receiver: Running, noise: bytes, reason: str
) -> None:
    labels = ('answer="silence"', f'reason="{reason}"', 'transport="tcp"')
    before = receiver.metric("receiver_frames_total", *labels)
    assert [said(reply) for reply in receiver.tcp(noise + LINK_TEST, replies=1)] == ["ACK 0000"]
    assert receiver.metric("receiver_frames_total", *labels) == before + 1


def test_a_refused_frame_is_kept_with_its_bytes_for_a_technician(receiver: Running) -> None:
    receiver.tcp(b'\n00000FFF"SIA-DCS"kept for you', seconds=0.1)

    def shown() -> str:
        return Running.command("journal", "show", "--refused", "--last", "200", "--config", str(receiver.config)).stdout

    told = wait_until(lambda: "kept for you" in (page := shown()) and page)
    assert "truncated" in next(line for line in told.splitlines()[::-1] if "tcp 127.0.0.1" in line)


def test_a_half_closed_panel_gets_its_answers_and_then_the_end(receiver: Running) -> None:
    with receiver.connect() as link:
        link.sendall(b"".join(frame(f"{n:04d}") for n in range(1110, 1130)))
        link.shutdown(socket.SHUT_WR)
        assert len(read_replies(link, 20, 5)) == 20
        assert link.recv(100) == b""


@pytest.mark.parametrize("sent", [b"", b"\r\n", frame("1131")[:-1]], ids=["nothing", "filler", "most of a frame"])
def test_a_half_closed_panel_that_is_owed_nothing_is_closed(receiver: Running, sent: bytes) -> None:
    with receiver.connect() as link:
        link.sendall(sent)
        link.shutdown(socket.SHUT_WR)
        assert read_replies(link, 1, 5) == []
        assert is_closed(link, 5)


def test_a_message_whose_panel_hung_up_is_stored_all_the_same(receiver: Running) -> None:
    link = receiver.connect()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # the end is a reset
    link.sendall(frame("1135"))
    wait_until(lambda: "1135" in [event["data"]["sequence"] for event in receiver.events()])
    link.close()
    wait_until(lambda: receiver.metric("receiver_connections") == 0)
    assert said(receiver.tcp(frame("1135"))[0]) == "ACK 1135"
    assert [event["data"]["sequence"] for event in receiver.export()].count("1135") == 1


def test_a_duress_is_on_disk_when_its_ack_arrives(receiver: Running) -> None:
    assert said(receiver.tcp(frame("1140", "1121 01 005", KEYED, KEY))[0], KEY) == "ACK 1140"
    stored = [event["data"] for event in receiver.export() if event["data"]["sequence"] == "1140"]
    assert [(data["event_code"], data["duress"], data["silent"], data["priority"]) for data in stored] == [
        ("121", True, True, 1)
    ]


def test_a_repeat_over_another_connection_and_transport_makes_no_second_signal(receiver: Running) -> None:
    before = receiver.metric("receiver_duplicates_total")
    for _ in range(2):
        assert said(receiver.tcp(frame("1141", "1121 01 006", KEYED, KEY))[0], KEY) == "ACK 1141"
    assert said(receiver.udp(frame("1141", "1121 01 006", KEYED, KEY)), KEY) == "ACK 1141"
    assert said(receiver.tcp(frame("1141", "1121 01 007", KEYED, KEY))[0], KEY) == "ACK 1141"
    users = [event["data"]["user"] for event in receiver.export() if event["data"]["sequence"] == "1141"]
    assert users == ["006", "007"]
    assert receiver.metric("receiver_duplicates_total") == before + 2


def test_repeats_in_one_segment_are_each_answered_and_stored_once(receiver: Running) -> None:
    again = b"".join(frame("1142", "1121 01 008", KEYED, KEY) for _ in range(50))
    assert {said(reply, KEY) for reply in receiver.tcp(again, replies=50)} == {"ACK 1142"}
    assert [event["data"]["sequence"] for event in receiver.export()].count("1142") == 1


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
        assert sent > 2_000_000
        assert receiver.metric("receiver_resident_bytes") - before < 60_000_000


@pytest.mark.parametrize(
    ("setting", "sent", "reason"),
    [
        ("first_frame_timeout_seconds = 0.3", b"", "first-frame-timeout"),
        ("first_frame_timeout_seconds = 0.3", b"x", "first-frame-timeout"),
        ("frame_timeout_seconds = 0.3", frame("0001")[:20], "frame-timeout"),
        ("idle_timeout_seconds = 0.3", frame("0001"), "idle-timeout"),
    ],
    ids=["nothing", "no frame", "half a frame", "then nothing"],
)
def test_a_time_limit_closes_and_is_counted(tmp_path: Path, setting: str, sent: bytes, reason: str) -> None:
    with Running(tmp_path, listener=setting) as running, running.connect() as link:
        link.sendall(sent)
        assert is_closed(link)
        assert running.metric("receiver_connections_closed_total") == 1
        assert running.metric("receiver_connections_closed_total", f'reason="{reason}"') == 1
        assert said(running.tcp(frame("0002"))[0]) == "ACK 0002"


def test_a_frame_that_comes_in_drops_is_given_no_longer_than_any_other(tmp_path: Path) -> None:
    with Running(tmp_path, listener="frame_timeout_seconds = 0.4") as running, running.connect() as link:
        link.sendall(b'\n00000FFF"')
        link.settimeout(0.02)
        until = time.monotonic() + 10
        closed = False
        while not closed and time.monotonic() < until:
            try:
                link.sendall(b"x")
                closed = link.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
        assert closed
        assert running.metric("receiver_connections_closed_total", 'reason="frame-timeout"') == 1


def test_a_connection_whose_panel_goes_on_is_not_closed_by_any_limit(tmp_path: Path) -> None:
    limits = "first_frame_timeout_seconds = 0.5\nidle_timeout_seconds = 1.5"
    with Running(tmp_path, listener=limits) as running, running.connect() as link:
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            link.sendall(LINK_TEST)
            assert [said(reply) for reply in read_replies(link, 1, 5)] == ["ACK 0000"]
            assert read_replies(link, 1, 0.3) == []  # the panel's pause


def test_a_line_end_behind_a_frame_is_nothing_to_wait_for(tmp_path: Path) -> None:
    with Running(tmp_path, listener="frame_timeout_seconds = 0.3") as running, running.connect() as link:
        for number, end in enumerate((b"\n", b"\r\n", b"\n\x00")):
            link.sendall(frame(f"{number:04d}") + end)
            assert [said(reply) for reply in read_replies(link, 1, 5)] == [f"ACK {number:04d}"]
            assert read_replies(link, 1, 1.0) == []  # longer than the limit, and its look every half second
        link.sendall(frame("0009"))
        assert [said(reply) for reply in read_replies(link, 1, 5)] == ["ACK 0009"]


def test_close_after_ack_closes_though_a_line_end_follows_the_frame(tmp_path: Path) -> None:
    with Running(tmp_path, listener="close_after_ack = true") as running, running.connect() as link:
        link.sendall(frame("0001") + b"\r\n")
        assert len(read_replies(link, 1, 5)) == 1
        assert is_closed(link)
        assert running.metric("receiver_connections_closed_total") == 0


def test_close_after_ack_closes_once_all_is_answered(tmp_path: Path) -> None:
    with Running(tmp_path, listener="close_after_ack = true") as running:
        with running.connect() as link:
            link.sendall(frame("0001") + frame("0002"))
            assert len(read_replies(link, 3, 5)) == 2
            assert is_closed(link)
        with running.connect() as link:
            link.sendall(b"\r\n" + frame("0003").replace(b"130", b"131"))
            assert read_replies(link, 1, 0.2) == []
            link.sendall(frame("0004"))
            assert [said(reply) for reply in read_replies(link, 2, 5)] == ["ACK 0004"]


@pytest.mark.parametrize("setting", ["max_connections", "max_connections_per_source"])
def test_a_connection_too_many_is_closed_at_once(tmp_path: Path, setting: str) -> None:
    with Running(tmp_path, listener=f"{setting} = 3") as running:
        links = [running.connect() for _ in range(4)]
        try:
            for link in links[:3]:
                link.sendall(frame("0001"))
                assert said(read_replies(link, 1, 5)[0]) == "ACK 0001"
            assert is_closed(links[3], 5)
        finally:
            for link in links:
                link.close()
        wait_until(lambda: running.metric("receiver_connections") == 0)
        reason = setting.replace("_", "-")
        assert running.metric("receiver_connections_closed_total", f'reason="{reason}"') == 1
        assert said(running.tcp(frame("0002"))[0]) == "ACK 0002"


def test_connections_are_counted_for_each_source(tmp_path: Path) -> None:
    with Running(tmp_path, listener="max_connections_per_source = 1") as running, running.connect() as first:
        first.sendall(LINK_TEST)
        assert len(read_replies(first, 1, 5)) == 1
        with socket.create_connection(("127.0.0.1", running.port), 5, source_address=("127.0.0.2", 0)) as neighbour:
            neighbour.sendall(LINK_TEST)
            assert len(read_replies(neighbour, 1, 5)) == 1
        with running.connect() as second:
            assert is_closed(second, 5)


def test_one_port_serves_both_address_families(tmp_path: Path) -> None:
    with Running(tmp_path, listener='host = "::"') as running:
        for number, host in enumerate(("127.0.0.1", "::1"), 1):
            with running.connect(host) as link:
                link.sendall(frame(f"000{number}"))
                assert said(read_replies(link, 1, 5)[0]) == f"ACK 000{number}"
            assert said(running.udp(frame(f"001{number}"), host=host)) == f"ACK 001{number}"
        peers = [event["data"]["peer"].rsplit(":", 1)[0] for event in running.export()]
        assert peers == ["127.0.0.1", "127.0.0.1", "[::1]", "[::1]"]


def test_several_listeners_are_told_apart_and_recognise_each_others_repeats(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        main, spare = running.port, running.add_listener('name = "spare"\nline = "2F"\ntransport = "tcp"')
        running.stop()
        running.start()
        running.tcp(frame("0001"))
        running.port = spare
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        assert said(running.tcp(frame("0002"))[0]) == "ACK 0002"
        with pytest.raises(ConnectionRefusedError):
            running.udp(frame("0003"))
        running.port = main
        told = [(e["data"]["sequence"], e["data"]["listener"], e["data"]["line"], e["source"]) for e in running.export()]
        assert told == [("0001", "main", "1", "/receivers/1/lines/1"), ("0002", "spare", "2F", "/receivers/1/lines/2F")]


@pytest.mark.parametrize("taken", ["tcp", "udp", "http"])
def test_a_port_in_use_is_one_clear_sentence(tmp_path: Path, taken: str) -> None:
    kind = socket.SOCK_DGRAM if taken == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            other.listen()
        port = other.getsockname()[1]
        config = tmp_path / "receiver.toml"
        listener, http = (0, port) if taken == "http" else (port, 0)
        transport = "tcp" if taken == "http" else taken
        config.write_text(
            f'[[listeners]]\nhost = "127.0.0.1"\nport = {listener}\ntransport = "{transport}"\n[http]\nport = {http}\n',
            "utf-8",
        )
        done = Running.command("serve", "--config", str(config))
    assert done.returncode == 2
    told = [line for line in done.stderr.splitlines() if line.startswith("dc09-receiver: ")]
    assert len(told) == 1
    assert str(port) in told[0]
    assert "ddress already in use" in told[0]
    assert "Traceback" not in done.stderr


def test_two_receivers_never_share_a_folder(receiver: Running, tmp_path: Path) -> None:
    folder_taken = tmp_path / "folder.toml"
    data = receiver.folder / "data"
    folder_taken.write_text(f'[receiver]\ndata_dir = "{data}"\n[[listeners]]\nport = 0\n[http]\nport = 0\n', "utf-8")
    done = Running.command("serve", "--config", str(folder_taken))
    assert done.returncode == 2
    assert done.stderr == f"dc09-receiver: another receiver runs on {data}: two must not share a journal\n"
    assert said(receiver.tcp(frame("1155"))[0]) == "ACK 1155"


def test_strangers_are_refused_and_told_of(receiver: Running) -> None:
    assert receiver.tcp(frame("1160", "1121 01 001", "9999"), seconds=0.3) == []
    assert receiver.tcp(frame("1161", "1121 01 001", KEYED), seconds=0.3) == []

    def told() -> dict[tuple[str, str], str]:
        troubles = [event["data"] for event in receiver.events("receiver.trouble.v1")]
        return {(data["reason"], data["account"]): data["raw"] for data in troubles}

    wait_until(lambda: told().keys() >= {("unknown-account", "9999"), ("plaintext-refused", KEYED)})
    assert b'"ADM-CID"1160' in bytes.fromhex(told()["unknown-account", "9999"])
