"""What an event says to automation software, whatever a panel sent."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import dc09, sia_dcs
from protocols.automation import conversion
from protocols.contact_id import ContactId, Qualifier
from protocols.errors import DoesNotFit, NoEquivalent, ProtocolError
from receiver import payloads
from receiver.accounts import Accounts
from receiver.config import load
from receiver.config.automation import SurgardSettings
from receiver.errors import ConfigError, EventRefused
from receiver.events import OutEvent, render_or_tell
from receiver.journal import Kind, Origin, Row, Stored
from receiver.outputs import Surroundings, automation, surgard
from receiver.outputs.translation import Told, fitted, tell
from receiver.telemetry import Telemetry
from receiver.troubles import REASONS

ORIGIN = Origin("1", "2", "main", "tcp")


def _event(kind: Kind, raw: bytes = b"", body: dict[str, Any] | None = None, duress: int = 0, number: int = 0) -> OutEvent:
    stored_body = None if body is None else json.dumps(body).encode()
    row = Row(kind.value, 1, 5, duress, 1, None, b"i" * 16, number, 1, "", "", raw, stored_body)
    return render_or_tell(Stored(7, row, ORIGIN), Accounts({}))


def _signal(token: str, data: bytes, duress: int = 0, number: int = 0, account: str = "1234") -> OutEvent:
    return _event(Kind.SIGNAL, dc09.encode(token, "0001", dc09.Address(None, "0", account), data), None, duress, number)


def test_a_path_is_a_communication_trouble_of_its_account_and_restored_with_it() -> None:
    path = {"account": "1234", "listener": "main", "state": "lost", "last_seen": "", "interval_seconds": 60}
    assert tell(_event(Kind.PATH, body=path), "0000").contact_id == ContactId(Qualifier.NEW, "350", "00", "000")
    told = tell(_event(Kind.PATH, body=path | {"state": "restored"}), "0000")
    assert (told.account, told.own) == ("1234", True)
    assert told.contact_id == ContactId(Qualifier.RESTORE, "350", "00", "000")


@pytest.mark.parametrize(
    ("role", "code", "state", "qualifier", "sia"),
    [
        ("primary", "351", "lost", Qualifier.NEW, b"NLT"), ("primary", "351", "restored", Qualifier.RESTORE, b"NLR"),
        ("backup", "352", "lost", Qualifier.NEW, b"NYC"), ("backup", "352", "restored", Qualifier.RESTORE, b"NYK"),
    ],
)  # fmt: skip
def test_primary_and_backup_paths_have_codes_of_their_own_and_an_equivalent_in_sia(
    role: str, code: str, state: str, qualifier: Qualifier, sia: bytes
) -> None:
    path = {"account": "1234", "listener": "x", "state": state, "last_seen": "", "interval_seconds": 60, "role": role}
    told = tell(_event(Kind.PATH, body=path), "0000")
    assert (told.account, told.contact_id) == ("1234", ContactId(qualifier, code, "00", "000"))
    assert told.as_sia()[0].startswith(sia)


@pytest.mark.parametrize("reason", ["never-seen", "never-seen-cleared", "path-lost-cleared"])
@pytest.mark.parametrize(("role", "code"), [({}, "350"), ({"role": "primary"}, "351"), ({"role": "backup"}, "352")])
def test_an_account_never_seen_is_told_as_its_own_trouble(reason: str, role: dict[str, str], code: str) -> None:
    told = tell(_event(Kind.TROUBLE, body={"reason": reason, "account": "1234", "text": "", **role}), "0000")
    assert (told.account, told.contact_id is not None and told.contact_id.event_code) == ("1234", code)


@pytest.mark.parametrize("reason", sorted(REASONS))
def test_every_trouble_can_be_told_in_both_vocabularies(reason: str) -> None:
    told = tell(_event(Kind.TROUBLE, body={"reason": reason, "account": "12345678901", "text": ""}), "0000")
    assert told.contact_id is not None
    assert told.account in ("0000", "12345678901")
    assert (told.contact_id.qualifier is Qualifier.RESTORE) is reason.endswith(
        ("-restored", "-recovered", "-cleared", "-ended")
    )
    assert told.as_sia()[0].startswith(b"N")


ENDS = {
    "automation-restored": {"automation-lost"},
    "backlog-cleared": {"backlog-high", "backlog-full"},
    "disk-cleared": {"disk-low"},
    "journal-recovered": {"journal-unwritable"},
    "listener-silent-cleared": {"listener-silent"},
    "never-seen-cleared": {"never-seen"},
    "on-test-ended": {"on-test-began"},
    "paths-lost-cleared": {"paths-lost"},
    "paths-restored": {"paths-lost"},
}


def _in_contact_id(told: Told) -> ContactId:
    return told.as_contact_id()[0]


def _in_sia(told: Told) -> ContactId:
    """Return what a SIA block says by the tables' pairings, so that the end of a trouble has its code."""
    (event,) = sia_dcs.decode(told.as_sia()[0].decode())
    return conversion.to_contact_id(event)


