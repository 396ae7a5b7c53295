"""THE STORY: frames, from the wire to their replies.

What happens to the frames of one turn of the loop is told by ``handle`` from top to bottom; what happens to each of them
before the disk, by ``_judge``. What each refusal is answered with stands in ``policy.VERDICTS``. No Receipt, no ACK:
``replies.ack`` wants one, and only the journal makes it, after the sync.
"""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from protocols import dc09
from protocols.errors import ProtocolError, Undecryptable
from receiver import dialects, payloads, policy, replies
from receiver.accounts import Account, Accounts, Unread
from receiver.arrivals import Arrival, Arrivals, Route
from receiver.aside import Aside
from receiver.clock import Clock, monotonic, to_text
from receiver.clockwatch import ClockWatch
from receiver.config import ClockSettings
from receiver.errors import JournalUnavailable, PolicyError, ReceiverError, RegisterUnavailable, StaleTimestamp
from receiver.journal import SIGNAL, Entry, Journal, Kind, Lane, Receipt, Refusal, Row
from receiver.on_test import OnTest
from receiver.paths import PathChange, Paths
from receiver.policy import Verdict
from receiver.senders import Heard, Notice, Senders
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble, Troubles

__all__ = ["Arrival", "Pipeline", "Route", "never_repeats", "repeat_identity"]

_RAW_KEPT_BYTES = 4200
_TROUBLE_PRIORITY = 5
_ZERO_SEQUENCE = "0000"
URGENT, NORMAL = Lane.URGENT.value, Lane.NORMAL.value
_TOLD = {
    (priority, duress): (URGENT if priority == payloads.URGENT_PRIORITY else NORMAL, priority, int(duress))
    for priority in range(1, 10)
    for duress in (False, True)
}
"""Lane, priority and duress of one event, by priority and duress, as plain numbers."""
_EMPTY_DIGEST = blake2b(digest_size=16)


class Signal(Struct, frozen=True, gc=False):
    """An accepted message on its way to the disk, and what its reply will need."""

    arrival: Arrival
    message: dc09.Message
    events: tuple[payloads.Event, ...]
    heard: Heard
    key: dc09.Key | None
    entry: Entry
    dialect: str


