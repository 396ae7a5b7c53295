"""``dc09``: signals go on to another DC-09 receiver over TCP, each message in a frame of our own, and wait for its ACK.

For running a second receiver beside this one, or moving to another. Token, data and extended data are the panel's, account
and (unless set otherwise) receiver number and line too; sequence, time stamp, key, time-out and retries are ours. A message
with several events goes out once. Its sequence hangs on its place in the journal, so that what is sent again after a crash
is a repeat to the other receiver and no second signal.

That receiver answers with silence both when it is dead and when it refuses one account. A link test tells which: once it
acknowledges that and not the event, the event counts as refused. Without link tests only other messages tell (``poison``).
"""

from collections.abc import Sequence

from protocols import contact_id, dc09
from protocols.contact_id import ContactId
from protocols.dc09 import Key, timestamp
from protocols.errors import BadLength, ProtocolError
from receiver import clock, events
from receiver.config.automation import Dc09Settings, LinkSettings
from receiver.errors import DeliveryError, EventRefused
from receiver.events import OutEvent
from receiver.journal import Kind
from receiver.outputs.automation import Once, number_of
from receiver.outputs.contract import Surroundings
from receiver.outputs.line import Line, Reader, Style
from receiver.outputs.session import ANY, Answer, Said
from receiver.outputs.translation import tell

_LINK_TEST_SEQUENCE = "0000"
_KEY_EXCHANGE = "K"  # carries an encryption key: ours are not told to another receiver
_OCCURRED_AT = "H"
_REMEMBERED = 100_000
"""Messages remembered, about 200 bytes each: enough for ten minutes at 160 messages a second."""
_WINDOW_SECONDS = 600.0  # how long our kind of receiver knows a repeat
_PROBES = 100  # sequences tried for one message, so that a flood of alike ones costs the loop little


class Sequences:
    """Gives each message its sequence, the same whenever it goes out, and to no two that look alike within the window.

    The other receiver would take the second for a repeat of the first: acknowledge it and drop it. More than 9,999 that look
    alike within the window DC-09 cannot tell apart, and neither can we.
    """

    def __init__(self) -> None:
        self._borne: dict[int, tuple[int, float]] = {}  # content under a sequence -> its message's place, and when

    def give(self, place: int, content: tuple[object, ...], now: float) -> str:
        """Return the sequence of the message at a place in the journal; ``now`` in seconds that only run forward."""
        sequence = first = number_of(place)
        for _ in range(_PROBES):
            borne = self._borne.get(hash((content, sequence)))
            if borne is None or borne[0] == place or now - borne[1] > _WINDOW_SECONDS:
                break
            sequence = number_of(int(sequence) + 1)
        else:
            sequence = first
        key = hash((content, sequence))
        self._borne.pop(key, None)
        self._borne[key] = place, now
        if len(self._borne) > _REMEMBERED:
            del self._borne[next(iter(self._borne))]
        return sequence


