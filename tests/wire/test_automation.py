"""Outputs to automation software, over real sockets, with a program at the other end that owes nothing to our own code."""

import contextlib
import os
import random
import re
import socket
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest

from protocols import dc09
from receiver import clock
from tests.wire.automation import ACK, HEARTBEAT, NAK, Automation, acknowledge, stay_silent
from tests.wire.running import KEY, KEYED, PLAIN, Running, frame, free_port, said, wait_until

KILLS = int(os.environ.get("KILLS", "2"))  # of the receiver, and three times as many of the automation
FAST = "ack_seconds = 0.25\nheartbeat_seconds = 0.4"
EVENTS = '[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "events.jsonl"\n'


def surgard(port: int, more: str = FAST) -> str:
    return f'[[outputs]]\nname = "centre"\ntype = "surgard"\nport = {port}\n{more}\n' + EVENTS


def sia(sequence: str, block: str, account: str = PLAIN) -> bytes:
    now = clock.now_us() // clock.SECOND_US
    data = f"#{account}|{block}".encode()
    return dc09.encode("SIA-DCS", sequence, dc09.Address(None, "0", account), data, panel_time=now)


def backlog(running: Running) -> float:
    return running.metric("receiver_output_backlog", 'output="centre"')


def reasons(running: Running) -> list[str]:
    return [event["data"]["reason"] for event in running.events("receiver.trouble.v1")]


def numbered(sequence: int, event: str = "1130") -> bytes:
    """A frame whose event bears its sequence: partition and zone."""
    return frame(f"{sequence:04d}", f"{event} {sequence // 1000:02d} {sequence % 1000:03d}")


def number_in(report: bytes) -> int:
    found = re.fullmatch(rb"501001 181A01[ERP][0-9A-F]{3}([0-9]{2})([0-9]{3})\x14", report)
    assert found is not None, report
    return int(found[1]) * 1000 + int(found[2])


def test_a_port_that_is_taken_is_told_at_once_and_listened_on_when_it_is_free(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with Running(tmp_path, outputs=surgard(port)) as running:
            wait_until(lambda: "an output cannot listen; it tries again" in running.log())
            assert f"127.0.0.1:{port}" in running.log()
            other.close()
            running.tcp(frame("0001"))
            with Automation(port) as automation:
                wait_until(automation.had)
            assert running.log().count("cannot listen; it tries again") == 1


def test_silence_brings_four_copies_then_heartbeats_only_until_one_is_acknowledged(tmp_path: Path) -> None:
    port = free_port()
    with Running(tmp_path, outputs=surgard(port)) as running, Automation(port) as automation:
        wait_until(lambda: HEARTBEAT in automation.taken)
        automation.answer = stay_silent
        running.tcp(frame("0001"))
        wait_until(lambda: "automation-lost" in reasons(running))
        wait_until(lambda: automation.frames[-3:] == [HEARTBEAT] * 3)
        assert len(automation.events()) == 4
        assert not automation.had()
        first = automation.frames.index(automation.events()[0])
        gaps = [b - a for a, b in zip(automation.moments[first:], automation.moments[first + 1 : first + 4], strict=False)]
        assert all(gap >= 0.24 for gap in gaps)
        automation.answer = acknowledge
        wait_until(automation.had)
        wait_until(lambda: "automation-restored" in reasons(running))
        wait_until(lambda: backlog(running) == 0)
        assert automation.had()[0] == b"501001 181A01E13001001\x14"
        assert b"501001 180000E35000149\x14" in automation.had()
        assert b"501001 180000R35000149\x14" in automation.had()
        assert len(automation.had()) == 3


def test_nothing_is_lost_over_kills_of_the_automation_in_the_middle_and_only_what_was_in_flight_comes_twice(
    tmp_path: Path,
) -> None:
    port, rng, kills = free_port(), random.Random(5), 3 * KILLS
    with Running(tmp_path, outputs=surgard(port, "troubles = false")) as running:
        automation = Automation(port).start()
        sent = 0
        for _ in range(kills):
            automation.die_after = rng.randrange(8)
            running.tcp(*[numbered(n) for n in range(sent + 1, sent + 11)], replies=10)
            sent += 10
            wait_until(automation._stopped.is_set)
            automation.stop()
            automation.start()
        wait_until(lambda: backlog(running) == 0, 60)
        automation.stop()
        numbers = [number_in(report) for report in automation.events()]
        assert set(numbers) == set(range(1, sent + 1))
        assert len(numbers) - sent <= kills  # one frame is in flight
        assert [n for i, n in enumerate(numbers) if n not in numbers[:i]] == sorted(set(numbers))


def test_nothing_is_lost_over_kills_of_the_receiver_which_goes_on_from_its_cursor_on_disk(tmp_path: Path) -> None:
    port, rng, kills = free_port(), random.Random(6), KILLS
    running = Running(tmp_path, outputs=surgard(port, "troubles = false"))
    with running, Automation(port) as automation:
        sent = 0
        for _ in range(kills):
            running.tcp(*[numbered(n) for n in range(sent + 1, sent + 31)], replies=30)
            sent += 30
            time.sleep(rng.random() * 0.05)
            running.kill()
            running.start()
        wait_until(lambda: backlog(running) == 0, 60)
        numbers = [number_in(report) for report in automation.had()]
    assert (numbers[0], numbers[-1]) == (1, sent)
    steps = [after - before for before, after in pairwise(numbers)]
    assert max(steps) == 1
    assert len([step for step in steps if step < 1]) <= kills  # to where the cursor on disk stood


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, int]]:
    """A receiver that waits for answers not long, and the port of its automation."""
    port = free_port()
    with Running(
        tmp_path_factory.mktemp("quick"), outputs=surgard(port, FAST + "\nmax_tries = 2\ntroubles = false")
    ) as running:
        wait_until(lambda: "state=listening" in running.log())
        yield running, port


