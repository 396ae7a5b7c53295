"""The database of the managed register: commands change it, each in one transaction, and the receiver reads it."""

import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from protocols.errors import KeyFormatError
from receiver import accounts, intervals, ownership
from receiver.accounts import Account
from receiver.config import resolve_secret
from receiver.errors import ConfigError
from receiver.intervals import Supervision
from receiver.managed import place
from receiver.register import SECRET_COLUMNS, Change, Row
from receiver.vault import Vault

FILE_NAME = "accounts.sqlite"
CREDENTIAL = "dc09-master-key"
_FORMAT = 1
_BUSY_SECONDS = 30.0
_NAMED = 1000  # changes of one command that are named one by one
_CHANGES_KEPT = 100_000
_CHECK, _CHECKED = "the register's check value", "dc09-receiver"
_NEXT = "the next master key"
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
_TABLES = {"accounts", "changes", "meta"}
_PUT = """INSERT INTO accounts VALUES (?, ?, ?, ?, ?) ON CONFLICT (account) DO UPDATE SET
    cells = excluded.cells, key = excluded.key, old_key = excluded.old_key, supervised = excluded.supervised"""
_GET = "SELECT cells, key, old_key FROM accounts WHERE account = ?"
_SEALED = ("key", "old_key")
_SEALED_PAGE = """SELECT account, key, old_key FROM accounts
    WHERE (key IS NOT NULL OR old_key IS NOT NULL) AND account > ? ORDER BY account LIMIT 1000"""
