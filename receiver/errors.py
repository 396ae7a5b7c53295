"""What can go wrong on our side, on one screen: what we refuse, what we cannot store, deliver or be told to do.

As in ``protocols.errors``, ``reason`` is a slug from a closed set: log field, metric label and refusals log alike.
"""

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


class DeliveryError(ReceiverError):
    """An output could not hand over; it tries again."""

    reason = "delivery"


class ConfigError(ReceiverError):
    """The configuration or a command line cannot be used; ``mistakes`` are sentences a person can act on."""

    reason = "config"

    def __init__(self, *mistakes: str) -> None:
        """Take one sentence for each mistake."""
        super().__init__("; ".join(mistakes))
        self.mistakes = mistakes


class JournalInUse(ConfigError):
    """Another process has the journal open."""
