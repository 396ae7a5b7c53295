"""From payloads to events: meanings, priorities, the duress family."""

import pytest

from protocols import contact_id, dc09, sia_dcs
from receiver import payloads
from receiver.payloads import Event


def message(data: str | bytes, token: str = "ADM-CID", extended: tuple[tuple[str, bytes], ...] = ()) -> dc09.Message:
    raw = data if isinstance(data, bytes) else data.encode()
    frame = dc09.split_datagram(dc09.encode(token, "0001", dc09.Address(None, "0", "1234"), raw, extended))[0]
    assert isinstance(frame, dc09.Frame)
    return dc09.unseal(dc09.open_envelope(frame), None)


def contact(text: str, dialect: str = "") -> Event:
    (event,) = payloads.decode(message(f"#1234|{text}"), dialect)
    return event


def sia(text: str) -> tuple[Event, ...]:
    return payloads.decode(message(f"#1234|{text}", "SIA-DCS"))


@pytest.mark.parametrize("code", ["120", "121", "122", "123", "124", "125", "126", "127", "129"])
@pytest.mark.parametrize("qualifier", "136")
def test_the_duress_family_is_duress_whatever_the_qualifier(code: str, qualifier: str) -> None:
    event = contact(f"{qualifier}{code} 01 005")
    assert (event.duress, event.priority, event.category) == (True, 1, "panic/duress")
    assert event.silent is (code not in ("120", "123"))
    assert event.qualifier == {"1": "new", "3": "restore", "6": "previous"}[qualifier]


def test_an_unknown_code_of_the_family_is_duress_until_a_person_says_otherwise() -> None:
    event = contact("1128 01 005")
    assert (event.duress, event.priority, event.flags, event.zone) == (True, 1, ("unmapped",), "005")


def test_forced_access_is_duress_only_where_the_dialect_says_so() -> None:
    assert contact("1423 01 005").duress is False
    assert (contact("1423 01 005", "ajax").duress, contact("1423 01 005", "ajax").priority) == (True, 1)


@pytest.mark.parametrize("code", sorted(contact_id.CODES))
def test_every_contact_id_code_has_the_words_of_the_table(code: str) -> None:
    row, event = contact_id.CODES[code], contact(f"1{code} 02 014")
    assert (event.event, event.category, event.priority, event.flags) == (row.event, row.category, row.priority, ())
    assert (event.user, event.zone) == (("014", None) if row.number == "user" else (None, "014"))
    assert event.partition == "02"


@pytest.mark.parametrize("code", sorted(sia_dcs.CODES))
def test_every_sia_code_has_the_words_of_the_table(code: str) -> None:
    row = sia_dcs.CODES[code]
    (event,) = sia(f"N{code}07")
    paired = contact_id.CODES[row.contact_id].priority if row.contact_id else 5
    assert (event.event, event.category, event.duress) == (row.event, row.category, row.duress)
    assert event.priority == (1 if row.duress else paired)
    assert "07" in (event.zone, event.user, event.partition)


@pytest.mark.parametrize(("code", "silent"), [("HA", True), ("HV", True), ("PA", False), ("BA", None), ("ND", None)])
def test_silent_is_what_the_field_agrees_on(code: str, silent: bool | None) -> None:
    assert sia(f"N{code}1")[0].silent is silent


def test_zone_and_user_of_a_sia_event_are_told_apart() -> None:
    (event,) = sia("Nri3/id001HA048")
    assert (event.partition, event.user, event.zone) == ("3", "001", "048")
    (event,) = sia("NOC22")
    assert (event.user, event.zone) == ("22", None)
    (event,) = sia("Nri2/CA5")
    assert (event.partition, event.zone) == ("2", "5")
    (event,) = sia("NCA5")
    assert (event.partition, event.zone) == ("5", None)


def test_one_event_per_code_and_modifiers_go_along() -> None:
    first, second = sia("Nti16:02/id22/CL/PA31")
    assert [(e.event_code, e.user, e.zone) for e in (first, second)] == [("CL", "22", None), ("PA", "22", "31")]
    assert second.modifiers == (("ti", "16:02"),)
    assert second.duress


def test_restorals_late_events_and_unknown_codes_are_marked() -> None:
    assert [sia(f"N{code}1")[0].qualifier for code in ("HR", "BR", "PH", "HA")] == ["restore", "restore", "restore", "new"]
    assert sia("Ori1/HA001")[0].flags == ("late",)
    assert sia("NQQ1")[0].flags == ("unmapped",)
    assert (contact("1998 01 001").flags, contact("1998 01 001").priority) == (("unmapped",), 5)


