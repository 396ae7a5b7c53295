"""Which events are tests: pure state, with time passed in.

A ticket puts one account on test: all of it, or named zones, and hold-up points that were ticked one by one. Its signals are
stored, acknowledged and delivered as ever, with the flag ``on-test``. Whatever could be a real duress is never flagged:

- a duress from a point that was not ticked, whatever else is on test;
- what was not understood (unreadable, opaque, a code in no table): nobody can say that it is none;
- what the panel had stored (``late``): it may have happened before the test began.

A ticket ends at its time by the wall clock or after its length by the steady clock, whichever comes first: a wall clock that
is set back prolongs nothing.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from receiver.clock import SECOND_US
from receiver.payloads import Event, some_events

LONGEST_US = 24 * 3600 * SECOND_US
"""A test that nobody ends must not outlive the next day's shift."""
MOST_NAMES = 200
"""Zones, or points, of one ticket: more is the whole account."""
MOST_TICKETS = 1000
"""Accounts on test at a time: the file that keeps them is written whole, and who tests more has mistyped."""
_FLAG = "on-test"
_is_name = re.compile(r"(?:[0-9A-Z]{1,4}/)?(?:user:)?[0-9A-Z]{1,8}").fullmatch


class Ticket(NamedTuple):
    """One account's test. ``zones`` and ``points`` are names as ``read_names`` gives them; ``whole`` is every zone."""

    account: str
    whole: bool
    zones: tuple[str, ...]
    points: tuple[str, ...]
    reason: str
    by: str
    since_us: int
    until_us: int

    def covers(self, event: Event) -> bool:
        """Tell whether an event of the account is a test."""
        if event.event_code is None or "unmapped" in event.flags or "late" in event.flags:
            return False
        if event.duress:
            return _stands_in(self.points, event)
        return self.whole or _stands_in(self.zones, event)

    def scope(self) -> str:
        """Say what is on test."""
        parts = ["all of it but hold-up"] if self.whole else []
        parts += [f"zones {', '.join(self.zones)}"] if self.zones else []
        parts += [f"hold-up points {', '.join(self.points)}"] if self.points else []
        return " and ".join(parts)


def read_names(text: str) -> tuple[str, ...]:
    """Read ``1,2/15,user:5``: zones, each perhaps of one partition, and users by their number.

    Raises:
        ValueError: with a sentence for a person.
    """
    names = []
    for part in text.split(","):
        name = part.strip().upper().replace("USER:", "user:")
        if _is_name(name) is None:
            raise ValueError(f"{part.strip()[:40]!r} names no zone; write 15, 2/15 (partition 2) or user:5")
        partition, slash, number = name.rpartition("/")
        if number == "ALL":
            raise ValueError("'all' stands alone, and for --zones only; tick hold-up points one by one, such as 15,user:5")
        user, number = number.startswith("user:"), number.removeprefix("user:").lstrip("0")
        if not number:
            raise ValueError(f"{part.strip()!r}: panels send zero when they do not know the zone, so it can name none")
        partition = partition.lstrip("0") or "0"
        names.append((f"{partition}/" if slash else "") + ("user:" if user else "") + number)
    if len(names) > MOST_NAMES:
        raise ValueError(f"{len(names)} are more than {MOST_NAMES}; put the whole account on test")
    return tuple(dict.fromkeys(names))


def _stands_in(names: tuple[str, ...], event: Event) -> bool:
    """Tell whether the place an event comes from is among names: its zone or, where it has none, its user."""
    if not names or (event.zone is None and event.user is None):
        return False
    number = (event.user or "" if event.zone is None else event.zone).upper().lstrip("0")
    name = f"user:{number}" if event.zone is None else number
    partition = (event.partition or "").upper().lstrip("0") or "0"
    return bool(number) and (name in names or f"{partition}/{name}" in names)


class OnTest:
    """The tickets in force, by upper-case account."""

    def __init__(self) -> None:
        self.tickets: dict[str, tuple[Ticket, int]] = {}  # and when it ends, in steady time

    def __len__(self) -> int:
        return len(self.tickets)

    def begin(self, ticket: Ticket, now_us: int, steady_us: int) -> bool:
        """Put a ticket in force, in place of the account's other one; False when its time is over or there are too many."""
        left_us = min(ticket.until_us - max(now_us, ticket.since_us), LONGEST_US)
        if left_us <= 0 or (len(self.tickets) >= MOST_TICKETS and ticket.account not in self.tickets):
            return False
        self.tickets[ticket.account] = (ticket, steady_us + left_us)
        return True

    def end(self, account: str) -> Ticket | None:
        """End an account's test now; return its ticket, None when it had none."""
        ticket, _ = self.tickets.pop(account, (None, 0))
        return ticket

    def ended(self, now_us: int, steady_us: int) -> list[Ticket]:
        """Take out and return the tickets whose time is over."""
        over = [ticket for ticket, end_us in self.tickets.values() if now_us >= ticket.until_us or steady_us >= end_us]
        for ticket in over:
            del self.tickets[ticket.account]
        return over

    def flags(self, flags: str, events: Sequence[Event], account: str, now_us: int, steady_us: int) -> str:
        """Return a message's flags as they are stored, with which of its events are tests."""
        found = self.tickets.get(account.upper())
        if found is None or now_us >= found[0].until_us or steady_us >= found[1]:
            return flags
        covered = [number for number, event in enumerate(events) if found[0].covers(event)]
        if not covered:
            return flags
        return f"{flags} {_FLAG if len(covered) == len(events) else some_events(_FLAG, covered)}".lstrip()
