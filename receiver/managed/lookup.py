"""The managed register as the receiver asks it: an account is read when its panel reports, and kept until it is changed."""

import sqlite3
from collections.abc import Callable, Collection, Iterator
from typing import TypeVar

from protocols.dc09 import Key
from protocols.errors import KeyFormatError
from receiver.accounts import Account, Accounts
from receiver.config import AccountsSettings
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.intervals import Supervision
from receiver.managed.store import ManagedStore

Read = TypeVar("Read")


class ManagedAccounts(Accounts):
    """The managed register as the receiver asks it: what was asked for is kept in memory, up to ``cached`` accounts."""

    def __init__(
        self, store: ManagedStore, default_key: Key | None, unknown: bool | None, cached: int,
        settings: AccountsSettings | None = None,
    ) -> None:  # fmt: skip
        self._kept: dict[str, Account] = {}
        super().__init__(self._kept, default_key, unknown)
        self._store, self._unknown, self._cached, self.settings = store, unknown, cached, settings
        self._version = _reading(store.version)
        self.revision = _reading(store.revision)
        _reading(self._count_anew)

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
        return iter(_reading(lambda: list(self._store.select())))

    def find(self, account: str) -> Account:
        """Return the account, or a stranger when none such is registered.

        Raises:
            RegisterUnavailable: it cannot be read now.
        """
        found = self._kept.get(account)
        return found if found is not None else self._look_up(account.upper())

    def _look_up(self, name: str) -> Account:
        found = self._registered(name)
        if found is None:
            return self._padded(name)
        if len(self._kept) >= self._cached and name not in self._kept:
            del self._kept[next(iter(self._kept))]
        self._kept[name] = found
        return found

    def _registered(self, name: str) -> Account | None:
        return self._kept.get(name) or _reading(lambda: self._store.find(name))

    def expectations(self) -> Iterator[tuple[str, Supervision]]:
        """Return each supervised account and what is expected of it, a page at a time; no key is opened."""
        after = ""
        while page := _reading(lambda: self._store.supervised_page(after)):  # noqa: B023 - read at once
            after = page[-1][0]
            for _, account, supervision in page:
                yield account, supervision

    def supervised(self) -> list[Account]:
        """Return the accounts that have a supervision interval."""
        return _reading(lambda: list(self._store.select("supervised = 1")))

    def rotating(self) -> list[Account]:
        """Return the accounts whose key is being rotated, or was; over a connection of its own, so from any thread.

        Raises:
            RegisterUnavailable: it cannot be read now.
        """

        def read() -> list[Account]:
            store = self._store.another()
            try:
                return list(store.select("old_key IS NOT NULL"))
            finally:
                store.close()

        return _reading(read)

    def names(self) -> set[str]:
        """Return the names of all accounts."""
        return _reading(self._store.names)

    def remark(self) -> str:
        """Say that the settings hold the old master key, if they do."""
        old = "the settings still hold the old master key, which opens the register until accounts rotate-master --finish"
        return old if self._store.by_old_master else ""

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
        _reading(self._store.renew_vault)
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
