"""SIA event blocks and their codes."""

from typing import Any

import pytest

from protocols import contact_id, sia_dcs
from protocols.errors import SiaDcsError
from protocols.sia_dcs import SiaEvent
from tests import vectors

BLOCKS = [pytest.param(vector, id=vector["block"]) for vector in vectors.load("sia-blocks")]
TRAPS = [pytest.param(vector, id=vector["rule"]) for vector in vectors.load("sia-traps")]


def _told(events: tuple[SiaEvent, ...]) -> list[list[Any]]:
    return [[e.code, e.address, dict(e.modifiers), list(e.texts), e.late, e.listen_in] for e in events]


@pytest.mark.parametrize("vector", BLOCKS)
def test_a_block_is_read_into_its_events(vector: dict[str, Any]) -> None:
    assert _told(sia_dcs.decode(vector["block"])) == vector["events"]


@pytest.mark.parametrize("vector", TRAPS)
def test_a_trap_is_read_by_its_rule(vector: dict[str, Any]) -> None:
    assert _told(sia_dcs.decode(vector["block"])) == vector["events"]


def _writable(vector: dict[str, Any]) -> bool:
    """Say whether no text holds a mark that ends a text or a group: those are read and never written."""
    return not any(set(text) & set("^|") for event in vector["events"] for text in event[3])


WRITABLE = [vector for vector in vectors.load("sia-blocks") + vectors.load("sia-traps") if _writable(vector)]


@pytest.mark.parametrize("vector", WRITABLE, ids=lambda vector: vector["block"])
def test_events_that_were_read_are_written_so_that_they_read_the_same(vector: dict[str, Any]) -> None:
    events = sia_dcs.decode(vector["block"])
    assert _told(sia_dcs.decode(sia_dcs.encode(events))) == _told(events)


@pytest.mark.parametrize("block", ["", "what is this", "N", "Nri1", "Atext", "|||", "n", "N123"])
def test_a_block_without_an_event_is_refused(block: str) -> None:
    with pytest.raises(SiaDcsError):
        sia_dcs.decode(block)


def test_modifiers_stay_until_they_are_replaced() -> None:
    found = sia_dcs.decode("Nri1/BA1/ri2/BA2")
    assert [event.modifier("ri") for event in found] == ["1", "2"]
    assert found[0].modifier("id") is None


def test_modifiers_after_the_last_event_belong_to_it() -> None:
    assert sia_dcs.decode("NHA1/ri3/id7")[0].modifiers == (("ri", "3"), ("id", "7"))


def test_of_more_modifiers_than_any_panel_sends_the_newest_govern() -> None:
    names = [a + b for a in "bcdefg" for b in "bcdefghijk"]
    first, *_, last = sia_dcs.decode("N" + "".join(f"{name}1/BA/" for name in names))
    assert first.modifiers == (("bb", "1"),)
    assert [name for name, _ in last.modifiers] == names[-32:]
    (only,) = sia_dcs.decode("NBA/" + "/".join(f"{name}1" for name in names))
    assert [name for name, _ in only.modifiers] == names[-32:]


def test_a_bar_inside_a_text_does_not_split_the_block() -> None:
    assert sia_dcs.decode("NHA1^a|b^|Ac")[0].texts == ("a|b", "c")


def test_groups_of_another_letter_are_kept_as_text() -> None:
    assert sia_dcs.decode("NHA1|Xsomething")[0].texts == ("Xsomething",)


def test_a_block_is_written_as_it_is_read() -> None:
    events = (SiaEvent("BA", "001", (("ri", "1"),), ("Hall",)), SiaEvent("OP", None, (("ri", "1"), ("id", "5"))))
    assert sia_dcs.encode(events) == "Nri1/BA001^Hall^/id5/OP"
    assert sia_dcs.decode(sia_dcs.encode(events)) == events
    late = (SiaEvent("HA", "1", late=True),)
    assert sia_dcs.decode(sia_dcs.encode(late)) == late


def test_the_duress_family_is_in_the_table_whole() -> None:
    assert {code for code, row in sia_dcs.CODES.items() if row.duress} == {"HA", "HV", "ND", "PA"}


def test_every_row_of_the_table_is_usable() -> None:
    assert len(sia_dcs.CODES) == 336
    for code, row in sia_dcs.CODES.items():
        assert len(code) == 2
        assert row.event
        assert row.address in ("zone", "user", "area", "none")
        assert row.contact_id is None or row.contact_id in contact_id.CODES
