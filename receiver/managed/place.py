"""Whether the register's files are still those that were opened: a backup may take their place while a receiver runs.

SQLite keeps to the files it has open, and would never tell of others. One that is opened beside the log or the index of
another, or twice in one process with two logs, is mixed with what stands there. So it is opened anew only where all of it
is another.
"""

import os
from pathlib import Path
from typing import NamedTuple

from receiver.errors import ConfigError

_Inode = tuple[int, int]


class Place(NamedTuple):
    """What the paths of the file, of its log and of the log's index lead to; None is nowhere."""

    file: _Inode | None
    log: _Inode | None
    log_index: _Inode | None


def place_of(file: Path) -> Place:
    """Return what is there now. Nothing is opened: to close it would drop the locks of this process."""
    return Place(*[_inode(f"{file}{end}") for end in ("", "-wal", "-shm")])


def _inode(path: str) -> _Inode | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def check(file: Path, opened: Place, to_follow: bool = False) -> None:
    """Make sure that the register there is the one that was opened or, ``to_follow`` it, one that can be opened beside it.

    Raises:
        ConfigError: it is not, and what to do.
    """
    now = place_of(file)
    if now == opened:
        return
    if now.file is None:
        why = "it is gone: bring it back, then send SIGHUP"
    elif now.file == opened.file:
        why = "its -wal or -shm file was taken away or replaced while it was in use: restart the receiver"
    elif (now.log and now.log == opened.log) or (now.log_index and now.log_index == opened.log_index):
        why = "another was put in its place, beside the -wal and -shm files of the one before: delete these two, then SIGHUP"
    elif to_follow:
        return
    else:
        why = "another was put in its place: send SIGHUP to read it"
    raise ConfigError(f"{file} is not the register that was opened; {why}")
