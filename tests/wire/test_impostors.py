"""Impostors at a real receiver: each has its defined answer, a trouble an operator understands, and a metric."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols import dc09
from tests.wire.running import KEY, KEYED, PLAIN, SECRET, Running, frame, read_replies, said, wait_until

WATCHED, MIXED, MOVING = "3C03", "4D04", "5E05"
ACCOUNTS = (
    f"account,key,plaintext,supervision_seconds\n{PLAIN},,,\n{KEYED},{SECRET},,\n"
    f"{WATCHED},{SECRET},,3\n{MIXED},{SECRET},accept,\n{MOVING},,,\n"
)
OTHER_KEY = dc09.Key(bytes(16))
SHORT_WINDOW = "[clock]\nbehind_seconds = 2\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("impostors"), accounts=ACCOUNTS, more=SHORT_WINDOW) as running:
        yield running


def troubles(running: Running, reason: str, account: str | None) -> list[dict[str, Any]]:
    """Return those told, each once: after a kill an output may be handed the last ones again."""
    found = {event["id"]: event["data"] for event in running.events("receiver.trouble.v1")}
    return [data for data in found.values() if data["reason"] == reason and data["account"] == account]


def told(running: Running, reason: str, account: str | None = PLAIN) -> dict[str, Any]:
    """Wait for the one trouble of this kind, and see that the metric has it."""
    (found,) = wait_until(lambda: troubles(running, reason, account))
    assert happened(running, reason) >= 1
    return dict(found)


def happened(running: Running, reason: str) -> float:
    return running.metric("receiver_troubles_total", f'reason="{reason}"')


def signals(running: Running, account: str) -> list[dict[str, Any]]:
    return [event["data"] for event in running.export() if event["data"]["account"] == account]


def from_address(running: Running, address: str, sent: bytes, seconds: float = 5.0) -> list[bytes]:
    """Send on a connection from one of loopback's many addresses."""
    with socket.create_connection(("127.0.0.1", running.port), 5, source_address=(address, 0)) as link:
        link.sendall(sent)
        return read_replies(link, 1, seconds)


def refused_with_nak(running: Running, recording: bytes) -> bool:
    return b'"NAK"' in running.tcp(recording)[0]


def test_every_reason_has_its_counter_from_the_start(desk: Running) -> None:
    page = desk.get("/metrics")[1]
    for reason in (
        "second-address",
        "replayed",
        "downgraded",
        "sequence-reused",
        "block-account-differs",
        "reflected-reply",
    ):
        assert f'receiver_troubles_total{{reason="{reason}"}} ' in page


def test_plaintext_on_a_keyed_account_and_a_key_that_no_longer_fits_are_met_with_silence_and_told(desk: Running) -> None:
    assert said(desk.tcp(frame("0001", account=KEYED, key=KEY))[0], KEY) == "ACK 0001"
    assert desk.tcp(frame("0002", account=KEYED), seconds=0.3) == []
    assert desk.tcp(frame("0003", account=KEYED, key=OTHER_KEY), seconds=0.3) == []
    assert "came in clear" in told(desk, "plaintext-refused", KEYED)["text"]
    text = told(desk, "undecryptable", KEYED)["text"]
    assert f"the key that opened account {KEYED}'s messages until 20" in text
    assert text.endswith(" UTC no longer does: panel replaced or re-keyed, or somebody else")
    assert [data["sequence"] for data in signals(desk, KEYED)] == ["0001"]


def test_a_second_address_is_acknowledged_and_told_once(desk: Running) -> None:
    for number in range(10):
        reply = from_address(desk, f"127.0.0.{2 + number % 2}", frame(f"{100 + number:04d}", account=MOVING))
        assert said(reply[0]) == f"ACK {100 + number:04d}"
    data = told(desk, "second-address", MOVING)
    assert f"account {MOVING} reports from 127.0.0.3 and was heard from 127.0.0.2 " in data["text"]
    assert data["peer"].startswith("127.0.0.3:")
    assert len(signals(desk, MOVING)) == 10
    assert happened(desk, "second-address") == 1


def test_a_recording_gets_an_ack_inside_the_window_nak_outside_and_is_told_also_after_a_restart(tmp_path: Path) -> None:
    with Running(tmp_path, accounts=ACCOUNTS, more=SHORT_WINDOW) as running:
        recording = frame("0001", "1121 01 007", KEYED, KEY)
        assert said(running.tcp(recording)[0], KEY) == "ACK 0001"
        assert said(running.tcp(recording)[0], KEY) == "ACK 0001"
        assert running.metric("receiver_duplicates_total") == 1
        assert happened(running, "replayed") == 0
        wait_until(lambda: refused_with_nak(running, recording))
        assert "sequence 0001 was stored before and came again" in told(running, "replayed", KEYED)["text"]
        running.kill()
        running.start()
        assert refused_with_nak(running, recording)
        wait_until(lambda: len(troubles(running, "replayed", KEYED)) == 2)
        assert happened(running, "replayed") == 1
        assert said(running.tcp(frame("0002", account=KEYED, key=KEY))[0], KEY) == "ACK 0002"
        assert [data["sequence"] for data in signals(running, KEYED)] == ["0001", "0002"]


