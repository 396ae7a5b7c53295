"""Which file a path leads to, asked for without its times.

``os.stat`` asks for all there is. Linux gives a file whose times were asked for a new time at its next write (multigrain
timestamps, 6.13), and ext4 without a journal writes a changed time out with each ``fdatasync``: one more write to wait for
in every commit. 237 µs a commit with ``os.stat``, 186 so, measured with ``python -m bench.journal 1``.
"""

import ctypes
import os
import struct
from collections.abc import Callable

Inode = tuple[int, int, int]
"""Number, and the device's major and minor one."""

_AT_FDCWD, _STATX_INO = -100, 0x100
_STATX_BYTES = 256
_FIELDS = struct.Struct("=32xQ96xII")  # struct statx: stx_ino, stx_dev_major, stx_dev_minor


def _by_stat(path: str) -> Inode:
    found = os.stat(path)
    return found.st_ino, os.major(found.st_dev), os.minor(found.st_dev)


def _by_statx() -> Callable[[str], Inode]:
    """Return the way without times; the usual one where the system's library has no other."""
    statx = getattr(ctypes.CDLL(None, use_errno=True), "statx", None)
    if statx is None:
        return _by_stat
    statx.argtypes = ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p

    def ask(path: str) -> Inode:
        answer = ctypes.create_string_buffer(_STATX_BYTES)
        if statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_INO, answer):
            why = ctypes.get_errno()
            raise OSError(why, os.strerror(why), path)
        number, major, minor = _FIELDS.unpack_from(answer)
        return number, major, minor

    return ask


inode = _by_statx()
"""Return the file that a path leads to.

Raises:
    OSError: it leads nowhere.
"""
