"""Stored events as CloudEvents 1.0 JSON, the form every output hands over and ``journal export`` prints.

Written when it is read, off the way from the wire to the ACK: a signal is decoded again from its stored bytes, what was
decided when it came (priority, duress, lane, flags, panel time) is taken from its row, and the account's name, site and
instructions are the register's of now.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import orjson

from protocols import dc09
from protocols.errors import ProtocolError
from receiver import clock, payloads
from receiver.accounts import Account, Accounts
from receiver.journal import SIGNAL, Kind, Stored

_SIGNAL_TYPE = "receiver.signal.v1"
_TYPES: dict[int, str] = {SIGNAL: _SIGNAL_TYPE, Kind.PATH: "receiver.path.v1", Kind.TROUBLE: "receiver.trouble.v1"}


class Finds(Protocol):
    """The register as an event asks it."""

    def find(self, account: str) -> Account:
        """Return the account, or a stranger."""


class InMemory:
    """A register that is not waited for: an account that is not in memory raises ``Unread``."""

    def __init__(self, accounts: Accounts) -> None:
        self.find = accounts.known


class OutEvent(NamedTuple):
    """An event on its way out: the stored row, what filters look at, its CloudEvents object, and its account's entry.

    ``entry`` is the register's of now, or a stranger's; ``dialect``, ``name`` and ``site`` are in it.
    """

    stored: Stored
    account: str | None
    cloud_event: Mapping[str, Any]
    entry: Account

    @property
    def event_id(self) -> str:
        """The event's stable id."""
        return str(self.cloud_event["id"])

    def to_json(self) -> bytes:
        """Return the CloudEvents object as one line of JSON, without its newline."""
        return orjson.dumps(self.cloud_event)


def render(stored: Stored, accounts: Finds) -> OutEvent:
    """Write a stored event as CloudEvents.

    Raises:
        ProtocolError: the stored bytes are damaged; so say ``ValueError``, ``LookupError`` and ``ArithmeticError``.
    """
    row = stored.row
    if stored.lost:
        raise ProtocolError(f"{stored.stands_for} events are lost, the bytes do not fit their checksum")
    received_at = clock.to_text(row.received_us)
    if row.kind == SIGNAL:
        return _signal(stored, accounts, received_at)
    data = json.loads(row.body or b"{}")
    account = data.get("account")
    return _wrap(stored, _TYPES[row.kind], data, received_at, account, accounts.find(account or ""))


def _wrap(
    stored: Stored, event_type: str, data: dict[str, Any], received_at: str, account: str | None, entry: Account
) -> OutEvent:
    """Put the CloudEvents envelope around an event's data."""
    origin = stored.origin
    event = {
        "specversion": "1.0",
        "id": stored.event_id,
        "type": event_type,
        "source": f"/receivers/{origin.receiver_number}/lines/{origin.line}",
        "time": received_at,
        "datacontenttype": "application/json",
        "data": data,
    }
    if account:
        event["subject"] = account
    return OutEvent(stored, account, event, entry)


def render_or_tell(stored: Stored, accounts: Finds) -> OutEvent:
    """Write a stored event as CloudEvents or, when its bytes are damaged, a trouble that says so: nothing is skipped."""
    try:
        return render(stored, accounts)
    except (ProtocolError, ValueError, LookupError, ArithmeticError) as error:
        what = f"the events at positions {stored.lost}" if stored.lost else f"the event at position {stored.position}"
        text = f"{what} cannot be read: {error}"
        moment, raw = clock.to_text(stored.row.received_us), bytes(stored.row.raw).hex().upper()
        data = {
            "reason": "journal-damaged", "text": text, "count": stored.stands_for, "since": moment, "account": None,
            "listener": stored.origin.listener, "peer": None, "raw": raw, "output": None,
        }  # fmt: skip
        return _wrap(stored, _TYPES[Kind.TROUBLE], data, moment, None, accounts.find(""))


def reopen(stored: Stored) -> dc09.Message:
    """Read a stored signal's message again; no key is needed, its content was stored in clear.

    Raises:
        ProtocolError: the stored bytes are damaged.
    """
    return _read(stored.row.raw, stored.row.body)[0]


@lru_cache(maxsize=4)  # the events of one message come one by one: its frame is read once, and shown as hex once
def _read(raw: bytes, body: bytes | None) -> tuple[dc09.Message, tuple[payloads.Event, ...], str]:
    """Read a stored message: what it says, its events, and its frame as hex.

    Raises:
        ProtocolError: the stored bytes are damaged.
    """
    frames = dc09.split_datagram(raw, over_cr=True)  # what was accepted is read again as it was
    if len(frames) != 1 or not isinstance(frames[0], dc09.Frame):
        raise ProtocolError("the stored frame is damaged")
    envelope = dc09.open_envelope(frames[0])
    message = dc09.read_body(envelope, envelope.content if body is None else body)
    return message, payloads.decode(message), raw.hex().upper()


def _signal(stored: Stored, accounts: Finds, received_at: str) -> OutEvent:
    row, origin = stored.row, stored.origin
    message, events, shown = _read(row.raw, row.body)
    envelope, event = message.envelope, events[row.number]
    address = envelope.address
    entry = accounts.find(address.account)
    data: dict[str, Any] = {
        "position": stored.position,
        "receiver_number": origin.receiver_number,
        "line": origin.line,
        "listener": origin.listener,
        "transport": origin.transport,
        "peer": row.peer,
        "account": address.account,
        "account_name": entry.name,
        "site": entry.site,
        "instructions": entry.instructions,
        "panel_receiver_number": address.receiver_number,
        "panel_line": address.line,
        "sequence": envelope.sequence,
        "token": envelope.token,
        "encrypted": envelope.encrypted,
        **describe(event),
        "priority": row.priority,
        "duress": bool(row.duress),
        "extended": payloads.extended_by_name(message) if message.extended else {},
        "panel_time": None if row.panel_time is None else clock.seconds_to_text(row.panel_time),
        "received_at": received_at,
        "flags": [*(payloads.flags_of(row.flags, row.number) if row.flags else ()), *event.flags],
        "raw": shown,
    }
    if event.block_account is not None:
        data["block_account"] = event.block_account
    if event.modifiers:
        data["modifiers"] = dict(event.modifiers)
    return _wrap(stored, _SIGNAL_TYPE, data, received_at, address.account, entry)


def describe(event: payloads.Event) -> dict[str, Any]:
    """Return what an event says of itself, in the order of the contract."""
    return {
        "protocol": event.protocol,
        "qualifier": event.qualifier,
        "event_code": event.event_code,
        "event": event.event,
        "category": event.category,
        "priority": event.priority,
        "duress": event.duress,
        "silent": event.silent,
        "partition": event.partition,
        "zone": event.zone,
        "user": event.user,
        "text": event.text,
    }
