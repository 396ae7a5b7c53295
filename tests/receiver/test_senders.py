"""What is told of impostors, and what is not told of honest panels; time is an argument."""

import asyncio
import json
from typing import Any

import pytest

from fuzz.single import handle_one
from protocols import dc09
from receiver import senders
from receiver.accounts import Account, Accounts
from receiver.clock import SECOND_US
from receiver.journal import Kind
from receiver.pipeline import Route
from receiver.policy import Verdict
from tests.receiver.test_pipeline import KEY, NOW, Desk, panel, said

HOME, AWAY = "198.51.100.1:4000", "203.0.113.7:5000"
OTHER_KEY = dc09.Key(bytes(16))


class Line(Desk):
    """A desk whose panels have addresses and listeners; seconds pass when told to."""

    def send_from(self, raw: bytes, peer: str = HOME, listener: str = "main") -> str:
        frame = dc09.split_datagram(raw)[0]
        assert isinstance(frame, dc09.Frame)
        return said(asyncio.run(handle_one(self.pipeline, frame, Route(listener, "tcp", peer, 1))))

    def wait(self, seconds: float) -> int:
        """Let time pass and return the time of a good panel's clock, in whole seconds."""
        self.now_us += round(seconds * SECOND_US)
        return self.now_us // SECOND_US

    def told(self, reason: str = "") -> list[dict[str, Any]]:
        found = [json.loads(row.body or b"") for row in self.journal.later if row.kind == Kind.TROUBLE]
        return [trouble for trouble in found if not reason or trouble["reason"] == reason]

    def happened(self, reason: str) -> int:
        return self.pipeline.troubles.happened[reason]


def supervised(seconds: int = 60, dialect: str = "") -> Line:
    """Return a desk where the keyed account is supervised."""
    line = Line()
    account = Account("5678", key=KEY, accepts_plaintext=False, supervision_seconds=seconds, dialect=dialect)
    line.pipeline.accounts = Accounts({"5678": account}, None, False)
    return line


def sealed(sequence: str, panel_time: int, data: str | None = None, token: str = "ADM-CID") -> bytes:
    return panel("5678", token, data, sequence=sequence, key=KEY, panel_time=panel_time)


def link_test(panel_time: int) -> bytes:
    return sealed("0000", panel_time, "", "NULL")


# -- a second address ---------------------------------------------------------------------------------------------------


def test_a_second_address_while_the_first_is_alive_is_acknowledged_and_told_with_both() -> None:
    line = Line()
    assert line.send_from(panel(sequence="0001")) == "ACK"
    line.wait(2)
    assert line.send_from(panel(sequence="0002"), AWAY) == "ACK"
    (told,) = line.told()
    assert (told["reason"], told["account"], told["peer"]) == ("second-address", "1234", AWAY)
    assert told["text"] == "account 1234 reports from 203.0.113.7 and was heard from 198.51.100.1 2 s ago"
    assert told["raw"] == panel(sequence="0002").hex().upper()
    assert len(line.journal.rows) == 2


def test_another_port_or_another_end_of_one_ipv6_network_is_no_second_address() -> None:
    line = Line()
    for number, peer in enumerate(["198.51.100.1:1", "198.51.100.1:2"]):
        line.send_from(panel(sequence=f"000{number}"), peer)
    for number, peer in enumerate(
        ["[2001:db8:1:1::5]:1", "[2001:db8:1:1:ffff::9]:1", "[fe80::1%eth0]:1", "[fe80::2%eth0]:1"]
    ):
        line.send_from(panel("9ABC", sequence=f"000{number}", key=KEY), peer)
    assert [trouble["text"].split()[4] for trouble in line.told()] == ["[fe80::1%eth0]"]


@pytest.mark.parametrize(("account", "alive_seconds"), [("1234", 60), ("9ABC", 300)])
def test_an_address_is_alive_for_the_supervision_interval_or_the_setting(account: str, alive_seconds: int) -> None:
    for seconds, count in [(alive_seconds - 1, 1), (alive_seconds, 0)]:
        line = Line()
        line.send_from(panel(account, sequence="0001"))
        line.wait(seconds)
        line.send_from(panel(account, sequence="0002"), AWAY)
        assert line.happened("second-address") == count


