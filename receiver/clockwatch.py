"""Our own clock under watch: does it jump, does it lag behind what we stored, do the panels contradict it.

Pure state, with wall and steady time passed in. A *clock* is kept here as its offset to steady time, so that no jump of the
wall clock changes any but ours. An encrypted message outside the window of our clock is refused, unless there is evidence
that it is our clock that is wrong; ``docs/decisions/0009`` tells the rule and what an attacker could make of it:

1. our clock jumped: for a while the clock from before the jump, carried on by steady time, has a window too;
2. our clock is before the newest stored event, or before this program was made: then stamps may be ahead of it;
3. most of the panels that have a key of their own agree with each other and not with us: their median has a window too.

No rule accepts a stamp older than the panels' time as it was when nothing was wrong: an old recording finds no door here.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from datetime import timedelta
from typing import NamedTuple

from receiver.clock import SECOND_US, from_text, to_text
from receiver.config import ClockSettings

STEP_US = 2 * SECOND_US
"""A difference between wall and steady time that no disciplined clock makes in a second."""
STEP_KEPT_US = 600 * SECOND_US
VOTERS = 5
_STEPS_KEPT = 8
_MOST_VOTERS = 1000  # in half of the time that a vote counts for
_HALF_VOTE_US = 150 * SECOND_US
_RETENTION_HELD_US = 86400 * SECOND_US
MADE_US = from_text("2026-01-01")  # no receiver of this make ran before
_ROUNDING_US = 999_000  # a stamp has whole seconds


class Finding(NamedTuple):
    """Something about our clock that an operator must be told: a trouble's reason and text."""

    reason: str
    text: str