@pytest.mark.parametrize(("token", "data"), [("ADM-CID", ""), ("ADM-CID", "#1234|2130 01 001"), ("SIA-DCS", "#1234|???")])
def test_what_cannot_be_read_is_one_event_with_its_text(token: str, data: str) -> None:
    (event,) = payloads.decode(message(data, token))
    assert (event.event_code, event.text, event.flags) == (None, data, ("unreadable",))
    assert event.protocol == {"ADM-CID": "contact-id", "SIA-DCS": "sia-dcs"}[token]


def test_other_formats_are_kept_as_they_are() -> None:
    (event,) = payloads.decode(message("whatever", "FBI-SF"))
    assert (event.protocol, event.text, event.event_code) == ("opaque", "whatever", None)


def test_a_link_test_has_no_event_whatever_its_body() -> None:
    assert payloads.decode(message("#0000|0000 00 000", "NULL")) == ()


@pytest.mark.parametrize(
    ("data", "block"),
    [("#1234|1130 01 001", None), ("1234|1130 01 001", None), ("#99|1130 01 001", "99"), ("1130 01 001", None)],
)
def test_the_account_of_the_block_is_kept_where_it_differs(data: str, block: str | None) -> None:
    (event,) = payloads.decode(message(data))
    assert (event.event_code, event.block_account) == ("130", block)


@pytest.mark.parametrize(
    ("raw", "text", "flags"),
    [("Überfall".encode("cp1252"), "Überfall", ()), ("Касса".encode(), "Касса", ()), (b"\x81", "�", ("charset",))],
)
def test_text_of_either_charset_is_read(raw: bytes, text: str, flags: tuple[str, ...]) -> None:
    (event,) = payloads.decode(message(b"#1234|NHA1^" + raw + b"   ^", "SIA-DCS"))
    assert (event.text, event.flags) == (text, flags)


def test_extended_data_is_named() -> None:
    blocks = (
        ("S", b"First Street"), ("V", b"https://a/1.jpg, https://a/2.jpg"), ("V", b"https://a/3.jpg"), ("X", b"004E54.0"),
        ("Y", b"52S22.2"), ("Z", b"12.5"), ("H", b"10:01:02,11-23-2026"), ("K", b"SECRET"), ("Q", b"what"), ("S", b"again"),
        ("X", b"1150"),
    )  # fmt: skip
    found = payloads.extended_by_name(message("", extended=blocks))
    assert (found["site_name"], found["links"]) == (
        "First Street",
        ["https://a/1.jpg", "https://a/2.jpg", "https://a/3.jpg"],
    )
    assert (found["longitude"], found["latitude"], found["altitude"]) == (4.9, -52.37, 12.5)
    assert found["occurred_at"] == "2026-11-23T10:01:02Z"
    assert found["other"] == [["K", "(withheld)"], ["Q", "what"], ["S", "again"], ["X", "1150"]]


@pytest.mark.parametrize(
    "value", ["", "E", "004E", "E54.0", "004E5x", "999E0", "٤E1", "1E1.2.3", "9" * 400 + "E1", "1E" + "9" * 400]
)
def test_a_place_that_cannot_be_read_is_kept_as_text(value: str) -> None:
    assert payloads.extended_by_name(message("", extended=(("X", value.encode()),))) == {"other": [["X", value]]}


@pytest.mark.parametrize("value", ["9" * 400, "1e9", "nan", "inf", "+-1", "١", "1.2.3", ""])
def test_an_altitude_that_is_no_number_json_has_a_word_for_is_kept_as_text(value: str) -> None:
    assert payloads.extended_by_name(message("", extended=(("Z", value.encode()),))) == {"other": [["Z", value]]}


@pytest.mark.parametrize(("value", "metres"), [("12.5", 12.5), ("+12", 12.0), ("-3.", -3.0), (".5", 0.5)])
def test_an_altitude_is_read(value: str, metres: float) -> None:
    assert payloads.extended_by_name(message("", extended=(("Z", value.encode()),))) == {"altitude": metres}


def test_a_block_gives_one_signal_for_each_of_its_events() -> None:
    found = sia("N" + "/".join(f"CL{number:03}" for number in range(200)))
    assert [(event.event_code, event.user or event.zone) for event in found] == [("CL", f"{n:03}") for n in range(200)]
    urgent = sia("N" + "BA1" * 100 + "HA7" + "BA1" * 1200)
    assert [number for number, event in enumerate(urgent) if event.duress] == [100]
    assert len(urgent) == 1301