def test_an_event_that_is_refused_for_ever_holds_up_nobody_and_is_kept(quick: tuple[Running, int]) -> None:
    running, port = quick
    with Automation(port) as automation:
        automation.answer = lambda report: NAK if b"E131" in report else ACK
        running.tcp(frame("0001"), frame("0002", "1131 01 002"), frame("0003", "1132 01 003"), replies=3)
        wait_until(lambda: running.metric("receiver_output_dead_letters", 'output="centre"') == 1, 20)
        wait_until(partial(_has, automation, b"E132"))
        assert len([report for report in automation.events() if b"E131" in report]) == 8
        assert "dead-letter" in wait_until(lambda: reasons(running))


def test_an_event_at_which_the_automation_hangs_up_is_kept_and_holds_up_nobody(quick: tuple[Running, int]) -> None:
    running, port = quick
    before = running.metric("receiver_output_dead_letters", 'output="centre"')
    with Automation(port) as automation:
        automation.hangs_up = lambda report: b"E137" in report
        running.tcp(
            frame("0041", "1137 01 001"), frame("0042", "1138 01 002"), frame("0043", "1138 01 003", KEYED, KEY),
            frame("0044", "1138 01 004", KEYED, KEY), replies=4,
        )  # fmt: skip
        wait_until(lambda: backlog(running) == 0, 30)
        assert running.metric("receiver_output_dead_letters", 'output="centre"') == before + 1
        had = [report[7:20] for report in automation.had() if b"E138" in report]
        assert sorted(had) == [b"181A01E138010", b"182B02E138010", b"182B02E138010"]
        assert "with this event in hand while it takes others" in running.log()


def test_automation_that_hangs_up_on_everything_makes_no_dead_letters(quick: tuple[Running, int]) -> None:
    running, port = quick
    before = running.metric("receiver_output_dead_letters", 'output="centre"')
    with Automation(port) as automation:
        automation.hangs_up = lambda report: report != HEARTBEAT
        running.tcp(frame("0051", "1139 01 001"), frame("0052", "1139 01 002", KEYED, KEY), replies=2)
        running.tcp(frame("0053", "1121 01 003", KEYED, KEY))
        wait_until(lambda: automation.connections >= 8, 30)
        assert running.metric("receiver_output_dead_letters", 'output="centre"') == before
        automation.hangs_up = lambda _report: False
        wait_until(lambda: backlog(running) == 0, 30)
        assert running.metric("receiver_output_dead_letters", 'output="centre"') == before


