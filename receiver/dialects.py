"""How panels deviate from the standard in ways that must be allowed by name: for an account, or for a listener.

What is certain from the bytes alone is taken of every panel and needs no name: a CRC as two raw bytes, no or an empty ``L``,
NUL behind a frame, lower-case digits, a body in ``NULL``. What is here would otherwise weaken a check or change a meaning.
"""

from functools import lru_cache

from receiver.errors import ConfigError

DIALECTS = {
    "": "by the standard",
    "ajax": "Contact ID 423 is a disarm under duress (Ajax OS Malevich 2.8 and 2.9), not a forced door",
    "eldes": "the CRC may cover the closing CR, and the length may count it (Eldes without time stamps)",
    "padded": "the panel writes the account with zeros in front that the register has not",
    "auto": "what shows in the bytes of a frame by itself: today the same as eldes",
}
"""What each name allows. Several are joined by ``+``."""
OF_LISTENERS = ("", "ajax", "eldes", "auto")
"""Those that a listener may have, for its accounts without one of their own."""


@lru_cache(maxsize=1000)
def parse(text: str) -> str:
    """Read the register's cell into names joined by ``+``.

    Raises:
        ConfigError: a name is not known.
    """
    names = [name.strip() for name in text.lower().split("+")] if text else []
    if not all(name and name in DIALECTS for name in names):
        raise ConfigError(f"known are {', '.join(name for name in DIALECTS if name)}, several joined by +, and empty")
    return "+".join(names)


@lru_cache(maxsize=1000)
def _names(text: str) -> frozenset[str]:
    return frozenset(text.split("+"))


def crc_may_cover_cr(dialect: str) -> bool:
    """Tell whether frames are taken whose CRC covers the closing CR."""
    return not _names(dialect).isdisjoint(("eldes", "auto"))


def forced_access_is_duress(dialect: str) -> bool:
    """Tell whether Contact ID 423 is a disarm under duress."""
    return "ajax" in _names(dialect)


def pads_account(dialect: str) -> bool:
    """Tell whether zeros in front of the account mean nothing."""
    return "padded" in _names(dialect)
