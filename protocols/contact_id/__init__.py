"""SIA DC-05, Contact ID: event codes with a qualifier, a partition and a zone or user."""

from protocols.contact_id.codes import CODES, Code
from protocols.contact_id.event import (
    ContactId,
    Qualifier,
    check_digit,
    decode,
    decode_telephone,
    encode,
    encode_telephone,
)

__all__ = [
    "CODES",
    "Code",
    "ContactId",
    "Qualifier",
    "check_digit",
    "decode",
    "decode_telephone",
    "encode",
    "encode_telephone",
]