@pytest.mark.parametrize("said", [_in_contact_id, _in_sia])
def test_the_restore_of_one_trouble_of_our_own_account_closes_what_it_ends_and_no_other(
    said: Callable[[Told], ContactId],
) -> None:
    told = {
        reason: said(tell(_event(Kind.TROUBLE, body={"reason": reason, "account": None, "text": ""}), "0000"))
        for reason in REASONS
        if reason != "path-lost-cleared"  # it always has an account
    }
    closes = {}
    for reason, restore in told.items():
        if restore.qualifier is Qualifier.RESTORE:
            opened = replace(restore, qualifier=Qualifier.NEW)
            closes[reason] = {other for other, its in told.items() if its == opened}
    assert closes == ENDS


@pytest.mark.parametrize("said", [_in_contact_id, _in_sia])
def test_the_return_of_one_automation_link_does_not_close_the_loss_of_another(said: Callable[[Told], ContactId]) -> None:
    def told(reason: str, output: str) -> ContactId:
        body = {"reason": reason, "account": None, "text": "", "output": output}
        return replace(said(tell(_event(Kind.TROUBLE, body=body), "0000")), qualifier=Qualifier.NEW)

    lost = {output: told("automation-lost", output) for output in ("first", "second", "third")}
    assert len({event.zone_or_user for event in lost.values()}) == 3
    for output, event in lost.items():
        assert told("automation-restored", output) == event
        assert event.event_code == "350"
        assert 100 <= int(event.zone_or_user) <= 999


def test_links_that_automation_could_not_tell_apart_are_a_mistake(tmp_path: Any) -> None:
    file = tmp_path / "receiver.toml"

    def mistakes(troubles: str) -> list[str]:
        outputs = [
            f'[[outputs]]\nname = "{name}"\ntype = "surgard"\nport = {port}\ntroubles = {troubles}\n'
            for name, port in (("centre-7", 1025), ("centre-8", 1026), ("centre-30", 1027))
        ]
        file.write_text("".join(outputs))
        try:
            load(file, {})
        except ConfigError as error:
            return list(error.mistakes)
        return []

    (mistake,) = mistakes("true")
    assert "centre-7 and centre-30 would both be told to automation as zone 154" in mistake
    assert "another name" in mistake
    assert mistakes("false") == []


@pytest.mark.parametrize("said", [_in_contact_id, _in_sia])
def test_an_account_on_test_is_told_of_that_account_and_the_end_of_the_test_closes_what_its_beginning_opened(
    said: Callable[[Told], ContactId],
) -> None:
    told = {
        reason: tell(_event(Kind.TROUBLE, body={"reason": reason, "account": "1234", "text": ""}), "0000")
        for reason in ("on-test-began", "on-test-ended")
    }
    began, ended = said(told["on-test-began"]), said(told["on-test-ended"])
    assert {event.account for event in told.values()} == {"1234"}
    assert began.qualifier is Qualifier.NEW
    assert ended == replace(began, qualifier=Qualifier.RESTORE)
    assert told["on-test-began"].contact_id == ContactId(Qualifier.NEW, "466", "00", "000")


def test_an_event_whose_stored_bytes_are_damaged_is_told_as_a_trouble_of_our_own() -> None:
    told = tell(_event(Kind.SIGNAL, b"\nno frame"), "0000")
    assert (told.account, told.contact_id) == ("0000", ContactId(Qualifier.NEW, "300", "00", "000"))


@pytest.mark.parametrize(("token", "data"), [("FBI-SF", b"abc"), ("ADM-CID", b"what is this"), ("SIA-DCS", b"#1234|")])
def test_what_no_vocabulary_can_say_is_refused_for_ever_and_never_guessed(token: str, data: bytes) -> None:
    with pytest.raises(NoEquivalent):
        tell(_signal(token, data), "0000")
    with pytest.raises(EventRefused) as caught:
        Frames().of(_signal(token, data))
    assert caught.value.for_ever