def test_a_late_answer_is_never_taken_for_that_of_the_next_event(quick: tuple[Running, int]) -> None:
    """The other side needs longer than ``ack_seconds``, drops the second event, and says nothing of it."""
    running, port = quick
    dropped: list[bytes] = []

    def slow(report: bytes) -> bytes | None:
        if b"E134" in report and len(dropped) < 2:
            dropped.append(report)
            return None
        if b"E133" in report:
            time.sleep(0.5)
        return ACK

    with Automation(port) as automation:
        automation.answer = slow
        running.tcp(frame("0011", "1133 01 001"), frame("0012", "1134 01 002"), replies=2)
        wait_until(lambda: backlog(running) == 0, 20)
        assert len(dropped) == 2
        assert any(b"E134" in report for report in automation.had())


def test_rubbish_in_place_of_answers_is_no_answer(quick: tuple[Running, int]) -> None:
    running, port = quick
    with Automation(port) as automation:
        rubbish = iter([b"\x00\xffhello\n", b"", b"OK"])
        automation.answer = lambda report: ACK if report == HEARTBEAT else next(rubbish, ACK)
        running.tcp(frame("0021", "1135 01 001"))
        wait_until(lambda: backlog(running) == 0)
        assert len(automation.events()) == 4
        assert len(automation.had()) == 1


def test_a_connection_that_acknowledges_no_heartbeat_gets_no_event(quick: tuple[Running, int]) -> None:
    running, port = quick
    with socket.create_connection(("127.0.0.1", port), 5) as stranger:
        assert stranger.recv(len(HEARTBEAT)) == HEARTBEAT
        with Automation(port) as automation:
            running.tcp(frame("0031", "1136 01 001"))
            wait_until(partial(_has, automation, b"E136"))
        stranger.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            assert b"E136" not in stranger.recv(4096)


# -- what is told, and in which form ---------------------------------------------------------------------------------------


KINDS = {
    "wide": ("surgard", ""),
    "refuse": ("surgard", 'overflow = "refuse"'),
    "cut": ("surgard", 'overflow = "trouble"\nforms = ["contact-id"]'),
    "short": ("surgard", 'forms = ["contact-id"]\nline = "1"'),
    "ademco": ("ademco685", ""),
}
PANELS = (PLAIN, "2B02", "3C03", "4D04", "5E05", "6F06", "12345", "12346", "12347", "12345678901", "12G4", "123", "FA11")
REGISTER = "account,dialect,supervision_seconds\n" + "".join(
    f"{account},{'ajax' if account == '2B02' else ''},{1 if account == 'FA11' else ''}\n" for account in PANELS
)


class Centre:
    """One receiver with an output for each kind of automation, and the programs at the other ends."""

    def __init__(self, folder: Path) -> None:
        ports = {name: free_port() for name in KINDS}
        outputs = "".join(
            f'[[outputs]]\nname = "{name}"\ntype = "{kind}"\nport = {ports[name]}\nack_seconds = 1\n{more}\n'
            for name, (kind, more) in KINDS.items()
        )
        self.running = Running(folder, outputs=outputs + EVENTS, accounts=REGISTER)
        self.programs = {name: Automation(ports[name], end=b"\r" if name == "ademco" else b"\x14").start() for name in KINDS}

    def had(self, name: str, part: bytes) -> list[bytes]:
        """What a program has that holds ``part``, once everything was handed over."""
        wait_until(lambda: self.running.metric("receiver_output_backlog") == 0)
        return [report for report in self.programs[name].had() if part in report]


@pytest.fixture(scope="module")
def centre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    made = Centre(tmp_path_factory.mktemp("centre"))
    with made.running:
        yield made
    for program in made.programs.values():
        program.stop()


