"""The story with our own clock in doubt: what a rule accepts is acknowledged, flagged and told; the rest gets its NAK."""

import json
from typing import Any

import pytest

from receiver.clock import SECOND_US
from receiver.clockwatch import ClockWatch
from receiver.config import ClockSettings
from receiver.journal import Kind
from receiver.pipeline import Pipeline
from tests.receiver.test_pipeline import KEY, NOW, Desk, panel, said

S = SECOND_US


class JumpingDesk(Desk):
    """A pipeline whose wall and steady clock are two."""

    def __init__(self) -> None:
        super().__init__()
        self.steady_us = 1000 * S
        self.watch = ClockWatch(ClockSettings(), self.now_us, self.steady_us, self.now_us, self.now_us)
        old = self.pipeline
        clocks = (lambda: self.now_us), (lambda: self.steady_us)
        self.pipeline = Pipeline(old.accounts, ClockSettings(), self.journal, self.telemetry, *clocks, self.watch)  # type: ignore[arg-type]

    def pass_seconds(self, seconds: float, jump: float = 0.0) -> None:
        self.steady_us += round(seconds * S)
        self.now_us += round((seconds + jump) * S)
        self.watch.look(self.now_us, self.steady_us, None)


def duress(at: int, **more: Any) -> bytes:
    return panel("5678", key=KEY, panel_time=at, **more)


@pytest.mark.parametrize("jump", [3600, -3600])
def test_a_duress_in_the_minutes_after_a_jump_is_acknowledged_stored_and_flagged(jump: int) -> None:
    desk = JumpingDesk()
    desk.pass_seconds(10, jump)
    assert said(desk.send(duress(NOW + 10))) == "*ACK"
    (row,) = desk.journal.rows
    assert row.flags == "clock-suspect"
    assert row.duress == 1
    assert desk.troubles() == ["clock-suspect"]


def test_a_link_test_after_a_jump_is_acknowledged_too() -> None:
    desk = JumpingDesk()
    desk.pass_seconds(10, 3600)
    assert said(desk.send(duress(NOW + 10, token="NULL", data=""))) == "*ACK"


def test_what_no_rule_accepts_gets_a_nak_with_our_time_and_leaves_nothing() -> None:
    desk = JumpingDesk()
    desk.pass_seconds(10, 3600)
    reply = desk.send(duress(NOW - 900))
    assert reply is not None
    assert b'"NAK"0000R0L0A0[]_15:13:30,09-21-2026' in reply
    assert desk.journal.rows == []
    assert desk.troubles() == []


def test_a_message_inside_the_window_is_not_flagged_while_the_clock_is_in_doubt() -> None:
    desk = JumpingDesk()
    desk.pass_seconds(10, 3600)
    desk.send(duress(NOW + 3610))
    assert [row.flags for row in desk.journal.rows] == [""]


def test_the_operator_is_told_of_doubtful_stamps_once_a_minute() -> None:
    desk = JumpingDesk()
    desk.pass_seconds(10, 3600)
    for n in range(30):
        desk.send(duress(NOW + 10 + n, sequence=f"{n + 1:04d}"))
        desk.pass_seconds(1)
    assert desk.troubles() == ["clock-suspect"]
    desk.pass_seconds(40)
    (counted,) = desk.pipeline.troubles.due(desk.steady_us)
    assert counted.count == 29


@pytest.mark.parametrize("jump", [86400, -86400])
def test_no_jump_loses_a_path_or_keeps_a_dead_one(jump: int) -> None:
    desk = JumpingDesk()
    desk.send(panel("1234"))
    desk.pass_seconds(30, jump)
    assert desk.pipeline.paths.check(desk.steady_us) == []
    desk.pass_seconds(31)
    (lost,) = desk.pipeline.paths.check(desk.steady_us)
    desk.pipeline.tell_path(lost, 1, desk.now_us)
    told = [json.loads(row.body or b"") for row in desk.journal.later if row.kind == Kind.PATH]
    assert told[-1]["state"] == "lost"
    desk.send(panel("1234", sequence="0043"))
    assert [json.loads(row.body or b"")["state"] for row in desk.journal.later if row.kind == Kind.PATH] == [
        "lost",
        "restored",
    ]


def test_the_time_a_path_was_last_heard_is_told_by_the_wall_clock_of_now() -> None:
    desk = JumpingDesk()
    desk.send(panel("1234"))
    desk.pass_seconds(61, 3600)
    (lost,) = desk.pipeline.paths.check(desk.steady_us)
    desk.pipeline.tell_path(lost, 1, desk.now_us)
    (told,) = [json.loads(row.body or b"") for row in desk.journal.later if row.kind == Kind.PATH]
    assert told["last_seen"] == "2026-09-21T15:13:20.000000Z"


def test_one_key_is_one_vote_and_an_account_without_a_key_of_its_own_has_no_vote() -> None:
    desk = JumpingDesk()
    for _ in range(20):
        desk.send(duress(NOW + 900))
        desk.pass_seconds(1)
    assert desk.watch.panels_offset_us is None
    assert len(desk.watch._votes) == 1
    desk.send(panel("1234", panel_time=NOW + 900))
    assert len(desk.watch._votes) == 1
