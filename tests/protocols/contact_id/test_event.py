"""Contact ID events and their codes."""

import pytest

from protocols import contact_id
from protocols.contact_id import ContactId, Qualifier
from protocols.errors import ContactIdError
from tests import vectors

DURESS = ContactId(Qualifier.NEW, "121", "01", "005")


@pytest.mark.parametrize(
    "text",
    [
        "1121 01 005", "181121 01 005", "98 1121 01 005", "E121 01 005", "e121 01 005", "112101005", "1121  01  005",
        " 1121 01 005 ", "1 121 01 005",
    ],
)  # fmt: skip
def test_a_duress_is_read_in_every_tolerated_form(text: str) -> None:
    assert contact_id.decode(text) == DURESS


@pytest.mark.parametrize(
    ("text", "event"),
    [
        ("3401 01 070", ContactId(Qualifier.RESTORE, "401", "01", "070")),
        ("R401 01 070", ContactId(Qualifier.RESTORE, "401", "01", "070")),
        ("6130 0B 01F", ContactId(Qualifier.PREVIOUS, "130", "0B", "01F")),
        ("14A6 01 001", ContactId(Qualifier.NEW, "406", "01", "001")),
        ("18F8 01 001", ContactId(Qualifier.NEW, "8F8", "01", "001")),
        ("1130 1 12345", ContactId(Qualifier.NEW, "130", "1", "12345")),
        ("1234181121010014", ContactId(Qualifier.NEW, "121", "01", "001")),
    ],
)
def test_an_event_is_read(text: str, event: ContactId) -> None:
    assert contact_id.decode(text) == event


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2130 01 001",
        "0000 00 000",
        "what is this",
        "1121-01-005",
        "1121 01 005\n",
        "１121 01 005",
        "1234181121010015",
        "12 01 5",
    ],
)
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ContactIdError):
        contact_id.decode(text)


@pytest.mark.parametrize("vector", vectors.load("contact-id-digits"))
def test_the_check_digit_follows_the_weights_of_dc_05(vector: dict[str, str]) -> None:
    assert contact_id.check_digit(vector["digits"]) == vector["check"]


def test_the_telephone_form_is_read_and_written() -> None:
    digits = contact_id.encode_telephone("1234", DURESS)
    assert contact_id.decode_telephone(digits) == ("1234", DURESS)
    with pytest.raises(ContactIdError):
        contact_id.encode_telephone("12345", DURESS)
    with pytest.raises(ContactIdError):
        contact_id.decode_telephone("1234171121010014")


def test_an_event_is_written_as_it_is_read() -> None:
    assert contact_id.encode(DURESS) == "1121 01 005"


def test_the_duress_family_is_in_the_table_whole() -> None:
    family = {code for code, row in contact_id.CODES.items() if row.duress}
    assert family == {"120", "121", "122", "123", "124", "125", "126", "127", "129"}
    assert all(contact_id.CODES[code].priority == 1 for code in family)


def test_every_row_of_the_table_is_usable() -> None:
    assert len(contact_id.CODES) == 351
    for code, row in contact_id.CODES.items():
        assert len(code) == 3
        assert row.event
        assert row.category
        assert 1 <= row.priority <= 9
        assert row.number in ("zone", "user", "none")