def test_contact_id_and_sia_reach_the_automation_byte_for_byte_and_in_order(centre: Centre) -> None:
    centre.running.tcp(
        frame("0001", "1130 01 015"), frame("0002", "3130 01 015"), frame("0003", "6301 00 000"),
        sia("0004", "Nri1/BA007^Hall^"), sia("0005", "Nri1/id5/OP/BA9"), frame("0006", "1602 00 000"), replies=6,
    )  # fmt: skip
    assert centre.had("wide", b"1A01") == [
        b"501001 181A01E13001015\x14", b"501001 181A01R13001015\x14", b"501001 181A01P30100000\x14",
        b"S01001[#1A01|Nri1/BA007^Hall^]\x14", b"S01001[#1A01|Nri1/id5/OP]\x14", b"S01001[#1A01|Nri1/id5/BA9]\x14",
        b"501001 181A01E60200000\x14",
    ]  # fmt: skip
    assert centre.had("short", b"1A01E130")[0] == b"5011 181A01E13001015\x14"


def test_an_account_or_number_without_room_takes_the_next_wider_form(centre: Centre) -> None:
    centre.running.tcp(
        frame("0001", account="12345"), frame("0002", "1121 01 005", account="12345678901"),
        frame("0003", account="12G4"), frame("0004", "1130 01 1234", account="3C03"), frame("0005", account="123"),
        replies=5,
    )  # fmt: skip
    assert centre.had("wide", b"0012345E") == [b"Q01001 580000012345E13001001\x14"]
    assert centre.had("wide", b"12345678901") == [b"S01001[#12345678901|Nri01/id005/HA]\x14"]
    assert centre.had("wide", b"12G4") == [b"S01001[#12G4|Nri01/BA001]\x14"]
    assert centre.had("wide", b"3C03") == [b"S01001[#3C03|Nri01/BA1234]\x14"]
    assert centre.had("wide", b" 180123") == [b"501001 180123E13001001\x14"]
    assert centre.running.metric("receiver_output_converted_total", 'output="wide"') >= 3
    assert "event converted" in centre.running.log()


def test_an_account_without_room_becomes_a_dead_letter_where_that_is_wanted_and_a_duress_loudly(centre: Centre) -> None:
    dead = centre.running.metric("receiver_output_dead_letters", 'output="refuse"')
    centre.running.tcp(frame("0011", "1121 01 005", account="12346"), frame("0012", "1130 01 007"), replies=2)
    assert centre.had("refuse", b"1A01E13001007") == [b"501001 181A01E13001007\x14"]
    assert centre.had("refuse", b"2346") == []
    assert b"501001 180000E35400000\x14" in centre.had("refuse", b"0000E354")  # the trouble that tells of it
    assert centre.running.metric("receiver_output_dead_letters", 'output="refuse"') == dead + 1
    assert "duress is a dead letter" in centre.running.log()
    assert "account 12346 has no room in 4 digits" in centre.running.log()


def test_an_account_without_room_goes_out_cut_with_a_trouble_where_that_is_wanted(centre: Centre) -> None:
    centre.running.tcp(frame("0021", account="12347"), frame("0022", "1130 01 1234", account="4D04"), replies=2)
    assert centre.had("cut", b"2347") == [b"501001 182347E13001001\x14"]
    assert centre.had("cut", b"4D04") == [b"501001 184D04E13001999\x14"]
    texts = [event["data"]["text"] for event in centre.running.events("receiver.trouble.v1")]
    assert any("account 12347 has no room in 4 digits" in text for text in texts)
    assert any("number 1234 has no room" in text for text in texts)


def test_sia_is_converted_only_for_a_side_that_does_not_take_it_and_never_by_a_guess(centre: Centre) -> None:
    five = sia("0031", "Nri1/id5/HA", "5E05"), sia("0032", "Nri2/CL3", "5E05"), sia("0033", "NDC1", "5E05")
    centre.running.tcp(*five, replies=3)
    assert sorted(centre.had("short", b"5E05")) == [b"5011 185E05E12101005\x14", b"5011 185E05R40102003\x14"]
    assert b"S01001[#5E05|NDC1]\x14" in centre.had("wide", b"5E05")
    assert "pair the SIA code DC with no Contact ID code" in centre.running.log()


