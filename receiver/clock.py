"""The only module that reads the clock. Moments are whole microseconds since 1970-01-01 UTC, in names ``…_us``."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache

Clock = Callable[[], int]
SECOND_US = 1_000_000


def now_us() -> int:
    """Return the present moment in microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


monotonic = time.monotonic
"""Seconds that only ever run forward, for time-outs and durations."""


def to_text(moment_us: int) -> str:
    """Write a moment as ``2026-11-23T10:01:03.123456Z``."""
    seconds, micros = divmod(moment_us, SECOND_US)
    return f"{seconds_to_text(seconds)[:-1]}.{micros:06d}Z"


def to_datetime(moment_us: int) -> datetime:
    """Return a moment as an aware datetime in UTC."""
    return datetime.fromtimestamp(moment_us / SECOND_US, UTC)


@lru_cache(maxsize=256)  # moments come in floods of the same second
def seconds_to_text(seconds: int) -> str:
    """Write whole seconds since 1970-01-01 UTC as ``2026-11-23T10:01:02Z``."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"


def from_text(text: str) -> int:
    """Read an ISO 8601 moment (UTC unless it says otherwise) into microseconds.

    Raises:
        ValueError: the text is no ISO 8601 moment.
    """
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * SECOND_US)
