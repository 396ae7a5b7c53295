"""Ademco 685, Contact ID as the receiver of that name hands it to a computer, byte for byte::

    LF R G s AAAA s 18 s QXYZ s GG s cCCC CR       25 bytes

R is the receiver and G its line (group), one character each; AAAA is the account, four hex digits; Q is E, R or P; c says
what CCC is: C a zone (contact) or U a user. Contact ID only. Answered with one byte, ACK (0x06) or NAK (0x15).
Source: public manuals of two receivers that write it; `tests/vectors/automation.json`. No heartbeat is documented.
"""

import re
from typing import NamedTuple

from protocols.contact_id import ContactId, Qualifier
from protocols.errors import DoesNotFit, ReportError

ACK, NAK = b"\x06", b"\x15"
_LETTERS = {Qualifier.NEW: "E", Qualifier.RESTORE: "R", Qualifier.PREVIOUS: "P"}
_QUALIFIERS = {letter: qualifier for qualifier, letter in _LETTERS.items()}
_FRAME = re.compile(r"\n([0-9A-F])([0-9A-F]) ([0-9A-F]{4}) [19]8 ([ERP])([0-9A-F]{3}) ([0-9A-F]{2}) ([CU])([0-9A-F]{3})\r")


class Report(NamedTuple):
    """One event; ``user`` says that its number is a user's."""

    receiver: str
    line: str
    account: str
    event: ContactId
    user: bool


def encode(report: Report) -> bytes:
    """Write one frame.

    Raises:
        DoesNotFit: a field has no room in it; nothing is cut.
    """
    event, letter = report.event, "U" if report.user else "C"
    text = (
        f"\n{report.receiver}{report.line} {report.account} 18 "
        f"{_LETTERS[event.qualifier]}{event.event_code} {event.partition} {letter}{event.zone_or_user}\r"
    )
    if _FRAME.fullmatch(text) is None:
        raise DoesNotFit(
            f"receiver {report.receiver!r}, line {report.line!r}, account {report.account!r} and {event.event_code} "
            f"{event.partition} {event.zone_or_user} are not 1, 1, 4, 3, 2 and 3 hex digits"
        )
    return text.encode("ascii")


def decode(frame: bytes) -> Report:
    """Read one frame.

    Raises:
        ReportError: the bytes are none.
    """
    match = _FRAME.fullmatch(frame.decode("latin-1"))
    if match is None:
        raise ReportError(f"no Ademco 685 frame: {frame[:60]!r}")
    receiver, line, account, qualifier, code, partition, letter, number = match.groups()
    return Report(receiver, line, account, ContactId(_QUALIFIERS[qualifier], code, partition, number), letter == "U")
