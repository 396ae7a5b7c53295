"""Dialects: which names there are, what each allows, and what the refusals log says of a frame that one would allow."""

import asyncio
from zoneinfo import ZoneInfo

import pytest
from msgspec.structs import replace

from fuzz.single import handle_one
from protocols import dc09
from receiver import dialects
from receiver.accounts import Account, Accounts
from receiver.clock import SECOND_US
from receiver.config import JsonlSettings
from receiver.defaults import defaults
from receiver.errors import ConfigError
from receiver.events import render
from receiver.explain import explain
from receiver.journal import Origin, Stored
from receiver.on_test import Ticket
from receiver.outputs.filters import Filter
from tests import vectors
from tests.receiver.test_pipeline import KEY, NOW, ROUTE, Desk, panel

ELDES = [bytes.fromhex(vector["frame"]) for vector in vectors.load("eldes")]


def heard(desk: Desk, raw: bytes, dialect: str = "") -> bytes | None:
    """Hand a frame over as a listener does."""
    (frame,) = dc09.split_datagram(raw, over_cr=True)
    assert isinstance(frame, dc09.Frame)
    return asyncio.run(handle_one(desk.pipeline, frame, replace(ROUTE, defaults=defaults(dialect, ""))))


@pytest.mark.parametrize("raw", ELDES)
@pytest.mark.parametrize(
    ("account", "listener"), [("eldes", ""), ("auto", ""), ("ajax+eldes", ""), ("", "eldes"), ("", "auto")]
)
def test_a_crc_over_the_cr_is_taken_where_account_or_listener_says_so(raw: bytes, account: str, listener: str) -> None:
    desk, name = Desk(), raw.split(b"#")[1][:4].decode()
    desk.pipeline.accounts = Accounts({name: Account(name, dialect=account)}, accept_unknown=False)
    reply = heard(desk, raw, listener)
    assert reply is not None
    assert b'"ACK"' in reply
    assert desk.journal.refusals == []


@pytest.mark.parametrize("raw", ELDES)
@pytest.mark.parametrize(("account", "listener"), [("", ""), ("ajax", "eldes"), ("padded", "")])
def test_elsewhere_it_is_refused_and_the_log_names_the_dialect(raw: bytes, account: str, listener: str) -> None:
    desk, name = Desk(), raw.split(b"#")[1][:4].decode()
    desk.pipeline.accounts = Accounts({name: Account(name, dialect=account)}, accept_unknown=True)
    assert heard(desk, raw, listener) is None
    (refusal,) = desk.journal.refusals
    assert (refusal.reason, refusal.account, refusal.raw) == ("bad-crc", name, raw)
    assert "fits with dialect eldes (CRC over the CR)" in refusal.text
    assert desk.troubles() == []


def test_the_standard_never_takes_it_and_decode_says_what_would() -> None:
    for raw in ELDES:
        told = explain(raw, None, 0)
        assert (told["verdict"], told["reason"] in ("bad-crc", "bad-length")) == ("silence", True)
        assert "fits with dialect eldes" in told["explanation"]
    assert "dialect" not in explain(ELDES[0][:-9] + b"XXXXXXXX\r", None, 0)["explanation"]


def test_zeros_in_front_of_an_account_mean_nothing_where_its_dialect_says_so() -> None:
    accounts = Accounts({"1A2B": Account("1A2B", dialect="padded"), "9": Account("9"), "0007": Account("0007")})
    assert accounts.find("001a2b").account == "1A2B"
    assert accounts.find("0007").account == "0007"
    assert [accounts.find(name).registered for name in ("0009", "007", "0000", "1A2B0")] == [False] * 4


def test_a_padded_account_is_refused_with_a_hint() -> None:
    desk = Desk()
    desk.pipeline.accounts = Accounts({"1234": Account("1234")}, accept_unknown=False)
    assert heard(desk, panel("001234")) is None
    assert "fits account 1234 with dialect padded" in desk.journal.refusals[0].text
    desk.pipeline.accounts = Accounts({"1234": Account("1234", dialect="padded")}, accept_unknown=False)
    reply = heard(desk, panel("001234"))
    assert reply is not None
    assert b"#001234[" in reply


