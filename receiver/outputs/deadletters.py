"""Events that the other side of an output refuses while it is there: tried some times, then laid aside for a person.

Only a refusal of one event gets here, never an outage. A dead letter is on disk, together with the cursor that passed it,
before the next event goes out. Above ``max_dead_letters`` nothing is laid aside any more: whoever refuses that much refuses
everything, and the output waits as for an outage.
"""

from collections.abc import Sequence

from receiver import clock
from receiver.config import OutputSettings
from receiver.errors import DeliveryError, EventRefused
from receiver.events import OutEvent
from receiver.journal import DEAD, Journal, Kind, Letter, burial, recall, settlement
from receiver.outputs.contract import Surroundings
from receiver.troubles import Trouble


class DeadLetters:
    """The dead letters of one output; ``wanted`` says that some are to go out again."""

    def __init__(self, settings: OutputSettings, journal: Journal, count: int, surroundings: Surroundings) -> None:
        self._settings = settings
        self._journal = journal
        self._surroundings = surroundings
        self._position, self._tries = 0, 0
        self.count = count
        self.wanted = self.count > 0  # some may have been asked for before a restart

    async def take(self, event: OutEvent, error: EventRefused) -> bool:
        """Count a try that was refused; lay the event aside and return True when there is to be none more.

        Raises:
            JournalUnavailable: it could not be laid aside; it is tried again.
        """
        position, name, telemetry = event.stored.position, self._settings.name, self._surroundings.telemetry
        self._tries = self._tries + 1 if position == self._position else 1
        self._position = position
        if not error.for_ever and self._tries < self._settings.max_tries:
            telemetry.event_refused(name, str(error), self._tries, position=position, account=event.account or "-")
            return False
        if self.count >= self._settings.max_dead_letters:
            full = f"{error}; {self.count} dead letters are max_dead_letters, so this one waits"
            telemetry.event_refused(name, full, self._tries, position=position, account=event.account or "-")
            return False
        letter = Letter(name, clock.now_us(), self._tries, str(error), DEAD, None)
        await self._journal.do(burial(letter, position, event.stored.row))
        self.count += 1
        self._tell(event, error)
        return True

    def _tell(self, event: OutEvent, error: EventRefused) -> None:
        """Tell of a dead letter: a duress at once and each time, a trouble only in the log, or it would beget the next."""
        row, name = event.stored.row, self._settings.name
        self._surroundings.telemetry.buried(
            name,
            str(error),
            bool(row.duress),
            position=event.stored.position,
            account=event.account or "-",
            tries=self._tries,
        )
        if row.kind == Kind.TROUBLE:
            return
        what = "a DURESS" if row.duress else "an event"
        text = f"{what} at position {event.stored.position} was refused by output {name} and is a dead letter: {error}"
        trouble = Trouble("dead-letter", text, clock.now_us(), account=event.account, output=name)
        tell = self._surroundings.tell_trouble if row.duress else self._surroundings.raise_trouble
        tell(trouble)

    async def recall(self, positions: Sequence[int] | None) -> None:
        """Let dead letters go out again: these, or all.

        Raises:
            JournalUnavailable: that could not be noted.
        """
        await self._journal.do(recall(self._settings.name, positions))
        self.wanted = True

    async def settle(
        self, taken: Sequence[OutEvent], refused: OutEvent | None = None, error: DeliveryError | None = None
    ) -> None:
        """Note how sending dead letters again went; an outage leaves the rest as they were, wanted.

        Raises:
            JournalUnavailable: nothing was noted, and they go out again.
        """
        again = (refused.stored.position, str(error)) if refused is not None else None
        now_us, positions = clock.now_us(), [event.stored.position for event in taken]
        await self._journal.do(settlement(self._settings.name, positions, now_us, again))
        self.count -= len(taken)
        for event in taken:
            waited = max(0, now_us - event.stored.row.received_us) / clock.SECOND_US
            self._surroundings.telemetry.handed_over(self._settings.name, event.stored.lane.word, [waited])
