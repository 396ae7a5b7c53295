"""Frames of panels that deviate, over real sockets: taken, kept and read again where a dialect allows them."""

from pathlib import Path

import pytest

from protocols import dc09
from protocols.dc09.crc import crc16
from receiver import clock
from tests import vectors
from tests.wire.running import KEY, KEYED, SECRET, Running, frame, is_closed, read_replies, said, wait_until

ELDES = {vector["name"]: bytes.fromhex(vector["frame"]) for vector in vectors.load("eldes")}
CRC_ONLY, LENGTH_TOO = ELDES["eldes-crc-covers-cr-1"], ELDES["eldes-2019-crc-and-length-cover-cr-1"]
ACCOUNTS = "account,dialect\n4F39,eldes\n9999,eldes\n1A01,\n"


def test_eldes_panels_are_answered_over_tcp_and_udp_and_what_they_sent_is_handed_on(tmp_path: Path) -> None:
    with Running(tmp_path, accounts=ACCOUNTS) as running:
        assert said(running.tcp(LENGTH_TOO)[0]) == "ACK 0056"  # though nothing follows it
        assert [said(reply) for reply in running.tcp(CRC_ONLY + LENGTH_TOO + frame("0007"), replies=3)] == [
            "ACK 0227", "ACK 0056", "ACK 0007",
        ]  # fmt: skip
        assert said(running.udp(ELDES["eldes-2019-crc-and-length-cover-cr-2"])) == "ACK 0061"
        events = wait_until(lambda: len(running.events()) >= 4 and running.events())
        assert {event["data"]["event_code"] for event in events} == {"900", "401", "130", "602"}
        assert running.events("receiver.trouble.v1") == []
        done = running.command("journal", "verify", "--config", str(running.config))
        assert done.returncode == 0, done.stdout


def test_a_listeners_dialect_counts_for_accounts_without_one_and_a_refusal_names_what_would_help(tmp_path: Path) -> None:
    running = Running(tmp_path, 'dialect = "eldes"', accounts="account,dialect\n4F39,\n9999,ajax\n")
    with running:
        assert said(running.tcp(CRC_ONLY)[0]) == "ACK 0227"
        assert running.tcp(LENGTH_TOO, seconds=0.3) == []
        shown = wait_until(
            lambda: (
                "bad-crc" in running.command("journal", "show", "--refused", "--config", str(running.config)).stdout
                and running.command("journal", "show", "--refused", "--config", str(running.config)).stdout
            )
        )
        assert "account 9999 fits with dialect eldes (CRC over the CR)" in shown


def _account_and_listener(tmp_path: Path, dialect: str, more: str = "") -> list[Running]:
    """Return two receivers: one knows the dialect by the account 1A01, the other by its listener."""
    return [
        Running(tmp_path / "account", more=more, accounts=f"account,dialect,supervision_seconds\n1A01,{dialect},3600\n"),
        Running(
            tmp_path / "listener", f'dialect = "{dialect}"', more=more,
            accounts="account,dialect,supervision_seconds\n1A01,,3600\n",
        ),
    ]  # fmt: skip


def _body(text: str, crc: str = "hex", tail: bytes = b"") -> bytes:
    """Return a frame around a body, byte by byte as such a panel writes it."""
    body = text.encode("latin-1")
    number = crc16(body)
    written = {"hex": b"%04X" % number, "lower": b"%04x" % number, "binary": number.to_bytes(2, "big")}[crc]
    return b"\n" + written + b"0%03X" % len(body) + body + b"\r" + tail


