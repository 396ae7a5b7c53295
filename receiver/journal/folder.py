"""The journal's folder while it is in use: held against a second receiver, and still the one that was opened.

A file that was moved, deleted or hidden by an unmounted volume can be written to for hours; nobody will find what went
there. So the writer asks after each commit, before anybody hears of it, whether the paths lead to the files it has open.
"""

import fcntl
import os
import pwd
from contextlib import suppress
from pathlib import Path

from receiver.errors import ConfigError, JournalInUse
from receiver.journal.inode import Inode, inode

FILE_NAME = "journal.sqlite"
MARK_NAME = "journal.damaged"
_LOCK_NAME = "lock"
_BUSY_TEXT = "another receiver runs on {}: two must not share a journal"
Place = tuple[Inode, Inode]
"""What the paths of the log and of the file lead to."""


class Folder:
    """One data folder, locked."""

    def __init__(self, data_dir: Path) -> None:
        """Make the folder and hold it against a second receiver.

        Raises:
            JournalInUse: another receiver has it.
            ConfigError: it cannot be used.
        """
        self.path = data_dir
        self.file = data_dir / FILE_NAME
        self._names = str(self.file), f"{self.file}-wal"
        try:
            data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _lock(data_dir)
        except OSError as error:
            why = withheld(data_dir) if isinstance(error, PermissionError) else None
            raise ConfigError(f"data_dir {data_dir} cannot be used: {why or error.strerror}") from None

    def place(self) -> Place:
        """Return what the paths of the log and of the file lead to.

        Raises:
            OSError: one of them leads nowhere.
        """
        return inode(self._names[1]), inode(self._names[0])

    def log_place(self) -> Inode:
        """Return what the path of the log leads to; it is where a commit goes.

        Raises:
            OSError: it leads nowhere.
        """
        return inode(self._names[1])

    def reclaim(self) -> None:
        """Make sure that the folder is there and ours, before the journal in it is opened again; nothing is made anew.

        Raises:
            OSError: the folder or the journal is not there.
            JournalInUse: another receiver holds it.
        """
        os.stat(self._names[0])  # a journal that is gone is waited for: a new one would hide it
        held, found = os.fstat(self._lock), os.stat(self.path / _LOCK_NAME) if (self.path / _LOCK_NAME).exists() else None
        if found is None or (held.st_dev, held.st_ino) != (found.st_dev, found.st_ino):
            lock = _lock(self.path)
            os.close(self._lock)
            self._lock = lock

    def close(self) -> None:
        """Let another receiver have it."""
        os.close(self._lock)


def _lock(data_dir: Path) -> int:
    handle = os.open(data_dir / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise JournalInUse(_BUSY_TEXT.format(data_dir)) from None
    return handle


def withheld(data_dir: Path) -> str | None:
    """Say which of the folder and the files in it we may not use, why, and what to do; None when there is none."""
    closed = _closed(data_dir)
    if closed is None:
        return None
    path, found = closed
    we, owner = _user(os.geteuid()), _user(found.st_uid)
    if we == owner:
        return f"{path} has mode {found.st_mode & 0o7777:04o}, in which we may not read and write it; chmod u+rwX {path}"
    return (
        f"{path} belongs to {owner}, and we run as {we}; was a receiver or a command run there as {owner}? "
        f"Give the folder and all in it to one user: chown -R {we} {data_dir}"
    )


def barred(data_dir: Path) -> str | None:
    """Say as whom to read the journal, when we are not the one who may; None when we are."""
    closed = _closed(data_dir)
    if closed is None:
        return None
    path, found = closed
    we, owner = _user(os.geteuid()), _user(found.st_uid)
    if we == owner:
        return withheld(data_dir)
    who = "root" if owner == "root" else f"{owner} or as root"
    return f"{path} belongs to {owner}, and we run as {we}; run the command as {who}"


def _closed(data_dir: Path) -> tuple[Path, os.stat_result] | None:
    """Return the first of the folder and the files in it that we may not use, and whose it is."""
    for path in (data_dir, data_dir / _LOCK_NAME, *[data_dir / f"{FILE_NAME}{end}" for end in ("", "-wal", "-shm")]):
        mode = os.R_OK | os.W_OK | (os.X_OK if path == data_dir else 0)
        with suppress(OSError):
            found = os.stat(path)
            if not os.access(path, mode, effective_ids=True):
                return path, found
    return None


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def mark_damage(file: Path, what: str) -> None:
    """Leave a note that makes the next start check the whole file, however large, and carry over what can be read."""
    with suppress(OSError):
        handle = os.open(file.with_name(MARK_NAME), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as mark:
            mark.write(what)


def marked_damage(data_dir: Path) -> str | None:
    """Return what the note says, None when there is none."""
    try:
        return (data_dir / MARK_NAME).read_text("utf-8")
    except OSError:
        return None


def sync(path: Path) -> None:
    """Wait until what a file or folder holds is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
