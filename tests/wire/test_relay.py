"""The output dc09: from one receiver to another, both real, and to a socket that shows the very bytes."""

import os
import random
import re
import time
from functools import partial
from pathlib import Path
from typing import Any

from protocols import dc09
from receiver import clock
from tests.wire.automation import Automation
from tests.wire.running import KEY, KEYED, PLAIN, SECRET, Running, frame, free_port, wait_until

EVENTS = '[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "events.jsonl"\n'
KILLS = int(os.environ.get("KILLS", "2"))  # of one receiver and the other, in turn
FAST = "ack_seconds = 0.25\nheartbeat_seconds = 0.4"
OTHER_KEY = "FFEEDDCCBBAA99887766554433221100"


def relay(port: int, more: str = FAST) -> str:
    return f'[[outputs]]\nname = "relay"\ntype = "dc09"\nhost = "127.0.0.1"\nport = {port}\n{more}\n' + EVENTS


def backlog(running: Running) -> float:
    return running.metric("receiver_output_backlog", 'output="relay"')


def told(running: Running) -> list[tuple[Any, ...]]:
    """What a receiver says happened, without what differs from receiver to receiver."""
    names = ("account", "token", "event_code", "qualifier", "partition", "zone", "user", "text", "panel_line")
    return [tuple(event["data"][name] for name in names) for event in running.events()]


def test_signals_reach_another_receiver_in_frames_of_our_own_with_our_key(tmp_path: Path) -> None:
    accounts = f"account,key\n{PLAIN},{OTHER_KEY}\n{KEYED},{OTHER_KEY}\n2C02,{OTHER_KEY}\n0000,{OTHER_KEY}\n"
    with Running(tmp_path / "other", accounts=accounts) as other:
        more = FAST + f'\nkey = "{OTHER_KEY}"\nlink_test_account = "0000"'
        own_accounts = f"account,key,dialect\n{PLAIN},,\n{KEYED},{SECRET},\n2C02,,ajax\n"
        with Running(tmp_path / "own", outputs=relay(other.port, more), accounts=own_accounts) as own:
            now = clock.now_us() // clock.SECOND_US
            address = dc09.Address("7", "3", PLAIN)
            sia = dc09.encode("SIA-DCS", "0042", address, f"#{PLAIN}|Nri1/OP3/BA7^Hall^".encode(), (("V", b"a,b"),), now)
            own.tcp(frame("0001"), sia, replies=2)
            own.tcp(frame("0002", "1121 01 005", KEYED, KEY))
            wait_until(lambda: len(other.events()) == 4)
            assert sorted(told(other)) == sorted(told(own))
            events = {event["data"]["event_code"]: event["data"] for event in other.events()}
            assert all(data["encrypted"] for data in events.values())
            assert events["121"]["duress"] is True
            assert events["BA"]["extended"]["links"] == ["a", "b"]
            assert events["BA"]["extended"]["occurred_at"] == clock.seconds_to_text(now)
            assert events["BA"]["panel_receiver_number"] == "7"
            assert other.metric("receiver_frames_total", 'answer="ack"') >= 3
            wait_until(lambda: other.metric("receiver_link_tests_total") >= 2)
            assert other.metric("receiver_duplicates_total") == 0
            own.tcp(frame("0003", "1423 01 003", "2C02"))
            ajax = wait_until(lambda: [event["data"] for event in other.events() if event["data"]["account"] == "2C02"])
            assert (ajax[0]["event_code"], ajax[0]["duress"]) == ("121", True)  # the other side knows no dialect


def test_nothing_is_lost_and_nothing_comes_twice_over_kills_of_both_receivers(tmp_path: Path) -> None:
    rng, sent = random.Random(7), 0
    accounts = f"account\n{PLAIN}\n0000\n"
    more = 'link_test_account = "0000"\ntroubles = false'
    with Running(tmp_path / "other", accounts=accounts) as other:
        with Running(tmp_path / "own", outputs=relay(other.port, more)) as own:
            for kill in range(KILLS):
                frames = [frame(f"{n:04d}", f"1130 {n // 1000:02d} {n % 1000:03d}") for n in range(sent + 1, sent + 31)]
                own.tcp(*frames, replies=30)
                sent += 30
                time.sleep(rng.random() * 0.05)
                killed = (own, other)[kill % 2]
                killed.kill()
                killed.start()
            wait_until(lambda: backlog(own) == 0, 30)
        numbers = [int(event["data"]["partition"] + event["data"]["zone"]) for event in other.export()]
    assert numbers == list(range(1, sent + 1))


