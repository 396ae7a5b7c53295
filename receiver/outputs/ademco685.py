"""``ademco685``: Contact ID as the Ademco 685 receiver writes it, over TCP; SIA is converted, there is no wider form.

No heartbeat is documented for it, so a dead link is noticed by the next event.
"""

from protocols.automation import ademco685
from receiver.config.automation import Ademco685Settings
from receiver.outputs.automation import AutomationOutput, Form, read_bytes
from receiver.outputs.contract import Surroundings
from receiver.outputs.line import Line, Style
from receiver.outputs.translation import Told, fitted

_ACCOUNT_DIGITS = 4


def build(settings: Ademco685Settings, surroundings: Surroundings) -> AutomationOutput:
    """Return an output that tells Ademco 685."""

    def write(told: Told, cut: bool, _number: str) -> tuple[bytes, bool]:
        event, converted = told.as_contact_id(cut)
        account = fitted(told.account, _ACCOUNT_DIGITS, cut)
        report = ademco685.Report(settings.receiver, settings.line, account, event, told.user)
        return ademco685.encode(report), converted

    forms: list[Form] = [write]
    line = Line(settings, Style(None, 0, lambda: read_bytes), surroundings)
    return AutomationOutput(settings, settings.overflow, line, surroundings, lambda _told: forms)