def test_a_disarm_under_duress_of_an_ajax_hub_goes_out_as_a_duress_and_a_forced_door_as_itself(centre: Centre) -> None:
    centre.running.tcp(frame("0041", "1423 01 003", account="2B02"), frame("0042", "1423 01 003"), replies=2)
    assert centre.had("wide", b"2B02") == [b"501001 182B02E12101003\x14"]
    assert centre.had("wide", b"E423") == [b"501001 181A01E42301003\x14"]


def test_no_panel_can_write_a_report_of_another_account(centre: Centre) -> None:
    centre.running.tcp(sia("0051", "NBA1^x]\x14501001 189999R12101001\x14^", "6F06"), sia("0052", "NBA2", "6F06"), replies=2)
    assert centre.had("wide", b"6F06")[1] == b"S01001[#6F06|NBA2]\x14"
    assert len(centre.had("wide", b"6F06")) == 2
    assert centre.had("wide", b"9999") == [b"S01001[#6F06|NBA1^x) 501001 189999R12101001 ^]\x14"]


def test_ademco_685_says_zone_or_user_and_converts_sia(centre: Centre) -> None:
    centre.running.tcp(
        frame("0061", "1133 01 016"), frame("0062", "3121 01 001"), sia("0063", "Nri1/id5/OP"), replies=3
    )  # fmt: skip
    assert centre.had("ademco", b"E133") == [b"\n11 1A01 18 E133 01 C016\r"]
    assert centre.had("ademco", b"R121") == [b"\n11 1A01 18 R121 01 U001\r"]
    assert b"\n11 1A01 18 E401 01 U005\r" in centre.had("ademco", b"E401")


def test_silence_about_one_event_is_told_from_a_dead_link_by_others_where_there_is_no_heartbeat(tmp_path: Path) -> None:
    port = free_port()
    more = f"port = {port}\nack_seconds = 0.1\ntries = 2\nmax_tries = 2\ntroubles = false"
    outputs = f'[[outputs]]\nname = "centre"\ntype = "ademco685"\n{more}\n{EVENTS}'
    with Running(tmp_path, outputs=outputs) as running, Automation(port, end=b"\r") as automation:
        automation.answer = stay_silent
        running.tcp(frame("0001", "1131 01 001"), frame("0002", "1132 01 002", KEYED, KEY), replies=2)
        wait_until(lambda: running.metric("receiver_output_failures_total", 'output="centre"') >= 4, 30)
        assert running.metric("receiver_output_dead_letters") == 0
        automation.answer = lambda report: None if b"E131" in report else ACK
        running.tcp(frame("0003", "1133 01 003", KEYED, KEY), frame("0004", "1134 01 004"))
        wait_until(lambda: backlog(running) == 0, 30)
        assert sorted(report[12:16] for report in automation.had()) == [b"E132", b"E133", b"E134"]
        assert running.metric("receiver_output_dead_letters", 'output="centre"') == 1
        assert not any(b"E131" in report for report in automation.had())


def test_a_lost_path_and_its_return_are_told_as_communication_trouble_of_the_account(centre: Centre) -> None:
    centre.running.tcp(frame("0071", account="FA11"))
    wait_until(lambda: b"501001 18FA11E35000000\x14" in centre.programs["wide"].had())
    centre.running.tcp(frame("0072", "1131 01 002", account="FA11"))
    wait_until(lambda: b"501001 18FA11R35000000\x14" in centre.programs["wide"].had())


# -- who connects, and when ------------------------------------------------------------------------------------------------


class Doors:
    """One receiver with an output for each way to meet; another program holds the port of one when it starts."""

    WAYS = ("one", "all", "closed", "few", "client", "taken")

    def __init__(self, folder: Path) -> None:
        self.port = {name: free_port() for name in self.WAYS}
        more = {
            "all": 'clients = "all"',
            "closed": 'allow = ["192.0.2.0/24"]',
            "few": "max_clients = 1",
            "client": 'mode = "client"',
        }
        common = f"troubles = false\n{FAST}"
        outputs = "".join(
            f'[[outputs]]\nname = "{name}"\ntype = "surgard"\nport = {port}\n{common}\n{more.get(name, "")}\n'
            for name, port in self.port.items()
        )
        self.squatter = socket.create_server(("127.0.0.1", self.port["taken"]))
        self.running = Running(folder, outputs=outputs + EVENTS)


