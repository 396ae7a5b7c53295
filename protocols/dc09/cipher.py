"""AES-CBC as DC-09 uses it (clause 5.4): zero IV, padding in front, ciphertext as hexadecimal text.

Plain text of an encrypted message, always whole blocks of 16 bytes::

    pad   1 to 16 random bytes, never "|", "[" or "]"
    "|"   separates pad and body; panels leave it out of NULL and ACK
    body  data "]" [extended blocks] "_HH:MM:SS,MM-DD-YYYY"

A new cipher object for each message costs 2.7 µs. So each key keeps two contexts, and no call leaves anything to the next:
one decrypts CBC, and a block of zeros in front of each message takes its chain back to the zero IV; the other encrypts ECB,
and the chain of an ACK's two blocks is made here. ``docs/decisions/0014`` has the reasons and the library's figures.
"""

import binascii
import os
import re
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from protocols.errors import KeyFormatError, Undecryptable

BLOCK_BYTES = 16
_HEX_KEY = re.compile(r"[0-9A-Fa-f]{32}|[0-9A-Fa-f]{48}|[0-9A-Fa-f]{64}")
_FORBIDDEN_IN_PAD = bytes.maketrans(b"|[]", b"zyx")
_ZERO_BLOCK = bytes(BLOCK_BYTES)
_CBC, _ECB = modes.CBC(_ZERO_BLOCK), modes.ECB()  # noqa: S305 - of ECB, CBC is made below
_STAMP_PAD_BYTES = 10  # so that "|]" and a stamp of 20 bytes end with the second block
_STAMP_PADS = 400  # fetched at once
_number = int.from_bytes


class _Pads:
    """Random pads for stamps, cut from 4 KB of the system's random bytes: 0.05 µs each, where ``os.urandom`` costs 0.5.

    None is used twice, by whatever threads, and a process that forks does not share what is left with its child.
    """

    def __init__(self) -> None:
        self.left: list[bytes] = []
        os.register_at_fork(after_in_child=self.left.clear)

    def take(self) -> bytes:
        """Return a pad that was never returned before."""
        try:
            return self.left.pop()
        except IndexError:
            random = os.urandom(_STAMP_PADS * _STAMP_PAD_BYTES).translate(_FORBIDDEN_IN_PAD)
            pads = [random[at : at + _STAMP_PAD_BYTES] for at in range(0, len(random), _STAMP_PAD_BYTES)]
            pad = pads.pop()
            self.left += pads
            return pad


_pads = _Pads()


class Key:
    """An AES-128, -192 or -256 key that never shows itself: not in ``repr``, not in a traceback, not in a pickle."""

    __slots__ = ("_decryptor", "_encryptor", "_secret", "bits")

    def __init__(self, secret: bytes) -> None:
        """Take 16, 24 or 32 secret bytes.

        Raises:
            KeyFormatError: any other number of bytes.
        """
        if len(secret) not in (16, 24, 32):
            raise KeyFormatError(f"a key has 16, 24 or 32 bytes, this one has {len(secret)}")
        self._secret = secret
        self._decryptor: CipherContext | None = None  # made when first needed: 1 KB each, and most of a large register
        self._encryptor: CipherContext | None = None  # are silent
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
        """Undo CBC with a zero IV; ``ciphertext`` is whole blocks.

        What the chain adds to a block is the ciphertext before it: behind a block of zeros nothing, whatever came before.
        """
        decryptor = self._decryptor or self._begin()[0]
        return decryptor.update(_ZERO_BLOCK + ciphertext)[BLOCK_BYTES:]

    def encrypt(self, plaintext: bytes) -> bytes:
        """Do CBC with a zero IV; ``plaintext`` is whole blocks."""
        encrypt = (self._encryptor or self._begin()[1]).update
        ciphertext = block = encrypt(plaintext[:BLOCK_BYTES])
        for at in range(BLOCK_BYTES, len(plaintext), BLOCK_BYTES):
            mixed = _number(plaintext[at : at + BLOCK_BYTES]) ^ _number(block)
            block = encrypt(mixed.to_bytes(BLOCK_BYTES))
            ciphertext += block
        return ciphertext

    def encrypt_two(self, first: bytes, second: int) -> bytes:
        """Do the same with two blocks, the second one as a number: an ACK, for which the loop would cost 0.5 µs more."""
        encrypt = (self._encryptor or self._begin()[1]).update
        block = encrypt(first)
        return block + encrypt((second ^ _number(block)).to_bytes(BLOCK_BYTES))

    def _begin(self) -> tuple[CipherContext, CipherContext]:
        """Make both contexts: who decrypts a message seals its ACK.

        Their methods are not kept: bound, they are two more objects for each account of a large register.
        """
        aes = algorithms.AES(self._secret)
        self._decryptor, self._encryptor = contexts = Cipher(aes, _CBC).decryptor(), Cipher(aes, _ECB).encryptor()
        return contexts


def seal(body: bytes, key: Key, pad_source: bytes | None = None) -> bytes:
    """Encrypt ``body`` behind a fresh pad and ``|``; return upper-case hexadecimal text.

    ``pad_source`` replaces the random bytes in tests and vectors; it must be long enough for the pad (16 bytes do).
    """
    tail = b"|" + body
    size = BLOCK_BYTES - len(tail) % BLOCK_BYTES
    pad = os.urandom(size) if pad_source is None else pad_source[:size]
    return binascii.hexlify(key.encrypt(pad.translate(_FORBIDDEN_IN_PAD) + tail)).upper()


def seal_stamp(stamp: bytes, key: Key) -> bytes:
    """Encrypt ``]`` and a time stamp, which is all that an ACK holds, as ``seal`` does and at a third of its cost."""
    behind_pad, second = _behind_pad(stamp)
    return binascii.hexlify(key.encrypt_two(_pads.take() + behind_pad, second)).upper()


@lru_cache(maxsize=64)
def _behind_pad(stamp: bytes) -> tuple[bytes, int]:
    """Return what stands behind the pad in the first of the two blocks, and the second one as a number."""
    text = b"|]" + stamp
    first = BLOCK_BYTES - _STAMP_PAD_BYTES
    return text[:first], _number(text[first:])


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