def test_zeros_in_front_of_numbers_come_and_go_and_nothing_else_does() -> None:
    def written(partition: str, number: str, cut: bool = False) -> tuple[str, str]:
        event, _ = Told("1234", ContactId(Qualifier.NEW, "130", partition, number)).as_contact_id(cut)
        return event.partition, event.zone_or_user

    assert written("1", "7") == ("01", "007")
    assert written("001", "000015") == ("01", "015")
    assert written("100", "1000", cut=True) == ("99", "999")
    for wrong in (("100", "001"), ("01", "1000")):
        with pytest.raises(DoesNotFit):
            written(*wrong)


def test_an_account_is_cut_only_when_that_is_asked_for() -> None:
    assert (fitted("12a", 4, cut=False), fitted("12345", 4, cut=True)) == ("012A", "2345")
    with pytest.raises(DoesNotFit):
        fitted("12345", 4, cut=False)


class Frames:
    """The frames an output would send, without a line."""

    def __init__(self, **settings: Any) -> None:
        surroundings = Surroundings("1", None, Telemetry(), lambda _trouble: None, lambda _trouble: None)  # type: ignore[arg-type]
        self._output = surgard.build(SurgardSettings(name="x", type="surgard", **settings), surroundings)

    def of(self, event: OutEvent) -> bytes:
        return self._output.frame(event, "0001")


texts = st.binary(max_size=80) | st.text("NOLAri1d5HBPt:/^|*+-0F #]\x14[", max_size=60).map(str.encode)
accounts = st.text("0123456789ABCDEFGz", min_size=1, max_size=16)


@given(st.sampled_from(["SIA-DCS", "ADM-CID", "ITI-I"]), texts, accounts, st.sampled_from(["widen", "refuse", "trouble"]))
def test_whatever_a_panel_sent_is_one_frame_of_its_own_account_or_refused(
    token: str, data: bytes, account: str, overflow: str
) -> None:
    raw = dc09.encode(token, "0001", dc09.Address(None, "0", account), data)
    try:
        found = dc09.split_datagram(raw)
        assert isinstance(found[0], dc09.Frame)
        count = len(payloads.decode(dc09.unseal(dc09.open_envelope(found[0]), None)))
    except ProtocolError:
        return
    frames = Frames(overflow=overflow)
    for number in range(count):
        try:
            frame = frames.of(_signal(token, data, number=number, account=account))
        except EventRefused:
            continue
        assert frame.count(b"\x14") == 1
        assert frame[-1] == 0x14
        assert frame.startswith((b"501001 18", b"Q01001 58", b"S01001[#")), frame
        shown = account.upper() if overflow != "trouble" else account.upper()[-4:]
        assert shown.encode() in frame.upper()


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ('type = "surgard"\nline = "01"', "line is '01'; it must be 1, 3 or 7 hex digits"),
        ('type = "surgard"\nallow = ["nonsense"]', "allow holds 'nonsense'"),
        ('type = "surgard"\nforms = []', "forms is empty"),
        ('type = "surgard"\nsia_digits = 17', "sia_digits is 17; it must be 4 to 16"),
        ('type = "surgard"\nmode = "client"\nport = 0', "port is 0"),
        ('type = "ademco685"\noverflow = "widen"', "overflow is 'widen'; it can be refuse, trouble"),
        ('type = "surgard"\nmode = "client"\nhost = ""', "host is ''"),
        ('type = "dc07"\nforms = []', "forms is empty"),
        ('type = "dc09"', "host or port is missing"),
        ('type = "dc09"\nhost = "127.0.0.1"\nkey = "too short"', "this one has 9 characters"),
    ],
)
def test_a_mistake_in_a_link_has_a_sentence_of_its_own(tmp_path: Any, settings: str, wanted: str) -> None:
    file = tmp_path / "receiver.toml"
    file.write_text(f"[[outputs]]\n{settings}\n")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert len(caught.value.mistakes) == 1
    assert wanted in caught.value.mistakes[0]
    assert "too short" not in caught.value.mistakes[0]


def test_an_event_of_ours_that_went_out_from_memory_is_not_told_a_second_time() -> None:
    once = automation.Once()
    trouble = _event(Kind.TROUBLE, body={"reason": "journal-unwritable", "account": None, "text": ""})
    signal = _signal("ADM-CID", b"#1234|1130 01 001")
    assert not once.has(trouble)
    for event in (trouble, signal):
        once.add(event)
    assert once.has(trouble)
    assert not once.has(signal)  # the same id twice is a repeat the journal would not have stored
    for number in range(600):
        once.add(trouble._replace(cloud_event={**trouble.cloud_event, "id": str(number)}))
    assert not once.has(trouble)


def test_an_answer_is_one_byte_and_all_else_is_nothing() -> None:
    assert [answer.value for answer, _ in automation.read_bytes(b"x\x06\x00\x15y")] == ["ack", "nak"]
