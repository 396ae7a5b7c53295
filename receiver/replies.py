"""ACK, NAK and DUH as bytes. Sequence, receiver number, line and CRC form go back exactly as they came.

A reply is made of named fields only; nothing a panel put into its data or extended data is ever sent back.
"""

from protocols.dc09 import Envelope, Key, Message, cipher, timestamp, wrap
from receiver.clock import SECOND_US
from receiver.journal import Receipt


def ack(message: Message, receipt: Receipt, key: Key | None, now_us: int, word: bytes = b"") -> bytes:
    """Acknowledge a message whose signals are on disk: only the journal makes a ``Receipt``."""
    assert receipt
    return _acknowledge(message.envelope, key, now_us, word)


def ack_link_test(message: Message, key: Key | None, now_us: int, word: bytes = b"") -> bytes:
    """Acknowledge a link test, which is never stored."""
    return _acknowledge(message.envelope, key, now_us, word)


def _acknowledge(envelope: Envelope, key: Key | None, now_us: int, word: bytes) -> bytes:
    """Write ``"ACK"`` in clear and without a stamp, or ``"*ACK"`` with a fresh pad and our time (clause 5.5.3.1).

    ``word`` stands between the brackets where a dialect wants one (Pima); nearly always it is empty.
    """
    if not envelope.encrypted:
        return wrap(b'"ACK"%b[%b]' % (envelope.echo, word), envelope.frame.binary_crc)
    assert key is not None  # it was decrypted with it
    stamp = timestamp.encode(now_us // SECOND_US)
    sealed = cipher.seal(word + b"]" + stamp, key) if word else cipher.seal_stamp(stamp, key)
    return wrap(b'"*ACK"%b[%b' % (envelope.echo, sealed), envelope.frame.binary_crc)


def nak(envelope: Envelope, now_us: int) -> bytes:
    """Tell a panel whose encrypted message had a stale stamp what time it is (clause 5.5.3.2); never encrypted."""
    return wrap(b'"NAK"0000R0L0A0[]' + timestamp.encode(now_us // SECOND_US), envelope.frame.binary_crc)


def duh(envelope: Envelope) -> bytes:
    """Say that the message arrived and its token means nothing to us (clause 5.5.3.3); never encrypted."""
    return wrap(b'"DUH"%b[]' % envelope.echo, envelope.frame.binary_crc)
