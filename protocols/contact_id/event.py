"""One Contact ID event (SIA DC-05): as DC-09 carries it, and the 16 digits of the telephone form.

In DC-09 (``ADM-CID``)::

    Q XYZ  GG  CCC          1121 01 005
    │  │   │   └ zone or user, 3 digits
    │  │   └ partition (group), 2 digits
    │  └ event code, 3 digits
    └ qualifier: 1 new event or opening, 3 restore or closing, 6 still present

On the telephone: ``ACCT MT Q XYZ GG CCC S``, MT 18 or 98, S a check digit (weights: 0 is 10, B to F are 11 to 15, the
sum of all is 0 modulo 15). Digits are 0-9 and B-F; some panels print ``A`` for the digit 0 (DSC manuals).
"""

import re
from dataclasses import dataclass
from enum import IntEnum

from protocols.errors import ContactIdError


class Qualifier(IntEnum):
    """What kind of report an event is."""

    NEW = 1
    RESTORE = 3
    PREVIOUS = 6


_QUALIFIERS = {
    "1": Qualifier.NEW, "E": Qualifier.NEW, "3": Qualifier.RESTORE, "R": Qualifier.RESTORE,
    "6": Qualifier.PREVIOUS, "P": Qualifier.PREVIOUS,
}  # fmt: skip
_EVENT = re.compile(r"([136])([0-9A-F]{3}) ([0-9A-F]{2}) ([0-9A-F]{3})")
# Tolerated: 18 or 98 in front, E R P for the qualifier, lower case, spaces missing or more, numbers longer than CCC.
_TOLERATED = re.compile(
    r" *(?:(?:18|98) ?)?([136EPR]) ?([0-9A-F]{3})(?: *([0-9A-F]{2}) *([0-9A-F]{3})| +([0-9A-F]{1,2}) +([0-9A-F]{1,6})) *",
    re.IGNORECASE,
)
_TELEPHONE = re.compile(r"([0-9A-F]{4})(18|98)([136])([0-9A-F]{3})([0-9A-F]{2})([0-9A-F]{3})[0-9A-F]", re.IGNORECASE)
_WEIGHTS = {"0": 10, "A": 10} | {digit: int(digit, 16) for digit in "123456789BCDEF"}
_CHECK_DIGITS = "F123456789" + "0" + "BCDE"  # by the sum still missing to a multiple of 15; none missing is F


@dataclass(frozen=True, slots=True)
class ContactId:
    """One Contact ID event. Numbers stay text: leading zeros and hex digits carry meaning."""

    qualifier: Qualifier
    event_code: str
    partition: str
    zone_or_user: str


def decode(text: str) -> ContactId:
    """Read ``QXYZ GG CCC``, for example ``1131 01 015``, in its tolerated variants and the 16-digit form too.

    Raises:
        ContactIdError: the text has any other shape, or the check digit does not fit.
    """
    match = _EVENT.fullmatch(text)
    if match is not None:
        qualifier, code, partition, number = match.groups()
        return ContactId(_QUALIFIERS[qualifier], code.replace("A", "0"), partition, number)
    tolerated = _TOLERATED.fullmatch(text)
    if tolerated is not None:
        qualifier, code, near, number, far, long_number = tolerated.groups()
        return ContactId(_QUALIFIERS[qualifier.upper()], code.upper().replace("A", "0"), near or far, number or long_number)
    if len(text) == 16:
        return decode_telephone(text)[1]
    raise ContactIdError(f"expected QXYZ GG CCC, got {len(text)} characters of another shape")


def encode(event: ContactId) -> str:
    """Write ``QXYZ GG CCC``."""
    return f"{event.qualifier.value}{event.event_code} {event.partition} {event.zone_or_user}"


def check_digit(digits: str) -> str:
    """Return the check digit of the first 15 digits of the telephone form (weights of DC-05, 0 counts 10)."""
    return _CHECK_DIGITS[-sum(_WEIGHTS[digit] for digit in digits.upper()) % 15]


def decode_telephone(text: str) -> tuple[str, ContactId]:
    """Read the 16 digits ``ACCT MT Q XYZ GG CCC S`` into the account and its event.

    Raises:
        ContactIdError: the text has any other shape, or the check digit does not fit.
    """
    match = _TELEPHONE.fullmatch(text)
    if match is None:
        raise ContactIdError(f"expected 16 digits ACCT MT QXYZ GG CCC S, got {len(text)} characters of another shape")
    if text[15].upper() != check_digit(text[:15]):
        raise ContactIdError("the check digit does not fit the digits before it")
    account, _, qualifier, code, partition, number = match.groups()
    return account, ContactId(_QUALIFIERS[qualifier], code.upper().replace("A", "0"), partition, number)


def encode_telephone(account: str, event: ContactId) -> str:
    """Write the 16 digits of the telephone form with message type 18.

    Raises:
        ContactIdError: a field does not fit its digits.
    """
    digits = f"{account}18{event.qualifier.value}{event.event_code}{event.partition}{event.zone_or_user}"
    if _TELEPHONE.fullmatch(digits + "0") is None:
        raise ContactIdError(
            "the 16-digit form holds four digits of an account, two of a partition and three of a zone or user"
        )
    return digits + check_digit(digits)