class Pipeline:
    """Takes frames of all listeners."""

    def __init__(
        self, accounts: Accounts, clock_settings: ClockSettings, journal: Journal, telemetry: Telemetry, clock: Clock,
        steady: Clock | None = None, watch: ClockWatch | None = None,
    ) -> None:  # fmt: skip
        """Take wall and steady time; without the latter, ``clock`` is taken for both (a test's clock does not jump)."""
        self.accounts = accounts
        self.paths = Paths()
        self.senders = Senders(clock_settings)
        self.troubles = Troubles()
        self.on_test = OnTest()
        self.clock_settings = clock_settings
        self._journal = journal
        self._telemetry = telemetry
        self._clock = clock
        self.steady = steady or clock
        self._watch = watch
        self.arrivals = Arrivals(self.handle, self._gave_up)
        self.aside = Aside(lambda: self.accounts, self.arrivals.again)
        self.own_event: Callable[[Row], None] = lambda _row: None  # sees path and trouble events before they are stored

    async def handle(self, arrivals: Sequence[Arrival]) -> None:
        """Answer the frames that arrived together: refusals and link tests at once, signals when they are on disk."""
        now_us, steady_us = self._clock(), self.steady()
        signals: list[Signal] = []
        held = self.aside.held
        for arrival in arrivals:
            if held and arrival.panel in held:
                self.aside.put(arrival)
                continue
            try:
                if (signal := self._judge(arrival, now_us, steady_us)) is not None:
                    signals.append(signal)
            except Unread as unread:  # it waits for the disk, and what its panel sends next waits behind it
                self.aside.put(arrival, unread.name)
            except Exception as error:  # noqa: BLE001 - our own bug: this frame stays unanswered, and no other one
                self._broke(arrival, error)
        if len(signals) < len(arrivals):
            self._answer([arrival for arrival in arrivals if arrival.done])
        if not signals:
            return
        outcomes = await self._journal.append([signal.entry for signal in signals])  # on disk from here on
        for signal, outcome in zip(signals, outcomes, strict=True):
            try:
                self._conclude(signal, outcome, now_us)
            except Exception as error:  # noqa: BLE001 - as above
                self._broke(signal.arrival, error)
        self._answer([signal.arrival for signal in signals])

    def _judge(self, arrival: Arrival, now_us: int, steady_us: int) -> Signal | None:
        """Read one frame and let it through or not; return the signal that is to be stored, None where there is none."""
        frame, route = arrival.frame, arrival.route
        envelope: dc09.Envelope | None = None
        try:
            envelope = dc09.open_envelope(frame)  # who sent it: always in clear
            account = self.accounts.known(envelope.address.account)
            if route.defaults is not None:
                account = route.defaults.fill(account)
            policy.check_sender(envelope, account)
            old = account.old_key  # its key is being rotated, and the message shows which of two opens it
            key = self.accounts.key_for(account) if old is None else policy.choose_key(envelope, account.key, old, now_us)
            message = dc09.unseal(envelope, key)  # decrypts when the token starts with *
            suspect = policy.check(message, account, self.accounts, self.clock_settings, now_us, self._watch, steady_us)
            heard = self.senders.heard(message, account, key, route, steady_us)  # refuses nothing
            if heard.notices:
                self._notice(heard.notices, envelope, route, now_us)
            if account.supervision_seconds is not None and heard.fresh:
                self._seen(account, account.supervision_seconds, route, now_us, steady_us)
            if suspect:
                self._doubt(message, route, now_us)
            dialect = account.dialect
            if dialect and (we_close := dialects.we_close(dialect)) is not None:
                arrival.panel.let_close(we_close)
            if envelope.token != dc09.LINK_TEST:
                events = payloads.decode(message, dialect)  # whatever it is: never refused
                entry = _entry(message, events, account, heard, route, now_us, suspect)
                if dialect or self.on_test.tickets:
                    entry = self._mark(entry, events, account, envelope, now_us, steady_us)
                return Signal(arrival, message, events, heard, key, entry, dialect)
            self._telemetry.link_tested(route.transport)
            arrival.reply = replies.ack_link_test(message, key, now_us, _word(dialect, route) if dialect else b"")
        except StaleTimestamp as error:
            arrival.reply = self._refuse_stale(error, message, account, route, now_us)
        except (ProtocolError, PolicyError, RegisterUnavailable) as error:
            arrival.reply = self._refuse(error, frame.raw, envelope, route, now_us)
        arrival.done = True
        return None

    def _conclude(self, signal: Signal, outcome: Receipt | JournalUnavailable, now_us: int) -> None:
        """Acknowledge a signal that is on disk, and refuse one that is not."""
        arrival, message, events, dialect = signal.arrival, signal.message, signal.events, signal.dialect
        route, heard, first = arrival.route, signal.heard, events[0]
        if isinstance(outcome, JournalUnavailable):
            arrival.reply = self._refuse(outcome, arrival.frame.raw, message.envelope, route, now_us)
        else:
            if outcome.repeat:
                self._telemetry.repeated(route.transport)
            else:
                priority = first.priority if len(events) == 1 else min([event.priority for event in events])
                told = self._telemetry.accepted(route.transport, first.protocol, priority, len(events))
                if told or heard.if_new is not None or first.block_account is not None:
                    self._tell(signal, outcome.position, now_us)
            arrival.reply = replies.ack(message, outcome, signal.key, now_us, _word(dialect, route) if dialect else b"")
        arrival.done = True

    def _answer(self, arrivals: Sequence[Arrival]) -> None:
        """Hand over the replies of frames that are done."""
        now = monotonic()
        for arrival in arrivals:
            arrival.panel.answered(arrival, now)

    def _broke(self, arrival: Arrival, error: Exception) -> None:
        """Tell of our own bug; the frame stays unanswered, and its panel sends it again."""
        self._telemetry.crashed("handling a frame", error)
        arrival.done = True

    def _gave_up(self, arrivals: Sequence[Arrival], error: Exception) -> None:
        """Tell of our own bug; none of the frames that were to be stored is answered."""
        left = [arrival for arrival in arrivals if not arrival.done]
        for arrival in left:
            self._broke(arrival, error)
        self._answer(left)

    def _mark(
        self, entry: Entry, events: tuple[payloads.Event, ...], account: Account, envelope: dc09.Envelope, now_us: int,
        steady_us: int,
    ) -> Entry:  # fmt: skip
        """Flag what is on test, by the account as the register writes it, and mark what is the panel's heartbeat."""
        name = account.account if account.registered else envelope.address.account
        flags = self.on_test.flags(entry.flags, events, name, now_us, steady_us)
        if dialects.is_poll(account.dialect, [None if event.flags else event.event_code for event in events]):
            flags = f"{flags} {dialects.POLL}".lstrip()
        return replace(entry, flags=flags)

    def handle_damage(self, damage: dc09.Damage, route: Route) -> None:
        """Count and keep bytes that are no frame; they are never answered."""
        self._refuse(damage.error, damage.raw, None, route, self._clock())

    def _tell(self, signal: Signal, position: int, now_us: int) -> None:
        """Tell of a signal on disk that is urgent, or odd."""
        events, heard, route, envelope = signal.events, signal.heard, signal.arrival.route, signal.message.envelope
        self._telemetry.stored_signal(
            position=position, account=envelope.address.account, sequence=envelope.sequence,
            codes=",".join(event.event_code or event.protocol for event in events),
            priority=min(event.priority for event in events), duress=any(event.duress for event in events),
            listener=route.listener, peer=route.peer,
        )  # fmt: skip
        other = None if dialects.has_two_accounts(signal.dialect) else events[0].block_account
        if heard.if_new is not None or other is not None:
            self._notice_signal(heard.if_new, other, envelope, route, now_us)

    def _refuse(
        self, error: ProtocolError | ReceiverError, raw: bytes, envelope: dc09.Envelope | None, route: Route, now_us: int
    ) -> bytes | None:
        error = policy.recognise_nak(error, raw)
        verdict = policy.verdict(error)
        ours = isinstance(error, JournalUnavailable)  # no fault of the sender's
        if not ours and not route.spend(route.peer, verdict is Verdict.NAK):
            self._telemetry.refused_over_budget(route.transport, error.reason)
            return None
        account = envelope.address.account if envelope else None
        self._telemetry.refused(
            route.transport, verdict.value, error.reason,
            listener=route.listener, peer=route.peer, account=account or "-", error=error,
        )  # fmt: skip
        shown = dc09.mask_keys(raw[:_RAW_KEPT_BYTES])
        kept = Refusal(now_us, error.reason, str(error), account, route.listener, route.transport, route.peer, shown)
        if not self._journal.refuse(kept):
            self._telemetry.refusals_dropped += 1
        reason = policy.TROUBLES.get(type(error))
        if reason is not None:
            text = self._explain(error, account)
            trouble = Trouble(reason, text, now_us, 1, account, route.listener, route.peer, shown.hex().upper())
            self.raise_trouble(trouble, route.origin, now_us)
        if envelope is None or verdict is Verdict.SILENCE:
            return None
        reply = replies.nak(envelope, now_us) if verdict is Verdict.NAK else replies.duh(envelope)
        if route.transport == "udp" and len(reply) > len(raw):
            self._telemetry.reply_withheld()  # a source can be forged: never more bytes than came
            return None
        return reply

    # -- impostors ------------------------------------------------------------------------------------------------

    def _notice_signal(
        self, notice: Notice | None, other: str | None, envelope: dc09.Envelope, route: Route, now_us: int
    ) -> None:
        """Tell of what is odd about a signal that was stored and is acknowledged; ``other`` is its block's account."""
        name = envelope.address.account
        if other is not None:
            text = f"account {name} sends data of account {other}; the signals belong to {name}, see block_account"
            self._notice((Notice("block-account-differs", text),), envelope, route, now_us)
        if notice is not None:
            self._notice((notice,), envelope, route, now_us)

    def _refuse_stale(
        self, error: StaleTimestamp, message: dc09.Message, account: Account, route: Route, now_us: int
    ) -> bytes | None:
        """Refuse a stale stamp, and tell of a recording played back where that can be told from a wrong clock."""
        envelope = message.envelope
        known = self._journal.knows(repeat_identity(message))
        notice = self.senders.refused_as_stale(
            message, account, envelope.frame.raw, route.peer, known, now_us, self.steady()
        )
        if notice is not None:
            self._notice((notice,), envelope, route, now_us)
        return self._refuse(error, envelope.frame.raw, envelope, route, now_us)

    def _explain(self, error: ProtocolError | ReceiverError, name: str | None) -> str:
        """Return an error's words, with what is known of the account's key when that does not open a message."""
        if name is None or not isinstance(error, Undecryptable):
            return str(error)
        try:
            account = self.accounts.known(name)
        except (Unread, RegisterUnavailable):
            return str(error)
        return self.senders.why_unopened(name, account, self.accounts.key_for(account)) or str(error)

    def _notice(self, notices: tuple[Notice, ...], envelope: dc09.Envelope, route: Route, now_us: int) -> None:
        """Raise a trouble for each notice on a message's sender."""
        for notice in notices:
            shown = dc09.mask_keys(notice.raw or envelope.frame.raw).hex().upper()
            name, peer = envelope.address.account, notice.peer or route.peer
            trouble = Trouble(notice.reason, notice.text, now_us, 1, name, route.listener, peer, shown)
            self.raise_trouble(trouble, route.origin, now_us)

    # -- paths and troubles ---------------------------------------------------------------------------------------

    def _seen(self, account: Account, interval_seconds: int, route: Route, now_us: int, steady_us: int) -> None:
        """Restart the path's timer; any valid message does."""
        change = self.paths.seen(account.account, route.listener, interval_seconds, steady_us)
        if change is not None:
            self.tell_path(change, route.origin, now_us)

    def _doubt(self, message: dc09.Message, route: Route, now_us: int) -> None:
        """Tell, once a minute at most, that messages are accepted though our clock says that their stamps are wrong."""
        text = (
            f"our clock is in doubt: the stamp {(message.stamp or b'').decode()} is outside its window and was accepted; "
            "set the clock right, then compare it with the panels'"
        )
        self.raise_trouble(Trouble("clock-suspect", text, now_us), route.origin, now_us)

    def raise_trouble(self, trouble: Trouble, origin: int, now_us: int) -> None:
        """Tell an operator, unless the like was told within the minute; then it is counted."""
        now_told = self.troubles.add(trouble, self.steady())
        if now_told is not None:
            self.tell_trouble(now_told, origin, now_us)

    def tell_trouble(self, trouble: Trouble, origin: int, now_us: int) -> None:
        """Store a trouble event and log it."""
        data = asdict(trouble) | {"since": to_text(trouble.since_us)}
        del data["since_us"]
        for name in ("accounts", "role"):
            if data[name] is None:
                del data[name]
        shown = {name: value for name, value in data.items() if value is not None and name not in ("raw", "accounts")}
        self._telemetry.trouble(**shown)
        self._store_own(Kind.TROUBLE, data, origin, now_us)

    def tell_path(self, change: PathChange, origin: int, now_us: int) -> None:
        """Store a path event and log it."""
        data = change._asdict() | {"last_seen": to_text(now_us - self.steady() + change.last_seen_us)}
        del data["last_seen_us"]
        if not change.role:
            del data["role"]  # the listener has no role
        self._telemetry.path_changed(**data)
        self._store_own(Kind.PATH, data, origin, now_us)

    def _store_own(self, kind: Kind, data: dict[str, object], origin: int, now_us: int) -> None:
        body = json.dumps(data).encode()
        event = (NORMAL, _TROUBLE_PRIORITY, 0)
        entry = Entry(kind.value, os.urandom(16), now_us, None, origin, "", "", b"", body, (event,))
        self.own_event(entry.rows()[0])
        try:
            self._journal.append_later([entry])
        except JournalUnavailable as error:
            self._telemetry.journal_failed(f"a {kind.name.lower()} event was not stored: {error}")


