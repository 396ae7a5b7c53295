"""One connection's conversation with automation software: what was sent, what must be answered, when to act next.

Pure state: time, in seconds that only run forward, is passed in, and what to write comes back as a ``Step``. One frame is in
flight. Unanswered or refused (NAK) it is sent again, ``tries`` times in all; unanswered to the end, the link has failed:
from then on only heartbeats go out, until one is acknowledged.

Most of these formats answer with a byte that names nothing. So after a frame that had to be sent more than once, the answers
still due to its copies are waited for before the next frame goes out, or until none has come for longer than the other side
can have needed: a late ACK must never pass for that of a frame it has not seen. Where answers bear a number this is not
needed.
"""

import math
from collections.abc import Callable
from enum import Enum
from typing import NamedTuple


class Answer(Enum):
    """What the other side said of a frame."""

    ACK = "ack"
    NAK = "nak"  # again, please
    NEVER = "never"  # not this one
    NOT_NOW = "not now"  # nothing at all


class Outcome(Enum):
    """How it ended with an event."""

    TAKEN = "taken"
    REFUSED = "refused"
    FAILED = "failed"
    BROKEN = "broken"  # the connection ended with it in flight


class Said(NamedTuple):
    """A frame, and the number its answer will bear, None where answers bear none."""

    frame: bytes
    number: str | None = None


ANY = "any"
"""The number of an answer that is to whatever was said last."""


class Timing(NamedTuple):
    """How long an answer is waited for, how often a frame is sent, and the interval of heartbeats (0: none)."""

    ack_seconds: float
    tries: int
    heartbeat_seconds: float


class Step(NamedTuple):
    """What to write now, and how it ended with the event if it did."""

    frame: bytes = b""
    outcome: Outcome | None = None


_NOTHING = Step()
_QUIET = 2  # times ack_seconds, or times what the first answer took, without another, and no more are expected


