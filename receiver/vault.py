"""Keys at rest: encrypted under one master key, AES-256-GCM, each bound to the account and column it belongs to.

A sealed text is 12 random bytes, then ciphertext and tag. What was sealed for one account does not open for another, so
nobody who can write the file gives a panel's account a key he knows by copying it over from his own.
"""

import os
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from receiver.errors import ConfigError

_NONCE_BYTES = 12
_is_master_key = re.compile(r"[0-9A-Fa-f]{64}").fullmatch


class Vault:
    """A master key that never shows itself."""

    __slots__ = ("_cipher",)

    def __init__(self, text: str) -> None:
        """Take a master key as people write it.

        Raises:
            ConfigError: it has another shape; it is not repeated.
        """
        if _is_master_key(text) is None:
            raise ConfigError(f"the master key is 64 hex digits (openssl rand -hex 32); this one has {len(text)} characters")
        self._cipher = AESGCM(bytes.fromhex(text))

    def __repr__(self) -> str:
        return "Vault()"

    def __reduce__(self) -> str:
        raise TypeError("a Vault is not to be copied out of this process")

    def seal(self, text: str, place: str) -> bytes:
        """Encrypt a text for one place."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, text.encode(), place.encode())

    def opens(self, sealed: bytes, place: str) -> bool:
        """Tell whether this master key opens what was sealed for a place."""
        try:
            self.unseal(sealed, place)
        except ConfigError:
            return False
        return True

    def unseal(self, sealed: bytes, place: str) -> str:
        """Open what was sealed for a place.

        Raises:
            ConfigError: another master key sealed it, or it was sealed for another place, or it is damaged.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.encode()).decode()
        except (InvalidTag, ValueError):
            raise ConfigError(
                f"the master key does not open {place}: another one was used, or the file was altered"
            ) from None