@pytest.mark.parametrize("kind", ["ademco685", "dc07", "dc09"])
def test_whoever_takes_connections_and_hangs_up_at_once_is_a_lost_link_also_without_heartbeats(
    tmp_path: Path, kind: str
) -> None:
    port, mode = free_port(), "" if kind == "dc09" else 'mode = "client"\n'
    output = f'[[outputs]]\nname = "centre"\ntype = "{kind}"\nhost = "127.0.0.1"\nport = {port}\n{mode}ack_seconds = 0.25\n'
    with Running(tmp_path, outputs=output + EVENTS) as running, Automation(port, b"\r", listens=True) as tunnel:
        tunnel.hangs_up = lambda _frame: True
        running.tcp(frame("0001"))
        wait_until(lambda: "automation-lost" in reasons(running))
        tunnel.hangs_up = lambda _frame: False
        if kind == "ademco685":
            wait_until(lambda: "automation-restored" in reasons(running))
            wait_until(lambda: backlog(running) == 0)


def test_the_return_of_a_link_that_was_lost_before_a_restart_is_told_after_it_and_once(tmp_path: Path) -> None:
    port = free_port()
    with Running(tmp_path, outputs=surgard(port)) as running:
        wait_until(lambda: "automation-lost" in reasons(running))
        done = running.command("outputs", "test", "centre", "--config", str(running.config))
        assert done.returncode == 1  # and leaves what is known of the link alone
        wait_until(lambda: (tmp_path / "data" / "automation-lost.centre").exists())
        running.kill()
        with Automation(port) as automation:
            running.start()
            wait_until(lambda: "automation-restored" in reasons(running))
            wait_until(lambda: not (tmp_path / "data" / "automation-lost.centre").exists())  # a thread takes it away
            running.kill()
            running.start()
            running.tcp(frame("0001"))
            wait_until(lambda: any(b"E130" in report for report in automation.had()))
            stored = [
                event["data"]["reason"] for event in running.export("receiver.trouble.v1")
            ]  # a kill brings lines twice
        assert stored == ["automation-lost", "automation-restored"]


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    made = Doors(tmp_path_factory.mktemp("doors"))
    with made.squatter, made.running:
        wait_until(lambda: made.running.log().count("state=listening") == 4)
        yield made


def test_a_port_that_is_taken_stops_no_reception_and_the_output_waits_for_it(doors: Doors) -> None:
    assert said(doors.running.tcp(frame("0001"))[0]) == "ACK 0001"
    doors.squatter.close()
    with Automation(doors.port["taken"]) as automation:
        wait_until(automation.had, 30)


def test_as_a_client_it_connects_again_whenever_the_automation_is_back(doors: Doors) -> None:
    automation = Automation(doors.port["client"], listens=True)
    doors.running.tcp(frame("0011", "1131 01 001"))
    with automation:
        wait_until(lambda: b"501001 181A01E13101001\x14" in automation.had(), 20)
    doors.running.tcp(frame("0012", "1131 01 002"))
    with automation:
        wait_until(lambda: b"501001 181A01E13101002\x14" in automation.had(), 20)


def test_addresses_that_are_not_allowed_and_connections_too_many_are_closed(doors: Doors) -> None:
    with socket.create_connection(("127.0.0.1", doors.port["closed"]), 5) as stranger:
        assert _closed(stranger)
    few = "127.0.0.1", doors.port["few"]
    with Automation(doors.port["few"]) as kept:
        wait_until(lambda: HEARTBEAT in kept.taken)
        with socket.create_connection(few, 5) as too_many:
            assert _closed(too_many)
        assert kept.connections == 1


def _has(program: Automation, part: bytes) -> bool:
    return any(part in report for report in program.had())