TAKEN_OF_ALL = {
    "a CRC as two raw bytes": _body('"ADM-CID"0101R1L0#1A01[#1A01|1602 00 000]', "binary"),
    "a CRC in lower case": _body('"ADM-CID"0102L0#1A01[#1A01|1130 01 001]', "lower"),
    "no L": _body('"ADM-CID"0103R1#1A01[#1A01|1130 01 002]'),
    "an empty L, no R": _body('"ADM-CID"0104L#1A01[#1A01|1130 01 003]'),
    "NUL behind the frame": _body('"ADM-CID"0105L0#1A01[#1A01|1130 01 004]', tail=b"\0"),
    "NULL with another account's body": _body('"NULL"0000R0L0#1A01[#0000|0000 00 000]'),
    "NULL with a test code as its body": _body('"NULL"0106L0#1A01[#1A01|1602 99 999]'),
    "an encoded body in another account's name": _body('"ADM-CID"0107L0#1A01[#9999|1130 01 005]'),
}


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_what_the_bytes_show_is_taken_of_every_panel_and_echoed_as_it_came(tmp_path: Path, transport: str) -> None:
    with Running(tmp_path) as running:
        for name, raw in TAKEN_OF_ALL.items():
            reply = running.tcp(raw)[0] if transport == "tcp" else running.udp(raw)
            assert reply is not None, name
            (sent,), (answered,) = dc09.split_datagram(raw), dc09.split_datagram(reply)
            assert isinstance(sent, dc09.Frame)
            assert isinstance(answered, dc09.Frame)
            front = sent.body.partition(b"[")[0]
            assert answered.body == b'"ACK"' + front.rpartition(b'"')[2] + b"[]", name
            assert answered.binary_crc is sent.binary_crc, name
        codes = [event["data"]["event_code"] for event in running.export()]
        assert codes == ["602", "130", "130", "130", "130", "130"]  # a NULL is no event, whatever its body


@pytest.mark.parametrize("dialect", ["close", "keep"])
@pytest.mark.parametrize("whose", [0, 1])
def test_who_closes_is_said_by_the_account_before_the_listener(tmp_path: Path, dialect: str, whose: int) -> None:
    running = _account_and_listener(tmp_path, dialect)[whose]
    if dialect == "keep":
        running.config.write_text(
            running.config.read_text("utf-8").replace("[accounts]", "close_after_ack = true\n[accounts]")
        )
    with running, running.connect() as link:
        for number in (1, 2):
            link.sendall(frame(f"000{number}"))
            assert said(read_replies(link, 1, 5)[0]) == f"ACK 000{number}"
            if dialect == "close":
                assert is_closed(link)
                return
        link.sendall(TAKEN_OF_ALL["NULL with a test code as its body"])
        assert said(read_replies(link, 1, 5)[0]) == "ACK 0106"
        assert not is_closed(link, 0.3)


def test_on_a_connection_of_many_accounts_each_says_who_closes(tmp_path: Path) -> None:
    rows = "account,dialect\n1A01,\n3C03,close\n"
    with Running(tmp_path, accounts=rows) as running, running.connect() as link:
        link.sendall(frame("0001"))
        assert said(read_replies(link, 1, 5)[0]) == "ACK 0001"
        link.sendall(frame("0002", account="9999"))  # a stranger: silence, and no say
        link.sendall(frame("0003", account="3C03") + frame("0004"))
        assert [said(reply) for reply in read_replies(link, 2, 5)] == ["ACK 0003", "ACK 0004"]
        assert is_closed(link)
    assert [event["data"]["sequence"] for event in running.export()] == ["0001", "0003", "0004"]


@pytest.mark.parametrize("whose", [0, 1])
def test_pima_finds_its_word_in_the_ack_over_tcp_and_no_longer_one_over_udp(tmp_path: Path, whose: int) -> None:
    with _account_and_listener(tmp_path, "pima")[whose] as running:
        null = _body('"NULL"0007L0#1A01[]')
        assert b'"ACK"0007L0#1A01[KC]' in running.tcp(null)[0]
        assert b'"ACK"0008L0#1A01[KC]' in running.tcp(frame("0008"))[0]
        answer = running.udp(null)
        assert answer is not None
        assert b"[]" in answer


def test_pimas_word_stands_in_an_encrypted_ack_too(tmp_path: Path) -> None:
    rows = f"account,key,dialect\n{KEYED},{SECRET},pima\n"
    with Running(tmp_path, accounts=rows) as running:
        (reply,) = dc09.split_datagram(running.tcp(frame("0001", account=KEYED, key=KEY))[0])
        assert isinstance(reply, dc09.Frame)
        message = dc09.unseal(dc09.open_envelope(reply), KEY)
        assert (message.envelope.token, message.data) == ("ACK", b"KC")
        assert message.panel_time is not None


QUIET = '[[outputs]]\nname = "quiet"\ntype = "jsonl"\npath = "quiet.jsonl"\npolls = "omit"\n'


