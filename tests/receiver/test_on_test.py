"""On test: what is a test, what never is, and how it begins and ends."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import contact_id, dc09
from receiver import clock, on_test, payloads
from receiver.cli.on_test import _confirm
from receiver.on_test import Desk, OnTest, Ticket, orders
from receiver.troubles import Trouble

HOUR_US = 3600 * clock.SECOND_US
NOW, STEADY = 1_790_000_000 * clock.SECOND_US, 5 * HOUR_US


def ticket(account: str = "1234", zones: str = "", points: str = "", whole: bool = False, **more: Any) -> Ticket:
    names = [on_test.read_names(text) if text else () for text in (zones, points)]
    made = Ticket(account, whole, names[0], names[1], "service", "A. Jansen", NOW, NOW + 2 * HOUR_US)
    return made._replace(**more)


def events(token: str, data: str, dialect: str = "") -> tuple[payloads.Event, ...]:
    raw = dc09.encode(token, "0001", dc09.Address(None, "0", "1234"), data.encode())
    frame = dc09.split_datagram(raw)[0]
    assert isinstance(frame, dc09.Frame)
    return payloads.decode(dc09.unseal(dc09.open_envelope(frame), None), dialect)


def flags(made: Ticket, token: str, data: str, dialect: str = "") -> list[str]:
    """Return the stored flags of a message's events while the ticket is in force."""
    desk, found = OnTest(), events(token, f"#1234|{data}", dialect)
    assert desk.begin(made, NOW, STEADY)
    stored = desk.flags("plaintext", found, "1234", NOW, STEADY)
    return [" ".join(payloads.flags_of(stored, number)) for number, _ in enumerate(found)]


TEST, REAL = "plaintext on-test", "plaintext"
WHOLE, TICKED = ticket(whole=True), ticket(whole=True, points="15,2/7,user:5")


@pytest.mark.parametrize(
    ("made", "data", "flag"),
    [
        (WHOLE, "1130 01 001", TEST),
        (WHOLE, "1401 01 005", TEST),
        (WHOLE, "1121 01 005", REAL),
        (WHOLE, "1120 01 015", REAL),
        (WHOLE, "1128 01 015", REAL),  # unknown 12X is duress
        (TICKED, "1120 01 015", TEST),
        (TICKED, "1120 01 016", REAL),
        (TICKED, "1120 01 115", REAL),
        (TICKED, "3120 01 015", TEST),
        (TICKED, "1120 02 007", TEST),
        (TICKED, "1120 03 007", REAL),
        (TICKED, "1121 01 005", TEST),
        (TICKED, "1121 01 015", REAL),  # a user of the number that was ticked as a zone
        (TICKED, "1120 01 005", REAL),
        (TICKED, "1120 01 000", REAL),
        (ticket(points="15"), "1130 01 015", REAL),
        (ticket(zones="1,2/15"), "1130 01 001", TEST),
        (ticket(zones="1,2/15"), "1130 02 015", TEST),
        (ticket(zones="1,2/15"), "1130 01 015", REAL),
        (ticket(zones="1,2/15"), "1120 01 001", REAL),
        (ticket(zones="1"), "1401 01 001", REAL),
        (WHOLE, "1998 01 001", REAL),  # a code of no table may be anything
        (WHOLE, "what is this", REAL),
    ],
)
def test_only_what_was_named_is_a_test_and_no_duress_that_was_not_ticked(made: Ticket, data: str, flag: str) -> None:
    assert flags(made, "ADM-CID", data) == [flag]


