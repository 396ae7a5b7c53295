"""What outputs to automation software share: one event at a time, in the first form that has room for it.

Each type says in which forms it can tell an event, narrowest first; here is chosen among them, and said when an event had to
be converted, cut, or laid aside.
"""

from collections.abc import Callable, Iterable, Sequence

from protocols.errors import DoesNotFit, NoEquivalent, ProtocolError
from receiver import clock
from receiver.config.automation import LinkSettings
from receiver.errors import DeliveryError, EventRefused
from receiver.events import OutEvent
from receiver.journal import Kind
from receiver.outputs.contract import Surroundings
from receiver.outputs.line import Line
from receiver.outputs.session import Answer, Said
from receiver.outputs.translation import Told, tell
from receiver.troubles import Trouble

_OWN_REMEMBERED = 500
"""Own events whose ids are remembered; at most a few hundred go out from memory while the journal cannot store."""
_BYTES = {0x06: Answer.ACK, 0x15: Answer.NAK}


Form = Callable[[Told, bool, str], tuple[bytes, bool]]
"""Writes an event, told whether to cut what has no room, and the number of its frame; says whether it was converted.

Raises ``DoesNotFit`` or ``NoEquivalent``.
"""


class Once:
    """Our own events that went out from memory while the journal could not store them, and come again once it could.

    Their id is the same, but automation software has no use for an id and would show each a second time.
    """

    def __init__(self) -> None:
        self._taken: dict[str, None] = {}

    def has(self, event: OutEvent) -> bool:
        """Tell whether this very event was taken already; a panel's signal is never asked about."""
        return event.stored.row.kind != Kind.SIGNAL and event.event_id in self._taken

    def add(self, event: OutEvent) -> None:
        """Note that an event was taken."""
        if event.stored.row.kind != Kind.SIGNAL:
            self._taken[event.event_id] = None
            if len(self._taken) > _OWN_REMEMBERED:
                del self._taken[next(iter(self._taken))]


class AutomationOutput:
    """Hands events to automation software over a line, in forms that a type offers."""

    batch_limit = 1  # one frame in flight, and a cursor saved after each: a crash repeats few, and a duress waits for one

    def __init__(
        self, settings: LinkSettings, overflow: str, line: Line, surroundings: Surroundings,
        forms: Callable[[Told], Sequence[Form]], numbered: bool = False,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._overflow = overflow
        self._line = line
        self._surroundings = surroundings
        self._forms = forms
        self._numbered = numbered
        self._once = Once()

    async def run(self) -> None:
        """Keep the line open."""
        await self._line.run()

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Hand events over, one after the other.

        Raises:
            DeliveryError: nobody takes them now.
            EventRefused: one of them is refused, or can be told in no form.
        """
        for taken, event in enumerate(events):
            if self._once.has(event):
                continue
            try:
                number = number_of(event.stored.position)
                await self._line.hand_over(Said(self.frame(event, number), number if self._numbered else None))
            except DeliveryError as error:
                error.taken = taken
                raise
            self._once.add(event)

    def frame(self, event: OutEvent, number: str) -> bytes:
        """Write an event in the first form that has room.

        Raises:
            EventRefused: no form has, or none may be used.
        """
        try:
            told = tell(event, self._settings.own_account)
            return self._write(event, told, number)
        except (ProtocolError, ValueError, LookupError) as error:  # never the end of the process: panels report to it
            raise EventRefused(str(error), for_ever=True) from None

    def _write(self, event: OutEvent, told: Told, number: str) -> bytes:
        forms = self._forms(told)
        found = self._first(event, told, forms[:1] if self._overflow == "refuse" else forms, number)
        if isinstance(found, ProtocolError) and told.own:
            told = told._replace(account=self._settings.own_account)  # an account that nobody knows there anyway
            found = self._first(event, told, forms, number)
        if isinstance(found, ProtocolError) and self._overflow == "trouble":
            why, found = found, self._first(event, told, forms, number, cut=True)
            if isinstance(found, bytes):
                self._tell_cut(event, why)
        if isinstance(found, ProtocolError):
            raise found
        return found

    def _first(
        self, event: OutEvent, told: Told, forms: Iterable[Form], number: str, cut: bool = False
    ) -> bytes | ProtocolError:
        why: ProtocolError | None = None
        for form in forms:
            try:
                frame, converted = form(told, cut, number)
            except (DoesNotFit, NoEquivalent) as error:
                why = why or error
                continue
            if converted and not told.own:
                data, name = event.cloud_event["data"], self._settings.name
                self._surroundings.telemetry.report_converted(
                    name, position=event.stored.position, account=told.account, code=data["event_code"]
                )
            return frame
        return why or NoEquivalent("the output has no form for it")

    def _tell_cut(self, event: OutEvent, why: ProtocolError) -> None:
        name, position = self._settings.name, event.stored.position
        text = f"output {name}: the event at position {position} went out cut: {why}"
        trouble = Trouble("does-not-fit", text, clock.now_us(), account=event.account, output=name)
        self._surroundings.raise_trouble(trouble)

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close the line."""
        self._line.close()


def number_of(position: int) -> str:
    """Return the sequence of the frame that tells of the event at a position: the same each time it goes out."""
    return f"{(position - 1) % 9999 + 1:04d}"


def read_bytes(data: bytes) -> list[tuple[Answer, str | None]]:
    """Find the answers of formats that answer with one byte; what is none means nothing."""
    return [(_BYTES[byte], None) for byte in data if byte in _BYTES]
