"""What an event says to automation software, in the two vocabularies it may know: Contact ID and SIA.

A signal keeps its own vocabulary; the other is made by the tables only for a side that cannot take the original. Our own
events are told in Contact ID: a lost path is 350 of its account (351 primary, 352 backup), restored when the path is;
troubles are system or communication troubles of our own account; an account on test is 466 of it. Contact ID 423 that the
account's dialect makes a duress goes out as 121: sent as it came, an operator would read a forced door.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from protocols import dc09, sia_dcs
from protocols.automation import conversion
from protocols.contact_id import ContactId, Qualifier
from protocols.errors import DoesNotFit, NoEquivalent, ProtocolError
from protocols.sia_dcs import SiaEvent
from receiver import events, payloads
from receiver.config.automation import zone_of_link
from receiver.events import OutEvent
from receiver.journal import Kind

_QUALIFIERS = {"new": Qualifier.NEW, "restore": Qualifier.RESTORE, "previous": Qualifier.PREVIOUS}
_TROUBLE_CODES = {
    # An account may be impersonated, or its panel swapped.
    "plaintext-refused": "362", "downgraded": "362", "replayed": "362", "second-address": "362",
    # Messages that could not be taken, or not be handed on.
    "undecryptable": "354", "unknown-account": "354", "unknown-token": "354", "reflected-reply": "354",
    "sequence-reused": "354", "block-account-differs": "354", "dead-letter": "354", "does-not-fit": "354",
    # Links, ours and the panels'.
    "automation-lost": "350", "automation-restored": "350", "paths-lost": "350",
    "paths-lost-cleared": "350", "paths-restored": "350", "listener-silent": "350", "listener-silent-cleared": "350",
    "never-seen": "350", "never-seen-cleared": "350", "path-lost-cleared": "350",
    # Room: the log is nearly full. A backlog that is full has no code of its own: one end closes both of its beginnings.
    "disk-low": "623", "disk-cleared": "623", "backlog-high": "623", "backlog-full": "623", "backlog-cleared": "623",
    "clock-stepped": "626", "clock-behind-journal": "626", "clock-unsynchronised": "626", "clock-suspect": "626",
    # Service on and off premises. Not 607: at that some automation takes the whole account out of service, hold-up too.
    "on-test-began": "466", "on-test-ended": "466",
}  # fmt: skip
_NUMBERS = {
    "paths-lost": "001", "paths-restored": "001", "paths-lost-cleared": "001",
    "listener-silent": "002", "listener-silent-cleared": "002",
    "never-seen": "003", "never-seen-cleared": "003",
    "backlog-high": "001", "backlog-full": "001", "backlog-cleared": "001", "disk-low": "002", "disk-cleared": "002",
    "journal-unwritable": "003", "journal-recovered": "003", "on-test-began": "004", "on-test-ended": "004",
}  # fmt: skip
"""Zone numbers of our own account: what has the same code and another cause must not be closed by the other's restore.

