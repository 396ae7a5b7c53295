"""Taking keys out of bytes that will be kept: the value of an extended block ``K`` becomes ``*``, as many as it had bytes.

A key exchange in clear (``[K…]``, letter K of the extended data) carries an AES key. Data stays as it came: what is
stored is read again for each output, and must mean the same.
"""

import re

from protocols.dc09.framing import Frame, split_datagram, wrap
from protocols.dc09.message import Message, open_envelope, read_body
from protocols.errors import ProtocolError

_BLOCK = re.compile(rb"(?<=\]\[K)[^\]]*")
_BLOCK_OF_DAMAGE = re.compile(rb"(?<=\[K)[^\]\r\n]*")  # the bracket before it may be what was lost
# Brackets and underscores stay: where data, blocks and stamp of a body end is told by them, readable or not.
_STARS = bytes(byte if byte in b"[]_" else ord("*") for byte in range(256))


def _stars(match: re.Match[bytes]) -> bytes:
    return match[0].translate(_STARS)


def mask_body(message: Message) -> bytes:
    """Return the body of a message with its keys masked; a block that does not end is masked to the end."""
    end = len(message.data)
    return message.data + _BLOCK.sub(_stars, message.body[end:])


def mask_keys(raw: bytes) -> bytes:
    """Mask the keys in bytes as received: whole frames get the CRC of what they hold now, damage is masked more broadly.

    As long as before, and the same object when there is nothing to mask. In damage a key is found by its ``[K``: one whose
    own mark was damaged is not.
    """
    if b"[K" not in raw:
        return raw
    found = split_datagram(raw, over_cr=True)
    whole = [piece for piece in found if isinstance(piece, Frame)]
    if sum(len(frame.raw) for frame in whole) != len(raw):
        return _BLOCK_OF_DAMAGE.sub(_stars, raw)
    return b"".join(_refit(frame) for frame in whole)


def _refit(frame: Frame) -> bytes:
    masked = _mask_frame(frame)
    return frame.raw if masked == frame.body else wrap(masked, frame.binary_crc)


def _mask_frame(frame: Frame) -> bytes:
    """Return the body of a whole frame, header and all, with its keys masked."""
    try:
        envelope = open_envelope(frame)
        if not envelope.encrypted:
            return frame.body.removesuffix(envelope.content) + mask_body(read_body(envelope, envelope.content))
    except ProtocolError:  # nothing is certain to be data
        pass
    return _BLOCK_OF_DAMAGE.sub(_stars, frame.body)
