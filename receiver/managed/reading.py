"""A thread that reads accounts of the managed register, so that the disk holds up nobody but their panels."""

import queue
import sqlite3
import threading
from collections.abc import Callable, Collection
from typing import NamedTuple

from protocols.errors import KeyFormatError
from receiver.accounts import Account
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.managed.store import ManagedStore

FAULTS = (sqlite3.Error, ConfigError, KeyFormatError, ValueError)
"""What reading the register may end in."""


class Entry(NamedTuple):
    """What a name as sent stands for: an account, or else the one that is registered without the zeros in front of it."""

    account: Account | None
    near: Account | None = None


Answer = dict[str, Entry | RegisterUnavailable]
_Job = tuple[Collection[str], Callable[[Answer], None]]


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
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="register", daemon=True)
            self._thread.start()
        self._jobs.put((names, done))

    def close(self) -> None:
        """Let go of the file, once what was asked is read."""
        self._jobs.put(None)

    def _run(self) -> None:
        store: ManagedStore | None = None
        while (job := self._jobs.get()) is not None:
            names, done = job
            answer: Answer = {}
            for name in names:
                try:
                    store = store or self._open()
                    answer[name] = look_up(store, name)
                except RegisterUnavailable as error:
                    answer[name] = error
                except FAULTS as error:
                    answer[name] = unavailable(error)
            done(answer)
        if store is not None:
            store.close()
