"""The contract's table of answers, row by row, with a journal of a few lines."""

import asyncio
import itertools
import json
import os
from typing import Any

import pytest

from fuzz.single import Strict, handle_one
from protocols import contact_id, dc09
from protocols.dc09 import cipher
from receiver import payloads, pipeline, policy
from receiver.accounts import Account, Accounts
from receiver.clock import SECOND_US
from receiver.config import ClockSettings
from receiver.errors import JournalUnavailable, ReceiverError
from receiver.journal import Entry, Kind, Lane, Receipt, Refusal, Row
from receiver.pipeline import Pipeline, Route, repeat_identity

NOW = 1_790_000_000
KEY = dc09.Key(bytes(range(16)))
ROUTE = Route("main", "tcp", "127.0.0.1:40112", 1)


class FakeJournal:
    """Keeps rows in memory; stores nothing while ``failing``."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.later: list[Row] = []
        self.refusals: list[Refusal] = []
        self.failing = False

    async def append(self, entries: list[Entry]) -> list[Receipt | JournalUnavailable]:
        return [self._append(entry) for entry in entries]

    def _append(self, entry: Entry) -> Receipt | JournalUnavailable:
        if self.failing:
            return JournalUnavailable("no room")
        for number, row in enumerate(self.rows, 1):
            if row.identity == entry.identity:
                return Receipt(number, repeat=True)
        self.rows += entry.rows()
        return Receipt(len(self.rows), repeat=False)

    def knows(self, identity: bytes) -> bool:
        return any(row.identity == identity for row in self.rows)

    def append_later(self, entries: list[Entry]) -> None:
        if self.failing:
            raise JournalUnavailable("no room")
        self.later += [row for entry in entries for row in entry.rows()]

    def refuse(self, refusal: Refusal) -> bool:
        self.refusals.append(refusal)
        return not self.failing


class Desk:
    """A pipeline and what is around it."""

    def __init__(self, accept_unknown: bool = False, default_key: dc09.Key | None = None) -> None:
        rows = {
            "1234": Account("1234", supervision_seconds=60),
            "5678": Account("5678", key=KEY, accepts_plaintext=False),
            "9ABC": Account("9ABC", key=KEY, accepts_plaintext=True),
        }
        self.journal = FakeJournal()
        self.telemetry = Strict()
        self.now_us = NOW * SECOND_US
        accounts = Accounts(rows, default_key, accept_unknown)
        self.pipeline = Pipeline(accounts, ClockSettings(), self.journal, self.telemetry, lambda: self.now_us)  # type: ignore[arg-type]

    def send(self, raw: bytes) -> bytes | None:
        frame = dc09.split_datagram(raw)[0]
        assert isinstance(frame, dc09.Frame)
        return asyncio.run(handle_one(self.pipeline, frame, ROUTE))

    def troubles(self) -> list[str]:
        return [json.loads(row.body or b"")["reason"] for row in self.journal.later if row.kind == Kind.TROUBLE]


def panel(account: str = "1234", token: str = "ADM-CID", data: str | None = None, **more: Any) -> bytes:
    data = f"#{account}|1121 01 005" if data is None else data
    more.setdefault("sequence", "0042")
    if more.get("key"):
        more.setdefault("panel_time", NOW)
    return dc09.encode(token, more.pop("sequence"), dc09.Address(None, "0", account), data.encode(), **more)


UNSTAMPED = dc09.wrap(b'"*ADM-CID"0001L0#5678[' + cipher.seal(b"#5678|1121 01 005]", KEY))


def said(reply: bytes | None) -> str:
    if reply is None:
        return "silence"
    found = dc09.split_datagram(reply)[0]
    assert isinstance(found, dc09.Frame)
    return found.body[1:5].decode().strip('"')


@pytest.mark.parametrize(
    ("sent", "answer", "reason", "troubles"),
    [
        (panel(), "ACK", None, []),
        (panel(token="ACK"), "silence", "from-receiver", ["reflected-reply"]),
        (panel(token="DUH"), "silence", "from-receiver", ["reflected-reply"]),
        (panel("5678", token="ACK", key=KEY), "silence", "from-receiver", ["reflected-reply"]),
        (panel("5678", key=KEY), "*ACK", None, []),
        (panel("5678", key=dc09.Key(bytes(16))), "silence", "undecryptable", ["undecryptable"]),
        (panel("1234", key=KEY), "silence", "undecryptable", ["undecryptable"]),
        (UNSTAMPED, "silence", "undecryptable", ["undecryptable"]),
        (panel("5678"), "silence", "plaintext-refused", ["plaintext-refused"]),
        (panel("5678", token="NULL", data=""), "silence", "plaintext-refused", ["plaintext-refused"]),
        (panel("9ABC"), "ACK", None, []),
        (panel("5678", key=KEY, panel_time=NOW - 41), "NAK", "stale-timestamp", []),
        (panel("5678", key=KEY, panel_time=NOW - 40), "*ACK", None, []),
        (panel("5678", key=KEY, panel_time=NOW + 20), "*ACK", None, []),
        (panel("5678", key=KEY, panel_time=NOW + 21), "NAK", "stale-timestamp", []),
        (panel("5678", token="XYZ", key=KEY, panel_time=NOW - 100), "NAK", "stale-timestamp", []),
        (panel(panel_time=NOW - 9999), "ACK", None, []),
        (panel("FFFF"), "silence", "unknown-account", ["unknown-account"]),
        (panel("FFFF", token="XYZ"), "silence", "unknown-account", ["unknown-account"]),
        (panel(token="XYZ"), "DUH", "unknown-token", ["unknown-token"]),
        (panel("5678", token="XYZ", key=KEY), "DUH", "unknown-token", ["unknown-token"]),
        (panel(token="NULL", data=""), "ACK", None, []),
        (panel("5678", token="NULL", data="", key=KEY), "*ACK", None, []),
        (panel(data="what is this"), "ACK", None, []),
        (panel(data="#1234|18F8 01 001"), "ACK", None, []),
        (panel(token="FBI-SF", data="anything"), "ACK", None, []),
        (dc09.wrap(b'"NAK"0000R0L0A0[]'), "silence", "from-receiver", ["reflected-reply"]),
        (dc09.wrap(b'"NAK"0000R0L0A0[]_10:01:02,11-23-2026', True), "silence", "from-receiver", ["reflected-reply"]),
        (dc09.wrap(b'"ADM-CID"0001L0#1234[no end'), "silence", "malformed", []),
    ],
    ids=itertools.count(),  # the bytes are new each time: a pad is random
)  # fmt: skip
def test_each_row_of_the_table_has_its_answer(sent: bytes, answer: str, reason: str | None, troubles: list[str]) -> None:
    desk = Desk()
    assert said(desk.send(sent)) == answer
    assert [refusal.reason for refusal in desk.journal.refusals] == ([reason] if reason else [])
    assert desk.troubles() == troubles
    assert all(refusal.raw == sent for refusal in desk.journal.refusals)
    assert sum(desk.telemetry.frames.values()) == 1
    if answer not in ("ACK", "*ACK") or "NULL" in repr(sent):
        assert desk.journal.rows == []


def test_no_receipt_no_ack() -> None:
    desk = Desk()
    desk.journal.failing = True
    assert desk.send(panel()) is None
    assert desk.send(panel("5678", key=KEY)) is None
    assert [refusal.reason for refusal in desk.journal.refusals] == ["journal-unavailable"] * 2
    assert desk.telemetry.refusals_dropped == 2
    assert said(desk.send(panel(token="NULL", data=""))) == "ACK"
    assert said(desk.send(panel(token="XYZ"))) == "DUH"
    assert desk.journal.later == []


def test_a_repeat_is_acknowledged_and_not_stored() -> None:
    desk = Desk()
    assert said(desk.send(panel("5678", key=KEY))) == "*ACK"
    desk.now_us += 20 * SECOND_US
    assert said(desk.send(panel("5678", key=KEY, panel_time=NOW + 20))) == "*ACK"
    assert len(desk.journal.rows) == 1
    assert desk.telemetry.duplicates == 1


def test_what_is_stored_says_how_it_came() -> None:
    desk = Desk(accept_unknown=True)
    desk.send(panel("9ABC", token="SIA-DCS", data="#9ABC|Nri1/id2/CL/PA3", panel_time=NOW))
    desk.send(panel("FFFF"))
    desk.send(panel("5678", key=KEY))
    first, second, third, fourth = desk.journal.rows
    assert [(row.number, row.lane, row.priority, row.duress, row.flags) for row in (first, second, third, fourth)] == [
        (0, 1, 8, 0, "plaintext"), (1, 0, 1, 1, "plaintext"), (0, 0, 1, 1, "unregistered"), (0, 0, 1, 1, ""),
    ]  # fmt: skip
    assert (first.panel_time, third.panel_time, first.received_us) == (NOW, None, NOW * SECOND_US)
    assert first.identity == second.identity != third.identity
    assert first.body is None
    assert (fourth.body or b"").startswith(b"#5678|1121 01 005]")


def test_a_default_key_opens_messages_of_accounts_without_one() -> None:
    desk = Desk(default_key=KEY)
    assert said(desk.send(panel(key=KEY))) == "*ACK"
    assert said(desk.send(panel(sequence="0043"))) == "ACK"
    assert [row.flags for row in desk.journal.rows] == ["", "plaintext"]
    assert said(desk.send(panel("FFFF", key=KEY))) == "silence"
    assert desk.troubles() == ["downgraded", "unknown-account"]


def _identity(raw: bytes) -> bytes:
    frame = dc09.split_datagram(raw)[0]
    assert isinstance(frame, dc09.Frame)
    return repeat_identity(dc09.unseal(dc09.open_envelope(frame), KEY))


def test_time_stamp_ciphertext_and_h_do_not_make_a_message_another() -> None:
    one = panel("5678", key=KEY, extended=(("S", b"x"), ("H", b"1")))
    assert _identity(one) == _identity(panel("5678", key=KEY, panel_time=NOW + 9, extended=(("S", b"x"), ("H", b"2"))))
    others = [
        panel("5679", key=KEY, extended=(("S", b"x"),)), panel("5678", key=KEY, extended=(("S", b"y"),)),
        panel("5678", key=KEY, sequence="0043", extended=(("S", b"x"),)), panel("5678", key=KEY),
        panel("5678", key=KEY, token="SIA-DCS", extended=(("S", b"x"),)),
        panel("5678", data="#5678|3121 01 005", extended=(("S", b"x"),)),
        dc09.encode("ADM-CID", "0042", dc09.Address("1", "0", "5678"), b"#5678|1121 01 005", (("S", b"x"),)),
        dc09.encode("ADM-CID", "0042", dc09.Address(None, None, "5678"), b"#5678|1121 01 005", (("S", b"x"),)),
    ]  # fmt: skip
    assert len({_identity(one), *map(_identity, others)}) == len(others) + 1


def test_with_sequence_0000_the_stamp_counts_and_without_one_nothing_repeats() -> None:
    stamped = panel(sequence="0000", panel_time=NOW)
    assert _identity(stamped) == _identity(stamped)
    assert _identity(stamped) != _identity(panel(sequence="0000", panel_time=NOW + 1))
    bare = panel(sequence="0000")
    assert _identity(bare) != _identity(bare)
    no_moment = dc09.wrap(b'"ADM-CID"0000L0#1234[#1234|1121 01 005]_00:00:00,00-00-0000')  # its clock was never set
    assert _identity(no_moment) != _identity(no_moment)


def test_a_storm_of_refusals_is_one_trouble_and_then_one_with_a_count() -> None:
    desk = Desk()
    for number in range(500):
        desk.send(panel("5678", sequence=f"{number:04d}"))
    assert desk.troubles() == ["plaintext-refused"]
    (counted,) = desk.pipeline.troubles.due(desk.now_us + 61 * SECOND_US)
    assert (counted.count, counted.account, counted.listener) == (499, "5678", "main")


def test_any_valid_message_restores_a_lost_path() -> None:
    desk = Desk()
    desk.send(panel(token="NULL", data=""))
    (lost,) = desk.pipeline.paths.check(desk.now_us + 61 * SECOND_US)
    assert (lost.account, lost.state, lost.interval_seconds) == ("1234", "lost", 60)
    desk.now_us += 70 * SECOND_US
    desk.send(panel())
    (told,) = [json.loads(row.body or b"") for row in desk.journal.later if row.kind == Kind.PATH]
    assert (told["state"], told["account"], told["listener"]) == ("restored", "1234", "main")


def test_damage_is_kept_and_counted() -> None:
    desk = Desk()
    damage = dc09.split_datagram(os.urandom(3) + panel()[:-1])[-1]
    assert isinstance(damage, dc09.Damage)
    desk.pipeline.handle_damage(damage, ROUTE)
    assert desk.journal.refusals[0].reason == "truncated"
    assert desk.telemetry.frames["tcp", "silence", "truncated"] == 1


def _leaves(cls: type[Exception]) -> set[type[Exception]]:
    below = {leaf for sub in cls.__subclasses__() for leaf in _leaves(sub)}
    return below or {cls}


def test_every_error_of_a_frame_has_a_verdict() -> None:
    from protocols import errors
    from receiver.errors import PolicyError

    own = {  # never reach policy
        errors.KeyFormatError, errors.TimestampError, errors.ContactIdError, errors.SiaDcsError,
        errors.ReportError, errors.DoesNotFit, errors.NoEquivalent,
    }  # fmt: skip
    for leaf in (_leaves(errors.ProtocolError) | _leaves(PolicyError) | {JournalUnavailable}) - own:
        assert isinstance(policy.verdict(leaf()), policy.Verdict)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        policy.verdict(ReceiverError())


def test_the_story_fits_one_screen() -> None:
    import inspect

    assert len(inspect.getsource(pipeline.Pipeline.handle).splitlines()) <= 40


def test_every_priority_of_the_tables_has_a_lane() -> None:
    for priority in {code.priority for code in contact_id.CODES.values()} | {payloads.URGENT_PRIORITY}:
        for duress in (False, True):
            lane, *kept = pipeline._TOLD[priority, duress]
            assert lane == (Lane.URGENT if priority == 1 else Lane.NORMAL)
            assert kept == [priority, duress]