@pytest.mark.parametrize(
    ("off_seconds", "hint"),
    [
        (7200, "2 h ahead of UTC"),
        (-5 * 3600, "5 h behind UTC"),
        (20_700 - 15, "5.75 h ahead of UTC"),
        (400, ""),
        (20 * 3600, ""),
    ],
)
def test_a_stamp_in_local_time_is_refused_with_a_hint(off_seconds: int, hint: str) -> None:
    desk = Desk()
    heard(desk, panel("5678", key=KEY, panel_time=NOW + off_seconds))
    (refusal,) = desk.journal.refusals
    assert refusal.reason == "stale-timestamp"
    assert hint in refusal.text
    assert ("time_zone" in refusal.text) is bool(hint)


@pytest.mark.parametrize(
    ("off_seconds", "hint"),
    [
        (0, "clock is UTC, which Asia/Tokyo is not now"),
        (8 * 3600, "clock is 8 h ahead of UTC, which Asia/Tokyo is not now"),
        (9 * 3600 + 400, ""),
    ],
)
def test_a_stamp_that_is_not_of_the_accounts_zone_is_refused_with_a_hint(off_seconds: int, hint: str) -> None:
    desk = Desk()
    desk.pipeline.accounts = Accounts({"5678": Account("5678", key=KEY, time_zone=ZoneInfo("Asia/Tokyo"))})
    heard(desk, panel("5678", key=KEY, panel_time=NOW + off_seconds))
    (refusal,) = desk.journal.refusals
    assert refusal.reason == "stale-timestamp"
    assert hint in refusal.text
    assert ("summer time" in refusal.text) is bool(hint)


def test_423_is_duress_at_a_listener_of_that_dialect_unless_the_account_has_its_own() -> None:
    for account, wanted in (("", 1), ("padded", 0)):
        desk = Desk()
        desk.pipeline.accounts = Accounts({"1234": Account("1234", dialect=account)})
        heard(desk, panel("1234", data="#1234|1423 01 005"), "ajax")
        assert [row.duress for row in desk.journal.rows] == [wanted]


def test_names_are_read_without_regard_to_case_and_joined_by_plus() -> None:
    assert dialects.parse("Ajax + ELDES") == "ajax+eldes"
    assert dialects.parse("") == ""
    for wrong in ("klingon", "ajax+", "+", "ajax,eldes"):
        with pytest.raises(ConfigError, match="known are ajax, auto, bosch"):
            dialects.parse(wrong)
    for contrary in ("close+keep", "ajax+close"):
        with pytest.raises(ConfigError, match="says both"):
            dialects.parse(contrary)


def test_a_maker_is_a_name_for_habits_and_standard_for_none_whatever_the_listener_says() -> None:
    assert all(set(found) <= set(dialects.HABITS) for found in dialects.DIALECTS.values())
    assert dialects.habits("ajax+polls") == {"duress-423", "keep", "polls"}
    defaults_of_listener = defaults("ajax", "")
    assert defaults_of_listener is not None
    for own, wanted in (("", True), ("standard", False), ("trikdis", False)):
        found = defaults_of_listener.fill(Account("1234", dialect=own)).dialect
        assert dialects.forced_access_is_duress(found) is wanted
    assert defaults("", "") is None


def test_a_padded_account_is_on_test_and_in_an_outputs_filter_by_the_registers_own_text() -> None:
    desk = Desk()
    desk.pipeline.accounts = Accounts({"12AB": Account("12ab", dialect="padded")}, accept_unknown=False)
    ticket = Ticket("12AB", True, (), (), "service", "A", desk.now_us, desk.now_us + 3600 * SECOND_US)
    desk.pipeline.on_test.begin(ticket, desk.now_us, desk.now_us)
    assert heard(desk, panel("0012ab", data="#0012ab|1130 01 005")) is not None
    (row,) = desk.journal.rows
    assert row.flags == "on-test"
    event = render(Stored(1, row, Origin("1", "1", "main", "tcp")), desk.pipeline.accounts)
    assert event.account == "0012ab"
    assert [Filter(JsonlSettings(accounts=(name,))).takes(event) for name in ("12AB", "0012AB", "34")] == [True, True, False]