def _closed(link: socket.socket) -> bool:
    link.settimeout(5)
    try:
        return link.recv(100) == b""
    except ConnectionResetError:
        return True


def test_one_automation_is_active_and_the_other_takes_over_when_it_goes(doors: Doors) -> None:
    port, running = doors.port["one"], doors.running
    with Automation(port) as first:
        wait_until(lambda: HEARTBEAT in first.taken and not running.metric("receiver_output_backlog", 'output="one"'))
        with Automation(port) as second:
            wait_until(lambda: HEARTBEAT in second.taken)
            running.tcp(frame("0021", "1132 01 001"))
            wait_until(partial(_has, first, b"E13201001"))
            assert not second.events()
            first.answer = stay_silent
            running.tcp(frame("0022", "1132 01 002"))
            wait_until(partial(_has, second, b"E13201002"))
            first.stop()
            running.tcp(frame("0023", "1132 01 003"))
            wait_until(lambda: len(second.had()) == 2)


def test_all_get_every_event_where_that_is_wanted_and_a_dead_one_holds_up_nobody(doors: Doors) -> None:
    port, running = doors.port["all"], doors.running
    with Automation(port) as first, Automation(port) as second:
        wait_until(lambda: HEARTBEAT in first.taken and HEARTBEAT in second.taken)
        wait_until(lambda: not running.metric("receiver_output_backlog", 'output="all"'))
        running.tcp(frame("0031", "1133 01 001"))
        for program in (first, second):
            wait_until(partial(_has, program, b"E13301001"))
        second.answer = stay_silent
        running.tcp(frame("0032", "1133 01 002"), frame("0033", "1133 01 003"), replies=2)
        wait_until(partial(_has, first, b"E13301003"), 20)
        assert not any(b"E13301002" in report for report in second.had())
        troubles = [event["data"] for event in running.events("receiver.trouble.v1")]
        assert "all" in [trouble["output"] for trouble in troubles if trouble["reason"] == "automation-lost"]


# -- DC-07 ------------------------------------------------------------------------------------------------


def _dc07_answer(report: bytes, token: bytes = b"ACK") -> bytes:
    """An answer in DC-07's shape, its check value bit by bit."""
    found = re.fullmatch(rb'\n[0-9A-F]{4}0[0-9A-F]{3}"[A-Z-]+"([0-9]{4})(R[0-9A-F]+)(L[0-9A-F]+)\[.*\]\r', report)
    assert found is not None, report
    body = b'"%b"%b%b%b[]' % (token, *found.groups())
    crc = 0
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return b"\n%04X0%03X%b\r" % (crc, len(body), body)


def test_dc07_frames_are_numbered_and_taken_by_the_ack_of_their_number_alone(tmp_path: Path) -> None:
    port = free_port()
    outputs = f'[[outputs]]\nname = "centre"\ntype = "dc07"\nport = {port}\nack_seconds = 0.3\ntroubles = false\n' + EVENTS
    wrong = [1]
    with Running(tmp_path, outputs=outputs) as running, Automation(port, end=b"\r") as automation:

        def answer(report: bytes) -> bytes:
            told = _dc07_answer(report)
            if wrong and b"1131" in report:
                wrong.pop()
                return ACK + _dc07_answer(report.replace(b'"ADM-CID"0002', b'"ADM-CID"0001'))
            return told

        automation.answer = answer
        running.tcp(frame("0001"), frame("0002", "1131 01 002"), sia("0003", "Nri1/BA7"), replies=3)
        wait_until(lambda: backlog(running) == 0)
        bodies = [re.sub(rb"^\n.{8}", b"", report)[:-1] for report in automation.events()]
        assert bodies == [
            b'"ADM-CID"0001R1L1[#1A01|1130 01 001]', b'"ADM-CID"0002R1L1[#1A01|1131 01 002]',
            b'"ADM-CID"0002R1L1[#1A01|1131 01 002]', b'"SIA-DCS"0003R1L1[#1A01|Nri1/BA7]',
        ]  # fmt: skip
        assert "acknowledgement rules of DC-07 are unverified" in running.log()
