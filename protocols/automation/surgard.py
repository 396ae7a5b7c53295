"""Sur-Gard's way of telling automation software, as MLR2 and System III to 5 receivers speak it over TCP or a serial line.

The receiver speaks first; each frame ends in DC4 (0x14) and is answered with one byte, ACK (0x06) or NAK (0x15)::

    5 RR LLL s 18 AAAA Q XYZ GG CCC DC4        Contact ID, account of 4 hex digits; Q is E new, R restore, P previous
    Q RR LLL s 58 A*10 Q XYZ GG CCC DC4        Contact ID, account of 10
    S RR LLL [ # account | block ] DC4         SIA, block as in DC-03
    1 RR 000 11 spaces @ 4 spaces DC4          heartbeat, answered like an event

RR is the receiver, LLL the line: 1 digit (MLR2), 3 (System I to 5) or 7 wide, both sides must agree. With one digit the
heartbeat bears the line itself. There is no check value and no number: an answer belongs to what was sent last, so one frame
is in flight, and the wire must be a good one. Source: public manuals of the receivers; `tests/vectors/automation.json`.
"""

import re
from typing import NamedTuple

from protocols.contact_id import ContactId, Qualifier
from protocols.errors import DoesNotFit, ReportError

END = b"\x14"
ACK, NAK = b"\x06", b"\x15"
MAX_FRAME_BYTES = 4200
"""More than any frame that DC-09 can give us to hand on."""

LETTERS = {Qualifier.NEW: "E", Qualifier.RESTORE: "R", Qualifier.PREVIOUS: "P"}
_QUALIFIERS = {letter: qualifier for qualifier, letter in LETTERS.items()}
_RECEIVER = re.compile(r"[0-9A-F]{2}")
_LINE = re.compile(r"[0-9A-F]|[0-9A-F]{3}|[0-9A-F]{7}")
_SIA_ACCOUNT = re.compile(r"[0-9A-Za-z]{1,16}")
_FIELDS = re.compile(r"([0-9A-F]{3}) ([0-9A-F]{2}) ([0-9A-F]{3})")
# What would end the frame, the brackets, or a line of a printer that listens too.
_FORBIDDEN_IN_BLOCK = re.compile(rb"[\x00-\x1f\x7f\[\]]")


class Place(NamedTuple):
    """Who speaks: the receiver's two digits and the line's one, three or seven."""

    receiver: str
    line: str


class ContactIdReport(NamedTuple):
    """A Contact ID event; the account has 4 digits or 10, and that decides the form."""

    place: Place
    account: str
    event: ContactId


class SiaReport(NamedTuple):
    """A SIA event; ``block`` is what follows ``#account|``, as bytes because texts in it have no agreed charset."""

    place: Place
    account: str
    block: bytes


class Heartbeat(NamedTuple):
    """Nothing happened, and the link stands."""

    place: Place


Report = ContactIdReport | SiaReport | Heartbeat


def encode(report: Report) -> bytes:
    """Write one frame.

    Raises:
        DoesNotFit: a field has no room in it; nothing is cut.
    """
    place = report.place
    if not _RECEIVER.fullmatch(place.receiver) or not _LINE.fullmatch(place.line):
        raise DoesNotFit(
            f"receiver {place.receiver!r} and line {place.line!r} are not two and one, three or seven hex digits"
        )
    if isinstance(report, Heartbeat):
        line = place.line if len(place.line) == 1 else "0" * len(place.line)
        return f"1{place.receiver}{line}{' ' * 11}@{' ' * 4}".encode("ascii") + END
    head = f"{place.receiver}{place.line}"
    if isinstance(report, SiaReport):
        if not _SIA_ACCOUNT.fullmatch(report.account):
            raise DoesNotFit(f"account {report.account!r} is not 1 to 16 letters and digits")
        if _FORBIDDEN_IN_BLOCK.search(report.block) or not report.block:
            raise DoesNotFit("a SIA block holds no control characters and no brackets, and is not empty")
        return f"S{head}[#{report.account}|".encode("ascii") + report.block + b"]" + END
    return _contact_id(head, report).encode("ascii") + END


def _contact_id(head: str, report: ContactIdReport) -> str:
    """Write the Contact ID forms, without their end.

    Raises:
        DoesNotFit: a field has no room.
    """
    event = report.event
    fields = _FIELDS.fullmatch(f"{event.event_code} {event.partition} {event.zone_or_user}")
    kind = {4: ("5", "18"), 10: ("Q", "58")}.get(len(report.account))
    if kind is None or not re.fullmatch("[0-9A-F]+", report.account):
        raise DoesNotFit(f"account {report.account!r} is not 4 or 10 hex digits")
    if fields is None:
        raise DoesNotFit(f"{event.event_code} {event.partition} {event.zone_or_user} are not 3, 2 and 3 hex digits")
    return f"{kind[0]}{head} {kind[1]}{report.account}{LETTERS[event.qualifier]}{''.join(fields.groups())}"


def decode(frame: bytes, line_digits: int = 3) -> Report:
    """Read one frame whose line is ``line_digits`` wide.

    Raises:
        ReportError: the bytes are no frame of these forms.
    """
    text = frame.decode("latin-1")
    receiver, line = r"(?P<receiver>[0-9A-F]{2})", rf"(?P<line>[0-9A-F]{{{line_digits}}})"
    for pattern, read in _FORMS:
        match = re.fullmatch(pattern.format(place=receiver + line), text, re.DOTALL)
        if match is not None:
            return read(Place(match["receiver"], match["line"]), match)
    raise ReportError(f"no Sur-Gard frame: {frame[:60]!r}")


def _read_contact_id(place: Place, match: re.Match[str]) -> Report:
    event = ContactId(_QUALIFIERS[match["qualifier"]], match["code"], match["partition"], match["number"])
    return ContactIdReport(place, match["account"], event)


def _read_sia(place: Place, match: re.Match[str]) -> Report:
    return SiaReport(place, match["account"], match["block"].encode("latin-1"))


def _read_heartbeat(place: Place, _match: re.Match[str]) -> Report:
    return Heartbeat(place)


_EVENT = r"(?P<qualifier>[ERP])(?P<code>[0-9A-F]{{3}})(?P<partition>[0-9A-F]{{2}})(?P<number>[0-9A-F]{{3}})\x14"
_FORMS = (
    (r"5{place} [19]8(?P<account>[0-9A-F]{{4}})" + _EVENT, _read_contact_id),
    (r"Q{place} 58(?P<account>[0-9A-F]{{10}})" + _EVENT, _read_contact_id),
    (r"S{place}\[#(?P<account>[0-9A-Za-z]{{1,16}})\|(?P<block>[^\x00-\x1f\x7f\[\]]+)\]\x14", _read_sia),
    (r"1{place} {{11}}@ {{4}}\x14", _read_heartbeat),
)