@pytest.mark.parametrize("whose", [0, 1])
def test_test_codes_that_are_polls_are_stored_keep_the_path_alive_and_an_output_may_leave_them_out(
    tmp_path: Path, whose: int
) -> None:
    running = _account_and_listener(tmp_path, "trikdis", QUIET)[whose]
    with running:
        polls = [_body(f'"ADM-CID"{n:04d}L0#1A01[#1A01|1{code} 99 999]', "binary") for n, code in ((1, 602), (2, 603))]
        polls.append(_body('"SIA-DCS"0003L0#1A01[#1A01|NRP000]'))
        for raw in polls:
            assert running.tcp(raw)[0].count(b'"ACK"') == 1
        assert running.metric("receiver_paths", 'state="alive"') == 1
        others = [frame("0004", "1601 00 000"), frame("0005"), _body('"SIA-DCS"0006L0#1A01[#1A01|NRP000/BA001]')]
        assert len(running.tcp(*others, replies=3)) == 3
        every = wait_until(lambda: len(running.events()) >= 7 and running.events())
        assert [event["data"]["event_code"] for event in every] == ["602", "603", "RP", "601", "130", "RP", "BA"]
        assert all(event["data"]["flags"] == [] for event in every)
        left = wait_until(lambda: len(running.events(file=running.folder / "quiet.jsonl")) >= 4 and running.events(
            file=running.folder / "quiet.jsonl"))  # fmt: skip
        assert [event["data"]["event_code"] for event in left] == ["601", "130", "RP", "BA"]
    assert [event["data"]["event_code"] for event in running.export()][:3] == ["602", "603", "RP"]


def test_an_account_without_that_dialect_has_its_tests_delivered_everywhere(tmp_path: Path) -> None:
    with Running(tmp_path, more=QUIET) as running:
        assert said(running.tcp(frame("0001", "1602 99 999"))[0]) == "ACK 0001"
        wait_until(lambda: running.events(file=tmp_path / "quiet.jsonl"))


@pytest.mark.parametrize("whose", [0, 1])
def test_423_is_duress_and_another_account_inside_no_trouble_where_account_or_listener_says_so(
    tmp_path: Path, whose: int
) -> None:
    with _account_and_listener(tmp_path, "ajax+bosch")[whose] as running:
        assert said(running.tcp(frame("0001", "1423 01 005"))[0]) == "ACK 0001"
        assert said(running.tcp(TAKEN_OF_ALL["an encoded body in another account's name"])[0]) == "ACK 0107"
        assert said(running.tcp(frame("0002", account="1A01"))[0]) == "ACK 0002"
        told = [event["data"] for event in wait_until(lambda: len(running.events()) >= 3 and running.events())]
        assert {(data["event_code"], data["duress"], data["priority"]) for data in told} >= {("423", True, 1)}
        assert [data.get("block_account") for data in told if data["sequence"] == "0107"] == ["9999"]
        assert running.events("receiver.trouble.v1") == []


@pytest.mark.parametrize("whose", ["account", "listener"])
def test_a_panel_of_local_time_is_understood_where_account_or_listener_names_the_zone(tmp_path: Path, whose: str) -> None:
    listener = 'time_zone = "Asia/Tokyo"' if whose == "listener" else ""
    zone = "Asia/Tokyo" if whose == "account" else ""
    rows = f"account,key,time_zone\n{KEYED},{SECRET},{zone}\n4D04,{SECRET},UTC\n"
    with Running(tmp_path, listener, accounts=rows) as running:
        now = clock.now_us() // clock.SECOND_US
        local, address = now + 9 * 3600, dc09.Address(None, "0", KEYED)
        raw = dc09.encode("ADM-CID", "0001", address, f"#{KEYED}|1130 01 001".encode(), panel_time=local, key=KEY)
        for answer in (running.tcp(raw)[0], running.udp(raw)):
            assert said(answer, KEY) == "ACK 0001"
        (event,) = running.export()
        assert event["data"]["panel_time"] == clock.seconds_to_text(now)
        assert said(running.tcp(frame("0002", account="4D04", key=KEY))[0], KEY) == "ACK 0002"  # its own counts alone
