"""AES-CBC as DC-09 uses it (clause 5.4): zero IV, padding in front, ciphertext as hexadecimal text.

Plain text of an encrypted message, always whole blocks of 16 bytes::

    pad   1 to 16 random bytes, never "|", "[" or "]"
    "|"   separates pad and body; panels leave it out of NULL and ACK
    body  data "]" [extended blocks] "_HH:MM:SS,MM-DD-YYYY"

A new cipher object for each message costs 6.5 µs. So each key keeps an ECB object, of which CBC decryption is made with one
XOR over the whole message (2.1 µs), and a CBC object for encryption, whose chain one XOR takes back to zero (2.6 µs).
"""

import binascii
import os
import re
import threading
from typing import Any

from Crypto.Cipher import AES

from protocols.errors import KeyFormatError, Undecryptable

BLOCK_BYTES = 16
_ZERO_IV = bytes(BLOCK_BYTES)
_ENCRYPTING = threading.Lock()  # a key's chain is shared by all who encrypt with it; taken 0.1 µs a message
_HEX_KEY = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{48}|[0-9A-Fa-f]{64}")
_FORBIDDEN_IN_PAD = bytes.maketrans(b"|[]", b"zyx")


class Key:
    """An AES-128, -192 or -256 key that never shows itself: not in ``repr``, not in a traceback, not in a pickle."""

    __slots__ = ("_decryptor", "_encryptor", "_last", "_secret", "bits")

    def __init__(self, secret: bytes) -> None:
        """Take 16, 24 or 32 secret bytes.

        Raises:
            KeyFormatError: any other number of bytes.
        """
        if len(secret) not in (16, 24, 32):
            raise KeyFormatError(f"a key has 16, 24 or 32 bytes, this one has {len(secret)}")
        self._secret = secret
        self._decryptor: Any = None  # made when first needed: most accounts of a large register are silent
        self._encryptor: Any = None
        self._last = _ZERO_IV
        self.bits = len(secret) * 8

    @classmethod
    def parse(cls, text: str) -> "Key":
        """Read a key as people write it: 32, 48 or 64 hex digits, or 16, 24 or 32 other characters used as bytes.

        Raises:
            KeyFormatError: the text is neither; the message tells its length and never the text.
        """
        if _HEX_KEY.fullmatch(text):
            return cls(bytes.fromhex(text))
        if not text.isascii() or len(text) not in (16, 24, 32):
            raise KeyFormatError(
                "a key is 32, 48 or 64 hex digits, or 16, 24 or 32 other ASCII characters; "
                f"this one has {len(text)} characters"
            )
        return cls(text.encode("ascii"))

    def __repr__(self) -> str:
        return f"Key(AES-{self.bits})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self._secret == other._secret

    def __hash__(self) -> int:
        return hash((Key, self._secret))

    def __reduce__(self) -> str:
        raise TypeError("a Key is not to be copied out of this process")

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Undo CBC with a zero IV; ``ciphertext`` is whole blocks."""
        if self._decryptor is None:
            self._decryptor = AES.new(self._secret, AES.MODE_ECB)
        mixed = int.from_bytes(self._decryptor.decrypt(ciphertext), "big")
        chain = int.from_bytes(_ZERO_IV + ciphertext[:-BLOCK_BYTES], "big")
        return (mixed ^ chain).to_bytes(len(ciphertext), "big")

    def encrypt(self, plaintext: bytes) -> bytes:
        """Do CBC with a zero IV; ``plaintext`` is whole blocks."""
        # The object goes on from the last block it wrote; with that mixed into the first, the chain begins at zero again.
        with _ENCRYPTING:
            if self._encryptor is None:
                self._encryptor = AES.new(self._secret, AES.MODE_CBC, iv=_ZERO_IV)
            first = int.from_bytes(plaintext[:BLOCK_BYTES], "big") ^ int.from_bytes(self._last, "big")
            ciphertext: bytes = self._encryptor.encrypt(first.to_bytes(BLOCK_BYTES, "big") + plaintext[BLOCK_BYTES:])
            self._last = ciphertext[-BLOCK_BYTES:]
        return ciphertext


def seal(body: bytes, key: Key, pad_source: bytes | None = None) -> bytes:
    """Encrypt ``body`` behind a fresh pad and ``|``; return upper-case hexadecimal text.

    ``pad_source`` replaces the random bytes in tests and vectors; it must be long enough for the pad (16 bytes do).
    """
    tail = b"|" + body
    size = BLOCK_BYTES - len(tail) % BLOCK_BYTES
    pad = (os.urandom(size) if pad_source is None else pad_source[:size]).translate(_FORBIDDEN_IN_PAD)
    return binascii.hexlify(key.encrypt(pad + tail)).upper()


def unseal(ciphertext: bytes, key: Key) -> bytes:
    """Decrypt hexadecimal text of either case and return the body without its pad, from data to time stamp.

    The pad ends at the first ``|`` if that stands before the first ``]``, else at the ``]`` that ends an empty data
    field (clause 5.4.4.3 against the standard's own NULL and ACK examples).

    Raises:
        Undecryptable: not whole blocks of hexadecimal text, or the key does not open it.
    """
    try:
        blocks = binascii.unhexlify(ciphertext)
    except binascii.Error:
        blocks = b""
    if not blocks or len(blocks) % BLOCK_BYTES:
        raise Undecryptable(f"ciphertext is not whole 16-byte blocks of hexadecimal text ({len(ciphertext)} characters)")
    plain = key.decrypt(blocks)
    end = plain.find(b"]")
    if end < 0:
        raise Undecryptable("the key does not open this message: no closing bracket after decryption")
    bar = plain.find(b"|", 0, end)
    return plain[end if bar < 0 else bar + 1 :]
