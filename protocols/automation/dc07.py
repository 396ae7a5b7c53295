"""SIA DC-07, receiver to computer: the shape that DC-09 took over, without an account before the bracket.

::

    LF crc 0LLL "token" seq Rrcvr Lline [ #acct|data ] CR

CRC (ARC, four hex characters) and length cover the bytes from the quote to the byte before CR, as in DC-09; the sequence
goes from 0001 to 9999. The standard's text is not public: the shape is told by several secondary sources, **the rules of
acknowledgement are unverified**. What is read here as an answer is the frame that DC-09 uses, ``"ACK"`` or ``"NAK"`` with
the sequence of what it answers.
"""

import re
from typing import NamedTuple

from protocols import dc09
from protocols.errors import DoesNotFit, ReportError

_BODY = re.compile(
    rb'"(?P<token>[A-Z0-9-]{1,16})"(?P<sequence>[0-9]{4})R(?P<receiver>[0-9A-F]{1,6})L(?P<line>[0-9A-F]{1,6})'
    rb"\[(?:#(?P<account>[0-9A-Za-z]{0,16})\|(?P<data>.*))?\]",
    re.DOTALL,
)
_FORBIDDEN_IN_DATA = re.compile(rb"[\x00-\x1f\x7f\[\]]")


class Report(NamedTuple):
    """One message; ``account`` and ``data`` are empty in an answer or a link test."""

    token: str
    sequence: str
    receiver: str
    line: str
    account: str = ""
    data: bytes = b""


def encode(report: Report) -> bytes:
    """Write one frame.

    Raises:
        DoesNotFit: a field has no room in it or would end it early; nothing is cut.
        BadLength: it is longer than a frame can be.
    """
    content = b"#%b|%b" % (report.account.encode("latin-1", "replace"), report.data) if report.account else b""
    head = f'"{report.token}"{report.sequence}R{report.receiver}L{report.line}['.encode("latin-1", "replace")
    body = head + content + b"]"
    if _BODY.fullmatch(body) is None or _FORBIDDEN_IN_DATA.search(report.data) or (report.data and not report.account):
        raise DoesNotFit(
            f"token {report.token!r}, sequence {report.sequence!r}, receiver {report.receiver!r}, line {report.line!r}, "
            f"account {report.account!r} or the data have no room in a DC-07 frame"
        )
    return dc09.wrap(body)


def decode(frame: dc09.Frame) -> Report:
    """Read one frame, cut out by DC-09's framer.

    Raises:
        ReportError: its body has another shape.
    """
    match = _BODY.fullmatch(frame.body)
    if match is None:
        raise ReportError(f"no DC-07 body: {frame.body[:60]!r}")
    fields = match.groupdict(b"")
    token, sequence, receiver, line, account = (
        fields[name].decode("ascii") for name in ("token", "sequence", "receiver", "line", "account")
    )
    return Report(token, sequence, receiver, line, account, fields["data"])