Those under 623, 300 and 466 differ too, because all are the same trouble in SIA.
"""
_NO_NUMBER = "000"
_OF_A_LINK = ("automation-lost", "automation-restored")
_OTHER_TROUBLE = "300"
_OF_THE_ACCOUNT = (
    "plaintext-refused", "downgraded", "replayed", "second-address", "undecryptable", "sequence-reused", "never-seen",
    "never-seen-cleared", "path-lost-cleared", "on-test-began", "on-test-ended",
)  # fmt: skip
_OF_A_PATH = ("never-seen", "never-seen-cleared", "path-lost-cleared")
_PATH_CODES = {"primary": "351", "backup": "352"}
_PATH_CODE = "350"
_RESTORED = ("-restored", "-recovered", "-cleared", "-ended")
_ENDING = {code for reason, code in _TROUBLE_CODES.items() if reason.endswith(_RESTORED)}
_FORCED_ACCESS, _DURESS = "423", "121"
_UNSAFE = re.compile(rb"[\x00-\x1f\x7f]")
_ROUND = bytes.maketrans(b"[]", b"()")


class Told(NamedTuple):
    """One event for automation software, in the vocabulary it came in.

    ``block`` is SIA as it came, None when it has to be written from ``sia``; ``user`` says that its number is a user's,
    ``own`` that it is no panel's signal.
    """

    account: str
    contact_id: ContactId | None
    sia: SiaEvent | None = None
    block: bytes | None = None
    user: bool = False
    own: bool = False

    def as_contact_id(self, cut: bool = False) -> tuple[ContactId, bool]:
        """Return the event in Contact ID, partition of 2 and number of 3 digits, and whether it was converted.

        Raises:
            NoEquivalent: the tables have no Contact ID code for it.
            DoesNotFit: a number has no room.
        """
        if self.contact_id is not None:
            return _to_width(self.contact_id, cut), False
        assert self.sia is not None
        return _to_width(conversion.to_contact_id(self.sia), cut), True

    def as_sia(self) -> tuple[bytes, bool]:
        """Return the event as a SIA block, and whether it was converted.

        Raises:
            NoEquivalent: the tables have no SIA code for it.
        """
        if self.block is not None:
            return self.block, False
        sia = self.sia if self.contact_id is None else self._converted(self.contact_id)
        assert sia is not None
        return _safe(sia_dcs.encode((sia,)).encode("utf-8")), self.contact_id is not None

    def _converted(self, event: ContactId) -> SiaEvent:
        """Return the SIA event for a Contact ID one; of our own, a plain system trouble where the tables have none.

        So too where they have none for the restore that will follow: it could not be seen which trouble that ends.
        """
        try:
            if self.own and event.event_code in _ENDING:
                conversion.to_sia(replace(event, qualifier=Qualifier.RESTORE))
            return conversion.to_sia(event)
        except NoEquivalent:
            if not self.own:
                raise
            plain = _PATH_CODE if event.event_code in _PATH_CODES.values() else _OTHER_TROUBLE
            return conversion.to_sia(ContactId(event.qualifier, plain, event.partition, event.zone_or_user))


def tell(event: OutEvent, own_account: str) -> Told:
    """Return what an event says.

    Raises:
        NoEquivalent: nothing that either vocabulary could say: a payload nobody could read, or a format of its own.
        ProtocolError: the stored bytes are damaged; so say ``ValueError`` and ``LookupError``.
    """
    data = event.cloud_event["data"]
    if "reason" in data:  # a trouble, or an event of any kind that could not be read again
        code = _TROUBLE_CODES.get(data["reason"], _OTHER_TROUBLE)
        qualifier = Qualifier.RESTORE if data["reason"].endswith(_RESTORED) else Qualifier.NEW
        account = data["account"] if data["reason"] in _OF_THE_ACCOUNT else None
        number = _NO_NUMBER if account else _number_of(data)
        if account is not None and data["reason"] in _OF_A_PATH:
            code = _PATH_CODES.get(data.get("role", ""), _PATH_CODE)
        return Told(account or own_account, ContactId(qualifier, code, "00", number), own=True)
    if event.stored.row.kind == Kind.PATH:
        qualifier = Qualifier.RESTORE if data["state"] == "restored" else Qualifier.NEW
        return Told(
            data["account"], ContactId(qualifier, _PATH_CODES.get(data.get("role", ""), _PATH_CODE), "00", "000"), own=True
        )
    if data["event_code"] is None:
        raise NoEquivalent(f"its payload ({data['token']}) can be told in no automation format; it stands in the journal")
    if data["protocol"] == "contact-id":
        return _told_contact_id(event)
    return _told_sia(event)


def _number_of(data: Mapping[str, Any]) -> str:
    """Return the zone number of a trouble of our own account; each automation link has its own."""
    if data["reason"] in _OF_A_LINK and data.get("output"):
        return zone_of_link(data["output"])
    return _NUMBERS.get(data["reason"], _NO_NUMBER)


def _told_contact_id(event: OutEvent) -> Told:
    data = event.cloud_event["data"]
    code, user = data["event_code"], data["user"] is not None
    if code == _FORCED_ACCESS and data["duress"]:
        code, user = _DURESS, True
    number = data["user"] if data["user"] is not None else data["zone"]
    contact_id = ContactId(_QUALIFIERS[data["qualifier"]], code, data["partition"].upper(), number.upper())
    return Told(data["account"], contact_id, user=user)


def _told_sia(event: OutEvent) -> Told:
    message = events.reopen(event.stored)
    block = _block(message)
    found = sia_dcs.decode(payloads.to_text(block)[0])
    one = found[event.stored.row.number]
    as_it_came = _safe(block) if len(found) == 1 and block[:1] in (b"N", b"O") else None
    return Told(message.envelope.address.account, None, one, as_it_came, user=event.cloud_event["data"]["user"] is not None)


def _block(message: dc09.Message) -> bytes:
    """Return the data without the account in front, as bytes: its texts have no agreed charset."""
    text, _ = payloads.to_text(message.data)
    rest, _ = payloads.split_account(text, message.envelope.address.account)
    block = message.data if rest == text else message.data.partition(b"|")[2]
    try:
        sia_dcs.decode(payloads.to_text(block)[0])
    except ProtocolError:  # the account may be missing and the bar be the block's own
        return message.data
    return block


def _safe(block: bytes) -> bytes:
    """Take out of a panel's text what would end the frame, so that no panel can write a report of another account."""
    return _UNSAFE.sub(b" ", block).translate(_ROUND)


def _to_width(event: ContactId, cut: bool) -> ContactId:
    """Return the event with a partition of 2 digits and a number of 3: zeros in front come or go, nothing else.

    Told to ``cut``, 99 or 999 stands for what has no room.

    Raises:
        DoesNotFit: a number has no room.
    """
    partition, number = event.partition.lstrip("0").rjust(2, "0"), event.zone_or_user.lstrip("0").rjust(3, "0")
    if not cut and (len(partition) > 2 or len(number) > 3):
        raise DoesNotFit(f"partition {event.partition} or number {event.zone_or_user} has no room in 2 and 3 digits")
    partition, number = "99" if len(partition) > 2 else partition, "999" if len(number) > 3 else number
    return ContactId(event.qualifier, event.event_code, partition, number)


def fitted(account: str, digits: int, cut: bool) -> str:
    """Return the account with zeros in front, in capitals; told to ``cut``, its last digits.

    Raises:
        DoesNotFit: it is longer.
    """
    if cut:
        account = account[-digits:]
    if len(account) > digits:
        raise DoesNotFit(f"account {account} has no room in {digits} digits")
    return account.upper().rjust(digits, "0")