_PAGE = "SELECT account, cells FROM accounts WHERE supervised = 1 AND account > ? ORDER BY account LIMIT 1000"


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
        self.by_old_master = False
        """Whether the master key given is the one before, and the new one was found in the register."""
        self.where = str(self._file)
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileExistsError):  # to open and close one that is there would drop all locks of this process on it
                handle = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                ownership.hand_over(handle, data_dir)  # SQLite gives the files beside it to the same owner
                os.close(handle)
            self._db = sqlite3.connect(self._file, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
            try:
                self._open(data_dir)
                self._place = place.place_of(self._file)
            except BaseException:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise ConfigError(f"{self._file} cannot be opened: {error}") from None
        except OSError as error:
            raise ConfigError(f"{self._file} cannot be opened: {error.strerror}") from None

    def _open(self, data_dir: Path) -> None:
        """Look whether the file is ours, or make it ours."""
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _FORMAT):
            raise ConfigError(f"{self._file} has format {version}, this program reads format {_FORMAT}")
        if self._is_foreign(version):
            raise ConfigError(
                f"{self._file} is a database, and no register of this program; move it away, or look at [receiver] data_dir"
            )
        if not version:
            self._make(data_dir)
        self._db.execute("PRAGMA synchronous = FULL")
        self.renew_vault()

    def _is_foreign(self, version: int) -> bool:
        found = self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT GLOB 'sqlite_*'")
        tables = {name for (name,) in found}
        return not (tables >= _TABLES if version else tables <= _TABLES)

    def _make(self, data_dir: Path) -> None:
        """Make the tables, one process at a time: SQLite does not wait for one that turns a new file to its log."""
        folder = os.open(data_dir, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if not self._db.execute("PRAGMA user_version").fetchone()[0]:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.executescript(_SCHEMA)
        finally:
            os.close(folder)

    def another(self) -> "ManagedStore":
        """Open the register once more.

        Raises:
            ConfigError: it cannot be opened, or another one is in its place.
        """
        self.check_place()
        return ManagedStore(self._file.parent, self._vault)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def renew_vault(self) -> None:
        """See that our master key is the register's; take the new one while it is being changed.

        Raises:
            ConfigError: it is missing, or another one.
            sqlite3.Error: the file cannot be read.
        """
        found = self._meta("check")
        if found is None:
            return  # no key was ever stored
        if self._vault is None:
            raise ConfigError(
                f"the keys in {self._file} are encrypted and no master key is given: set [accounts] master_key_file, "
                f"DC09_ACCOUNTS_MASTER_KEY, or the systemd credential {CREDENTIAL}"
            )
        if self._vault.opens(found, _CHECK):
            return
        new = self._meta("next")
        if new is None or not self._vault.opens(new, _NEXT):
            raise ConfigError(f"the master key is not the one that the keys in {self._file} were encrypted under")
        self._vault, self.by_old_master = Vault(self._vault.unseal(new, _NEXT)), True

    def _meta(self, name: str) -> bytes | None:
        found = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def current(self) -> bool:
        """Tell whether what is at the path is what was opened."""
        return place.place_of(self._file) == self._place

    def same_file(self, other: "ManagedStore") -> bool:
        """Tell whether another one has the same file open."""
        return self._place.file == other._place.file

    def check_place(self, to_follow: bool = False) -> None:
        """Make sure that the register at the path is this one or, ``to_follow`` it, one that can be opened beside it.

        Raises:
            ConfigError: it is not, and what to do.
        """
        place.check(self._file, self._place, to_follow)

    # -- changing it ----------------------------------------------------------------------------------------------

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self.renew_vault()  # another command may have changed the master key since
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

    def reseal(self, text: str) -> int:
        """Encrypt every key under a new master key, all or none; return how many accounts have one.

        The new master key is left in the register, sealed under the old one, until ``finish``: whoever has the register open
        goes on, and so does who starts with the old one.

        Raises:
            ConfigError: it is no master key, or the one there is; there is no key yet; a key does not open; or an earlier
                change is not finished. Nothing is changed.
        """
        new, count, after = Vault(text), 0, ""
        self._db.execute("PRAGMA secure_delete = ON")  # what was sealed under the old one is overwritten
        with self._writing():
            old, check = self._vault, self._meta("check")
            if old is None or check is None:
                raise ConfigError(f"no key in {self._file} is encrypted yet: just set the new master key")
            if self._meta("next") is not None:
                raise ConfigError("an earlier change of the master key is not finished: accounts rotate-master --finish")
            if new.opens(check, _CHECK):
                raise ConfigError("the new master key is the one that the register has")
            while page := self._db.execute(_SEALED_PAGE, (after,)).fetchall():
                after, count = page[-1][0], count + len(page)
                self._db.executemany(
                    "UPDATE accounts SET key = ?, old_key = ? WHERE account = ?", [_moved(row, old, new) for row in page]
                )
            self._db.execute("UPDATE meta SET value = ? WHERE name = 'check'", (new.seal(_CHECKED, _CHECK),))
            self._db.execute("INSERT INTO meta VALUES ('next', ?)", (old.seal(text, _NEXT),))
        self._vault = new
        return count

    def finish(self) -> bool:
        """End a change of the master key: the old one opens nothing any more; tell whether no trace of it is left.

        Raises:
            ConfigError: there is none, or ours is still the old one.
        """
        self._db.execute("PRAGMA secure_delete = ON")
        with self._writing():
            if self._meta("next") is None:
                raise ConfigError("no change of the master key is under way")
            if self.by_old_master:
                raise ConfigError(
                    "the settings still hold the old master key: put the new one in its place, send SIGHUP to a running "
                    "receiver, then finish"
                )
            self._db.execute("DELETE FROM meta WHERE name = 'next'")
        busy, _, _ = self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy

    # -- reading it -----------------------------------------------------------------------------------------------

    def _row(self, name: str, found: tuple[str, bytes | None, bytes | None], with_keys: bool) -> Row:
        cells, *sealed = found
        row: Row = json.loads(cells)
        for column, blob in zip(_SEALED, sealed, strict=True):
            if blob is not None and with_keys:
                row[column] = self._unseal(blob, f"{column} of account {name}")
        return row

    def _unseal(self, blob: bytes, place: str) -> str:
        if self._vault is None:
            raise ConfigError(f"the {place} is encrypted and no master key is given")
        try:
            return self._vault.unseal(blob, place)
        except ConfigError:
            self.renew_vault()  # the master key was changed a moment ago, or this key is damaged
            return self._vault.unseal(blob, place)

    def rows(self, with_keys: bool) -> Iterator[Row]:
        """Return every account's row."""
        try:
            for name, *found in self._db.execute("SELECT account, cells, key, old_key FROM accounts ORDER BY account"):
                row = self._row(name, (found[0], found[1], found[2]), with_keys)
                yield {column: text for column, text in row.items() if with_keys or column not in SECRET_COLUMNS}
        except sqlite3.Error as error:
            raise ConfigError(f"{self._file} cannot be read: {error}") from None

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

    def supervised_page(self, after: str) -> list[tuple[str, str, Supervision]]:
        """Return the next supervised accounts behind an upper-case one: that name, the account as given, its supervision."""
        found = [(name, json.loads(cells)) for name, cells in self._db.execute(_PAGE, (after,))]
        return [(name, row["account"], intervals.parse(row["supervision_seconds"])) for name, row in found]

    def spelled(self, names: Sequence[str]) -> set[str]:
        """Return the accounts of these upper-case names as they were given."""
        query = f"SELECT json_extract(cells, '$.account') FROM accounts WHERE account IN ({','.join('?' * len(names))})"  # noqa: S608
        return {name for (name,) in self._db.execute(query, names)}

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
        """Return the accounts changed after a revision, None for too many to name, or where there was no such revision."""
        if self.revision() < revision:
            return None  # a backup was brought back into the file: what it undoes stands nowhere
        oldest = self._db.execute("SELECT COALESCE(MIN(revision), 0) FROM changes").fetchone()[0]
        names = {name for (name,) in self._db.execute("SELECT account FROM changes WHERE revision > ?", (revision,))}
        return None if None in names or oldest > revision + 1 else names


def _moved(row: tuple[str, bytes | None, bytes | None], old: Vault, new: Vault) -> tuple[bytes | None, bytes | None, str]:
    """Return the keys of an account sealed anew, in the order of the statement that stores them."""
    name, *sealed = row
    places = [f"{column} of account {name}" for column in _SEALED]
    key, old_key = (
        None if blob is None else new.seal(old.unseal(blob, place), place)
        for blob, place in zip(sealed, places, strict=True)
    )
    return key, old_key, name
