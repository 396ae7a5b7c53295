"""The managed register as the receiver asks it: an account is read when its panel reports, and kept until it is changed."""

from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import TypeVar, cast

from protocols.dc09 import Key
from receiver import dialects
from receiver.accounts import Account, Accounts, Found, Unread
from receiver.config import AccountsSettings
from receiver.errors import RegisterUnavailable
from receiver.intervals import Supervision
from receiver.managed.reading import FAULTS, Answer, Entry, ReadingThread, Supervised, look_up, unavailable
from receiver.managed.store import ManagedStore
from receiver.tables import Table

Read = TypeVar("Read")
Value = TypeVar("Value")
_ASKED_AT_ONCE = 500  # texts in one question
_SILENT = "the account register has not answered for some seconds: its disk hangs"


class ManagedAccounts(Accounts):
    """The managed register as the receiver asks it: what was asked for is kept in memory, up to ``cached`` accounts."""

    def __init__(
        self, store: ManagedStore, default_key: Key | None, unknown: bool | None, cached: int,
        settings: AccountsSettings | None = None,
    ) -> None:  # fmt: skip
        self._kept = Table[Account]()
        self._absent = Table[Entry]()  # names that are not registered
        self._failed: dict[str, RegisterUnavailable] = {}  # what was asked for and could not be read
        self._desperate = False
        self._thread = ReadingThread(store.another)
        super().__init__(self._kept, default_key, unknown)
        self._store, self._unknown, self._cached, self.settings = store, unknown, cached, settings
        self._version = _reading(store.version)
        self.revision = _reading(store.revision)
        _reading(self._count_anew)

    @property
    def current(self) -> bool:
        """Whether the file is still the one that was opened, and not one brought back from elsewhere."""
        return self._store.current()

    def check_successor(self) -> None:
        """Make sure that the file that is there now can be opened while this one is.

        Raises:
            ConfigError: it cannot, and what to do.
        """
        self._store.check_place(to_follow=True)

    def _count_anew(self) -> None:
        self._count = self._store.count()
        self.accept_unknown = not self._count if self._unknown is None else self._unknown

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Account]:
        return iter(_reading(lambda: list(self._store.select())))

    def known(self, account: str) -> Account:
        """Return an account that is in memory, or a stranger when it is known that none such is registered.

        Raises:
            Unread: it has to be read first.
            RegisterUnavailable: it cannot be read now.
        """
        found = self._kept.get(account)
        if found is not None:
            return found
        name = account.upper()
        if (found := self._kept.get(name)) is not None:
            return found
        if (absent := self._absent.get(name)) is not None:
            near = absent.near
            return near if near is not None and dialects.pads_account(near.dialect) else self._stranger
        if name in self._failed:
            raise self._failed.pop(name)  # for the first that waited; the next one asks again
        if self._desperate:
            raise RegisterUnavailable(_SILENT)
        raise Unread(name)

    def find(self, account: str) -> Account:
        """Return the account, or a stranger when none such is registered; what is not in memory is read at once.

        Raises:
            RegisterUnavailable: it cannot be read now.
        """
        try:
            return self.known(account)
        except Unread as unread:
            self._keep(unread.name, look_up(self._store, unread.name))
            return self.known(account)

    def unpadded(self, account: str) -> Account | None:
        """Return the account that is registered without the zeros in front of this one, which was asked for before."""
        absent = self._absent.get(account.upper())
        return None if absent is None else absent.near

    def read(self, names: Collection[str], done: Callable[[Found], None]) -> None:
        """Read accounts in a thread and call ``done`` there."""
        asked_at = self.revision
        self._thread.ask(names, lambda answer: done((asked_at, answer)))

    def keep(self, found: Found) -> None:
        """Put into memory what was read, unless the register was changed meanwhile: then it is read again."""
        self._desperate = False
        asked_at, answer = cast("tuple[int, Answer]", found)
        if asked_at != self.revision:
            return
        for name, entry in answer.items():
            if isinstance(entry, Entry):
                self._keep(name, entry)
            else:
                self._failed[name] = entry

    def _keep(self, name: str, entry: Entry) -> None:
        if entry.account is None:
            _put(self._absent, name, entry, self._cached)
        else:
            _put(self._kept, name, entry.account, self._cached)

    def despair(self) -> None:
        """Take note that the thread's disk hangs."""
        self._desperate = True

    def expectations(self) -> Iterator[tuple[str, Supervision]]:
        """Return each supervised account and what is expected of it, a page at a time; no key is opened."""
        after = ""
        while page := _reading(lambda: self._store.supervised_page(after)):  # noqa: B023 - read at once
            after = page[-1][0]
            for _, account, supervision in page:
                yield account, supervision

    def expectations_in_turns(self) -> Iterator[tuple[str, Supervision] | None]:
        """Return the same, read in a thread: None where it has not come yet.

        Raises:
            RegisterUnavailable: it cannot be read now.
        """
        answers: list[Supervised | RegisterUnavailable] = []
        self._thread.ask_supervised("", answers.append)
        return self._in_turns(answers)

    def _in_turns(self, answers: list[Supervised | RegisterUnavailable]) -> Iterator[tuple[str, Supervision] | None]:
        while True:
            while not answers:
                yield None
            answer = answers.pop()
            if isinstance(answer, RegisterUnavailable):
                raise answer
            if not answer:
                return
            self._thread.ask_supervised(answer[-1][0], answers.append)
            for _, account, supervision in answer:
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

    def continues(self, before: Accounts) -> bool:
        """Tell whether another one has the same file."""
        return isinstance(before, ManagedAccounts) and before._store.same_file(self._store)

    def missing(self, names: Iterable[str]) -> list[str]:
        """Return those of these texts that no account in the register has; over a connection of its own.

        Raises:
            RegisterUnavailable: it cannot be read now.
        """

        def read() -> list[str]:
            store, rest, missing = self._store.another(), iter(names), list[str]()
            try:
                while some := list(islice(rest, _ASKED_AT_ONCE)):
                    there = store.spelled([name.upper() for name in some])
                    missing += [name for name in some if name not in there]
                return missing
            finally:
                store.close()

        return _reading(read)

    def remark(self) -> str:
        """Say that the settings hold the old master key, if they do."""
        old = "the settings still hold the old master key, which opens the register until accounts rotate-master --finish"
        return old if self._store.by_old_master else ""

    def close(self) -> None:
        """Let go of the file."""
        self._thread.close()
        self._store.close()
        super().close()

    def refresh(self) -> Collection[str] | None:
        """Take what commands have changed since the last look; return whose accounts, None for too many to name.

        Raises:
            RegisterUnavailable: the file cannot be read now.
        """
        if self._desperate:
            raise RegisterUnavailable(_SILENT)
        _reading(self._store.check_place)
        version = _reading(self._store.version)
        if version == self._version:
            return ()
        _reading(self._store.renew_vault)
        revision = _reading(self._store.revision)
        names = _reading(lambda: self._store.changed_since(self.revision))
        if names is None:
            self._kept.let_go()
            self._kept = self._rows = Table()
        else:
            for name in names:
                if self._kept.get(name) is not None:
                    self._kept.take(name)
        if self._absent:
            self._absent.let_go()
            self._absent = Table()
        _reading(self._count_anew)
        self._version, self.revision = version, revision
        return names


def _put(memory: Table[Value], name: str, value: Value, most: int) -> None:
    """Put a value under a name; one that was there longer goes where there are too many."""
    if memory.get(name) is not None:
        memory.take(name)
    elif len(memory) >= most:
        memory.make_way(name)
    memory.put(name, value)


def _reading(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except FAULTS as error:
        raise unavailable(error) from error
