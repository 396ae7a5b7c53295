"""An event at which the other side fails each time, without saying that it refuses it: told from an outage by the others.

A program that crashes at one event, or hangs up on it, looks like an outage, and would hold up its lane for ever. So events
that were in hand when the other side failed go out one by one from then on. Where the same one was in hand ``max_tries - 2``
times (once at least), another event is tried: the next of the other lane, or a later one of another account, so that no
account's order changes. Only when another was taken and the first then failed again, twice over, is it condemned: it goes
the way of a refused one. Nothing is concluded from a server that cannot be had, nor while nothing else gets through.
"""

from collections.abc import Iterable, Sequence

from receiver.errors import DeliveryError, EventRefused, FailedAtEvent
from receiver.events import OutEvent
from receiver.journal import Lane

_NONE = -1
_TURNS = 2  # a link that happens to break at this event just after it took another is not enough


class Suspect:
    """The event of one lane that was in hand when the other side failed, and what speaks against it."""

    def __init__(self, max_tries: int) -> None:
        self._max_tries = max_tries
        self._failures = 0
        self._other_taken = False
        self._turns = 0
        self._one_by_one_until = _NONE
        self._account: str | None = None
        self.position = _NONE
        self.spared: set[str | None] = set()
        """Accounts of which none is tried in its place: its own, and those of which one was tried and not taken."""

    def limit(self, limit: int, place: int) -> int:
        """Return how many events may go out at once from behind a place: one, where one of them may be poison."""
        return 1 if place < self._one_by_one_until else limit

    def judge(self, events: Sequence[OutEvent], error: DeliveryError) -> DeliveryError:
        """Take a failure of a delivery of events; return it, or the refusal that it amounts to."""
        if not isinstance(error, FailedAtEvent):
            return error
        event = events[error.taken]
        if event.stored.position != self.position:
            self._forget()
            self.position, self._account = event.stored.position, event.account
            self.spare_none()
        self._one_by_one_until = max(self._one_by_one_until, events[-1].stored.position)
        if len(events) - error.taken > 1:
            return error  # whose fault it is, shows once they go out one by one
        self._failures += 1
        self._turns += self._other_taken
        self._other_taken = False
        if self._turns < _TURNS or self._failures < self._max_tries:
            return error
        why = f"{self._failures} times the other side failed with this event in hand while it takes others: {error}"
        self._forget()
        return EventRefused(why, error.taken, for_ever=True, also=error.also)

    def wants_probe(self, place: int) -> bool:
        """Whether all hangs on another event being taken; ``place`` is behind what its lane has handed over."""
        enough = max(1, self._max_tries - _TURNS)
        return place < self.position and not self._other_taken and self._failures >= enough

    def saw_taken(self, positions: Iterable[int]) -> None:
        """Note that the other side took events, of whichever lane."""
        for position in positions:
            if position == self.position:
                self._forget()
            elif self._failures:
                self._other_taken = True

    def spare_none(self) -> None:
        """Let events of all accounts but its own be tried again."""
        self.spared = {self._account}

    def _forget(self) -> None:
        self.position, self._failures, self._turns, self._other_taken = _NONE, 0, 0, False


class Patience:
    """Ends after ``max_tries`` failures with the same event in hand, whatever others did: for what comes again anyway."""

    def __init__(self, max_tries: int) -> None:
        self._max_tries, self._position, self._failures = max_tries, _NONE, 0

    def is_over(self, position: int, error: DeliveryError) -> bool:
        """Count a failure, if it was one with the event in hand."""
        if not isinstance(error, FailedAtEvent):
            return False
        self._failures = self._failures + 1 if position == self._position else 1
        self._position = position
        return self._failures >= self._max_tries

    def begin(self) -> None:
        """Forget what was."""
        self._failures = 0


class Suspects:
    """The suspects of both lanes of an output."""

    def __init__(self, max_tries: int) -> None:
        self._lanes = {lane: Suspect(max_tries) for lane in Lane}

    def __getitem__(self, lane: Lane) -> Suspect:
        return self._lanes[lane]

    def saw_taken(self, events: Iterable[OutEvent]) -> None:
        """Note that the other side took events, and is there: it speaks against the suspects of both lanes."""
        standing = [suspect for suspect in self._lanes.values() if suspect.position != _NONE]
        if standing:  # seldom, and this is asked after each batch
            positions = [event.stored.position for event in events]
            for suspect in standing:
                suspect.saw_taken(positions)
