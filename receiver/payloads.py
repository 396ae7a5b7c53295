"""From a message to the events in it: token to payload decoder, codes to meanings.

A payload that cannot be read is not refused: it becomes one event with the flag ``unreadable`` and its text, so that it
is stored, acknowledged and seen by a person. Panels that are told DUH block.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from protocols import contact_id, dc09, sia_dcs
from protocols.dc09 import timestamp
from protocols.errors import ContactIdError, SiaDcsError, TimestampError
from receiver import clock, dialects

URGENT_PRIORITY = 1
_ORDINARY_PRIORITY = 5
_SILENT = {
    "121": True, "122": True, "124": True, "125": True, "126": True, "127": True, "129": True, "HA": True, "HV": True,
    "120": False, "123": False, "PA": False,
}  # fmt: skip
_QUALIFIER_WORDS = {1: "new", 3: "restore", 6: "previous"}
_FORCED_ACCESS = "423"  # Ajax sends it for a disarm under duress
_EXTENDED_NAMES = {
    "A": "authentication_hash", "C": "supervision_category", "H": "occurred_at", "I": "alarm_text", "J": "network_path",
    "L": "location", "M": "mac_address", "N": "network_address", "O": "building_name", "P": "programming_data", "R": "room",
    "S": "site_name", "T": "alarm_trigger", "X": "longitude", "Y": "latitude", "Z": "altitude",
}  # fmt: skip
# Bounded: a number of 400 digits is no float, or one that JSON has no word for.
_PLACE = re.compile(r"([0-9]{1,6})([EWNS])([0-9]{1,4}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
_ALTITUDE = re.compile(r"[+-]?(?:[0-9]{1,9}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
_KEY_EXCHANGE = "K"  # carries an encryption key: never shown


class Event(Struct, frozen=True, gc=False):
    """One thing that happened at the premises, with its meaning. Numbers are the text as sent."""

    protocol: str
    qualifier: str | None
    event_code: str | None
    event: str | None
    category: str | None
    priority: int
    duress: bool
    silent: bool | None
    partition: str | None
    zone: str | None
    user: str | None
    text: str | None
    flags: tuple[str, ...]
    block_account: str | None = None
    modifiers: tuple[tuple[str, str], ...] = ()


def decode(message: dc09.Message, dialect: str = "") -> tuple[Event, ...]:
    """Return the events of a message, at least one; a link test has none."""
    envelope = message.envelope
    token = envelope.token
    if token == dc09.LINK_TEST:
        return ()
    if token == "ADM-CID":
        front, _, rest = message.data.partition(b"|")
        # The account in front of the event is the header's, written alike, as nearly always; "#" stands once in an echo.
        if front[:1] == b"#" and envelope.echo.endswith(front) and (ordinary := _ordinary_contact_id(rest, dialect)):
            return ordinary
    text, clean = to_text(message.data)
    flags = () if clean else ("charset",)
    if token == "ADM-CID":
        return (_contact_id(text, message.envelope.address.account, dialect, flags),)
    if token == "SIA-DCS":
        return _sia_dcs(text, message.envelope.address.account, flags)
    return (Event("opaque", None, None, None, None, _ORDINARY_PRIORITY, False, None, None, None, None, text, flags),)


def to_text(raw: bytes) -> tuple[str, bool]:
    """Decode text of the wire, UTF-8 or else Windows-1252, and say whether every byte had a meaning."""
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        pass
    try:
        return raw.decode("cp1252"), True
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace"), False


def split_account(text: str, header_account: str) -> tuple[str, str | None]:
    """Take ``#acct|`` (or ``acct|``) off the front; return the rest and the account where it differs from the header's."""
    if text.startswith(f"#{header_account}|"):
        return text[len(header_account) + 2 :], None
    front, bar, rest = text.partition("|")
    if not bar:
        return text, None
    account = front.removeprefix("#")
    if account and not (account.isascii() and account.isalnum() and len(account) <= 16):
        return text, None
    return rest, account if account and account.upper() != header_account.upper() else None


def _unreadable(protocol: str, text: str, flags: tuple[str, ...], block_account: str | None) -> Event:
    return Event(
        protocol, None, None, None, None, _ORDINARY_PRIORITY, False, None, None, None, None, text,
        (*flags, "unreadable"), block_account,
    )  # fmt: skip


def _contact_id(text: str, header_account: str, dialect: str, flags: tuple[str, ...]) -> Event:
    rest, block_account = split_account(text, header_account)
    try:
        event = _contact_id_event(rest, dialect)
    except ContactIdError:
        return _unreadable("contact-id", text, flags, block_account)
    if flags or block_account is not None:
        return replace(event, flags=flags + event.flags, block_account=block_account)
    return event


@lru_cache(maxsize=8192)  # the same few thousand texts come over and over: 0.1 µs in place of 3
def _ordinary_contact_id(raw: bytes, dialect: str) -> tuple[Event, ...]:
    """Return the event without its account; nothing when there is anything to be said about it beside its meaning."""
    text, clean = to_text(raw)
    try:
        return (_contact_id_event(text, dialect),) if clean else ()
    except ContactIdError:
        return ()


