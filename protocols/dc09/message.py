"""What stands in a DC-09 frame: the envelope, always in clear, and the message in it, perhaps encrypted.

Body of a frame (clauses 5.5.1.4 to 5.5.1.9)::

    "token"  seq   [Rrcvr]  [Lpref]  #acct  [  data  ]  [x…] [x…]  _HH:MM:SS,MM-DD-YYYY
    "*…"     4 hex 1-6 hex  0-6 hex  1-16      ─── encrypted from here to the end when the token has its star ───

Tolerated because panels send it: no ``L`` at all (spt), an empty ``L``, letters beyond F in the account (Focus), words in
``R`` (MicroSeven), hexadecimal sequences (spt), anything where the time stamp of a clear message belongs (comXline).
Everything a reply must echo is kept as it came.
"""

import re
from functools import lru_cache

from msgspec import Struct

from protocols.dc09 import cipher, timestamp
from protocols.dc09.framing import Frame, wrap
from protocols.errors import BodyError, EnvelopeError, TimestampError, Undecryptable

LINK_TEST = "NULL"
RECEIVER_TOKENS = frozenset({"ACK", "NAK", "DUH", "RSP"})
"""Tokens that only a receiver sends."""
OPAQUE_TOKENS = frozenset(
    (
        "ACR-SF", "ADM-41E", "ADM-42E", "ADM-HS", "DSC-43", "FBI-SF", "ITI-I",
        "SCN-S8", "SCN-S16", "SCN-S24", "SIA-PUL", "SIA-S2K", "SK-FSK1", "SK-FSK2",
    )
)  # fmt: skip
"""Tokens of other formats that DC-07 names as commonly published; the list is unverified. Kept, not decoded."""
KNOWN_TOKENS = frozenset({"SIA-DCS", "ADM-CID", LINK_TEST}) | OPAQUE_TOKENS

_LINK_TESTS = (b'"NULL"', b'"*NULL"')
_TOKEN = re.compile(rb"(\*?)([A-Z0-9-]{1,16})")
_FRONT = re.compile(
    rb"(?:R([0-9A-Fa-f]{1,6}|[0-9A-Za-z ._-]{0,20}?))?"  # receiver number, clause 5.5.1.6.3
    rb"(?:L([0-9A-Fa-f]{0,6}))?"  # line, the account prefix, clause 5.5.1.6.2
)
_ACCOUNT_BYTES = 16  # clause 5.5.1.6.1
_HEX_DIGITS = b"0123456789ABCDEFabcdef"
_UNDERSCORE = 0x5F


class Address(Struct, frozen=True, gc=False):
    """Who sent a message, as printed: absent is None, empty is empty."""

    receiver_number: str | None
    line: str | None
    account: str


class Envelope(Struct, frozen=True, gc=False):
    """The clear part of a frame. ``echo`` is sequence and address exactly as they came, for the reply."""

    frame: Frame
    token: str
    encrypted: bool
    sequence: str
    address: Address
    echo: bytes
    content: bytes


class Message(Struct, frozen=True, gc=False):
    """An opened envelope.

    ``body`` is the content in clear, from data to time stamp; ``panel_time`` is in seconds since 1970, None when there
    is no readable stamp; ``extended`` holds (letter, value) in the order sent.
    """

    envelope: Envelope
    body: bytes
    data: bytes
    extended: tuple[tuple[str, bytes], ...]
    stamp: bytes
    panel_time: int | None


_TOKENS = {star + token.encode(): (token, bool(star)) for token in KNOWN_TOKENS for star in (b"", b"*")}
_SEQUENCES = {b"%04d" % number: f"{number:04d}" for number in range(10_000)}
"""What nearly every message has, looked up in half the time of a call; the functions below read the rest."""


@lru_cache(maxsize=1024)
def _read_token(text: bytes) -> tuple[str, bool]:
    match = _TOKEN.fullmatch(text)
    if match is None:
        raise EnvelopeError(
            f"expected a token of 1 to 16 capitals, digits and hyphens between the quotes, got {len(text)} bytes"
        )
    return match[2].decode("ascii"), bool(match[1])


def _read_address(text: bytes) -> Address:
    """Read receiver number, line and account. To remember 1,000 of them cost 0.5 µs a message where there were more."""
    front, hash_sign, account = text.partition(b"#")
    found = _read_front(front)
    if not hash_sign or found is None or len(account) > _ACCOUNT_BYTES or not account.isalnum():
        raise EnvelopeError(
            f"expected [Rnumber][Lnumber]#account between sequence and bracket, got {len(text)} bytes of another shape"
        )
    number, line = found
    return Address(number, line, account.decode())


@lru_cache(maxsize=1024)  # all panels of a site have the same
def _read_front(text: bytes) -> tuple[str | None, str | None] | None:
    match = _FRONT.fullmatch(text)
    if match is None:
        return None
    number, line = (None if group is None else group.decode("ascii") for group in match.groups())
    return number, line


@lru_cache(maxsize=16384)
def _read_sequence(text: bytes) -> str:
    if text.translate(None, _HEX_DIGITS) or len(text) != 4:
        raise EnvelopeError("expected a sequence of four digits behind the token")
    return text.decode("ascii")


