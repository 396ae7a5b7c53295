"""Whose the files are that commands make: a receiver runs as a user of its own, and root's commands must not lock it out."""

import os
from pathlib import Path


def hand_over(handle: int, beside: Path) -> None:
    """Give what root has open, and has just made, to the owner of the folder it stands in; anybody else's stays theirs.

    Raises:
        OSError: the folder is not there.
    """
    if os.geteuid() == 0:
        owner = os.stat(beside)
        os.fchown(handle, owner.st_uid, owner.st_gid)


def make_folder(folder: Path) -> None:
    """Make a folder of mode 0700 if it is not there; root's is that of the folder it stands in.

    Raises:
        OSError: it cannot be made.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        hand_over(handle, folder.parent)
    finally:
        os.close(handle)


def keep_as_it_was(handle: int, before: Path) -> None:
    """Give a file that takes the place of another one its owner, group and mode.

    Raises:
        PermissionError: it belongs to somebody else.
        OSError: there is none before it.
    """
    was, now = os.stat(before), os.fstat(handle)
    if (was.st_uid, was.st_gid) != (now.st_uid, now.st_gid):
        os.fchown(handle, was.st_uid, was.st_gid)
    os.fchmod(handle, was.st_mode & 0o777)
