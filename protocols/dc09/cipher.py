"""AES-CBC as DC-09 uses it (clause 5.4): zero IV, padding in front, ciphertext as hexadecimal text.

Plain text of an encrypted message, always whole blocks of 16 bytes::

    pad   1 to 16 random bytes, never "|", "[" or "]"
    "|"   separates pad and body; panels leave it out of NULL and ACK
    body  data "]" [extended blocks] "_HH:MM:SS,MM-DD-YYYY"

A new cipher object for each message costs 2.7 µs. So each key keeps two ECB contexts, which hold no state between calls, and
the chain is made here: of a message of four blocks with one XOR over all of it (0.5 µs), of an ACK's two blocks one by one.
``docs/decisions/0014`` has the library's figures.
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
_POOL_BYTES = 4096
_ECB = modes.ECB()  # noqa: S305 - of which CBC is made, see above
_STAMP_PAD_BYTES = 10  # so that "|]" and a stamp of 20 bytes end with the second block


class _Pads:
    """Random bytes for pads, taken from the system 4 KB at a time: 0.15 µs a pad, where ``os.urandom`` each time costs 0.5.

    No byte is used twice (two threads at once may be given the same ones, never too few), and a process that forks does not
    share what is left with its child.
    """

    def __init__(self) -> None:
        self.pool, self.at = b"", 0
        os.register_at_fork(after_in_child=self.forget)

    def forget(self) -> None:
        """Begin anew."""
        self.pool, self.at = b"", 0

    def take(self, size: int) -> bytes:
        """Return so many random bytes, 16 at most, none of them a bracket or a bar."""
        pool, at, end = self.pool, self.at, self.at + size
        if end > len(pool):
            pool = self.pool = os.urandom(_POOL_BYTES).translate(_FORBIDDEN_IN_PAD)
            at, end = 0, size
        self.at = end
        return pool[at:end]


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
        """Undo CBC with a zero IV; ``ciphertext`` is whole blocks."""
        decryptor = self._decryptor or self._begin()[0]
        mixed = int.from_bytes(decryptor.update(ciphertext))
        chain = int.from_bytes(ciphertext[:-BLOCK_BYTES])  # one block shorter: the first one's chain is zero
        return (mixed ^ chain).to_bytes(len(ciphertext))

    def encrypt(self, plaintext: bytes) -> bytes:
        """Do CBC with a zero IV; ``plaintext`` is whole blocks."""
        encrypt = (self._encryptor or self._begin()[1]).update
        ciphertext = block = encrypt(plaintext[:BLOCK_BYTES])
        for at in range(BLOCK_BYTES, len(plaintext), BLOCK_BYTES):
            mixed = int.from_bytes(plaintext[at : at + BLOCK_BYTES]) ^ int.from_bytes(block)
            block = encrypt(mixed.to_bytes(BLOCK_BYTES))
            ciphertext += block
        return ciphertext

    def encrypt_two(self, first: bytes, second: int) -> bytes:
        """Do the same with two blocks, the second one as a number: an ACK, for which the loop would cost 0.5 µs more."""
        encrypt = (self._encryptor or self._begin()[1]).update
        block = encrypt(first)
        return block + encrypt((second ^ int.from_bytes(block)).to_bytes(BLOCK_BYTES))

    def _begin(self) -> tuple[CipherContext, CipherContext]:
        """Make both contexts, of one cipher: who decrypts a message seals its ACK.

        Their methods are not kept: bound, they are two more objects for each account of a large register.
        """
        cipher = Cipher(algorithms.AES(self._secret), _ECB)  # CBC is made of it
        self._decryptor, self._encryptor = contexts = cipher.decryptor(), cipher.encryptor()
        return contexts


def seal(body: bytes, key: Key, pad_source: bytes | None = None) -> bytes:
    """Encrypt ``body`` behind a fresh pad and ``|``; return upper-case hexadecimal text.

    ``pad_source`` replaces the random bytes in tests and vectors; it must be long enough for the pad (16 bytes do).
    """
    tail = b"|" + body
    size = BLOCK_BYTES - len(tail) % BLOCK_BYTES
    pad = _pads.take(size) if pad_source is None else pad_source[:size].translate(_FORBIDDEN_IN_PAD)
    return binascii.hexlify(key.encrypt(pad + tail)).upper()


def seal_stamp(stamp: bytes, key: Key) -> bytes:
    """Encrypt ``]`` and a time stamp, which is all that an ACK holds, as ``seal`` does and at two thirds of its cost."""
    behind_pad, second = _behind_pad(stamp)
    return binascii.hexlify(key.encrypt_two(_pads.take(_STAMP_PAD_BYTES) + behind_pad, second)).upper()


@lru_cache(maxsize=64)
def _behind_pad(stamp: bytes) -> tuple[bytes, int]:
    """Return what stands behind the pad in the first of the two blocks, and the second one as a number."""
    text = b"|]" + stamp
    first = BLOCK_BYTES - _STAMP_PAD_BYTES
    return text[:first], int.from_bytes(text[first:])


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
