"""THE STORY: one frame, from the wire to its reply.

What happens to a frame is told by ``handle`` from top to bottom. What each refusal is answered with stands in
``policy.VERDICTS``. No Receipt, no ACK: ``replies.ack`` wants one, and only the journal makes it, after the sync.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from hashlib import blake2b
from typing import NamedTuple

from protocols import dc09
from protocols.errors import ProtocolError
from receiver import payloads, policy, replies
from receiver.accounts import Account, Accounts
from receiver.clock import Clock, to_text
from receiver.config import ClockSettings
from receiver.errors import JournalUnavailable, PolicyError, ReceiverError
from receiver.journal import Journal, Kind, Lane, Refusal, Row
from receiver.paths import PathChange, Paths
from receiver.policy import Verdict
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble, Troubles

_RAW_KEPT_BYTES = 4200
_TROUBLE_PRIORITY = 5
ZERO_SEQUENCE = "0000"
URGENT, NORMAL = Lane.URGENT.value, Lane.NORMAL.value


class Route(NamedTuple):
    """The way a frame came: listener, transport, the peer's address, and the number the journal has for the first two."""

    listener: str
    transport: str
    peer: str
    origin: int


class Pipeline:
    """Takes frames of all listeners."""

    def __init__(
        self, accounts: Accounts, clock_settings: ClockSettings, journal: Journal, telemetry: Telemetry, clock: Clock
    ) -> None:
        self.accounts = accounts
        self.paths = Paths()
        self.troubles = Troubles()
        self.clock_settings = clock_settings
        self._journal = journal
        self._telemetry = telemetry
        self._clock = clock
        self.own_event: Callable[[Row], None] = lambda _row: None  # sees path and trouble events before they are stored

    async def handle(self, frame: dc09.Frame, route: Route) -> bytes | None:
        """Return the reply to one frame, or None when the right answer is silence."""
        now_us = self._clock()
        envelope: dc09.Envelope | None = None
        try:
            envelope = dc09.open_envelope(frame)  # who sent it: always in clear
            policy.check_sender(envelope)
            account = self.accounts.find(envelope.address.account)
            key = self.accounts.key_for(account)
            message = dc09.unseal(envelope, key)  # decrypts when the token starts with *
            policy.check_plaintext(envelope, account)
            policy.check_clock(message, account, self.clock_settings, now_us)
            policy.check_account(envelope, account, self.accounts.accept_unknown)
            policy.check_token(envelope)
            if account.supervision_seconds is not None:
                self._seen(account, account.supervision_seconds, route, now_us)
            if envelope.token == dc09.LINK_TEST:
                self._telemetry.link_tested(route.transport)
                return replies.ack_link_test(message, key, now_us)
            events = payloads.decode(message, account.dialect)  # Contact ID, SIA-DCS or opaque; never refused
            receipt = await self._journal.append(_rows(message, events, account, route, now_us))  # on disk from here on
        except (ProtocolError, PolicyError, JournalUnavailable) as error:
            return self._refuse(error, frame.raw, envelope, route, now_us)
        if receipt.repeat:
            self._telemetry.repeated(route.transport)
        else:
            self._accepted(message, events, receipt.position, route)
        return replies.ack(message, receipt, key, now_us)

    def handle_damage(self, damage: dc09.Damage, route: Route) -> None:
        """Count and keep bytes that are no frame; they are never answered."""
        self._refuse(damage.error, damage.raw, None, route, self._clock())

    def _accepted(self, message: dc09.Message, events: tuple[payloads.Event, ...], position: int, route: Route) -> None:
        priority = events[0].priority if len(events) == 1 else min([event.priority for event in events])
        if self._telemetry.accepted(route.transport, events[0].protocol, priority, len(events)):
            self._telemetry.stored_signal(
                position=position, account=message.envelope.address.account, sequence=message.envelope.sequence,
                codes=",".join(event.event_code or event.protocol for event in events), priority=priority,
                duress=any(event.duress for event in events), listener=route.listener, peer=route.peer,
            )  # fmt: skip

    def _refuse(
        self, error: ProtocolError | ReceiverError, raw: bytes, envelope: dc09.Envelope | None, route: Route, now_us: int
    ) -> bytes | None:
        verdict = policy.verdict(error)
        account = envelope.address.account if envelope else None
        self._telemetry.refused(
            route.transport, verdict.value, error.reason,
            listener=route.listener, peer=route.peer, account=account or "-", error=error,
        )  # fmt: skip
        kept = Refusal(
            now_us, error.reason, str(error), account, route.listener, route.transport, route.peer, raw[:_RAW_KEPT_BYTES]
        )
        if not self._journal.refuse(kept):
            self._telemetry.refusals_dropped += 1
        if isinstance(error, policy.TROUBLES):
            shown = raw[:_RAW_KEPT_BYTES].hex().upper()
            trouble = Trouble(error.reason, str(error), now_us, 1, account, route.listener, route.peer, shown)
            self.raise_trouble(trouble, route.origin, now_us)
        if envelope is None or verdict is Verdict.SILENCE:
            return None
        return replies.nak(envelope, now_us) if verdict is Verdict.NAK else replies.duh(envelope)

    # -- paths and troubles ---------------------------------------------------------------------------------------

    def _seen(self, account: Account, interval_seconds: int, route: Route, now_us: int) -> None:
        """Restart the path's timer; any valid message does."""
        change = self.paths.seen(account.account, route.listener, interval_seconds, now_us)
        if change is not None:
            self.tell_path(change, route.origin, now_us)

    def raise_trouble(self, trouble: Trouble, origin: int, now_us: int) -> None:
        """Tell an operator, unless the like was told within the minute; then it is counted."""
        now_told = self.troubles.add(trouble, now_us)
        if now_told is not None:
            self.tell_trouble(now_told, origin, now_us)

    def tell_trouble(self, trouble: Trouble, origin: int, now_us: int) -> None:
        """Store a trouble event and log it."""
        data = asdict(trouble) | {"since": to_text(trouble.since_us)}
        del data["since_us"]
        self._telemetry.trouble(**{name: value for name, value in data.items() if value is not None and name != "raw"})
        self._store_own(Kind.TROUBLE, data, origin, now_us)

    def tell_path(self, change: PathChange, origin: int, now_us: int) -> None:
        """Store a path event and log it."""
        data = change._asdict() | {"last_seen": to_text(change.last_seen_us)}
        del data["last_seen_us"]
        self._telemetry.path_changed(**data)
        self._store_own(Kind.PATH, data, origin, now_us)

    def _store_own(self, kind: Kind, data: dict[str, object], origin: int, now_us: int) -> None:
        body = json.dumps(data).encode()
        row = Row(kind.value, NORMAL, _TROUBLE_PRIORITY, 0, now_us, None, os.urandom(16), 0, origin, "", "", b"", body)
        self.own_event(row)
        try:
            self._journal.append_later([row])
        except JournalUnavailable as error:
            self._telemetry.journal_failed(f"a {kind.name.lower()} event was not stored: {error}")