def _entry(
    message: dc09.Message, events: tuple[payloads.Event, ...], account: Account, heard: Heard, route: Route, now_us: int,
    suspect: bool,
) -> Entry:  # fmt: skip
    """Return what the journal keeps of a message, with what was decided of each of its events."""
    envelope = message.envelope
    flags = "" if account.registered else "unregistered"
    if not envelope.encrypted and (account.key is not None or heard.downgraded):
        flags = f"{flags} plaintext".lstrip()
    if suspect:
        flags = f"{flags} clock-suspect".lstrip()
    panel_time = message.panel_time
    if panel_time is not None and account.time_zone is not None:
        panel_time = account.to_utc(panel_time)
    raw, body = envelope.frame.raw, message.body if envelope.encrypted else None
    if message.extended:  # the value of a key exchange is not kept
        raw, body = dc09.mask_keys(raw), body and dc09.mask_body(message)
    if len(events) == 1:  # as nearly always, and a loop over one costs 0.2 µs
        told: tuple[tuple[int, int, int], ...] = (_TOLD[events[0].priority, events[0].duress],)
    else:
        told = tuple([_TOLD[event.priority, event.duress] for event in events])
    return Entry(SIGNAL, repeat_identity(message), now_us, panel_time, route.origin, route.peer, flags, raw, body, told)


