"""What the process owes its secrets: files nobody else can read, and no core dump that would hold keys.

``harden`` is called once, before anything is opened. Keys live in memory for as long as the receiver runs; a core file, or
another process of the same user that attaches, would show them.
"""

import ctypes
import os
import resource

PRIVATE_UMASK = 0o077
_PR_SET_DUMPABLE = 4  # prctl(2)


def harden() -> list[str]:
    """Make new files private (0600, folders 0700) and forbid core dumps; return what could not be done, in sentences."""
    os.umask(PRIVATE_UMASK)
    wrong = []
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        wrong.append(f"core dumps cannot be forbidden: {error}; forbid them for this service (LimitCORE=0)")
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return wrong  # not Linux: the limit above is what there is
    if prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        wrong.append(f"the process cannot be closed to debuggers: {os.strerror(ctypes.get_errno())}")
    return wrong
