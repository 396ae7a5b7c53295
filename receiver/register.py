"""Changing the account register from a command, while a receiver runs: one account, many, or a key's rotation.

A row is the cells of one account by column, as text; what it may hold is what the CSV file may hold.
"""

import csv
import os
import secrets
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol, TextIO

from receiver import account_file, accounts, clock
from receiver.errors import ConfigError

SECRET_COLUMNS = ("key", "key_file", "old_key", "old_key_until")
"""What stands of keys in a row."""
EXPORTED = (*accounts.COLUMNS, "old_key", "old_key_until")
_KEY_BYTES = 16
Row = dict[str, str]
Change = Callable[[Row | None], Row | None]
"""From an account's row, None where there is none, to its new one, None to take it out."""


class Store(Protocol):
    """Where the register is kept. ``where`` names it for people; ``after`` says when a running receiver has a change."""

    where: str
    after: str

    def change(self, account: str, change: Change) -> None:
        """Change one account; other commands wait meanwhile.

        Raises:
            ConfigError: the result is no account; nothing is changed. Or what ``change`` raises.
            OSError: it cannot be written.
        """

    def put(self, rows: Iterable[Row], base: Path) -> int:
        """Add or replace accounts, all of them or none; return how many. A ``key_file`` is relative to ``base``.

        Raises:
            ConfigError: with every mistake.
            OSError: it cannot be written.
        """

    def rows(self, with_keys: bool) -> Iterator[Row]:
        """Return every account's row; its keys only when they are wanted.

        Raises:
            ConfigError: the register, or a key in it, cannot be read.
        """

    def close(self) -> None:
        """Let go of it."""


class CsvStore:
    """The register in a CSV file; each change writes it anew beside the old one and renames it."""

    after = "send SIGHUP to a running receiver"

    def __init__(self, file: Path) -> None:
        self._file = file
        self.where = str(file)

    def change(self, account: str, change: Change) -> None:
        """Change one account."""

        def apply(rows: account_file.Rows) -> None:
            name = account.upper()
            row = change(rows.get(name))
            if row is None:
                rows.pop(name, None)
            else:
                rows[name] = row

        account_file.edit(self._file, apply)

    def put(self, rows: Iterable[Row], base: Path) -> int:
        """Add or replace accounts; columns that are not given stay as they are."""
        given = {}
        for row in rows:
            if row.get("key_file"):
                row["key_file"] = str(base.absolute() / row["key_file"])
            given[row["account"].upper()] = row

        def apply(known: account_file.Rows) -> None:
            known.update({name: known.get(name, {}) | row for name, row in given.items()})

        account_file.edit(self._file, apply)
        return len(given)

    def rows(self, with_keys: bool) -> Iterator[Row]:
        """Return every account's row."""
        if self._file.exists():
            accounts.read_csv(self._file)
            for row in read_rows(self._file):
                if with_keys and row.get("key_file"):
                    row["key"] = accounts.key_text(row["key_file"], self._file.parent)
                yield {name: text for name, text in row.items() if with_keys or name not in SECRET_COLUMNS}

    def close(self) -> None:
        """Nothing is held."""


def read_rows(file: Path) -> Iterator[Row]:
    """Return the rows of a CSV file that ``accounts.read_csv`` found to be right."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        for row in csv.DictReader(lines):
            yield {(name or "").strip(): (text or "").strip() for name, text in row.items()}


def make_key(bits: int = _KEY_BYTES * 8) -> str:
    """Return a new random key as hex digits."""
    return secrets.token_hex(bits // 8).upper()


def rotated(row: Row | None, account: str, key: str, overlap_seconds: int, replace: bool, now_us: int) -> Row:
    """Return a row in which ``key`` takes over and the old one works for so long still.

    Raises:
        ConfigError: there is no account, no key to rotate from, no other key, or a rotation that is not over.
    """
    if row is None:
        raise ConfigError(f"there is no account {account}")
    key_file = row.get("key_file", "")
    before = row.get("key", "")
    if not before and not key_file:
        raise ConfigError(
            f"account {account} has no key of its own to rotate from; give it one with accounts add --key-stdin"
        )
    if key_file:
        raise ConfigError(
            f"the key of account {account} stands in the file {key_file}: rotate keys that stand in the register"
        )
    until = row.get("old_key_until", "")
    if until and clock.from_text(until) > now_us and not replace:
        raise ConfigError(
            f"the key of account {account} is being rotated already, until {until}: a panel may still use the one before; "
            "--replace lets that one end now"
        )
    if before == key:
        raise ConfigError("the new key is the one that the account has")
    if not overlap_seconds:
        return row | {"key": key, "old_key": "", "old_key_until": ""}
    end = clock.seconds_to_text(now_us // clock.SECOND_US + overlap_seconds)
    return row | {"key": key, "old_key": before, "old_key_until": end}


def prolonged(row: Row | None, account: str, overlap_seconds: int, now_us: int) -> Row:
    """Return a row whose old key works for so long from now on, 0 for no longer.

    Raises:
        ConfigError: there is no account, or none of its keys is being rotated.
    """
    if row is None:
        raise ConfigError(f"there is no account {account}")
    if not row.get("old_key"):
        raise ConfigError(f"the key of account {account} is not being rotated")
    if not overlap_seconds:
        return row | {"old_key": "", "old_key_until": ""}
    return row | {"old_key_until": clock.seconds_to_text(now_us // clock.SECOND_US + overlap_seconds)}


def open_new(file: Path) -> TextIO:
    """Open a file for secrets: it must not be there yet, and only its owner may read it.

    Raises:
        OSError: it is there, or cannot be written.
    """
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8")
