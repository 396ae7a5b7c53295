"""A thread that reads accounts of the managed register, so that the disk holds up nobody but their panels."""

import queue
import sqlite3
import threading
from collections.abc import Callable, Collection
from typing import NamedTuple

from protocols.errors import KeyFormatError
from receiver.accounts import Account
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.intervals import Supervision
from receiver.managed.store import ManagedStore

FAULTS = (sqlite3.Error, ConfigError, KeyFormatError, ValueError)
"""What reading the register may end in."""


class Entry(NamedTuple):
    """What a name as sent stands for: an account, or else the one that is registered without the zeros in front of it."""

    account: Account | None
    near: Account | None = None


Answer = dict[str, Entry | RegisterUnavailable]
Supervised = list[tuple[str, str, Supervision]]
"""Upper-case accounts, as they were given, and what is expected of them."""
_Job = tuple[Callable[[ManagedStore], None], Callable[[RegisterUnavailable], None]]
"""What is to be done with the register, and what where it cannot be opened."""
_PAGES = 5  # of supervised accounts read at once, 20 ms: what a look of supervision takes


def unavailable(error: Exception) -> RegisterUnavailable:
    """Say why the register cannot be read."""
    return RegisterUnavailable(f"the account register cannot be read: {error}")


def look_up(store: ManagedStore, name: str) -> Entry:
    """Read what an upper-case name stands for.

    Raises:
        RegisterUnavailable: it cannot be read now.
    """
    try:
        found = store.find(name)
        return Entry(found, store.find(name.lstrip("0")) if found is None and name[:1] == "0" else None)
    except FAULTS as error:
        raise unavailable(error) from error


class ReadingThread:
    """Reads in the order asked, over a connection of its own; it begins with the first question."""

    def __init__(self, open_store: Callable[[], ManagedStore]) -> None:
        self._open = open_store
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, names: Collection[str], done: Callable[[Answer], None]) -> None:
        """Read accounts and call ``done`` with them, in the thread."""

        def work(store: ManagedStore) -> None:
            answer: Answer = {}
            for name in names:
                try:
                    answer[name] = look_up(store, name)
                except RegisterUnavailable as error:
                    answer[name] = error
            done(answer)

        self._put(work, lambda error: done(dict.fromkeys(names, error)))

    def ask_supervised(self, after: str, done: Callable[[Supervised | RegisterUnavailable], None]) -> None:
        """Read the supervised accounts behind an upper-case one, as many as are looked at in a second."""

        def work(store: ManagedStore) -> None:
            found: Supervised = []
            try:
                for _ in range(_PAGES):
                    found += store.supervised_page(found[-1][0] if found else after)
            except FAULTS as error:
                done(unavailable(error))
            else:
                done(found)

        self._put(work, done)

    def _put(self, work: Callable[[ManagedStore], None], failed: Callable[[RegisterUnavailable], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="register", daemon=True)
            self._thread.start()
        self._jobs.put((work, failed))

    def close(self) -> None:
        """Let go of the file, once what was asked is read."""
        self._jobs.put(None)

    def _run(self) -> None:
        store: ManagedStore | None = None
        while (job := self._jobs.get()) is not None:
            work, failed = job
            try:
                store = store or self._open()
            except FAULTS as error:
                failed(unavailable(error))
            else:
                work(store)
        if store is not None:
            store.close()
