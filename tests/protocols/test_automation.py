"""The formats for automation software, against bytes written by hand from the manuals, never from our own encoder."""

from typing import Any

import pytest

from protocols import dc09
from protocols.automation import ademco685, conversion, dc07, surgard
from protocols.contact_id import ContactId, Qualifier
from protocols.errors import BadLength, DoesNotFit, NoEquivalent, ReportError
from protocols.sia_dcs import SiaEvent
from tests import vectors

LETTERS = {"E": Qualifier.NEW, "R": Qualifier.RESTORE, "P": Qualifier.PREVIOUS}
VECTORS = vectors.load("automation")
PLACE = surgard.Place("01", "001")
DURESS = ContactId(Qualifier.NEW, "121", "01", "001")


def _surgard(report: list[str]) -> surgard.Report:
    kind, place, rest = report[0], surgard.Place(report[1], report[2]), report[3:]
    if kind == "heartbeat":
        return surgard.Heartbeat(place)
    if kind == "sia":
        return surgard.SiaReport(place, rest[0], rest[1].encode())
    return surgard.ContactIdReport(place, rest[0], ContactId(LETTERS[rest[1]], rest[2], rest[3], rest[4]))


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["format"] == "surgard"], ids=lambda v: str(v["name"]))
def test_a_sur_gard_frame_is_written_and_read_as_the_manuals_lay_it_out(vector: dict[str, Any]) -> None:
    raw, report = bytes.fromhex(vector["frame"]), _surgard(vector["report"])
    told = surgard.decode(raw, vector["line_digits"])
    assert told == report
    if not isinstance(report, surgard.Heartbeat) or vector["line_digits"] == 1:
        assert surgard.encode(report) == raw
    else:  # the heartbeat names no line
        assert surgard.encode(surgard.Heartbeat(PLACE)) == raw


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["format"] == "ademco685"], ids=lambda v: str(v["name"]))
def test_an_ademco_685_frame_is_written_and_read_as_the_manuals_lay_it_out(vector: dict[str, Any]) -> None:
    receiver, line, account, letter, code, partition, number, user = vector["report"]
    event = ContactId(LETTERS[letter], code, partition, number)
    report = ademco685.Report(receiver, line, account, event, user)
    assert ademco685.encode(report) == bytes.fromhex(vector["frame"])
    assert ademco685.decode(bytes.fromhex(vector["frame"])) == report


def test_the_letter_before_the_number_says_zone_or_user() -> None:
    zone = ademco685.encode(ademco685.Report("1", "2", "1234", ContactId(Qualifier.RESTORE, "130", "02", "015"), user=False))
    assert zone == b"\n12 1234 18 R130 02 C015\r"


@pytest.mark.parametrize("account", ["123", "12345", "12G4", "", "12345678901", "1234\x14"])
def test_a_contact_id_account_that_does_not_fit_is_refused_and_never_cut(account: str) -> None:
    with pytest.raises(DoesNotFit):
        surgard.encode(surgard.ContactIdReport(PLACE, account, DURESS))
    with pytest.raises(DoesNotFit):
        ademco685.encode(ademco685.Report("1", "1", account, DURESS, user=True))


@pytest.mark.parametrize(
    ("partition", "number"), [("100", "001"), ("1", "001"), ("01", "1234"), ("01", "1"), ("0\x14", "001")]
)
def test_a_number_that_does_not_fit_is_refused_and_never_cut(partition: str, number: str) -> None:
    event = ContactId(Qualifier.NEW, "130", partition, number)
    with pytest.raises(DoesNotFit):
        surgard.encode(surgard.ContactIdReport(PLACE, "1234", event))
    with pytest.raises(DoesNotFit):
        ademco685.encode(ademco685.Report("1", "1", "1234", event, user=False))


@pytest.mark.parametrize("block", [b"", b"Nri1/BA001\x14501001 189999E12101001", b"NBA001^a]\x14^", b"NBA^[x]^", b"NBA\r\n"])
def test_a_sia_block_cannot_smuggle_a_second_frame(block: bytes) -> None:
    with pytest.raises(DoesNotFit):
        surgard.encode(surgard.SiaReport(PLACE, "1234", block))


@pytest.mark.parametrize("place", [surgard.Place("1", "001"), surgard.Place("01", "01"), surgard.Place("0G", "001")])
def test_a_header_of_another_width_is_refused(place: surgard.Place) -> None:
    for report in (surgard.Heartbeat(place), surgard.SiaReport(place, "1", b"NBA1")):
        with pytest.raises(DoesNotFit):
            surgard.encode(report)


def test_a_sia_account_has_16_characters_at_most() -> None:
    assert surgard.encode(surgard.SiaReport(PLACE, "1234567890ABCDEF", b"NBA1")) == b"S01001[#1234567890ABCDEF|NBA1]\x14"
    with pytest.raises(DoesNotFit):
        surgard.encode(surgard.SiaReport(PLACE, "1234567890ABCDEF0", b"NBA1"))


