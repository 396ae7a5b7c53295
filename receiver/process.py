"""What a process of the receiver is, before anything runs in it: private, and with the loop it runs on.

It owes its secrets files nobody else can read, and no core dump that would hold keys.

``harden`` is called once, before anything is opened. Keys live in memory for as long as the receiver runs; a core file, or
another process of the same user that attaches, would show them.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable

PRIVATE_UMASK = 0o077
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4  # prctl(2)


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


def follow(parent: int) -> None:
    """End with the parent process, whatever becomes of it, and leave the signals to it: they are sent to a whole group."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError, AttributeError):  # not Linux: the end of the link tells
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes the event loop: uvloop's where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop
