"""What can go wrong on our side, on one screen: what we refuse, what we cannot store, deliver or be told to do.

As in ``protocols.errors``, ``reason`` is a slug from a closed set: log field, metric label and refusals log alike.
"""

from collections.abc import Iterable
from typing import ClassVar


class ReceiverError(Exception):
    """Something the receiver decided or could not do."""

    reason: ClassVar[str] = "internal"


class PolicyError(ReceiverError):
    """A message that was understood and is refused."""


class FromReceiver(PolicyError):
    """Only a receiver sends this token: our own reply reflected, or another receiver's."""

    reason = "from-receiver"


class PlaintextRefused(PolicyError):
    """In clear, though the account has a key: a substituted panel looks like this."""

    reason = "plaintext-refused"


class StaleTimestamp(PolicyError):
    """The time stamp of an encrypted message is outside the window."""

    reason = "stale-timestamp"


class UnknownAccount(PolicyError):
    """No such account is registered."""

    reason = "unknown-account"


class UnknownToken(PolicyError):
    """The token is in no table of the standards."""

    reason = "unknown-token"


class JournalUnavailable(ReceiverError):
    """The journal cannot store now: disk, sync, queue or backlog."""

    reason = "journal-unavailable"


class PathsUnreadable(ReceiverError):
    """The file of supervised paths is damaged, or of another version."""

    reason = "paths-unreadable"


class RegisterUnavailable(JournalUnavailable):
    """The managed account register cannot be read now: who reports cannot be told."""

    reason = "register-unavailable"


class DeliveryError(ReceiverError):
    """An output could not hand over; it tries again. The first ``taken`` of its events were taken, and those in ``also``."""

    reason = "delivery"

    def __init__(self, text: str, taken: int = 0, also: Iterable[int] = ()) -> None:
        """Say what went wrong, and after how many events; ``also`` are the numbers of later ones that were taken."""
        super().__init__(text)
        self.taken = taken
        self.also = frozenset(also)


class EventRefused(DeliveryError):
    """The other side is there and refuses the one event after the first ``taken``; ``for_ever``: whatever we do."""

    reason = "refused"

    def __init__(self, text: str, taken: int = 0, for_ever: bool = False, also: Iterable[int] = ()) -> None:
        """Say what the other side said, and of which event."""
        super().__init__(text, taken, also)
        self.for_ever = for_ever


class FailedAtEvent(DeliveryError):
    """The other side was reached and failed with the one event after the first ``taken`` in hand, or with those from it on.

    An outage as far as anybody can tell; ``outputs.poison`` tells whether it is that event's fault.
    """

    reason = "failed-at-event"


class ConfigError(ReceiverError):
    """The configuration or a command line cannot be used; ``mistakes`` are sentences a person can act on."""

    reason = "config"

    def __init__(self, *mistakes: str) -> None:
        """Take one sentence for each mistake."""
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


class JournalDamaged(ConfigError):
    """Nothing of the journal can be read."""


class JournalInUse(ConfigError):
    """Another process has the journal open."""
