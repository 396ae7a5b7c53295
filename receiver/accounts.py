"""The account register: who may report, with which key, and how long one may be silent.

A CSV file with a header row, of which only ``account`` is required::

    account,name,key,plaintext,supervision_seconds,time_zone,dialect,site,instructions

``key_file``, ``old_key`` and ``old_key_until`` may stand in it too: while a key is rotated, old and new both work.
Accounts match without regard to case (panels print hex digits in either); replies echo them as they came.
"""

import csv
import os
import re
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zoneinfo import ZoneInfo

from msgspec import Struct

from protocols.dc09 import Key
from protocols.errors import KeyFormatError
from receiver import clock, dialects
from receiver.config import resolve_secret
from receiver.errors import ConfigError
from receiver.intervals import Supervision, parse
from receiver.tables import Table

if TYPE_CHECKING:
    from _csv import Reader as CsvReader

COLUMNS = ("account", "name", "key", "plaintext", "supervision_seconds", "time_zone", "dialect", "site", "instructions")
_READ = (*COLUMNS, "key_file", "old_key", "old_key_until")
_is_account = re.compile(r"[0-9A-Za-z]{1,16}").fullmatch
_SHOWN_MISTAKES = 20
_FIRST_MOMENT, _LAST_MOMENT = -62_135_596_800, 253_402_300_799  # of the years 1 and 9999, in seconds since 1970
_SHORTEST_KEY = 16


class OldKey(NamedTuple):
    """The key that a rotation takes out of use, and until when it works still, in seconds since 1970."""

    key: Key
    until: int


class Account(Struct, frozen=True, gc=False):
    """One account. Without ``registered`` it is a stranger, known only by what the wire said."""

    account: str
    name: str | None = None
    key: Key | None = None
    accepts_plaintext: bool = True
    supervision_seconds: int | None = None
    time_zone: ZoneInfo | None = None
    dialect: str = ""
    site: str | None = None
    instructions: str | None = None
    registered: bool = True
    supervision: Supervision | None = None
    old_key: OldKey | None = None

    def to_utc(self, panel_time: int) -> int:
        """Turn a panel's time stamp, in seconds read as UTC, into real UTC when the panel keeps local time.

        At the first and the last hours of all years it stays as it came: no year has five digits.
        """
        if self.time_zone is None:
            return panel_time
        local = datetime.fromtimestamp(panel_time, UTC).replace(tzinfo=self.time_zone)
        moment = int(local.timestamp())
        return moment if _FIRST_MOMENT <= moment <= _LAST_MOMENT else panel_time


Found = object
"""What a register has read on the way from its thread into memory; its own business."""


