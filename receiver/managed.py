"""The managed register: accounts in a database of their own, keys encrypted under a master key, changed by commands.

``accounts.sqlite`` in the data folder. Commands write it, one at a time, while a receiver runs; a receiver only reads, looks
each second whether something changed, and keeps what it needs in memory: an account is read when its panel first reports
(15 µs) and again after it was changed. So a start costs the same with a thousand accounts and with a million.

An account's cells stand as JSON under their CSV columns, without the keys, which are sealed (``vault``). ``changes`` names
what was changed, NULL for so much that everything is to be read again.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from protocols.dc09 import Key
from protocols.errors import KeyFormatError
from receiver import accounts
from receiver.accounts import Account, Accounts
from receiver.config import AccountsSettings, Settings, resolve_secret
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.register import SECRET_COLUMNS, Change, Row
from receiver.vault import Vault

FILE_NAME = "accounts.sqlite"
CREDENTIAL = "dc09-master-key"
_FORMAT = 1
_BUSY_SECONDS = 30.0
_NAMED = 1000  # changes of one command that are named one by one
_CHANGES_KEPT = 100_000
_CHECK, _CHECKED = "the register's check value", "dc09-receiver"
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS accounts (
    account TEXT PRIMARY KEY, cells TEXT NOT NULL, key BLOB, old_key BLOB, supervised INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS supervised ON accounts (account) WHERE supervised = 1;
CREATE INDEX IF NOT EXISTS rotating ON accounts (account) WHERE old_key IS NOT NULL;
CREATE TABLE IF NOT EXISTS changes (revision INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
INSERT OR IGNORE INTO meta VALUES ('count', 0);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON accounts BEGIN
    UPDATE meta SET value = value + 1 WHERE name = 'count';
END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON accounts BEGIN
    UPDATE meta SET value = value - 1 WHERE name = 'count';
END;
PRAGMA user_version = 1;
COMMIT;
"""
_PUT = """INSERT INTO accounts VALUES (?, ?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET
    cells = excluded.cells, key = excluded.key, old_key = excluded.old_key, supervised = excluded.supervised"""
_GET = "SELECT cells, key, old_key FROM accounts WHERE account = ?"
_SEALED = ("key", "old_key")
Read = TypeVar("Read")


def load_accounts(settings: Settings, before: Accounts | None = None) -> Accounts:
    """Read the account register that the settings name, the CSV file or the managed one.

    A managed register that was opened ``before`` with the same settings goes on: it has every change already.

    Raises:
        ConfigError: with every mistake found.
    """
    chosen, default_key = settings.accounts, None
    if chosen.default_key:
        try:
            default_key = Key.parse(chosen.default_key.text)
        except KeyFormatError as error:
            raise ConfigError(f"[accounts] default_key: {error}") from None
    if chosen.store == "csv":
        return accounts.load(chosen.file, default_key, chosen.unknown)
    if chosen.file is not None:
        raise ConfigError('[accounts] file and store = "managed" are both given: accounts import FILE, then leave file out')
    if isinstance(before, ManagedAccounts) and before.settings == chosen and before.current:
        return before
    unknown = {"": None, "accept": True, "refuse": False}[chosen.unknown]
    store = ManagedStore(settings.receiver.data_dir, find_vault(settings))
    return ManagedAccounts(store, default_key, unknown, chosen.cached, chosen)


def find_vault(settings: Settings, environment: Mapping[str, str] = os.environ) -> Vault | None:
    """Return the vault of the master key: from the settings, or else from systemd's credentials; None without one.

    Raises:
        ConfigError: it cannot be read, or has another shape.
    """
    text = settings.accounts.master_key.text
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not text and folder and (Path(folder) / CREDENTIAL).exists():
        try:
            text = (Path(folder) / CREDENTIAL).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"the credential {CREDENTIAL} in {folder} cannot be read") from None
    return Vault(text) if text else None