class ClockWatch:
    """What is known of our clock. ``look`` once a second; ``heard`` for each encrypted message that could be opened."""

    def __init__(
        self, settings: ClockSettings, now_us: int, steady_us: int, newest_us: int = 0, newest_stamp_us: int = 0
    ) -> None:
        """Take the present moment, when the newest stored event was received, and the newest stamp of an encrypted one."""
        self.settings = settings
        self.steps = 0
        self.synchronised: bool | None = None
        self.panels_offset_us: int | None = None  # panels' median minus ours, of at least VOTERS
        self._ours_us = now_us - steady_us
        self._before: deque[tuple[int, int]] = deque(maxlen=_STEPS_KEPT)  # (kept until, the clock before a step)
        self._earliest_us = max(newest_us, MADE_US) - steady_us
        self._floor_us = newest_stamp_us - steady_us
        self._lowest_us = self._floor_us - self._width_us  # no clock is believed that is behind this
        self._votes: dict[str, int] = {}
        self._older_votes: dict[str, int] = {}
        self._turned_us = steady_us
        self._panels_us: int | None = None
        self._behind_told = False
        self._unsynchronised_since_us: int | None = None
        self._unsynchronised_told = False
        # A clock that was set forward must not make retention delete the journal before somebody could look.
        long_off = newest_us and now_us - newest_us > _RETENTION_HELD_US
        self._held_until_us = steady_us + _RETENTION_HELD_US if long_off else steady_us

    # -- each encrypted message ------------------------------------------------------------------------------------

    def heard(self, account: str, stamp_us: int, steady_us: int) -> None:
        """Note the time that a panel with a key of its own believes in; of one panel the latest counts."""
        vote, votes = stamp_us - steady_us, self._votes
        if vote < self._lowest_us:
            return  # older than what was accepted before: a recording, or a panel that does not know the time
        latest = votes.get(account)
        if latest is None:
            if len(votes) < _MOST_VOTERS:
                votes[account] = vote
        elif vote > latest:
            votes[account] = vote

    def forgives(self, stamp_us: int, now_us: int, steady_us: int) -> bool:
        """Tell whether a stamp outside our clock's window is to be accepted all the same."""
        theirs, ours = stamp_us - steady_us, now_us - steady_us
        if theirs < self._lowest_us:
            return False
        clocks = [before for until, before in self._before if until > steady_us]
        if abs(ours - self._ours_us) > STEP_US:
            clocks.append(self._ours_us)  # a jump since the last look
        if self._panels_us is not None:
            clocks.append(self._panels_us)
        if any(self._fits(theirs - clock_us) for clock_us in clocks):
            return True
        return self._is_behind(ours) and theirs >= self._earliest_us - self.settings.behind_seconds * SECOND_US

    def _fits(self, ahead_us: int) -> bool:
        behind_us = self.settings.behind_seconds * SECOND_US + _ROUNDING_US
        return -behind_us <= ahead_us <= self.settings.ahead_seconds * SECOND_US

    def _fitting(self, ahead: list[int], clock_us: int) -> tuple[int, int]:
        """Return which of the sorted offsets fit the window around one: the first, and the first after the last."""
        behind_us = self.settings.behind_seconds * SECOND_US + _ROUNDING_US
        ahead_us = self.settings.ahead_seconds * SECOND_US
        return bisect_left(ahead, clock_us - behind_us), bisect_right(ahead, clock_us + ahead_us)

    @property
    def _width_us(self) -> int:
        return (self.settings.behind_seconds + self.settings.ahead_seconds) * SECOND_US

    def _is_behind(self, ours_us: int) -> bool:
        return self._earliest_us - ours_us > STEP_US

    # -- once a second ---------------------------------------------------------------------------------------------

    @property
    def suspect(self) -> bool:
        """Whether there is evidence, as of the last look, that our clock is wrong."""
        return bool(self._before) or self._panels_us is not None or self._is_behind(self._ours_us)

    def holds_retention(self, steady_us: int) -> bool:
        """Tell whether nothing is to be deleted for its age: our clock jumped within a day, or is contradicted."""
        return steady_us < self._held_until_us or self._panels_us is not None

    def look(self, now_us: int, steady_us: int, synchronised: bool | None) -> list[Finding]:
        """Compare the clocks of this moment with those of the last; return what is to be told."""
        found = self._look_for_step(now_us, steady_us)
        if self._is_behind(self._ours_us) and not self._behind_told:
            self._behind_told = True
            found.append(self._behind(now_us, steady_us))
        if steady_us - self._turned_us >= _HALF_VOTE_US:
            self._turned_us = steady_us
            self._votes, self._older_votes = {}, self._votes
        return found + self._count_votes() + self._look_for_discipline(steady_us, synchronised)

    def _look_for_step(self, now_us: int, steady_us: int) -> list[Finding]:
        step_us, before_us = now_us - steady_us - self._ours_us, self._ours_us
        self._ours_us = now_us - steady_us
        while self._before and self._before[0][0] <= steady_us:
            self._before.popleft()
        if abs(step_us) <= STEP_US:
            return []
        self.steps += 1
        self._before.append((steady_us + STEP_KEPT_US, before_us))
        self._held_until_us = steady_us + _RETENTION_HELD_US
        way = "forward" if step_us > 0 else "back"
        text = (
            f"our clock jumped {_long(step_us)} {way}, from {to_text(now_us - step_us)} to {to_text(now_us)}; "
            f"for {STEP_KEPT_US // SECOND_US} s time stamps are accepted by the clock before the jump too; "
            "see whether its source of time is right"
        )
        return [Finding("clock-stepped", text)]

    def _behind(self, now_us: int, steady_us: int) -> Finding:
        earliest = to_text(self._earliest_us + steady_us)
        text = (
            f"our clock says {to_text(now_us)}, but by the newest stored event and the age of this program it must be "
            f"{earliest} or later; set the clock, or, if it is right now, it was wrong then; until it is past that, "
            "time stamps may be ahead of it"
        )
        return Finding("clock-behind-journal", text)

    def _count_votes(self) -> list[Finding]:
        """Learn what the panels' time is, when enough of them agree; and, when nothing is wrong, what it surely is."""
        ahead = sorted([vote - self._ours_us for vote in (self._older_votes | self._votes).values()])
        self.panels_offset_us = ahead[len(ahead) // 2] if len(ahead) >= VOTERS else None
        first, last = self._fitting(ahead, 0)
        inside, outside = ahead[first:last], ahead[:first] + ahead[last:]
        median = outside[len(outside) // 2] if outside else 0
        first, last = self._fitting(outside, median)
        agreeing = last - first
        contradicted_before, self._panels_us = self._panels_us is not None, None
        if agreeing >= VOTERS and 2 * agreeing > len(ahead):
            self._panels_us = self._ours_us + median
        elif inside and not self.suspect:
            self._floor_us = self._ours_us + inside[len(inside) // 2]
        self._lowest_us = self._floor_us - self._width_us
        if self._panels_us is None or contradicted_before:
            return []
        way = "behind" if median > 0 else "ahead of"
        text = (
            f"{agreeing} of {len(ahead)} panels with keys agree that our clock is {_long(median)} {way} theirs; "
            "their time stamps are accepted; see whether our source of time is right"
        )
        return [Finding("clock-suspect", text)]

    def _look_for_discipline(self, steady_us: int, synchronised: bool | None) -> list[Finding]:
        self.synchronised = synchronised
        if synchronised is not False:
            self._unsynchronised_since_us, self._unsynchronised_told = None, False
            return []
        if self._unsynchronised_since_us is None:
            self._unsynchronised_since_us = steady_us
        limit = self.settings.unsynchronised_seconds
        if self._unsynchronised_told or not limit or steady_us - self._unsynchronised_since_us < limit * SECOND_US:
            return []
        self._unsynchronised_told = True
        text = f"for {limit} s the kernel has said that nothing keeps our clock right; see whether NTP runs on this machine"
        return [Finding("clock-unsynchronised", text)]


def _long(duration_us: int) -> str:
    """Write a duration for a person: ``26 days, 3:00:05``, or seconds when there are few."""
    seconds = abs(duration_us) / SECOND_US
    return f"{seconds:.1f} s" if seconds < 600 else str(timedelta(seconds=round(seconds)))
