"""Which events an output is handed: by kind, lane and priority from the stored row, by the rest once it is written out."""

from receiver import dialects
from receiver.config import OutputSettings
from receiver.events import OutEvent
from receiver.journal import SIGNAL, Kind, Lane, Stored


class Filter:
    """The filter settings of one output."""

    def __init__(self, settings: OutputSettings) -> None:
        self._settings = settings
        self._accounts = {account.upper() for account in settings.accounts}
        self._sites = set(settings.sites)
        self._categories = set(settings.categories)
        self._lanes = {lane.value for lane in Lane if lane.word in settings.lanes}
        self._paths = settings.paths == "send" or (settings.troubles and settings.paths != "omit")

    def takes_row(self, stored: Stored) -> bool:
        """Tell whether the stored row may be wanted; cheap, and asked before the event is written out."""
        row, settings = stored.row, self._settings
        if row.kind == SIGNAL:
            if row.flags and settings.polls == "omit" and dialects.POLL in row.flags.split():
                return False
            return row.priority <= settings.min_priority and row.lane in self._lanes
        return self._paths if row.kind == Kind.PATH else settings.troubles

    def takes(self, event: OutEvent) -> bool:
        """Tell whether an event that ``takes_row`` let through is wanted."""
        if self._accounts and self._accounts.isdisjoint(((event.account or "").upper(), event.entry.account.upper())):
            return False  # neither as sent nor as the register writes it
        if self._sites and event.entry.site not in self._sites:
            return False
        if not self._categories or event.stored.row.kind != SIGNAL:
            return True
        return event.cloud_event["data"].get("category") in self._categories