class Session:
    """The state of one connection. ``deadline`` is when it next wants to be woken."""

    def __init__(self, timing: Timing, heartbeat: Callable[[], Said] | None, now: float) -> None:
        """Begin at ``now`` with a ``heartbeat``: who does not answer that is no automation. Without, events try the link."""
        self._timing = timing
        self._heartbeat = heartbeat if timing.heartbeat_seconds else None
        self._current: Said | None = None
        self._is_event = False
        self._tries = 0
        self._first_sent = self._last_sent = now
        self._quiet_seconds = _QUIET * timing.ack_seconds
        self._unanswered = 0  # copies on the wire whose answers bear no number
        self._beat_number: str | None = None
        self._suspect: Said | None = None  # it ended in a failure just now
        self._doubted: Said | None = None  # it did, and then a heartbeat was acknowledged: not the link's fault
        self._proven = self._heartbeat is None
        self.failed = False
        self.heard = False
        """Whether anything that we said was ever answered."""
        self.why = "has not answered yet"
        self.deadline = math.inf if self._heartbeat is None else now

    @property
    def usable(self) -> bool:
        """Whether events go here: once a heartbeat was acknowledged and while the link has not failed.

        Where there are no heartbeats, events are all there is to try it with.
        """
        return self._heartbeat is None or self.good

    @property
    def good(self) -> bool:
        """Whether the other side answers, as far as we know."""
        return self._proven and not self.failed

    @property
    def free(self) -> bool:
        """Whether an event may be sent now."""
        return self._current is None and not self._unanswered and self.usable

    def offer(self, said: Said, now: float) -> Step:
        """Send an event; only when ``free``."""
        self._is_event, self._tries = True, 0
        return self._say(said, now)

    def hear(self, answer: Answer, number: str | None, now: float) -> Step:
        """Take one answer."""
        current = self._current
        if current is None or number not in (current.number, ANY):
            self._hear_late(answer, number, now)
            return _NOTHING
        self.heard = True
        if current.number is None:
            self._unanswered -= 1
            self._note_pace(now)
        if answer is Answer.ACK:
            return self._acknowledged(current, now)
        if answer is Answer.NAK and self._tries < self._limit():
            return self._say(current, now)
        return self._give_up(now, answered=answer is not Answer.NOT_NOW, refuses_all=answer is Answer.NOT_NOW)

    def wake(self, now: float) -> Step:
        """Act on the time, if it is time."""
        if now < self.deadline:
            return _NOTHING
        if self._current is not None:
            return self._say(self._current, now) if self._tries < self._limit() else self._give_up(now, answered=False)
        if self._unanswered and not self.failed:
            self._unanswered = 0  # no more answers will come
            self._rest(now)
            return _NOTHING
        return self._beat(now)

    def _limit(self) -> int:
        return 1 if self.failed and not self._is_event else self._timing.tries

    def _say(self, said: Said, now: float) -> Step:
        self._current = said
        self._tries += 1
        self._last_sent = now
        if self._tries == 1:
            self._first_sent = now
        self._unanswered += said.number is None
        self.deadline = now + self._timing.ack_seconds
        return Step(said.frame)

    def _beat(self, now: float) -> Step:
        if self._heartbeat is None:  # nothing to say, and nothing to wait for
            self._unanswered, self.deadline = 0, math.inf
            return _NOTHING
        self._is_event, self._tries = False, 0
        said = self._heartbeat()
        self._beat_number = said.number
        return self._say(said, now)

    def _rest(self, now: float) -> None:
        """Nothing is in flight: wait for answers that are still due, or until a heartbeat is."""
        if self._unanswered and not self.failed:
            self.deadline = now + self._quiet_seconds
        elif self._heartbeat is not None:
            self.deadline = now + self._timing.heartbeat_seconds
        else:
            self.deadline = now + self._quiet_seconds if self._unanswered else math.inf

    def _note_pace(self, now: float) -> None:
        """Learn from an answer how far apart those still due may come: who works through a queue is slow each time."""
        ack = self._timing.ack_seconds
        took = 0.0 if self.failed else now - self._first_sent
        self._quiet_seconds = max(_QUIET * ack, ack + _QUIET * took)

    def _hear_late(self, answer: Answer, number: str | None, now: float) -> None:
        """An answer came that nobody waits for: of an earlier copy, of a heartbeat that was given up, or of nothing."""
        known = number is not None and number == self._beat_number
        if number is None:  # no format has both kinds of answers
            known = self._unanswered > 0
            self._unanswered = max(0, self._unanswered - 1)
        if self.failed and known and answer is Answer.ACK:
            self.failed, self._proven, self._suspect = False, True, None
        elif number is not None or self.failed:
            return
        if self._current is None:
            self._rest(now)

    def _acknowledged(self, current: Said, now: float) -> Step:
        self._current = None
        if not self._is_event and self.failed:
            self._doubted, self._suspect = self._suspect, None
        elif _same(current, self._doubted):
            self._doubted = None
        self.failed, self._proven = False, True
        self._rest(now)
        return Step(outcome=Outcome.TAKEN) if self._is_event else _NOTHING

    def _give_up(self, now: float, answered: bool, refuses_all: bool = False) -> Step:
        """The tries are used up: of an event that was answered, it is refused; else the link has failed."""
        current, self._current = self._current, None
        if self._is_event and answered:
            self._rest(now)
            return Step(outcome=Outcome.REFUSED)
        outcome = None
        if self._is_event:
            outcome = Outcome.REFUSED if _same(current, self._doubted) else Outcome.FAILED
            self._suspect = current
        else:
            self._suspect = None
        self._doubted = None
        was_failed, self.failed = self.failed, True
        self.why = "takes nothing now: compare the clocks" if refuses_all else f"gave no ACK in {self._timing.tries} tries"
        if was_failed or self._heartbeat is None:
            self._rest(now)
            if self._heartbeat is not None:  # they keep their interval
                self.deadline = max(now, self._last_sent + self._timing.heartbeat_seconds)
            return Step(outcome=outcome)
        return Step(self._beat(now).frame, outcome)


def _same(said: Said | None, other: Said | None) -> bool:
    """Tell whether two frames report the same: one sent again later may bear another time."""
    if said is None or other is None:
        return False
    return said.number == other.number if said.number is not None else said.frame == other.frame
