"""Taking keys out of bytes that will be kept: the value of an extended block ``K`` becomes ``*``, as many as it had bytes.

A key exchange in clear (``[K…]``, letter K of the extended data) carries an AES key. A block always follows a bracket that
closes, so a text such as ``[Kitchen]`` inside the data stays as it came.
"""

import re

from protocols.dc09.framing import Frame, split_datagram, wrap

_BLOCK = re.compile(rb"(?<=\]\[K)[^\]]*")
_BLOCK_OF_DAMAGE = re.compile(rb"(?<=\[K)[^\]\r\n]*")  # the bracket before it may be what was lost


def _stars(match: re.Match[bytes]) -> bytes:
    return b"*" * len(match[0])


def mask_body(body: bytes) -> bytes:
    """Mask the keys in a body in clear, header or none; a block that does not end is masked to the end."""
    return _BLOCK.sub(_stars, body)


def mask_keys(raw: bytes) -> bytes:
    """Mask the keys in bytes as received: whole frames get the CRC of what they hold now, damage is masked more broadly.

    As long as before, and the same object when there is nothing to mask. In damage a key is found by its ``[K``: one whose
    own mark was damaged is not.
    """
    if b"[K" not in raw:
        return raw
    found = split_datagram(raw)
    whole = [piece for piece in found if isinstance(piece, Frame)]
    if sum(len(frame.raw) for frame in whole) != len(raw):
        return _BLOCK_OF_DAMAGE.sub(_stars, raw)
    return b"".join(_refit(frame) for frame in whole)


def _refit(frame: Frame) -> bytes:
    # Where no bracket closes the data, what follows "[K" is no text inside it for certain.
    masked = mask_body(frame.body) if b"]" in frame.body else _BLOCK_OF_DAMAGE.sub(_stars, frame.body)
    return frame.raw if masked == frame.body else wrap(masked, frame.binary_crc)