class Dc09Output:
    """Relays to one receiver."""

    batch_limit = 1

    def __init__(self, settings: Dc09Settings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._key = Key.parse(settings.key.text) if settings.key else None
        link = LinkSettings(
            name=settings.name, type=settings.type, mode="client", host=settings.host, port=settings.port,
            ack_seconds=settings.ack_seconds, tries=settings.tries, own_account=settings.own_account,
        )  # fmt: skip
        style = Style(self._heartbeat if settings.link_test_account else None, settings.heartbeat_seconds, self._reader)
        self._line = Line(link, style, surroundings)
        self._sequences = Sequences()
        self._once = Once()
        self._relayed: dict[int, None] = {}  # places of messages that were taken, the newest last

    async def run(self) -> None:
        """Keep the connection open."""
        await self._line.run()

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Relay events, one message after the other.

        Raises:
            DeliveryError: the other receiver does not answer, or says that our clocks differ.
            EventRefused: it answers, and not this message.
        """
        for taken, event in enumerate(events):
            stored = event.stored
            place = stored.position - stored.row.number or stored.row.received_us  # a test event has no position
            try:
                if place not in self._relayed and not self._once.has(event):
                    await self._line.hand_over(self._frame(event, place))
            except DeliveryError as error:
                error.taken = taken
                raise
            self._once.add(event)
            self._relayed[place] = None
            if len(self._relayed) > _REMEMBERED:
                del self._relayed[next(iter(self._relayed))]

    def _frame(self, event: OutEvent, place: int) -> Said:
        """Write the message that an event came in, or one of ours for a path or trouble event.

        Raises:
            EventRefused: it fits no frame, or its stored bytes are damaged.
        """
        try:
            if event.stored.row.kind == Kind.SIGNAL and "reason" not in event.cloud_event["data"]:
                return self._relay(event, place)
            told = tell(event, self._settings.own_account)
            assert told.contact_id is not None
            address = dc09.Address(self._settings.receiver_number or None, self._settings.line or "0", told.account)
            return self._said("ADM-CID", place, address, _contact_id_data(told.account, told.contact_id), ())
        except (ProtocolError, ValueError, LookupError) as error:  # never the end of the process: panels report to it
            raise EventRefused(str(error), for_ever=True) from None

    def _relay(self, event: OutEvent, place: int) -> Said:
        message = events.reopen(event.stored)
        envelope, data, values = message.envelope, message.data, event.cloud_event["data"]
        if values["duress"] and values["event_code"] == "423":  # the dialect is known here, perhaps not there
            told = tell(event, self._settings.own_account)
            assert told.contact_id is not None
            data = _contact_id_data(told.account, told.contact_id)
        address = dc09.Address(
            self._settings.receiver_number or envelope.address.receiver_number,
            self._settings.line or envelope.address.line or "0",
            envelope.address.account,
        )
        extended = tuple(block for block in message.extended if block[0] != _KEY_EXCHANGE)
        if not self._settings.occurred_at or any(letter == _OCCURRED_AT for letter, _ in extended):
            return self._said(envelope.token, place, address, data, extended)
        row = event.stored.row
        when = row.received_us // clock.SECOND_US if row.panel_time is None else row.panel_time
        stamped = (*extended, (_OCCURRED_AT, timestamp.encode(when)[1:]))
        try:
            return self._said(envelope.token, place, address, data, stamped)
        except BadLength:
            return self._said(envelope.token, place, address, data, extended)

    def _said(
        self, token: str, place: int, address: dc09.Address, data: bytes, extended: tuple[tuple[str, bytes], ...]
    ) -> Said:
        alike = address, token, data, tuple(block for block in extended if block[0] != _OCCURRED_AT)
        sequence = self._sequences.give(place, alike, clock.monotonic())
        now = clock.now_us() // clock.SECOND_US
        return Said(dc09.encode(token, sequence, address, data, extended, now, self._key), sequence)

    def _heartbeat(self) -> Said:
        """Return a link test stamped now."""
        settings = self._settings
        address = dc09.Address(settings.receiver_number or None, settings.line or "0", settings.link_test_account)
        now = clock.now_us() // clock.SECOND_US
        frame = dc09.encode(dc09.LINK_TEST, _LINK_TEST_SEQUENCE, address, b"", (), now, self._key)
        return Said(frame, _LINK_TEST_SEQUENCE)

    def _reader(self) -> Reader:
        """Return what finds answers in one connection's bytes."""
        framer = dc09.Framer()

        def read(data: bytes) -> list[tuple[Answer, str | None]]:
            answers = [self._answer(found) for found in framer.feed(data) if isinstance(found, dc09.Frame)]
            return [answer for answer in answers if answer is not None]

        return read

    def _answer(self, frame: dc09.Frame) -> tuple[Answer, str | None] | None:
        """Read one reply; None when it is none that can be believed."""
        if frame.body.startswith(b'"NAK"'):
            return Answer.NOT_NOW, ANY  # it bears no sequence and no account, and means that our clocks differ
        try:
            envelope = dc09.open_envelope(frame)
            dc09.unseal(envelope, self._key)
        except ProtocolError:
            return None
        if envelope.token == "DUH":
            return Answer.NEVER, envelope.sequence
        believed = envelope.token == "ACK" and envelope.encrypted == (self._key is not None)
        return (Answer.ACK, envelope.sequence) if believed else None

    def reopen(self) -> None:
        """Nothing to do: the connection is made anew when it breaks."""

    async def close(self) -> None:
        """Close the connection."""
        self._line.close()


def _contact_id_data(account: str, event: ContactId) -> bytes:
    return f"#{account}|{contact_id.encode(event)}".encode("ascii")