class Unread(Exception):
    """An account is not in memory and has to be read first; ``name`` is its upper-case text as sent."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Accounts:
    """All registered accounts; replaced as a whole when the file is read again. ``revision`` counts changes in between."""

    revision = 0

    def __init__(
        self, rows: Mapping[str, Account] | Table[Account], default_key: Key | None = None,
        accept_unknown: bool | None = None,
    ) -> None:  # fmt: skip
        """Take accounts by upper-case account; ``accept_unknown`` None means: only while none is registered."""
        self._rows = rows if isinstance(rows, Table) else Table(rows)
        self._stranger = Account("", registered=False)
        self._default_key = default_key
        self.accept_unknown = not rows if accept_unknown is None else accept_unknown

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Account]:
        return iter(self._rows.values())

    def find(self, account: str) -> Account:
        """Return the account, or a stranger when none such is registered."""
        found = self._rows.get(account) or self._rows.get(account.upper())
        return found if found is not None else self._padded(account)

    known = find
    """As ``find``, for the pipeline: what is not in memory is not waited for but raises ``Unread``."""

    def read(self, names: Collection[str], done: Callable[[Found], None]) -> None:
        """Read accounts and call ``done`` with them, from any thread; ``keep`` then puts them into memory.

        A file is in memory whole, and nothing is ever asked of it here.
        """
        done(None)

    def keep(self, found: Found) -> None:
        """Put into memory what was read."""

    def despair(self) -> None:
        """Take note that a reading does not end: until it does, ``known`` refuses what is not in memory."""

    def _padded(self, account: str) -> Account:
        """Return the account that is meant when zeros stand in front, if its dialect says so, or else a stranger."""
        near = self.unpadded(account) if account[:1] == "0" else None
        return near if near is not None and dialects.pads_account(near.dialect) else self._stranger

    def unpadded(self, account: str) -> Account | None:
        """Return the account that is registered without the zeros that stand in front of this one."""
        return self.in_memory(account.upper().lstrip("0"))

    def in_memory(self, name: str) -> Account | None:
        """Return the account of an upper-case text, None where it is not in memory."""
        return self._rows.get(name)

    def spelled(self, account: str) -> str:
        """Return the text of an account as it stands in memory, if it does."""
        found = self._rows.get(account.upper())
        return account if found is None else found.account

    def expectations(self) -> Iterator[tuple[str, Supervision]]:
        """Return each supervised account and what is expected of it."""
        for account in self._rows.values():
            seconds = account.supervision_seconds
            if seconds:
                yield account.account, account.supervision or Supervision(seconds, seconds)

    def expectations_in_turns(self) -> Iterator[tuple[str, Supervision] | None]:
        """Return the same for one who goes on later where None comes: what is next is being read meanwhile."""
        return self.expectations()

    def key_for(self, account: Account) -> Key | None:
        """Return the key that opens an account's encrypted messages."""
        return account.key or self._default_key

    def refresh(self) -> Collection[str] | None:
        """Take what was changed elsewhere; return whose accounts, None for too many to name. A file is read on SIGHUP."""
        return ()

    def close(self) -> None:
        """Let go of what the register is kept in, and of the accounts in memory as soon as nobody asks for them."""
        weakref.finalize(self, self._rows.let_go).atexit = False

    def remark(self) -> str:
        """Return what is to be said of the register at a start, mostly nothing."""
        return ""

    def continues(self, before: "Accounts") -> bool:
        """Tell whether it is kept in the same place as another one, so that whoever is registered there is here."""
        return self is before

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of these texts that no account in the register has; from any thread."""
        return [name for name in names if (found := self._rows.get(name.upper())) is None or found.account != name]

    def rotating(self) -> list[Account]:
        """Return the accounts whose key is being rotated, or was: an old key stands in their entry."""
        return [account for account in self._rows.values() if account.old_key is not None]

    def supervised(self) -> list[Account]:
        """Return the accounts that have a supervision interval."""
        return [account for account in self._rows.values() if account.supervision_seconds]


def load(
    file: Path | None, default_key: Key | None, unknown: str, environment: Mapping[str, str] = os.environ,
    before: Accounts | None = None,
) -> Accounts:  # fmt: skip
    """Read the register; no file is an empty one. Accounts that are as they were ``before`` stay the same objects.

    Raises:
        ConfigError: with the line of every mistake (the first 20); keys are never repeated.
    """
    rows = read_csv(file, environment, before) if file else Table[Account]()
    return Accounts(rows, default_key, {"": None, "accept": True, "refuse": False}[unknown])


def read_csv(
    file: Path, environment: Mapping[str, str] = os.environ, before: Accounts | None = None, base: Path | None = None
) -> Table[Account]:
    """Read the CSV file into accounts by upper-case account, those that are as they were ``before`` as the same objects.

    A ``key_file`` in it is relative to ``base``, or to the file.

    Raises:
        ConfigError: the file cannot be read, or has mistakes.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:  # line by line: the text of a large register is 100 MB
            rows, mistakes = _read_table(csv.reader(lines), file, base or file.parent, environment, before)
    except FileNotFoundError:
        raise ConfigError(f"[accounts] file: there is no file {file}; the first accounts add makes it") from None
    except UnicodeDecodeError:
        raise ConfigError(f'{file} cannot be read: it is not in UTF-8; save it as "CSV UTF-8"') from None
    except (OSError, csv.Error) as error:
        raise ConfigError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if mistakes:
        if before is not None:
            rows.empty()  # before the error lets go of it in one go
        raise ConfigError(*mistakes)
    return rows