def _word(dialect: str, route: Route) -> bytes:
    """Return what stands between the brackets of an ACK; over UDP nothing, for no reply is longer than what it answers."""
    return dialects.word_in_ack(dialect) if route.transport == "tcp" else b""


def repeat_identity(message: dc09.Message) -> bytes:
    """Return the 16-byte digest that is equal for repeats of one message (contract, section 5).

    Time stamp and ciphertext differ between repeats of an encrypted message, so neither counts, nor does ``H``. With
    sequence 0000 the time stamp must be equal too, and without one that can be read nothing is ever a repeat.
    """
    envelope = message.envelope
    told = b'%b"%b[%b' % (envelope.token.encode(), envelope.echo.upper(), message.data)
    if message.extended:
        told += b"".join([b"][%b%b" % (letter.encode(), value) for letter, value in message.extended if letter != "H"])
    if envelope.sequence == _ZERO_SEQUENCE:
        told += b"]" + (os.urandom(16) if never_repeats(message) else message.stamp)
    digest = _EMPTY_DIGEST.copy()  # a copy costs half of a new one
    digest.update(told)
    return digest.digest()


def never_repeats(message: dc09.Message) -> bool:
    """Tell whether nothing shows that a message came before: then its identity is random."""
    return message.envelope.sequence == _ZERO_SEQUENCE and message.panel_time is None