class ManagedStore:
    """The database, for commands that change it and for the receiver that reads it."""

    after = "a running receiver takes it within a second"

    def __init__(self, data_dir: Path, vault: Vault | None) -> None:
        """Open the register, made if it is not there.

        Raises:
            ConfigError: it cannot be opened, or the master key is missing or another one.
        """
        self._file = data_dir / FILE_NAME
        self._vault = vault
        self.where = str(self._file)
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600))
            self._inode = os.stat(self._file).st_ino
            self._db = sqlite3.connect(self._file, timeout=_BUSY_SECONDS, isolation_level=None)
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _FORMAT):
                raise ConfigError(f"{self._file} has format {version}, this program reads format {_FORMAT}")
            if not version:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.executescript(_SCHEMA)
            self._db.execute("PRAGMA synchronous = FULL")
            self._check_vault()
        except sqlite3.Error as error:
            raise ConfigError(f"{self._file} cannot be opened: {error}") from None
        except OSError as error:
            raise ConfigError(f"{self._file} cannot be opened: {error.strerror}") from None

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def _check_vault(self) -> None:
        found = self._db.execute("SELECT value FROM meta WHERE name = 'check'").fetchone()
        if found is None:
            return  # no key was ever stored
        if self._vault is None:
            raise ConfigError(
                f"the keys in {self._file} are encrypted and no master key is given: set [accounts] master_key_file, "
                f"DC09_ACCOUNTS_MASTER_KEY, or the systemd credential {CREDENTIAL}"
            )
        try:
            self._vault.unseal(found[0], _CHECK)
        except ConfigError:
            raise ConfigError(f"the master key is not the one that the keys in {self._file} were encrypted under") from None

    def current(self) -> bool:
        """Tell whether the file at the path is the one that is open."""
        try:
            return os.stat(self._file).st_ino == self._inode
        except OSError:
            return False

    # -- changing it ----------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise ConfigError(f"{self._file} cannot be written: {error}") from None

    def change(self, account: str, change: Change) -> None:
        """Change one account."""
        name = account.upper()
        with self._writing():
            found = self._db.execute(_GET, (name,)).fetchone()
            row = change(None if found is None else self._row(name, found, with_keys=True))
            if row is None:
                self._db.execute("DELETE FROM accounts WHERE account = ?", (name,))
            else:
                self._db.execute(_PUT, self._sealed(row, Path()))
            self._note([name])

    def put(self, rows: Iterable[Row], base: Path) -> int:
        """Add or replace accounts; columns that are not given stay as they are."""
        names: list[str] = []
        with self._writing():
            fresh = not self.count()
            for row in rows:
                name = row["account"].upper()
                found = None if fresh else self._db.execute(_GET, (name,)).fetchone()
                whole = row if found is None else self._row(name, found, with_keys=True) | row
                self._db.execute(_PUT, self._sealed(whole, base))
                names.append(name)
            self._note(names)
        return len(names)

    def _note(self, names: list[str]) -> None:
        noted: list[str | None] = [*names] if len(names) <= _NAMED else [None]
        self._db.executemany("INSERT INTO changes (account) VALUES (?)", [(name,) for name in noted])
        self._db.execute("DELETE FROM changes WHERE revision <= (SELECT MAX(revision) FROM changes) - ?", (_CHANGES_KEPT,))

    def _sealed(self, row: Row, base: Path) -> tuple[str, str, bytes | None, bytes | None, int]:
        """Check a row and return what is stored of it.

        Raises:
            ConfigError: it is no account, or has a key and there is no master key.
        """
        row = {name: text for name, text in row.items() if text}
        if path := row.pop("key_file", None):
            row["key"] = accounts.key_text(path, base)
        for column in _SEALED:
            if column in row:
                row[column] = resolve_secret(row[column]).text
        try:
            account = accounts.from_cells(row)
        except KeyFormatError as error:
            raise ConfigError(f"account {row.get('account')}: {error}") from None
        name = account.account.upper()
        key, old_key = (self._seal(row.pop(column, None), f"{column} of account {name}") for column in _SEALED)
        return name, json.dumps(row), key, old_key, int(account.supervision_seconds is not None)

    def _seal(self, text: str | None, place: str) -> bytes | None:
        if text is None:
            return None
        if self._vault is None:
            raise ConfigError(
                "keys of the managed register are stored encrypted and no master key is given: make one (openssl rand -hex "
                f"32) and set [accounts] master_key_file, DC09_ACCOUNTS_MASTER_KEY, or the systemd credential {CREDENTIAL}"
            )
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('check', ?)", (self._vault.seal(_CHECKED, _CHECK),))
        return self._vault.seal(text, place)

    # -- reading it -----------------------------------------------------------------------------------------------

    def _row(self, name: str, found: tuple[str, bytes | None, bytes | None], with_keys: bool) -> Row:
        cells, *sealed = found
        row: Row = json.loads(cells)
        for column, blob in zip(_SEALED, sealed, strict=True):
            if blob is not None and with_keys:
                if self._vault is None:
                    raise ConfigError(f"the {column} of account {name} is encrypted and no master key is given")
                row[column] = self._vault.unseal(blob, f"{column} of account {name}")
        return row

    def rows(self, with_keys: bool) -> Iterator[Row]:
        """Return every account's row."""
        for name, *found in self._db.execute("SELECT account, cells, key, old_key FROM accounts ORDER BY account"):
            row = self._row(name, (found[0], found[1], found[2]), with_keys)
            yield {column: text for column, text in row.items() if with_keys or column not in SECRET_COLUMNS}

    def find(self, name: str) -> Account | None:
        """Return the account of an upper-case name, None when there is none.

        Raises:
            ConfigError: its entry cannot be read.
            sqlite3.Error: the file cannot be read.
        """
        found = self._db.execute(_GET, (name,)).fetchone()
        return None if found is None else accounts.from_cells(self._row(name, found, with_keys=True))

    def select(self, condition: str = "1") -> Iterator[Account]:
        """Return the accounts that a condition in SQL chooses."""
        query = f"SELECT account, cells, key, old_key FROM accounts WHERE {condition}"  # noqa: S608 - our own words
        for name, cells, key, old_key in self._db.execute(query):
            yield accounts.from_cells(self._row(name, (cells, key, old_key), with_keys=True))

    def names(self, supervised: bool = False) -> set[str]:
        """Return the names of the accounts as they were given, of all or of the supervised ones."""
        chosen = "supervised = 1" if supervised else "1"
        query = f"SELECT json_extract(cells, '$.account') FROM accounts WHERE {chosen}"  # noqa: S608 - our own words
        return {name for (name,) in self._db.execute(query)}

    def count(self) -> int:
        """Return how many accounts there are."""
        return int(self._db.execute("SELECT value FROM meta WHERE name = 'count'").fetchone()[0])

    def version(self) -> int:
        """Return a number that differs after another process has changed the file."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def revision(self) -> int:
        """Return the number of the latest change."""
        return int(self._db.execute("SELECT COALESCE(MAX(revision), 0) FROM changes").fetchone()[0])

    def changed_since(self, revision: int) -> set[str] | None:
        """Return the accounts changed after a revision, None for too many to name."""
        oldest = self._db.execute("SELECT COALESCE(MIN(revision), 0) FROM changes").fetchone()[0]
        names = {name for (name,) in self._db.execute("SELECT account FROM changes WHERE revision > ?", (revision,))}
        return None if None in names or oldest > revision + 1 else names


class ManagedAccounts(Accounts):
    """The managed register as the receiver asks it: what was asked for is kept in memory, up to ``cached`` accounts."""

    def __init__(
        self, store: ManagedStore, default_key: Key | None, unknown: bool | None, cached: int,
        settings: AccountsSettings | None = None,
    ) -> None:  # fmt: skip
        self._kept: dict[str, Account] = {}
        super().__init__(self._kept, default_key, unknown)
        self._store, self._unknown, self._cached, self.settings = store, unknown, cached, settings
        self._version = store.version()
        self.revision = store.revision()
        self._count_anew()

    @property
    def current(self) -> bool:
        """Whether the file is still the one that was opened, and not one brought back from elsewhere."""
        return self._store.current()

    def _count_anew(self) -> None:
        self._count = self._store.count()
        self.accept_unknown = not self._count if self._unknown is None else self._unknown

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Account]:
        return self._store.select()

    def find(self, account: str) -> Account:
        """Return the account, or a stranger when none such is registered.

        Raises:
            RegisterUnavailable: it cannot be read now.
        """
        found = self._kept.get(account)
        return found if found is not None else self._look_up(account.upper())

    def _look_up(self, name: str) -> Account:
        found = self._kept.get(name) or _reading(lambda: self._store.find(name))
        if found is None:
            return self._stranger
        if len(self._kept) >= self._cached and name not in self._kept:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = found
        return found

    def supervised(self) -> list[Account]:
        """Return the accounts that have a supervision interval."""
        return list(self._store.select("supervised = 1"))

    def rotating(self) -> list[Account]:
        """Return the accounts whose key is being rotated, or was."""
        return list(self._store.select("old_key IS NOT NULL"))

    def supervised_names(self) -> set[str]:
        """Return the names of the accounts that have a supervision interval."""
        return _reading(lambda: self._store.names(supervised=True))

    def names(self) -> set[str]:
        """Return the names of all accounts."""
        return _reading(self._store.names)

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()

    def refresh(self) -> Collection[str] | None:
        """Take what commands have changed since the last look; return whose accounts, None for too many to name.

        Raises:
            RegisterUnavailable: the file cannot be read now.
        """
        version = _reading(self._store.version)
        if version == self._version:
            return ()
        revision = _reading(self._store.revision)
        names = _reading(lambda: self._store.changed_since(self.revision))
        for name in list(self._kept) if names is None else names:
            self._kept.pop(name, None)
        _reading(self._count_anew)
        self._version, self.revision = version, revision
        return names


def _reading(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except (sqlite3.Error, ConfigError, KeyFormatError, ValueError) as error:
        raise RegisterUnavailable(f"the account register cannot be read: {error}") from error