def is_link_test(frame: Frame) -> bool:
    """Tell a link test, encrypted or not, by the beginning of its frame; it may still turn out to be damaged."""
    return frame.body.startswith(_LINK_TESTS)


def open_envelope(frame: Frame) -> Envelope:
    """Read who sent a frame and which message is in it.

    Raises:
        EnvelopeError: the header has another shape.
    """
    head, bracket, content = frame.body.partition(b"[")
    parts = head.split(b'"')
    if not bracket or len(parts) != 3 or parts[0]:
        raise EnvelopeError(
            f"expected a quoted token, a sequence, an account and a bracket, got {len(frame.body)} bytes of another shape"
        )
    _, quoted, echo = parts
    token, encrypted = _TOKENS.get(quoted) or _read_token(quoted)
    first = echo[:4]
    sequence = _SEQUENCES.get(first) or _read_sequence(first)
    return Envelope(frame, token, encrypted, sequence, _read_address(echo[4:]), echo, content)


def unseal(envelope: Envelope, key: cipher.Key | None) -> Message:
    """Open an envelope, with ``key`` when its content is encrypted.

    Raises:
        Undecryptable: encrypted, and there is no key, or it does not give a body that ends in a time stamp.
        BodyError: in clear, and no bracket closes the data.
    """
    if not envelope.encrypted:
        return read_body(envelope, envelope.content)
    if key is None:
        raise Undecryptable("encrypted, and no key is known for this account")
    try:
        return read_body(envelope, cipher.unseal(envelope.content, key))
    except (BodyError, TimestampError):
        raise Undecryptable("the key does not open this message: no time stamp at its end after decryption") from None


def read_body(envelope: Envelope, body: bytes) -> Message:
    """Split a clear body into data, extended blocks and time stamp; strict about the stamp when it came encrypted.

    Raises:
        BodyError: no bracket closes the data, or an encrypted body has another shape.
        TimestampError: an encrypted body does not end in a time stamp.
    """
    end = body.find(b"]")
    if end < 0:
        raise BodyError(f"no bracket closes the data, of which {len(body)} bytes came")
    blocks: tuple[tuple[str, bytes], ...] = ()
    stamp: bytes | None = body[end + 1 :]
    if stamp and (stamp[0] != _UNDERSCORE or len(stamp) != timestamp.SIZE_BYTES):
        blocks, stamp = _read_tail(body, end + 1)
        if stamp is None:  # a bracket inside the text: the data ends at the last one from which all the rest can be read
            end, blocks, stamp = _read_from_end(body, end)
    if envelope.encrypted:
        if stamp is None:
            raise BodyError("the body does not end in a time stamp")
        return Message(envelope, body, body[:end], blocks, stamp, timestamp.decode(stamp))
    try:
        panel_time = timestamp.decode(stamp) if stamp else None
    except TimestampError:
        panel_time = None
    return Message(envelope, body, body[:end], blocks, stamp or b"", panel_time)


def _read_tail(body: bytes, at: int) -> tuple[tuple[tuple[str, bytes], ...], bytes | None]:
    """Read extended blocks and stamp from ``at`` to the end; the stamp is None when something else stands there."""
    blocks: list[tuple[str, bytes]] = []
    while body[at : at + 1] == b"[":
        close = body.find(b"]", at)
        if close < 0:
            return tuple(blocks), None
        block = body[at + 1 : close]
        blocks.append((block[:1].decode("latin-1"), block[1:]))
        at = close + 1
    rest = body[at:]
    fits = not rest or (rest[:1] == b"_" and len(rest) == timestamp.SIZE_BYTES)
    return tuple(blocks), rest if fits else None


def _read_from_end(body: bytes, first: int) -> tuple[int, tuple[tuple[str, bytes], ...], bytes | None]:
    """Find the end of data that itself holds brackets: walk back over ``][…]`` blocks from the stamp."""
    stamp = body[-timestamp.SIZE_BYTES :] if body[-timestamp.SIZE_BYTES : -timestamp.SIZE_BYTES + 1] == b"_" else b""
    end = len(body) - len(stamp)
    if body[end - 1 : end] != b"]":
        return first, _read_tail(body, first + 1)[0], None
    end -= 1
    while (opening := body.rfind(b"][", first, end)) >= 0 and b"]" not in body[opening + 2 : end]:
        end = opening
    return end, _read_tail(body, end + 1)[0], stamp


def encode(
    token: str,
    sequence: str,
    address: Address,
    data: bytes = b"",
    extended: tuple[tuple[str, bytes], ...] = (),
    panel_time: int | None = None,
    key: cipher.Key | None = None,
    binary_crc: bool = False,
) -> bytes:
    """Write one message as a frame, encrypted when there is a key. ``panel_time`` is in seconds since 1970.

    Raises:
        BadLength: the message is longer than a frame can be.
    """
    echo = sequence
    echo += "" if address.receiver_number is None else f"R{address.receiver_number}"
    echo += "" if address.line is None else f"L{address.line}"
    echo += f"#{address.account}"
    body = data + b"]" + b"".join(b"[%b%b]" % (letter.encode("latin-1"), value) for letter, value in extended)
    body += b"" if panel_time is None else timestamp.encode(panel_time)
    content = body if key is None else cipher.seal(body, key)
    star = "" if key is None else "*"
    return wrap(f'"{star}{token}"{echo}['.encode("ascii") + content, binary_crc)