def test_bytes_that_are_no_report_are_refused() -> None:
    with pytest.raises(ReportError):
        surgard.decode(b"501001 181234E1210100\x14")
    with pytest.raises(ReportError):
        surgard.decode(b"501001 181234E12101001\x14", line_digits=1)
    with pytest.raises(ReportError):
        ademco685.decode(b"\n11 1234 18 E121 01 X001\r")


def crc_arc(data: bytes) -> int:
    """Bit by bit, from the polynomial: nothing of ours."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def test_a_dc07_frame_has_the_shape_and_check_value_of_the_secondary_sources() -> None:
    body = b'"ADM-CID"0007R01L001[#1234|1121 01 001]'
    raw = b"\n%04X0%03X%b\r" % (crc_arc(body), len(body), body)
    report = dc07.Report("ADM-CID", "0007", "01", "001", "1234", b"1121 01 001")
    assert dc07.encode(report) == raw
    frame = dc09.split_datagram(raw)[0]
    assert isinstance(frame, dc09.Frame)
    assert dc07.decode(frame) == report


def test_a_dc07_answer_has_neither_account_nor_data() -> None:
    body = b'"ACK"0007R01L001[]'
    frame = dc09.Frame(b"", body, False)
    assert dc07.decode(frame) == dc07.Report("ACK", "0007", "01", "001")
    assert dc07.encode(dc07.Report("ACK", "0007", "01", "001"))[9:-1] == body


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": "12345678901234567"}, {"data": b"a]\r\nb"}, {"token": "adm"}, {"sequence": "1"}, {"receiver": ""},
        {"account": ""},
    ],
)  # fmt: skip
def test_a_dc07_field_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(DoesNotFit):
        dc07.encode(dc07.Report("ADM-CID", "0007", "01", "001", "1234", b"1121 01 001")._replace(**wrong))


def test_a_dc07_report_is_not_longer_than_a_frame_can_be() -> None:
    with pytest.raises(BadLength):
        dc07.encode(dc07.Report("SIA-DCS", "0007", "01", "001", "1234", b"x" * 4095))


def test_a_dc09_body_is_no_dc07_body() -> None:
    with pytest.raises(ReportError):
        dc07.decode(dc09.Frame(b"", b'"ADM-CID"0007R1L1#1234[#1234|1121 01 001]', False))


@pytest.mark.parametrize(
    ("sia", "wanted"),
    [
        (SiaEvent("HA", None, (("ri", "1"), ("id", "5"))), (Qualifier.NEW, "121", "01", "005")),
        (SiaEvent("HA", "48", (("id", "001"),)), (Qualifier.NEW, "121", "00", "001")),
        (SiaEvent("BA", "12", (("ri", "2"),)), (Qualifier.NEW, "130", "02", "012")),
        (SiaEvent("CL", "7"), (Qualifier.RESTORE, "401", "00", "007")),
        (SiaEvent("OP", None, (("id", "3"),)), (Qualifier.NEW, "401", "00", "003")),
        (SiaEvent("ND", "4"), (Qualifier.NEW, "121", "04", "000")),
        (SiaEvent("PA", "31"), (Qualifier.NEW, "120", "00", "031")),
        (SiaEvent("BR", "9"), (Qualifier.RESTORE, "130", "00", "009")),
        (SiaEvent("OG", "3"), (Qualifier.NEW, "402", "03", "000")),
    ],
)
def test_sia_becomes_contact_id_by_the_tables(sia: SiaEvent, wanted: tuple[Any, ...]) -> None:
    assert conversion.to_contact_id(sia) == ContactId(*wanted)


@pytest.mark.parametrize(
    ("event", "wanted"),
    [
        (ContactId(Qualifier.NEW, "121", "01", "005"), SiaEvent("HA", None, (("ri", "01"), ("id", "005")))),
        (ContactId(Qualifier.NEW, "122", "00", "007"), SiaEvent("HA", "007")),
        (ContactId(Qualifier.NEW, "120", "00", "000"), SiaEvent("PA", None)),
        (ContactId(Qualifier.RESTORE, "401", "01", "002"), SiaEvent("CL", "002", (("ri", "01"),))),
        (ContactId(Qualifier.NEW, "131", "00", "003"), SiaEvent("BA", "003")),
        (ContactId(Qualifier.RESTORE, "301", "00", "000"), SiaEvent("AR", None)),
        (ContactId(Qualifier.NEW, "461", "00", "004"), SiaEvent("JA", "004")),
        (ContactId(Qualifier.NEW, "126", "00", "009"), SiaEvent("HA", None, (("id", "009"),))),
        (ContactId(Qualifier.NEW, "12D", "00", "009"), SiaEvent("HA", "009")),
    ],
)
def test_contact_id_becomes_sia_by_the_tables(event: ContactId, wanted: SiaEvent) -> None:
    assert conversion.to_sia(event) == wanted


def test_a_code_without_a_pairing_is_refused_and_not_guessed() -> None:
    with pytest.raises(NoEquivalent):
        conversion.to_contact_id(SiaEvent("QQ", "1"))
    with pytest.raises(NoEquivalent):
        conversion.to_contact_id(SiaEvent("DC", "1"))
    with pytest.raises(NoEquivalent):
        conversion.to_sia(ContactId(Qualifier.NEW, "998", "00", "001"))
