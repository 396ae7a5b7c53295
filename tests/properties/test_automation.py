"""What holds for every report to automation software: it comes back as it went, and nothing smuggles a second frame."""

from hypothesis import given
from hypothesis import strategies as st

from protocols import contact_id, dc09, sia_dcs
from protocols.automation import ademco685, conversion, dc07, surgard
from protocols.contact_id import ContactId, Qualifier
from protocols.errors import DoesNotFit, ProtocolError
from protocols.sia_dcs import SiaEvent

HEX = "0123456789ABCDEF"


def digits(count: int) -> st.SearchStrategy[str]:
    return st.text(HEX, min_size=count, max_size=count)


cid_events = st.builds(ContactId, st.sampled_from(Qualifier), digits(3), digits(2), digits(3))
places = st.builds(surgard.Place, digits(2), st.sampled_from([1, 3, 7]).flatmap(digits))
blocks = st.binary(min_size=1, max_size=300)
sia_accounts = st.text(HEX + "GZaz", min_size=1, max_size=16)


@given(places, digits(4) | digits(10), cid_events)
def test_a_sur_gard_contact_id_report_comes_back(place: surgard.Place, account: str, event: ContactId) -> None:
    report = surgard.ContactIdReport(place, account, event)
    assert surgard.decode(surgard.encode(report), len(place.line)) == report


@given(places, sia_accounts, blocks)
def test_a_sur_gard_sia_report_comes_back_or_does_not_fit_and_is_one_frame(
    place: surgard.Place, account: str, block: bytes
) -> None:
    report = surgard.SiaReport(place, account, block)
    try:
        frame = surgard.encode(report)
    except DoesNotFit:
        assert any(byte < 0x20 or byte in b"\x7f[]" for byte in block)
        return
    assert surgard.decode(frame, len(place.line)) == report
    assert frame.count(surgard.END) == 1


@given(digits(1), digits(1), digits(4), cid_events, st.booleans())
def test_an_ademco_report_comes_back(receiver: str, line: str, account: str, event: ContactId, user: bool) -> None:
    report = ademco685.Report(receiver, line, account, event, user)
    assert ademco685.decode(ademco685.encode(report)) == report


@given(st.sampled_from(["ADM-CID", "SIA-DCS"]), st.integers(1, 9999), digits(2), digits(3), sia_accounts, blocks)
def test_a_dc07_report_comes_back_or_does_not_fit(
    token: str, sequence: int, receiver: str, line: str, account: str, data: bytes
) -> None:
    report = dc07.Report(token, f"{sequence:04d}", receiver, line, account, data)
    try:
        found = dc09.split_datagram(dc07.encode(report))
    except DoesNotFit:
        assert any(byte < 0x20 or byte in b"\x7f[]" for byte in data)
        return
    assert len(found) == 1
    assert isinstance(found[0], dc09.Frame)
    assert dc07.decode(found[0]) == report


@given(st.binary(max_size=200))
def test_any_bytes_are_a_report_or_a_protocol_error(raw: bytes) -> None:
    for read in (
        surgard.decode,
        lambda raw: surgard.decode(raw, 1),
        ademco685.decode,
        lambda raw: dc07.decode(dc09.Frame(raw, raw, False)),
    ):
        try:
            read(raw)
        except ProtocolError:
            continue


@given(st.sampled_from(sorted(sia_dcs.CODES)), st.none() | st.text("0123456789", max_size=4), st.booleans(), st.booleans())
def test_every_sia_code_becomes_a_contact_id_code_of_the_table_or_has_no_equivalent(
    code: str, address: str | None, area: bool, user: bool
) -> None:
    modifiers = (*((("ri", "2"),) if area else ()), *((("id", "7"),) if user else ()))
    try:
        event = conversion.to_contact_id(SiaEvent(code, address, modifiers))
    except ProtocolError:
        assert sia_dcs.CODES[code].contact_id is None
        return
    assert event.event_code in contact_id.CODES
    assert (event.qualifier is Qualifier.RESTORE) is sia_dcs.CODES[code].restoral
    # A duress stays one.
    assert contact_id.CODES[event.event_code].duress or not sia_dcs.CODES[code].duress


@given(cid_events, st.sampled_from(sorted(contact_id.CODES)))
def test_every_contact_id_code_becomes_a_sia_code_of_the_table_or_has_no_equivalent(event: ContactId, code: str) -> None:
    event = ContactId(event.qualifier, code, event.partition, event.zone_or_user)
    try:
        told = conversion.to_sia(event)
    except ProtocolError:
        assert not contact_id.CODES[code].duress
        return
    assert told.code in sia_dcs.CODES
    if contact_id.CODES[code].duress and event.qualifier is not Qualifier.RESTORE:
        assert sia_dcs.CODES[told.code].duress