def _read_table(
    reader: "CsvReader", file: Path, base: Path, environment: Mapping[str, str], before: Accounts | None
) -> tuple[Table[Account], list[str]]:
    """Return accounts by upper-case account, and the mistakes in rows.

    Raises:
        ConfigError: the header is not ours.
    """
    header = [name.strip() for name in next(reader, [])]
    unknown = [name for name in header if name not in _READ]
    if "account" not in header or unknown:
        raise ConfigError(
            f"{file} line 1: expected a header of {','.join(COLUMNS)}, with commas, of which only account is required; "
            + (f"unknown: {', '.join(name or 'an empty name' for name in unknown)}" if unknown else "account is missing")
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise ConfigError(f"{file} line 1: the column {', '.join(twice)} stands twice; leave one out")
    return _read_rows(reader, header, file, base, environment, before)


def _read_rows(
    reader: "CsvReader", header: list[str], file: Path, base: Path, environment: Mapping[str, str], before: Accounts | None
) -> tuple[Table[Account], list[str]]:
    """Return accounts by upper-case account, and the first mistakes and how many more there are.

    A register of a million stands between a crash and the next signal: a row costs 2 to 3 µs and keeps half a kilobyte.
    """
    rows = Table[Account]()
    mistakes: list[str] = []
    more, add = 0, rows.add
    width = len(header)
    missing = [""] * (width + 1)  # for short rows, and one for the columns that the file has not
    columns = itemgetter(*[header.index(name) if name in header else width for name in _READ])
    for cells in reader:
        if not cells:
            continue  # an empty line
        try:
            if len(cells) > width:
                raise ConfigError("more cells than the header has columns")
            account = _read_row(map(str.strip, columns(cells + missing)), base, environment)
            name = account.account.upper()
            if before is not None and (known := before.in_memory(name)) == account:
                account = known
            if name == account.account:
                name = account.account  # one text in memory in place of two, and found by looking at one place less
            if not add(name, account):
                raise ConfigError(f"account {account.account} stands twice in the file")
        except (ConfigError, KeyFormatError) as error:
            if len(mistakes) < _SHOWN_MISTAKES:
                mistakes.append(f"{file} line {reader.line_num}: {error}")
            else:
                more += 1
    return rows, [*mistakes, f"{file}: {more} more mistakes"] if more else mistakes


def _shown(cell: str) -> str:
    """Show a cell that is wrong, unless it is as long as a key: with a comma too few, the key stands in another column."""
    return repr(cell) if len(cell) < _SHORTEST_KEY else f"a text of {len(cell)} characters"


def _read_row(cells: Iterable[str], base: Path, environment: Mapping[str, str]) -> Account:
    """Read the cells of one row, in the order of ``_READ``."""
    account, name, key_text, plaintext, interval, zone, dialect, site, instructions, key_file, old, old_until = cells
    if _is_account(account) is None:
        raise ConfigError(f"account is {_shown(account)}; it must be 1 to 16 letters and digits")
    key = _read_key(key_text, key_file, base, environment) if key_text or key_file else None
    plaintext = plaintext or ("refuse" if key else "accept")
    if plaintext not in ("refuse", "accept"):
        raise ConfigError(f"plaintext is {_shown(plaintext)}; it can be refuse, accept or empty")
    try:
        dialect = dialects.parse(dialect)
    except ConfigError as error:
        raise ConfigError(f"dialect is {_shown(dialect)}; {error}") from None
    supervision = parse(interval) if interval else None
    return Account(
        account, name or None, key, plaintext == "accept", supervision and supervision.primary_seconds,
        read_zone(zone) if zone else None, dialect, site or None, instructions or None, supervision=supervision,
        old_key=_read_old_key(old, old_until, key, base, environment) if old or old_until else None,
    )  # fmt: skip


def from_cells(row: Mapping[str, str]) -> Account:
    """Read the cells of one row by column; a key stands in the row itself.

    Raises:
        ConfigError: a cell is wrong. KeyFormatError: so is a key.
    """
    return _read_row([row.get(name, "") for name in _READ], Path(), {})


def _read_key(text: str, path: str, base: Path, environment: Mapping[str, str]) -> Key:
    if text and path:
        raise ConfigError("key and key_file are both given; leave one out")
    if path:
        text = key_text(path, base)
    if text.startswith("$"):
        text = resolve_secret(text, environment).text
    return Key.parse(text)


def key_text(path: str, base: Path) -> str:
    """Return the key that stands in a ``key_file``.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return (base / path).read_text("utf-8-sig").strip()
    except (OSError, ValueError):
        raise ConfigError(f"key_file {base / path} cannot be read") from None


def _read_old_key(text: str, until: str, key: Key | None, base: Path, environment: Mapping[str, str]) -> OldKey:
    if not text or not until or key is None:
        raise ConfigError("old_key, old_key_until and key belong together: a key is rotated from one to the other")
    try:
        return OldKey(_read_key(text, "", base, environment), clock.from_text(until) // clock.SECOND_US)
    except (ValueError, OverflowError):
        raise ConfigError(f"old_key_until is {_shown(until)}; it must be ISO 8601, 2026-11-23T14:00:00Z") from None


@lru_cache(maxsize=1000)  # a register has a handful of them, in a million rows
def read_zone(text: str) -> ZoneInfo:
    """Read the name of a time zone.

    Raises:
        ConfigError: there is none of that name.
    """
    try:
        return ZoneInfo(text)
    except (KeyError, ValueError, OSError):
        raise ConfigError(f"time_zone is {_shown(text)}; it must be a name such as Europe/Amsterdam, or empty") from None
