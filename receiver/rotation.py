"""Who still uses the old key: watched while keys are rotated, told before it is too late, and kept over a restart.

While a key is rotated, old and new both open the account's messages. Here it is looked up which one opened the latest
accepted message; nothing is added to the way of a message. What is known stands in ``old-keys.json`` in the data folder,
which the running receiver alone writes and ``accounts list --old-keys`` reads.
"""

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from protocols.dc09 import Key
from receiver import clock, statefile
from receiver.accounts import Account, Accounts
from receiver.errors import RegisterUnavailable
from receiver.troubles import Trouble

_FILE = "old-keys.json"
_LOOK_SECONDS = 1.0
_LOOKED_AT = 1000
"""Accounts looked at each second, in turn: 1 ms. A million keys rotated at once are seen through every 17 minutes."""
_READ_AGAIN = 10_000  # rotations a second of pause before they are read from a changed register again: a tenth of a core
_WRITTEN_EVERY = 1000  # entries a second: the file of a million is written every 17 minutes
_WARNED_US = 3600 * clock.SECOND_US
"""So long before the old key ends an operator is told of a panel that has not used the new one."""


class Used(StrEnum):
    """The key that opened the latest message since the rotation was first seen."""

    NONE = "none"
    OLD = "old"
    NEW = "new"


class Use(NamedTuple):
    """One rotation: which key is used, since when that is known, and how often somebody was told of it (2 at most)."""

    until: int
    used: Used
    since_us: int
    told: int = 0


class Rotation:
    """All rotations, by account; pure state, with time passed in."""

    def __init__(self, uses: dict[str, Use] | None = None) -> None:
        """Take what was known before a restart."""
        self.uses = uses or {}
        self.changed = False

    def look(self, account: Account, opened: Key | None, now_us: int) -> str | None:
        """Note which key opened an account's latest message; return what is to be told, when there is something."""
        old = account.old_key
        assert old is not None
        before = self.uses.get(account.account)
        if before is None or before.until != old.until:
            before = Use(old.until, Used.NONE, now_us)
        used = Used.NEW if opened == account.key else Used.OLD if opened == old.key else before.used
        use = before if used is before.used else before._replace(used=used, since_us=now_us)
        text, told = self._due(account.account, use, now_us)
        use = use._replace(told=told)
        if use != self.uses.get(account.account):
            self.uses[account.account], self.changed = use, True
        return text

    def _due(self, name: str, use: Use, now_us: int) -> tuple[str | None, int]:
        """Return what is to be told of a panel that does not use its new key, and how often it was told then."""
        left_us = use.until * clock.SECOND_US - now_us
        if use.used is Used.NEW or use.told == 2 or left_us > _WARNED_US or (use.told and left_us > 0):
            return None, use.told
        what = "still uses its old key" if use.used is Used.OLD else "has sent nothing with its new key"
        end = clock.seconds_to_text(use.until)
        if left_us > 0:
            return f"account {name} {what}, and the old one ends at {end}: set the new key at the panel", 1
        return f"account {name} {what}, and the old one ended at {end}: its messages are refused until it has the new one", 2

    def over(self, rotating: Iterable[Account]) -> list[str]:
        """Return the accounts whose rotation is known here and is none any more."""
        names = {account.account for account in rotating}
        return [name for name in self.uses if name not in names]

    def forget(self, accounts: Iterable[str]) -> None:
        """Forget what is no rotation any more."""
        for name in accounts:
            del self.uses[name]
            self.changed = True

    def on_old(self, now_us: int) -> int:
        """Return how many accounts use an old key that works."""
        return sum(use.used is Used.OLD and now_us < use.until * clock.SECOND_US for use in self.uses.values())


class KeyWatch:
    """Looks after the rotations of a running receiver."""

    def __init__(
        self, data_dir: Path, accounts: Callable[[], Accounts], key_of: Callable[[str], Key | None],
        tell: Callable[[Trouble], None],
    ) -> None:  # fmt: skip
        """``key_of`` says which key opened an account's latest accepted message."""
        self._file = data_dir / _FILE
        self._accounts, self._key_of, self._tell = accounts, key_of, tell
        self.rotation = Rotation(read(data_dir))
        self._register: Accounts | None = None
        self._revision, self._renew_after = 0, 0.0
        self._turn: list[Account] = []
        self._at = 0
        self._wait = 0.0

    async def run(self) -> None:
        """Look each second, for ever."""
        while True:
            with contextlib.suppress(RegisterUnavailable):  # the service tells of it
                await self.renew()
            self.look(clock.now_us())
            self._wait -= _LOOK_SECONDS
            if self.rotation.changed and self._wait <= 0:
                self.rotation.changed = False
                self._wait = len(self.rotation.uses) / _WRITTEN_EVERY
                with contextlib.suppress(OSError):  # the journal tells of the disk
                    await asyncio.to_thread(statefile.write, self._file, dict(self.rotation.uses))
            await asyncio.sleep(_LOOK_SECONDS)

    async def renew(self) -> None:
        """Ask the register anew which keys are being rotated, when it has changed; a large answer is read in a thread.

        Raises:
            RegisterUnavailable: it cannot be read now.
        """
        register, now = self._accounts(), clock.monotonic()
        if register is self._register and (register.revision == self._revision or self._at or now < self._renew_after):
            return
        revision = register.revision
        turn, over = await asyncio.to_thread(self._read, register)
        self._register, self._revision, self._turn, self._at = register, revision, turn, 0
        self._renew_after = now + len(turn) / _READ_AGAIN
        self.rotation.forget(over)

    def _read(self, register: Accounts) -> tuple[list[Account], list[str]]:
        """Return the accounts in rotation, and those that were; nobody changes what is known of them meanwhile."""
        turn = register.rotating()
        return turn, self.rotation.over(turn)

    def look(self, now_us: int) -> None:
        """Look at the next accounts in turn."""
        for account in self._turn[self._at : self._at + _LOOKED_AT]:
            text = self.rotation.look(account, self._key_of(account.account), now_us)
            if text is not None:
                self._tell(Trouble("old-key-in-use", text, now_us, account=account.account))
        self._at = self._at + _LOOKED_AT if self._at + _LOOKED_AT < len(self._turn) else 0


def read(data_dir: Path) -> dict[str, Use]:
    """Return what the receiver last wrote down; what cannot be read is nothing known."""
    try:
        told = json.loads((data_dir / _FILE).read_text("utf-8"))
        return {name: Use(int(until), Used(used), int(since), int(n)) for name, (until, used, since, n) in told.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
