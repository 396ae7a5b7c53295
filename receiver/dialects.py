"""How panels deviate from the standard in ways that must be allowed by name: for an account, or for a listener.

What is certain from the bytes alone is taken of every panel and needs no name: a CRC as two raw bytes, no or an empty ``L``,
NUL behind a frame, lower-case digits, a body in ``NULL``. What is here would otherwise weaken a check or change a meaning.

A *habit* is one such deviation. A *maker* is a name for the habits of one make; several names are joined by ``+``.
"""

from functools import lru_cache

from receiver.errors import ConfigError

HABITS = {
    "duress-423": "Contact ID 423 is a disarm under duress, not a forced door",
    "crc-over-cr": "the CRC may cover the closing CR, and the length may count it",
    "padded": "the panel writes the account with zeros in front that the register has not",
    "polls": "Contact ID 602 and 603 and SIA RP are the panel's heartbeat: stored, and marked as polls for outputs",
    "two-accounts": "the account inside the data is another one than the header's, and that is no trouble",
    "kc": "the ACK holds KC between its brackets, over TCP",
    "close": "we close the connection once all of its frames are answered",
    "keep": "we leave it to the panel to close, whatever the listener does",
}
"""What each habit allows."""
MAKERS = {
    "ajax": ("duress-423", "keep"),
    "bosch": ("two-accounts",),
    "eaton": ("keep",),
    "eldes": ("crc-over-cr",),
    "pima": ("kc", "keep"),
    "trikdis": ("polls",),
    "auto": ("crc-over-cr",),
    "standard": (),
}
"""The habits of a make; ``auto`` is what shows in the bytes by itself, ``standard`` none, whatever the listener says."""
DIALECTS = {"": (), **{habit: (habit,) for habit in HABITS}, **MAKERS}
"""Every name, with its habits."""
ONLY_OF_ACCOUNTS = frozenset({"padded"})
"""A listener with it would make one panel of ``1234`` and ``001234`` for accounts that say nothing about it."""
POLL = "poll"
"""How a stored signal is marked that is its panel's heartbeat; it stands among the flags and is not handed on as one."""
_POLLS = frozenset({"602", "603", "RP"})


@lru_cache(maxsize=1000)
def parse(text: str) -> str:
    """Read the register's cell into names joined by ``+``.

    Raises:
        ConfigError: a name is not known, or two exclude each other.
    """
    names = [name.strip() for name in text.lower().split("+")] if text else []
    if not all(name and name in DIALECTS for name in names):
        raise ConfigError(f"known are {', '.join(sorted(filter(None, DIALECTS)))}, several joined by +, and empty")
    found = "+".join(names)
    if habits(found) >= {"close", "keep"}:
        raise ConfigError(f"{found} says both that we close the connection (close) and that the panel does (keep)")
    return found


def parse_of_listener(text: str) -> str:
    """Read a listener's dialect, for its accounts without one of their own.

    Raises:
        ConfigError: as ``parse``; or it is one that only an account can have.
    """
    found = parse(text)
    if only := habits(found) & ONLY_OF_ACCOUNTS:
        raise ConfigError(f"{', '.join(sorted(only))} can be an account's dialect only")
    return found


@lru_cache(maxsize=1000)
def habits(text: str) -> frozenset[str]:
    """Return the habits that parsed names stand for."""
    return frozenset(habit for name in text.split("+") for habit in DIALECTS[name])


def crc_may_cover_cr(dialect: str) -> bool:
    """Tell whether frames are taken whose CRC covers the closing CR."""
    return "crc-over-cr" in habits(dialect)


def forced_access_is_duress(dialect: str) -> bool:
    """Tell whether Contact ID 423 is a disarm under duress."""
    return "duress-423" in habits(dialect)


def pads_account(dialect: str) -> bool:
    """Tell whether zeros in front of the account mean nothing."""
    return "padded" in habits(dialect)


def has_two_accounts(dialect: str) -> bool:
    """Tell whether it is the panel's way that the data names another account than the header."""
    return "two-accounts" in habits(dialect)


def has_polls(dialect: str) -> bool:
    """Tell whether the account's test codes are its heartbeat."""
    return "polls" in habits(dialect)


def word_in_ack(dialect: str) -> bytes:
    """Return what the panel wants between the brackets of a plain ACK's data."""
    return b"KC" if "kc" in habits(dialect) else b""


def we_close(dialect: str) -> bool | None:
    """Tell whether we close the connection after the ACK; None where the listener decides."""
    found = habits(dialect)
    return True if "close" in found else False if "keep" in found else None


def is_poll(dialect: str, codes: "list[str | None]") -> bool:
    """Tell whether a message with these event codes is its panel's heartbeat; one other event in it, and it is not."""
    return has_polls(dialect) and bool(codes) and _POLLS.issuperset(codes)