def test_an_account_the_other_receiver_refuses_with_silence_holds_up_no_other(tmp_path: Path) -> None:
    more = FAST + '\nlink_test_account = "0000"\nmax_tries = 2\ntroubles = false'
    other = Running(tmp_path / "other", accounts=f"account\n{PLAIN}\n0000\n")
    own = Running(tmp_path / "own", outputs=relay(other.port, more), accounts=f"account\n{PLAIN}\n9999\n")
    with other, own:
        own.tcp(frame("0001", account="9999"), frame("0002", "1131 01 002"), replies=2)
        wait_until(lambda: len(other.events()) == 1, 30)
        assert own.metric("receiver_output_dead_letters", 'output="relay"') == 1


def test_an_outage_of_the_other_receiver_makes_no_dead_letters_and_a_duress_goes_first_after_it(tmp_path: Path) -> None:
    more = FAST + '\nlink_test_account = "0000"\nmax_tries = 1\ntroubles = false'
    other = Running(tmp_path / "other", accounts=f"account\n{PLAIN}\n0000\n")
    with Running(tmp_path / "own", outputs=relay(other.port, more)) as own:
        own.tcp(*[frame(f"{n:04d}", f"1130 00 {n:03d}") for n in range(1, 101)], replies=100)
        own.tcp(frame("0999", "1121 01 005"))
        wait_until(lambda: own.metric("receiver_output_failures_total", 'output="relay"') >= 1, 20)
        with other:
            wait_until(lambda: len(other.events()) == 101, 30)
            codes = [event["data"]["event_code"] for event in sorted(other.events(), key=lambda e: e["data"]["position"])]
            assert codes.index("121") <= 2
            assert own.metric("receiver_output_dead_letters") == 0


FRAME = re.compile(
    rb'\n[0-9A-F]{8}"(?P<token>[A-Z-]+)"(?P<sequence>[0-9]{4})(?P<address>[^#]*#[0-9A-F]+)\[(?P<rest>.*)\r', re.DOTALL
)


def test_a_relayed_frame_is_the_panels_with_our_sequence_and_time_and_a_message_goes_out_once(tmp_path: Path) -> None:
    port = free_port()

    def answer(raw: bytes) -> bytes:
        found = FRAME.fullmatch(raw)
        assert found is not None, raw
        return dc09.wrap(b'"ACK"' + found["sequence"] + found["address"] + b"[]")

    with Running(tmp_path, outputs=relay(port, FAST + "\noccurred_at = false")) as running:
        with Automation(port, end=b"\r", listens=True) as other:
            other.answer = answer
            address = dc09.Address(None, None, PLAIN)
            data = f"#{PLAIN}|NBA1/BA2/BA3".encode()
            running.tcp(dc09.encode("SIA-DCS", "0777", address, data, (("K", b"secret"), ("I", b"text")), 1))
            running.tcp(frame("0888"))
            wait_until(lambda: backlog(running) == 0)
            first, second = (FRAME.fullmatch(raw) for raw in other.events())
        assert first is not None
        assert second is not None
        assert (first["token"], first["sequence"], first["address"]) == (b"SIA-DCS", b"0001", b"L0#1A01")
        assert re.fullmatch(rb"#1A01\|NBA1/BA2/BA3\]\[Itext\]_[0-9:]{8},[0-9-]{10}", first["rest"])
        assert (second["token"], second["sequence"]) == (b"ADM-CID", b"0004")


def _failed_twice(running: Running, output: str) -> bool:
    return running.metric("receiver_output_failures_total", f'output="{output}"') >= 2


def test_a_clear_ack_is_not_believed_where_there_is_a_key_and_clocks_that_differ_refuse_nothing(tmp_path: Path) -> None:
    liar, late = free_port(), free_port()
    more = FAST + f'\nkey = "{SECRET}"\nmax_tries = 1\ntroubles = false'
    outputs = relay(liar, more).removesuffix(EVENTS) + relay(late, more).replace('"relay"', '"late"')
    with (
        Running(tmp_path, outputs=outputs) as running,
        Automation(liar, end=b"\r", listens=True) as first,
        Automation(late, end=b"\r", listens=True) as second,
    ):
        first.answer = lambda _raw: dc09.wrap(b'"ACK"0001L0#1A01[]')
        second.answer = lambda _raw: dc09.wrap(b'"NAK"0000R0L0A0[]_10:00:00,01-01-2020')
        running.tcp(frame("0001"))
        for name in ("relay", "late"):
            wait_until(partial(_failed_twice, running, name), 20)
            assert running.metric("receiver_output_delivered_total", f'output="{name}"') == 0
        assert running.metric("receiver_output_dead_letters") == 0
        assert "compare the clocks" in running.log()
