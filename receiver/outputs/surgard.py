"""``surgard``: Sur-Gard over TCP to automation software, as server or client; forms, heartbeat and answers as in the format.

A Contact ID event goes out in the form with an account of 4 digits, where it has no room in that of 10, then in SIA; a SIA
event in SIA, then converted. Which of the three the automation takes is the setting ``forms``.
"""

from collections.abc import Sequence
from functools import partial

from protocols.automation import surgard
from receiver.config.automation import SurgardSettings
from receiver.outputs.automation import AutomationOutput, Form, read_bytes
from receiver.outputs.contract import Surroundings
from receiver.outputs.line import Line, Style
from receiver.outputs.session import Said
from receiver.outputs.translation import Told, fitted

_SHORTEST_SIA_ACCOUNT = 4


def build(settings: SurgardSettings, surroundings: Surroundings) -> AutomationOutput:
    """Return an output that tells Sur-Gard."""
    place = surgard.Place(settings.receiver, settings.line)
    heartbeat = Said(surgard.encode(surgard.Heartbeat(place)))
    line = Line(settings, Style(lambda: heartbeat, settings.heartbeat_seconds, lambda: read_bytes), surroundings)
    writers: dict[str, Form] = {
        "contact-id": partial(_contact_id, place, 4),
        "contact-id-10": partial(_contact_id, place, 10),
        "sia": partial(_sia, place, settings.sia_digits),
    }
    contact_id = [write for name, write in writers.items() if name in settings.forms and name != "sia"]
    sia = [writers["sia"]] if "sia" in settings.forms else []

    def forms(told: Told) -> Sequence[Form]:
        return sia + contact_id if told.sia is not None else contact_id + sia

    return AutomationOutput(settings, settings.overflow, line, surroundings, forms)


def _contact_id(place: surgard.Place, digits: int, told: Told, cut: bool, _number: str) -> tuple[bytes, bool]:
    event, converted = told.as_contact_id(cut)
    return surgard.encode(surgard.ContactIdReport(place, fitted(told.account, digits, cut), event)), converted


def _sia(place: surgard.Place, digits: int, told: Told, cut: bool, _number: str) -> tuple[bytes, bool]:
    block, converted = told.as_sia()
    account = (
        told.account.rjust(_SHORTEST_SIA_ACCOUNT, "0") if len(told.account) <= digits else fitted(told.account, digits, cut)
    )
    return surgard.encode(surgard.SiaReport(place, account, block)), converted