@pytest.mark.parametrize(
    ("made", "data", "wanted"),
    [
        (WHOLE, "Nri1/BA001/HA004/BA002", [TEST, REAL, TEST]),
        (WHOLE, "Nri1/BA001", [TEST]),
        (WHOLE, "Nri1/BA001/HA004", [TEST, REAL]),
        (TICKED, "Nri1/BA001/HA015", [TEST, TEST]),
        (TICKED, "Nri2/HA007", [TEST]),
        (TICKED, "Nri1/id5/HA004", [REAL]),  # the zone decides where there is one
        (WHOLE, "Oti10:00/BA001", [REAL]),  # from the panel's memory: perhaps of before
    ],
)
def test_each_event_of_a_block_is_judged_alone(made: Ticket, data: str, wanted: list[str]) -> None:
    assert flags(made, "SIA-DCS", data) == wanted


def test_an_opaque_format_is_never_a_test_and_423_is_a_duress_where_the_dialect_says_so() -> None:
    assert flags(WHOLE, "FBI-SF", "anything") == [REAL]
    assert flags(WHOLE, "ADM-CID", "1423 01 004", "ajax") == [REAL]


def test_another_account_is_not_on_test_and_the_name_matches_in_either_case() -> None:
    desk = OnTest()
    found = events("ADM-CID", "#1234|1130 01 001")
    assert desk.begin(ticket("AB12", whole=True), NOW, STEADY)
    assert desk.flags("", found, "1234", NOW, STEADY) == ""
    assert desk.flags("", found, "ab12", NOW, STEADY) == "on-test"


@pytest.mark.parametrize(
    "wrong", ["", "0", "000", "1;2", "user:", "1//2", "user:0", "x" * 9, ",".join(["1"] * 201), "all", "1,ALL", "2/all"]
)
def test_a_name_that_could_be_any_zone_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"names no zone|can name none|are more than|'all' stands alone"):
        on_test.read_names(wrong)


def test_a_test_ends_by_itself_by_whichever_clock_comes_first() -> None:
    for wall, steady, over in ((1, 1, False), (2, 0, True), (0, 2, True), (-9, 2, True)):
        desk = OnTest()
        assert desk.begin(ticket(whole=True), NOW, STEADY)
        now_us, steady_us = NOW + wall * HOUR_US, STEADY + steady * HOUR_US
        found = events("ADM-CID", "#1234|1130 01 001")
        assert desk.flags("", found, "1234", now_us, steady_us) == ("" if over else "on-test")
        assert len(desk.ended(now_us, steady_us)) == over


def test_a_test_is_never_longer_than_a_day_and_none_begins_when_its_time_is_over() -> None:
    desk = OnTest()
    assert not desk.begin(ticket(until_us=NOW), NOW, STEADY)
    assert desk.begin(ticket(until_us=NOW + 90 * HOUR_US), NOW, STEADY)
    assert desk.ended(NOW + HOUR_US, STEADY + 24 * HOUR_US)
    assert desk.begin(ticket(), NOW - 50 * HOUR_US, STEADY)  # our clock went back while we were away
    assert desk.ended(NOW, STEADY + 2 * HOUR_US)


PLACES = st.sets(st.integers(1, 40), max_size=6)
DURESS = sorted(code for code, meaning in contact_id.CODES.items() if meaning.duress)


@given(st.booleans(), PLACES, PLACES, PLACES, st.sampled_from(DURESS), st.sampled_from("136"), st.integers(0, 45))
def test_whatever_is_on_test_a_duress_is_a_test_only_where_its_own_point_was_ticked(
    whole: bool, zones: set[int], points: set[int], users: set[int], code: str, qualifier: str, number: int
) -> None:
    ticked = ",".join([*map(str, points), *(f"user:{user}" for user in users)])
    made = ticket(whole=whole, zones=",".join(map(str, zones)), points=ticked)
    by_user = contact_id.CODES[code].number == "user"
    wanted = TEST if number in (users if by_user else points) else REAL
    assert flags(made, "ADM-CID", f"{qualifier}{code} 01 {number:03}") == [wanted]


