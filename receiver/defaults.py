"""What a listener's settings say of its accounts: their dialect and time zone, where the register has none."""

from typing import NamedTuple
from zoneinfo import ZoneInfo

from msgspec.structs import replace

from receiver import dialects
from receiver.accounts import Account, read_zone


class Defaults(NamedTuple):
    """What a listener says of accounts that say nothing themselves, strangers too."""

    dialect: str = ""
    time_zone: ZoneInfo | None = None

    def fill(self, account: Account) -> Account:
        """Return the account with what it leaves open."""
        return replace(account, dialect=account.dialect or self.dialect, time_zone=account.time_zone or self.time_zone)


def defaults(dialect: str, time_zone: str) -> Defaults | None:
    """Return what a listener's settings say of its accounts; None for nothing, so that nothing is asked of it.

    Raises:
        ConfigError: a dialect or a zone is not known.
    """
    found = Defaults(dialects.parse_of_listener(dialect), read_zone(time_zone) if time_zone else None)
    return found if found.dialect or found.time_zone else None
