"""Who was heard a moment ago, for ``watch``: link tests and repeats are acknowledged and leave nothing in the journal.

``watch`` lays ``orders/<id>.watch`` with an account into the data folder and touches it while somebody looks. While there is
such an order, the receiver writes each second into ``heard.json`` when and from where it last let a message of that account
through. It asks what it knows anyway (``senders``); nothing is added to the way of a message.
"""

import asyncio
import contextlib
import json
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from receiver import clock, ownership, statefile

_FOLDER, _SUFFIX, _KEPT = "orders", ".watch", "heard.json"
_LOOK_SECONDS = 1.0
STALE_SECONDS = 30.0
"""An order that was not touched for so long is of a command that is gone."""
_MOST = 20
_is_account = re.compile(r"[0-9A-Z]{1,16}").fullmatch


class Heard(NamedTuple):
    """The latest message that was let through: when (wall time), at which listener, from which peer."""

    at_us: int
    listener: str
    peer: str


LastHeard = Callable[[str], tuple[int, str, str] | None]
"""From an account to steady time, listener and peer of its latest message."""


class Sightings:
    """The receiver's side."""

    def __init__(self, data_dir: Path, last_heard: LastHeard) -> None:
        self._data_dir = data_dir
        self._last_heard = last_heard

    async def run(self) -> None:
        """Look each second, for ever; a disk that is away is told of elsewhere."""
        while True:
            with contextlib.suppress(OSError):
                await self.look()
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self) -> None:
        """Write down who was heard of those that somebody watches."""
        wanted = await asyncio.to_thread(_wanted, self._data_dir)
        if not wanted:
            return
        now_us, steady_us = clock.both_us()
        found: dict[str, Heard] = {}
        for account in wanted:
            heard = self._last_heard(account)
            if heard is not None:
                found[account] = Heard(now_us - steady_us + heard[0], heard[1], heard[2])
        await asyncio.to_thread(statefile.write, self._data_dir / _KEPT, found, synced=False)


def _wanted(data_dir: Path) -> set[str]:
    """Return the accounts that are watched; orders of commands that are gone go too."""
    found: set[str] = set()
    for file in (data_dir / _FOLDER).glob(f"*{_SUFFIX}"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            age_seconds = clock.now_us() / clock.SECOND_US - file.stat().st_mtime
            account = file.read_text("ascii").strip()
            if age_seconds > STALE_SECONDS or _is_account(account) is None or len(found) == _MOST:
                file.unlink()
            else:
                found.add(account)
    return found


class Order:
    """The command's side: an order that stands until ``close``."""

    def __init__(self, data_dir: Path, account: str) -> None:
        """Lay the order down.

        Raises:
            OSError: it cannot be written.
        """
        self._data_dir, self._account = data_dir, account.upper()
        folder = data_dir / _FOLDER
        ownership.make_folder(folder)
        new = folder / secrets.token_hex(8)
        with new.open("x", encoding="ascii") as out:
            ownership.hand_over(out.fileno(), folder)
            out.write(self._account)
        self._file = new.replace(new.with_name(new.name + _SUFFIX))  # whole, or not there

    def heard(self) -> Heard | None:
        """Return what the receiver last wrote down of the account, and let the order stand on."""
        try:
            os.utime(self._file)
            told = json.loads((self._data_dir / _KEPT).read_text("utf-8")).get(self._account)
            return None if told is None else Heard(int(told[0]), str(told[1]), str(told[2]))
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None

    def close(self) -> None:
        """Take the order away."""
        with contextlib.suppress(OSError):
            self._file.unlink(missing_ok=True)