def test_nothing_is_told_of_addresses_when_the_setting_is_0() -> None:
    line = Line()
    line.pipeline.senders.alive_seconds = 0
    for number in range(10):
        line.send_from(panel(sequence=f"{number:04d}"), [HOME, AWAY][number % 2])
    assert line.told() == []


def test_a_panel_with_two_ways_in_is_told_of_once_and_not_at_each_message() -> None:
    line = Line()
    for number in range(1000):
        line.wait(10)
        line.send_from(panel(sequence=f"{number:04d}"), [HOME, AWAY, "192.0.2.5:1"][number % 3])
    assert line.happened("second-address") == 2
    assert len(line.told()) == 1
    assert [trouble.count for trouble in line.pipeline.troubles.due(line.now_us)] == [1]


def test_a_panel_that_fails_over_and_comes_back_again_and_again_is_two_troubles_an_hour_at_most() -> None:
    line = Line()
    told = 0
    for number in range(360):  # an hour, turn by turn 100 s on each address
        line.wait(10)
        line.send_from(panel(sequence=f"{number:04d}"), [HOME, AWAY][number // 10 % 2])
        told += len(line.pipeline.troubles.due(line.now_us))
    assert line.happened("second-address") > 10
    assert len(line.told()) + told <= 2


def test_the_same_address_at_two_listeners_and_two_addresses_at_two_listeners_are_two_paths() -> None:
    line = Line()
    for number in range(6):
        line.send_from(panel(sequence=f"{number:04d}"), [HOME, AWAY][number % 2], ["main", "spare"][number % 2])
    assert line.told() == []


def test_many_more_addresses_than_a_panel_has_are_each_counted_and_few_are_remembered() -> None:
    line = Line()
    for number in range(500):
        line.send_from(panel(sequence=f"{number:04d}"), f"203.0.{number // 250}.{number % 250}:1")
    assert line.happened("second-address") == 499
    (name,) = line.pipeline.senders.registered
    sender = line.pipeline.senders.registered.get(name)
    assert sender is not None
    assert len(sender.place.others or ()) <= 3


# -- keys ----------------------------------------------------------------------------------------------------------------


def test_a_key_that_no_longer_fits_is_told_with_the_moment_until_it_did() -> None:
    line = Line()
    wrong = panel("5678", sequence="0002", key=OTHER_KEY)
    line.send_from(sealed("0001", NOW))
    assert line.send_from(wrong) == "silence"
    (told,) = line.told("undecryptable")
    assert told["text"] == (
        "the key that opened account 5678's messages until 2026-09-21 14:13 UTC no longer does: "
        "panel replaced or re-keyed, or somebody else"
    )


def test_a_key_changed_in_the_register_is_told_as_our_own_doing() -> None:
    line = Line()
    line.send_from(sealed("0001", NOW))
    line.pipeline.accounts = Accounts({"5678": Account("5678", key=OTHER_KEY, accepts_plaintext=False)}, None, False)
    assert line.send_from(sealed("0002", NOW)) == "silence"
    assert "the register's key of account 5678 was changed after its last good message" in line.told()[0]["text"]


def test_a_key_that_never_fitted_is_told_without_a_moment() -> None:
    line = Line()
    assert line.send_from(panel("5678", key=OTHER_KEY)) == "silence"
    assert "does not open" in line.told()[0]["text"] or "closing bracket" in line.told()[0]["text"]
    assert "until" not in line.told()[0]["text"]


# -- recordings ----------------------------------------------------------------------------------------------------------


def test_a_recording_inside_the_window_is_acknowledged_makes_no_signal_and_no_trouble() -> None:
    line = Line()
    recording = sealed("0001", NOW)
    assert line.send_from(recording) == "*ACK"
    line.wait(30)
    assert line.send_from(recording) == "*ACK"
    assert (len(line.journal.rows), line.told()) == (1, [])


def test_a_recording_outside_the_window_that_the_journal_remembers_is_told() -> None:
    line = Line()
    recording = sealed("0001", NOW)
    line.send_from(recording)
    line.wait(120)
    assert line.send_from(recording, AWAY) == "NAK"
    (told,) = line.told()
    assert (told["reason"], told["peer"]) == ("replayed", AWAY)
    assert "sequence 0001 was stored before and came again with a time stamp 120 s old" in told["text"]


def test_after_a_restart_the_journals_memory_still_tells_a_recording() -> None:
    line, again = Line(), Line()
    recording = sealed("0001", NOW)
    line.send_from(recording)
    again.journal.rows = line.journal.rows
    again.wait(120)
    assert again.send_from(recording) == "NAK"
    assert [trouble["reason"] for trouble in again.told()] == ["replayed"]


def test_an_older_recording_is_told_once_the_panel_goes_on_with_another_message() -> None:
    line = Line()
    line.send_from(sealed("0001", NOW))
    recording = sealed("0002", NOW + 1, "#5678|1130 01 002")
    line.wait(1)
    line.send_from(recording)
    line.journal.rows.clear()  # longer ago than the journal remembers
    line.send_from(sealed("0003", line.wait(1000), "#5678|1130 01 003"))
    assert line.send_from(recording, AWAY) == "NAK"
    assert line.told() == []
    assert line.send_from(sealed("0004", line.wait(5), "#5678|1130 01 004")) == "*ACK"
    (told,) = line.told()
    assert (told["reason"], told["peer"], told["raw"]) == ("replayed", AWAY, recording.hex().upper())


def test_a_panel_that_sets_its_clock_by_our_nak_and_sends_again_is_no_recording() -> None:
    line = Line()
    for number in range(3):
        line.send_from(sealed(f"000{number}", line.wait(3600), f"#5678|1130 01 00{number}"))
    late = line.wait(10) - 3600  # an hour behind, as after the end of summer time
    assert line.send_from(sealed("0003", late, "#5678|1130 01 007")) == "NAK"
    assert line.send_from(link_test(line.wait(1))) == "*ACK"
    assert line.send_from(sealed("0003", line.wait(1), "#5678|1130 01 007")) == "*ACK"
    assert line.told() == []


@pytest.mark.parametrize(
    "panel_time", [NOW + 500, 946_684_800, NOW - 3600], ids=["ahead", "2000-01-01", "before it was met"]
)
def test_a_wrong_clock_is_no_recording(panel_time: int) -> None:
    line = Line()
    line.send_from(sealed("0001", NOW))
    assert line.send_from(sealed("0002", panel_time)) == "NAK"
    line.send_from(sealed("0003", line.wait(100), "#5678|1130 01 003"))
    assert line.told() == []


def test_an_old_link_test_alone_is_no_proof_of_anything() -> None:
    line = Line()
    recording = link_test(NOW)
    line.send_from(recording)
    line.send_from(link_test(line.wait(500)))
    assert line.send_from(recording) == "NAK"
    line.send_from(sealed("0001", line.wait(1)))
    line.send_from(link_test(line.wait(500)))
    assert line.told() == []


def test_a_repeat_that_was_long_on_its_way_is_no_recording() -> None:
    line = Line()
    line.send_from(sealed("0001", NOW))
    line.wait(100)
    assert line.send_from(sealed("0001", NOW + 20)) == "NAK"  # made after the first, stuck in a network since
    assert line.told() == []


def test_our_own_clock_set_back_over_a_restart_makes_no_recording_of_a_repeat() -> None:
    line, again = Line(), Line()
    line.send_from(sealed("0001", NOW))
    again.journal.rows = line.journal.rows
    again.wait(-120)
    assert again.send_from(sealed("0001", NOW)) == "NAK"
    assert again.told() == []


# -- link tests and the path they keep alive -----------------------------------------------------------------------------


def lost_after(line: Line, seconds: int) -> bool:
    line.wait(seconds)
    return bool(line.pipeline.paths.check(line.now_us))


def test_a_recorded_link_test_is_acknowledged_does_not_restart_the_timer_and_is_told_after_a_while() -> None:
    line = supervised(50)
    recording = link_test(NOW + 20)  # the panel's clock was as far ahead as is allowed
    assert line.send_from(recording) == "*ACK"
    for _ in range(9):
        line.wait(5)
        assert line.send_from(recording, AWAY) == "*ACK"
    assert lost_after(line, 6)
    assert line.pipeline.senders.stale_tests == 9
    told = {trouble["reason"]: trouble["text"] for trouble in line.told()}
    assert set(told) == {"replayed", "second-address"}
    assert "for 30 s only link tests with used time stamps came (6)" in told["replayed"]


def test_any_encrypted_recording_leaves_the_timer_alone() -> None:
    line = supervised(30)
    recording = sealed("0001", NOW)
    line.send_from(recording)
    line.wait(20)
    assert line.send_from(recording) == "*ACK"
    assert lost_after(line, 15)


def test_recordings_of_one_second_played_by_turns_leave_the_timer_alone() -> None:
    line = supervised(30)
    recordings = [sealed(f"000{number}", NOW, f"#5678|1130 01 00{number}") for number in range(3)]
    for number in range(12):
        assert line.send_from(recordings[number % 3]) == "*ACK"
        line.wait(3)
    assert len(line.journal.rows) == 3
    assert lost_after(line, 1)


def test_a_link_test_that_is_sent_again_because_its_ack_was_lost_is_no_recording() -> None:
    line = supervised(90)
    for _ in range(5):
        line.wait(10)
        again = link_test(line.now_us // SECOND_US + 15)
        for _ in range(3):
            assert line.send_from(again) == "*ACK"
            line.wait(20)
    assert line.told() == []


def test_each_new_stamp_restarts_the_timer() -> None:
    line = supervised(30)
    for number in range(20):
        line.send_from(link_test(line.wait(20)) if number % 2 else sealed(f"{number:04d}", line.wait(20)))
        assert not line.pipeline.paths.check(line.now_us)


@pytest.mark.parametrize("back_seconds", [5, 15, 60])
def test_a_panel_whose_clock_is_set_back_is_heard_again_within_the_window(back_seconds: int) -> None:
    line = supervised(90)
    ahead = 20
    line.send_from(link_test(NOW + ahead))
    for _ in range(30):
        line.wait(10)
        line.send_from(link_test(line.now_us // SECOND_US + ahead - back_seconds))
        assert not line.pipeline.paths.check(line.now_us)
    assert bool(line.told("replayed")) == (back_seconds == 60)  # for a minute it looks like one


def test_our_own_clock_set_back_by_an_hour_loses_no_path() -> None:
    line = supervised(90)
    heard = line.pipeline.senders.heard
    account = line.pipeline.accounts.find("5678")
    for second in range(0, 600, 10):
        stamp = NOW + second - (3600 if second > 300 else 0)
        message = dc09.unseal(dc09.open_envelope(_frame(link_test(stamp))), KEY)
        fresh = heard(message, account, KEY, Route("main", "tcp", HOME, 1), second * SECOND_US).fresh
        assert fresh or 300 < second <= 360


def _frame(raw: bytes) -> dc09.Frame:
    frame = dc09.split_datagram(raw)[0]
    assert isinstance(frame, dc09.Frame)
    return frame


def test_a_slower_path_of_one_panel_is_not_lost_because_the_other_is_faster() -> None:
    line = supervised(60)
    for _ in range(30):
        now = line.wait(10)
        line.send_from(link_test(now), HOME, "main")
        line.send_from(link_test(now - 12), AWAY, "radio")
        assert not line.pipeline.paths.check(line.now_us)
    assert line.pipeline.paths.count() == {"alive": 2, "lost": 0, "never-seen": 0}
    assert line.told() == []


def test_a_recording_of_one_path_does_not_keep_another_alive() -> None:
    line = supervised(60)
    line.send_from(link_test(line.wait(1)), HOME, "radio")
    lost = []
    for _ in range(8):
        recording = link_test(line.wait(10))
        assert line.send_from(recording, HOME, "main") == "*ACK"
        line.wait(1)
        assert line.send_from(recording, HOME, "radio") == "*ACK"
        lost += line.pipeline.paths.check(line.now_us)
    assert [change.listener for change in lost] == ["radio"]


@pytest.mark.parametrize(("dialect", "lost"), [("polls", ["radio"]), ("", [])])
def test_where_a_test_code_is_the_poll_a_recording_of_it_does_not_keep_another_path_alive(
    dialect: str, lost: list[str]
) -> None:
    line = supervised(60, dialect)
    line.send_from(sealed("0001", line.wait(1), "#5678|1602 99 999"), HOME, "radio")
    found = []
    for number in range(2, 10):
        recording = sealed(f"{number:04d}", line.wait(10), "#5678|1602 99 999")
        for listener in ("main", "radio"):
            assert line.send_from(recording, HOME, listener) == "*ACK"
            line.wait(1)
        found += line.pipeline.paths.check(line.now_us)
    assert [change.listener for change in found] == lost
    assert len(line.journal.rows) == 9  # each poll is stored once


def test_many_link_tests_of_one_second_are_no_recordings() -> None:
    line = supervised(60)
    for _ in range(200):
        assert line.send_from(link_test(NOW)) == "*ACK"
    assert line.told() == []


# -- downgrade -----------------------------------------------------------------------------------------------------------


def test_an_account_that_reported_encrypted_and_now_in_clear_is_flagged_acknowledged_and_told() -> None:
    line = Line(default_key=KEY)
    for account in ("9ABC", "1234"):  # a key of its own, and the default key
        assert line.send_from(panel(account, sequence="0001")) == "ACK"
        assert line.send_from(panel(account, sequence="0002", key=KEY)) == "*ACK"
        assert line.send_from(panel(account, sequence="0003")) == "ACK"
    assert [row.flags for row in line.journal.rows] == ["plaintext", "", "plaintext", "", "", "plaintext"]
    assert [(trouble["reason"], trouble["account"]) for trouble in line.told()] == [
        ("downgraded", "9ABC"), ("downgraded", "1234"),
    ]  # fmt: skip
    assert "reported encrypted until 2026-09-21 14:13 UTC and now reports in clear" in line.told()[0]["text"]


def test_a_stranger_who_gives_up_encryption_has_both_flags() -> None:
    line = Line(accept_unknown=True, default_key=KEY)
    line.send_from(panel("FFFF", sequence="0001", key=KEY))
    line.send_from(panel("ffff", sequence="0002"))
    assert [row.flags for row in line.journal.rows] == ["unregistered", "unregistered plaintext"]
    assert [trouble["reason"] for trouble in line.told()] == ["downgraded"]


def test_link_tests_in_clear_beside_encrypted_signals_are_a_habit_of_panels() -> None:
    line = Line()
    line.send_from(panel("9ABC", sequence="0001", key=KEY))
    assert line.send_from(panel("9ABC", "NULL", "", sequence="0000")) == "ACK"
    assert line.told() == []
    line.send_from(panel("9ABC", "NULL", "", sequence="0000", key=KEY))
    assert line.send_from(panel("9ABC", "NULL", "", sequence="0000")) == "ACK"
    assert [trouble["reason"] for trouble in line.told()] == ["downgraded"]


def test_an_account_whose_key_was_taken_from_the_register_may_report_in_clear() -> None:
    line = Line()
    line.send_from(panel("9ABC", sequence="0001", key=KEY))
    line.pipeline.accounts = Accounts({"9ABC": Account("9ABC")}, None, False)
    assert line.send_from(panel("9ABC", sequence="0002")) == "ACK"
    assert line.told() == []


# -- sequences -----------------------------------------------------------------------------------------------------------


def reports(line: Line, *numbers: str, account: str = "1234", seconds: float = 1) -> None:
    """Send signals whose data all differ."""
    for number in numbers:
        zone = len(line.journal.rows) + 1
        line.send_from(panel(account, data=f"#{account}|1130 01 {zone:03d}", sequence=number))
        line.wait(seconds)


def test_a_sequence_used_again_at_once_for_other_data_is_stored_acknowledged_and_told() -> None:
    line = Line()
    reports(line, "0010", "0011", "0012", "0012")
    assert len(line.journal.rows) == 4
    (told,) = line.told()
    assert (told["reason"], told["account"]) == ("sequence-reused", "1234")
    assert "used sequence 0012 for other data 1 s ago" in told["text"]


@pytest.mark.parametrize(
    "numbers",
    [
        ("0010", "0011", "0020", "0015", "0009", "9999", "0001", "0002"), ("0010", "0011", "0012", "0001", "0001"),
        ("0010", "0010", "0010", "0010"), ("0010", "0011", "0012", "0000", "0000"), ("00AF", "00B0", "00B1", "0001"),
    ],
    ids=["gaps and order", "restarts", "never moves", "no sequence", "hexadecimal"],
)  # fmt: skip
def test_gaps_order_restarts_and_panels_that_do_not_count_are_no_trouble(numbers: tuple[str, ...]) -> None:
    line = Line()
    reports(line, *numbers)
    assert len(line.journal.rows) == len(numbers)
    assert line.told() == []


def test_a_repeat_is_no_reuse_and_neither_is_the_same_number_a_minute_later() -> None:
    line = Line()
    reports(line, "0010", "0011", "0012")
    for _ in range(3):
        line.send_from(panel(data="#1234|1130 01 003", sequence="0012"))
    line.wait(60)
    reports(line, "0012")
    assert line.told() == []
    assert len(line.journal.rows) == 4


def test_link_tests_use_no_sequence() -> None:
    line = Line()
    reports(line, "0010", "0011", "0012")
    assert line.send_from(panel(token="NULL", data="", sequence="0012")) == "ACK"
    assert line.send_from(panel(token="NULL", data="#0000|0000 00 000", sequence="0013")) == "ACK"
    reports(line, "0013")
    assert line.told() == []


# -- block accounts and replies ------------------------------------------------------------------------------------------


def test_another_account_inside_is_told_once_a_day_and_not_for_link_tests() -> None:
    line = Line()
    assert line.send_from(panel(token="NULL", data="#0000|0000 00 000")) == "ACK"
    assert line.told() == []
    told = 0
    for hour in range(48):
        line.send_from(panel(data=f"#99|1130 01 {hour:03d}", sequence=f"{hour + 1:04d}"))
        told += len(line.pipeline.troubles.due(line.now_us))
        line.wait(3600)
    assert len(line.journal.rows) == 48
    first = line.told()[0]
    assert (first["reason"], first["account"]) == ("block-account-differs", "1234")
    assert first["text"] == "account 1234 sends data of account 99; the signals belong to 1234, see block_account"
    assert len(line.told()) + told == 2
    assert line.happened("block-account-differs") == 48


def test_our_own_replies_are_met_with_silence_and_told() -> None:
    line = Line()
    for sent in (panel(), sealed("0001", NOW), sealed("0002", NOW - 900), panel(token="XYZ")):
        frame = dc09.split_datagram(sent)[0]
        assert isinstance(frame, dc09.Frame)
        reply = asyncio.run(handle_one(line.pipeline, frame, Route("main", "udp", HOME, 1)))
        assert reply is not None
        assert line.send_from(reply) == "silence"
    assert line.happened("reflected-reply") == 4
    assert line.telemetry.frames["tcp", Verdict.SILENCE.value, "from-receiver"] == 4
    assert {trouble["account"] for trouble in line.told("reflected-reply")} == {"1234", "5678", None}


# -- memory --------------------------------------------------------------------------------------------------------------


def test_strangers_are_remembered_in_bounds_and_the_first_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "STRANGERS_KEPT", 50)
    line = Line(accept_unknown=True)
    for number in range(200):
        assert line.send_from(panel(f"F{number:03d}")) == "ACK"
    assert len(line.pipeline.senders) == 50
    assert next(iter(line.pipeline.senders._strangers)) == "F150"


def test_refused_messages_leave_no_trace_of_a_sender() -> None:
    line = Line()
    for sent in (panel("FFFF"), panel("5678"), panel("5678", key=OTHER_KEY), sealed("0001", NOW - 900), panel(token="XYZ")):
        line.send_from(sent)
    assert len(line.pipeline.senders) == 0


def test_accounts_taken_from_the_register_are_forgotten() -> None:
    line = Line()
    line.send_from(panel())
    line.send_from(panel("9ABC"))
    line.pipeline.senders.forget(["1234"])
    assert len(line.pipeline.senders) == 1
