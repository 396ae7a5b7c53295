"""The only module that reads the clock. Moments are whole microseconds since 1970-01-01 UTC, in names ``…_us``.

The wall clock says what time it is, and may jump; the steady clock only runs on. What is written down or compared with a
panel's stamp is wall time; whatever lasts (timers, windows, ages while running) is steady time, in names ``steady_us``.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], int]
SECOND_US = 1_000_000
_SAME_MOMENT_US = 100_000
_TIMEX_BYTES = 1024  # struct timex has 208 on 64-bit Linux
_TIME_ERROR = 5


def now_us() -> int:
    """Return the present moment in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


def steady_us() -> int:
    """Return microseconds that only ever run forward, whatever is done to the wall clock."""
    return time.monotonic_ns() // 1000


monotonic = time.monotonic
"""Seconds that only ever run forward, for time-outs and durations."""


def both_us() -> tuple[int, int]:
    """Return wall and steady time of one moment; a process that was held up between the readings reads again."""
    for _ in range(5):
        before, wall_us, after = steady_us(), now_us(), steady_us()
        if after - before < _SAME_MOMENT_US:
            break
    return wall_us, after


def synchronised() -> bool | None:
    """Return the kernel's word on whether something keeps our clock right; None where there is none to be had.

    Linux, ``adjtimex(2)``: it is read and never set (``modes`` 0), and ``TIME_ERROR`` means nobody disciplines the clock.
    """
    import ctypes  # of no use before the first look

    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else bool(state != _TIME_ERROR)


def to_text(moment_us: int) -> str:
    """Write a moment as ``2026-11-23T10:01:03.123456Z``."""
    seconds, micros = divmod(moment_us, SECOND_US)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{micros:06d}Z"


def seconds_to_text(seconds: int) -> str:
    """Write whole seconds since 1970-01-01 UTC as ``2026-11-23T10:01:02Z``."""
    # Not %Y: it writes the year 999 with three digits on some platforms.
    return f"{datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()}Z"


def from_text(text: str) -> int:
    """Read an ISO 8601 moment (UTC unless it says otherwise) into microseconds.

    Raises:
        ValueError: the text is no ISO 8601 moment.
    """
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * SECOND_US)