class Room:
    """A desk with its folder and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: list[Trouble] = []
        self.restart()

    def restart(self) -> None:
        self.on_test = OnTest()
        self.desk = Desk(self.folder, self.on_test, self.told.append)
        self.desk.load()

    def look(self) -> list[str]:
        self.told.clear()
        asyncio.run(self.desk.look())
        return [trouble.reason for trouble in self.told]


def real(**more: Any) -> Ticket:
    now_us = clock.now_us()
    return ticket(whole=True, since_us=now_us, until_us=now_us + HOUR_US)._replace(**more)


def test_an_order_is_carried_out_told_and_in_force_after_a_restart(tmp_path: Path) -> None:
    room = Room(tmp_path)
    order = on_test.ask_begin(tmp_path, real())
    assert not on_test.taken(order)
    assert room.look() == ["on-test-began"]
    assert "reason: service; by A. Jansen" in room.told[0].text
    assert on_test.taken(order)
    assert room.look() == []
    room.restart()
    assert len(room.on_test) == 1
    on_test.ask_begin(tmp_path, real(by="B. Smit"))
    assert room.look() == ["on-test-began"]
    assert "takes the place of a test by A. Jansen" in room.told[0].text
    on_test.ask_end(tmp_path, "1234", "C. Bos", "done")
    assert room.look() == ["on-test-ended"]
    assert "C. Bos ended it (done)" in room.told[0].text
    room.restart()
    assert (len(room.on_test), on_test.in_force(tmp_path)) == (0, [])


def test_what_ended_while_no_receiver_ran_is_told_at_the_start(tmp_path: Path) -> None:
    orders.keep(tmp_path, [real(until_us=clock.now_us() - 1)])
    room = Room(tmp_path)
    assert [trouble.reason for trouble in room.told] == ["on-test-ended"]
    room.look()
    assert on_test.in_force(tmp_path) == []


def test_nothing_begins_that_cannot_be_written_down_and_an_ending_counts_at_once(tmp_path: Path) -> None:
    room = Room(tmp_path)
    on_test.ask_begin(tmp_path, real())
    blocker = tmp_path / "on-test.json.new"
    blocker.mkdir()
    assert (room.look(), len(room.on_test)) == ([], 0)
    blocker.rmdir()
    assert (room.look(), len(room.on_test)) == (["on-test-began"], 1)
    order = on_test.ask_end(tmp_path, "1234", "C", "")
    blocker.mkdir()
    assert (room.look(), len(room.on_test)) == (["on-test-ended"], 0)
    assert (room.look(), on_test.taken(order)) == ([], False)  # told once; the order stays for a restart
    blocker.rmdir()
    assert (room.look(), on_test.taken(order)) == ([], True)


def test_whoever_asks_for_a_test_while_another_takes_its_place_is_told_that_it_is_not_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, other = ticket(zones="1"), ticket(zones="2", by="B. Bakker")
    orders.keep(tmp_path, [other])
    for wanted in (mine, None):
        with pytest.raises(SystemExit) as ended:
            _confirm(tmp_path, tmp_path / "carried-out", other.account, wanted)
        told = capsys.readouterr()
        assert (ended.value.code, "zones 2" in told.out, "somebody else" in told.err) == (2, True, True)
    _confirm(tmp_path, tmp_path / "carried-out", other.account, other)
    assert "zones 2" in capsys.readouterr().out


def test_orders_and_a_file_that_are_not_ours_put_nothing_on_test(tmp_path: Path) -> None:
    folder = tmp_path / "orders"
    folder.mkdir()
    for number, text in enumerate(("", "[]", "{}", '{"begin": {"account": "1234"}}', '{"end": 3}')):
        (folder / f"{number}.test").write_text(text, "utf-8")
    room = Room(tmp_path)
    assert (room.look(), os.listdir(folder)) == ([], [])
    (tmp_path / "on-test.json").write_text('{"tickets": [{"account": "1"}]}', "utf-8")
    room.restart()
    assert (len(room.on_test), room.told[0].reason) == (0, "on-test-ended")
    assert "cannot be read" in room.told[0].text
