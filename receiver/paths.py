"""Supervision of transmission paths: pure state, with steady time passed in; no jump of the wall clock loses a path.

A path is one account as one listener hears it. Any valid message restarts its timer (DC-09 clause 5.5.2). A path that was
silent for longer than its account's interval is lost, and the next message restores it. A path never heard is not lost: a
restart of the receiver must not raise every account.
"""

import heapq
from collections import deque
from collections.abc import Collection
from typing import NamedTuple

from receiver.clock import SECOND_US

STORM_COUNT = 20
STORM_US = 5 * SECOND_US


class PathChange(NamedTuple):
    """A path was lost or restored; ``last_seen_us`` is the last message before that, in steady time."""

    account: str
    listener: str
    state: str
    last_seen_us: int
    interval_seconds: int


class Paths:
    """Every supervised path that was heard. Costs one dictionary entry a message; timers are looked at only when due."""

    def __init__(self) -> None:
        self._seen_us: dict[tuple[str, str], int] = {}
        self._interval: dict[tuple[str, str], int] = {}
        self._lost: set[tuple[str, str]] = set()
        self._due: list[tuple[int, tuple[str, str]]] = []  # one entry a path that is not lost

    def seen(self, account: str, listener: str, interval_seconds: int, now_us: int) -> PathChange | None:
        """Note a valid message; return the restoration when the path was lost."""
        path = (account, listener)
        before = self._seen_us.get(path)
        self._seen_us[path] = now_us
        self._interval[path] = interval_seconds
        if before is None or path in self._lost:
            heapq.heappush(self._due, (now_us + interval_seconds * SECOND_US, path))
        if path not in self._lost:
            return None
        self._lost.discard(path)
        return PathChange(account, listener, "restored", before or now_us, interval_seconds)

    def check(self, now_us: int) -> list[PathChange]:
        """Return the paths lost since the last check."""
        lost = []
        while self._due and self._due[0][0] <= now_us:
            _, path = heapq.heappop(self._due)
            if path not in self._seen_us or path in self._lost:
                continue
            due = self._seen_us[path] + self._interval[path] * SECOND_US
            if due > now_us:
                heapq.heappush(self._due, (due, path))
                continue
            self._lost.add(path)
            lost.append(PathChange(*path, "lost", self._seen_us[path], self._interval[path]))
        return lost

    def keep(self, supervised: set[str]) -> None:
        """Forget paths of accounts that are no longer supervised (the register was read again)."""
        for path in [path for path in self._seen_us if path[0] not in supervised]:
            del self._seen_us[path], self._interval[path]
            self._lost.discard(path)

    def forget(self, accounts: Collection[str]) -> None:
        """Forget paths of accounts, given in upper case, that are no longer supervised."""
        for path in [path for path in self._seen_us if path[0].upper() in accounts]:
            del self._seen_us[path], self._interval[path]
            self._lost.discard(path)

    def count(self) -> dict[str, int]:
        """Return how many heard paths are alive and how many are lost."""
        return {"alive": len(self._seen_us) - len(self._lost), "lost": len(self._lost)}


class Storm:
    """Notices when many paths are lost at once; steady time."""

    def __init__(self) -> None:
        self._losses: deque[int] = deque(maxlen=1_000_000)
        self._told_us: int | None = None

    def add(self, lost: int, now_us: int) -> tuple[int, int] | None:
        """Note losses; return how many a storm has and when it began, when it is to be told."""
        self._losses.extend([now_us] * lost)
        while self._losses and self._losses[0] < now_us - STORM_US:
            self._losses.popleft()
        quiet = self._told_us is None or now_us - self._told_us > STORM_US
        if not lost or len(self._losses) < STORM_COUNT or not quiet:
            return None
        self._told_us = now_us
        return len(self._losses), self._losses[0]
