"""ANSI/SIA DC-09, the envelope that carries alarm messages over IP."""

from protocols.dc09.cipher import Key
from protocols.dc09.framing import MAX_FRAME_BYTES, Damage, Frame, Framer, exactly_one, split_datagram, wrap
from protocols.dc09.masking import mask_body, mask_keys
from protocols.dc09.message import (
    KNOWN_TOKENS,
    LINK_TEST,
    OPAQUE_TOKENS,
    RECEIVER_TOKENS,
    Address,
    Envelope,
    Message,
    encode,
    is_link_test,
    open_envelope,
    read_body,
    unseal,
)

__all__ = [
    "KNOWN_TOKENS",
    "LINK_TEST",
    "MAX_FRAME_BYTES",
    "OPAQUE_TOKENS",
    "RECEIVER_TOKENS",
    "Address",
    "Damage",
    "Envelope",
    "Frame",
    "Framer",
    "Key",
    "Message",
    "encode",
    "exactly_one",
    "is_link_test",
    "mask_body",
    "mask_keys",
    "open_envelope",
    "read_body",
    "split_datagram",
    "unseal",
    "wrap",
]