def _rows(
    message: dc09.Message, events: tuple[payloads.Event, ...], account: Account, route: Route, now_us: int
) -> list[Row]:
    """Return what the journal keeps of a message: one row an event."""
    envelope = message.envelope
    flags = "" if account.registered else "unregistered"
    if account.key is not None and not envelope.encrypted:
        flags = "plaintext"
    panel_time = None if message.panel_time is None else account.to_utc(message.panel_time)
    identity = repeat_identity(message)
    body = message.body if envelope.encrypted else None
    rows = []
    for number, event in enumerate(events):
        lane = URGENT if event.priority == payloads.URGENT_PRIORITY else NORMAL
        duress = 1 if event.duress else 0  # plain numbers: SQLite binds them three times as fast as bool and enum
        rows.append(
            Row(
                0, lane, event.priority, duress, now_us, panel_time, identity, number,
                route.origin, route.peer, flags, envelope.frame.raw, body,
            )
        )  # fmt: skip
    return rows


def repeat_identity(message: dc09.Message) -> bytes:
    """Return the 16-byte digest that is equal for repeats of one message (contract, section 5).

    Time stamp and ciphertext differ between repeats of an encrypted message, so neither counts, nor does ``H``. With
    sequence 0000 the time stamp must be equal too, and without one nothing is ever a repeat.
    """
    envelope = message.envelope
    told = envelope.token.encode() + b'"' + envelope.echo.upper() + b"[" + message.data
    for letter, value in message.extended:
        if letter != "H":
            told += b"][" + letter.encode() + value
    if envelope.sequence == ZERO_SEQUENCE:
        told += b"]" + (message.stamp or os.urandom(16))
    return blake2b(told, digest_size=16).digest()