def _contact_id_event(text: str, dialect: str) -> Event:
    event = contact_id.decode(text)
    code, number = event.event_code, event.zone_or_user
    flags: tuple[str, ...] = ()
    known = contact_id.CODES.get(code)
    if known is None:
        duress = code.startswith("12")  # the family's range: treated as duress until a person says otherwise
        category, priority = ("panic/duress", URGENT_PRIORITY) if duress else ("special", _ORDINARY_PRIORITY)
        known = contact_id.Code("Unknown event code", category, priority, duress, "zone")
        flags = ("unmapped",)
    duress = known.duress or (code == _FORCED_ACCESS and dialects.forced_access_is_duress(dialect))
    return Event(
        "contact-id",
        _QUALIFIER_WORDS[event.qualifier],
        code,
        known.event,
        known.category,
        URGENT_PRIORITY if duress else known.priority,
        duress,
        _SILENT.get(code),
        event.partition,
        None if known.number == "user" else number,
        number if known.number == "user" else None,
        None,
        flags,
    )


def _sia_dcs(text: str, header_account: str, flags: tuple[str, ...]) -> tuple[Event, ...]:
    rest, block_account = split_account(text, header_account)
    try:
        found = sia_dcs.decode(rest)
    except SiaDcsError:
        try:  # the account may be missing and the bar be the block's own
            found = sia_dcs.decode(text)
        except SiaDcsError:
            return (_unreadable("sia-dcs", text, flags, block_account),)
    return tuple([_sia_event(event, flags, block_account) for event in found])


def _sia_event(event: sia_dcs.SiaEvent, flags: tuple[str, ...], block_account: str | None) -> Event:
    known = sia_dcs.CODES.get(event.code)
    if known is None:
        flags = (*flags, "unmapped")
        known = sia_dcs.Code("Unknown event code", "special", False, False, "none", None)
    paired = contact_id.CODES.get(known.contact_id or "")
    ordinary = paired.priority if paired else _ORDINARY_PRIORITY
    partition, user, zone = event.modifier("ri"), event.modifier("id"), event.address
    if known.address == "user" and user is None:
        user, zone = zone, None
    elif known.address == "area" and partition is None:
        partition, zone = zone, None
    return Event(
        "sia-dcs",
        "restore" if known.restoral else "new",
        event.code,
        known.event,
        known.category,
        URGENT_PRIORITY if known.duress else ordinary,
        known.duress,
        _SILENT.get(event.code),
        partition,
        zone,
        user,
        " / ".join(text.strip() for text in event.texts if text.strip()) or None,
        (*flags, "late") if event.late else flags,
        block_account,
        tuple((name, value) for name, value in event.modifiers if name not in ("ri", "id")),
    )


def some_events(flag: str, numbers: Iterable[int]) -> str:
    """Write a flag that is stored once for a message and is true of some of its events: ``on-test:0.2``."""
    return f"{flag}:{'.'.join(map(str, numbers))}"


def flags_of(stored: str, number: int) -> list[str]:
    """Return the flags of one event of a message from those stored for all of it."""
    found = []
    for flag in stored.split():
        name, colon, numbers = flag.partition(":")
        if name != dialects.POLL and (not colon or str(number) in numbers.split(".")):
            found.append(name)
    return found


def extended_by_name(message: dc09.Message) -> dict[str, object]:
    """Return the extended data by name; links as a list, places in degrees, what has no name under ``other``."""
    named: dict[str, object] = {}
    other: list[list[str]] = []
    for letter, raw in message.extended:
        text, _ = to_text(raw)
        if letter == "V":
            links = named.setdefault("links", [])
            assert isinstance(links, list)
            links += [link.strip() for link in text.split(",") if link.strip()]
            continue
        name = _EXTENDED_NAMES.get(letter)
        value = "(withheld)" if letter == _KEY_EXCHANGE else _extended_value(letter, text)
        if name is None or value is None or name in named:
            other.append([letter, text if value is None else str(value)])
        else:
            named[name] = value
    return named | ({"other": other} if other else {})


def _extended_value(letter: str, text: str) -> object:
    if letter in ("X", "Y"):
        return _degrees(text, "EW" if letter == "X" else "NS")
    if letter == "Z":
        return float(text) if _ALTITUDE.fullmatch(text) else None
    if letter == "H":
        try:
            return clock.seconds_to_text(timestamp.decode(b"_" + text.lstrip("_").encode("ascii", "replace")))
        except TimestampError:
            return None
    return text


def _degrees(text: str, hemispheres: str) -> float | None:
    """Read ``004E54.0`` (degrees, hemisphere, minutes) into degrees, west and south negative."""
    match = _PLACE.fullmatch(text)
    if match is None or match[2] not in hemispheres:
        return None
    degrees = int(match[1]) + float(match[3]) / 60
    return round(degrees if match[2] == hemispheres[0] else -degrees, 7) if degrees <= 180 else None
