"""``dc07``: frames in the shape of SIA DC-07 to automation software, over TCP.

**Its rules of acknowledgement are unverified.** The text of DC-07 is not public. What is done here is what its descendant
DC-09 does: ``"ACK"`` with the frame's sequence says that it was taken, ``"NAK"`` with it asks for it again, anything else
is silence. No heartbeat is known.
"""

from collections.abc import Sequence
from functools import partial

from protocols import contact_id, dc09
from protocols.automation import dc07
from protocols.errors import BadLength, DoesNotFit, ReportError
from receiver.config.automation import Dc07Settings
from receiver.outputs.automation import AutomationOutput, Form
from receiver.outputs.contract import Surroundings
from receiver.outputs.line import Line, Reader, Style
from receiver.outputs.session import Answer
from receiver.outputs.translation import Told, fitted

_ACCOUNT_DIGITS = 16
_ANSWERS = {"ACK": Answer.ACK, "NAK": Answer.NAK, "DUH": Answer.NEVER}


def build(settings: Dc07Settings, surroundings: Surroundings) -> AutomationOutput:
    """Return an output that tells DC-07, and say in the log what it rests on."""
    surroundings.telemetry.warned(
        "the acknowledgement rules of DC-07 are unverified; test this output against the automation before relying on it",
        output=settings.name,
    )
    line = Line(settings, Style(None, 0, _reader), surroundings)
    own: list[Form] = [partial(_contact_id, settings)] if "contact-id" in settings.forms else []
    sia: list[Form] = [partial(_sia, settings)] if "sia" in settings.forms else []

    def forms(told: Told) -> Sequence[Form]:
        return sia + own if told.sia is not None else own + sia

    return AutomationOutput(settings, settings.overflow, line, surroundings, forms, numbered=True)


def _contact_id(settings: Dc07Settings, told: Told, cut: bool, number: str) -> tuple[bytes, bool]:
    event, converted = told.as_contact_id(cut)
    return _frame(settings, "ADM-CID", told, cut, number, contact_id.encode(event).encode("ascii")), converted


def _sia(settings: Dc07Settings, told: Told, cut: bool, number: str) -> tuple[bytes, bool]:
    block, converted = told.as_sia()
    return _frame(settings, "SIA-DCS", told, cut, number, block), converted


def _frame(settings: Dc07Settings, token: str, told: Told, cut: bool, number: str, data: bytes) -> bytes:
    account = told.account if len(told.account) <= _ACCOUNT_DIGITS else fitted(told.account, _ACCOUNT_DIGITS, cut)
    try:
        return dc07.encode(dc07.Report(token, number, settings.receiver.upper(), settings.line.upper(), account, data))
    except BadLength as error:
        raise DoesNotFit(str(error)) from None


def _reader() -> Reader:
    """Return what finds answers in one connection's bytes."""
    framer = dc09.Framer()

    def read(data: bytes) -> list[tuple[Answer, str | None]]:
        found: list[tuple[Answer, str | None]] = []
        for frame in framer.feed(data):
            if isinstance(frame, dc09.Frame):
                try:
                    report = dc07.decode(frame)
                except ReportError:
                    continue
                if report.token in _ANSWERS:
                    found.append((_ANSWERS[report.token], report.sequence))
        return found

    return read