def test_a_recorded_link_test_is_acknowledged_and_keeps_no_dead_path_alive(tmp_path: Path) -> None:
    with Running(tmp_path, accounts=ACCOUNTS) as running:
        now = int(time.time())  # noqa: TID251 - the panel's clock
        recording = dc09.encode("NULL", "0000", dc09.Address(None, "0", WATCHED), panel_time=now, key=KEY)

        def lost() -> bool:
            assert said(running.tcp(recording)[0], KEY) == "ACK 0000"
            time.sleep(0.2)  # an impostor's pace
            return "lost" in [event["data"]["state"] for event in running.events("receiver.path.v1")]

        wait_until(lost)
        assert running.metric("receiver_link_tests_stale_total") >= 5
        assert running.metric("receiver_paths", 'state="lost"') == 1
        assert said(running.tcp(frame("0001", account=WATCHED, key=KEY))[0], KEY) == "ACK 0001"
        wait_until(lambda: running.events("receiver.path.v1")[-1]["data"]["state"] == "restored")


def test_an_account_that_gives_up_encryption_is_stored_flagged_and_told(desk: Running) -> None:
    assert said(desk.tcp(frame("0001", account=MIXED, key=KEY))[0], KEY) == "ACK 0001"
    assert said(desk.tcp(frame("0002", account=MIXED))[0]) == "ACK 0002"
    assert "now reports in clear" in told(desk, "downgraded", MIXED)["text"]
    assert [data["flags"] for data in signals(desk, MIXED)] == [[], ["plaintext"]]


def test_under_the_default_key_too(tmp_path: Path) -> None:
    config = f'[accounts]\nfile = "accounts.csv"\ndefault_key = "{SECRET}"\n'
    with Running(tmp_path) as running:
        running.config.write_text(running.config.read_text("utf-8").replace('[accounts]\nfile = "accounts.csv"\n', config))
        running.stop()
        running.start()
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        assert said(running.tcp(frame("0002", key=KEY))[0], KEY) == "ACK 0002"
        assert said(running.tcp(frame("0003"))[0]) == "ACK 0003"
        assert "now reports in clear" in told(running, "downgraded")["text"]
        assert [data["flags"] for data in signals(running, PLAIN)] == [[], [], ["plaintext"]]


def test_a_sequence_used_again_with_other_data_is_stored_acknowledged_and_told(desk: Running) -> None:
    for number, zone in [("0201", 1), ("0202", 2), ("0203", 3), ("0203", 4), ("0203", 3), ("0204", 5)]:
        assert said(desk.tcp(frame(number, f"1130 02 {zone:03d}"))[0]) == f"ACK {number}"
    assert "used sequence 0203 for other data" in told(desk, "sequence-reused")["text"]
    stored = [(data["sequence"], data["zone"]) for data in signals(desk, PLAIN) if data["partition"] == "02"]
    assert stored == [("0201", "001"), ("0202", "002"), ("0203", "003"), ("0203", "004"), ("0204", "005")]


def test_another_account_inside_stays_the_headers_and_is_told_once(desk: Running) -> None:
    address = dc09.Address(None, "0", PLAIN)
    for number in range(3):
        sent = dc09.encode("ADM-CID", f"030{number}", address, b"#9999|1602 03 00%d" % number)
        assert said(desk.tcp(sent)[0]) == f"ACK 030{number}"
    assert said(desk.tcp(dc09.encode("NULL", "0000", address, b"#0000|0000 00 000"))[0]) == "ACK 0000"
    assert "sends data of account 9999" in told(desk, "block-account-differs")["text"]
    assert happened(desk, "block-account-differs") == 3
    assert [data["block_account"] for data in signals(desk, PLAIN) if data["partition"] == "03"] == ["9999"] * 3


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_our_own_replies_sent_back_are_met_with_silence_and_told(desk: Running, transport: str) -> None:
    before = happened(desk, "reflected-reply")
    stale = dc09.encode("ADM-CID", "0401", dc09.Address(None, "0", KEYED), b"#2B02|1121 01 001", (), 1_700_000_000, KEY)
    for sent in (
        frame("0402"),
        frame("0403", account=KEYED, key=KEY),
        stale,
        dc09.encode("XYZ", "0404", dc09.Address(None, "0", PLAIN)),
    ):
        (reply,) = desk.tcp(sent)
        assert (desk.udp(reply, 0.2) is None) if transport == "udp" else (desk.tcp(reply, seconds=0.2) == [])
    told(desk, "reflected-reply", PLAIN)
    assert happened(desk, "reflected-reply") == before + 4


def test_ten_thousand_strangers_are_twenty_troubles_and_one_with_the_count(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        for source in range(100):
            strangers = [frame("0001", account=f"F{100 * source + n:05d}") for n in range(100)]
            assert from_address(running, f"127.0.1.{source + 1}", b"".join(strangers) + frame("0001")) != []
        assert happened(running, "unknown-account") == 10_000
        assert running.stop() == 0
        found = [event["data"] for event in running.export("receiver.trouble.v1")]
        found = [data for data in found if data["reason"] == "unknown-account"]
        assert [data["count"] for data in found] == [1] * 20 + [9_980]
        storm = found[-1]
        assert storm["account"] is storm["raw"] is None
        assert "9980 more within a minute, of 9980 accounts, from several addresses" in storm["text"]
