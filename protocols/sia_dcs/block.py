"""SIA DC-03 event blocks as DC-09 carries them in ``SIA-DCS``.

Grammar, the union of what panels send (the text of DC-03 is not public; ``docs/protocols/sia-dcs.md``)::

    block    := group ("|" group)*
    group    := ("N" | "O") packet ("/"? packet)*     N new, O stored earlier and sent late
              | "A" text                              text for the event before it
              | "L" packet…                           listen-in follows
              | anything else                         kept raw
    packet   := modifier | event | "^" text "^" | "*" units | "A" text
    modifier := two small letters and a value         governs the packets after it until replaced
    event    := two capitals, an address of 0 to 4 characters, perhaps "^" text "^"

One block may hold several events; each is returned on its own with the modifiers that governed it. Modifiers that stand
after the last event belong to it.
"""

import re
from dataclasses import dataclass

from protocols.errors import SiaDcsError
from protocols.sia_dcs.codes import CODES


@dataclass(frozen=True, slots=True)
class SiaEvent:
    """One event of a block. Addresses and values stay text: zeros and hex digits carry meaning.

    ``modifiers`` are (name, value) pairs such as ``("ri", "1")``; ``texts`` are the texts about this event in the order
    sent; ``late`` says that the panel had stored it (``O``); ``listen_in`` that an audio window follows.
    """

    code: str
    address: str | None
    modifiers: tuple[tuple[str, str], ...] = ()
    texts: tuple[str, ...] = ()
    late: bool = False
    listen_in: bool = False

    def modifier(self, name: str) -> str | None:
        """Return the value of one modifier, None when it was not sent."""
        return dict(self.modifiers).get(name)


_EDGE = r"(?=[/^|*a-z]|[A-Z][A-Z_]|L[0-9]|\Z)"
_TIME = r"ti(?P<ti>[0-9:]{0,8})"
_DATE = r"da(?P<da>[0-9-]{0,10})"
# Numbers are decimal as a rule, base 16 by the standard. Three capitals before a digit are the last digit of the number and
# a code ("ri0AHA01"): codes have two, so that under the decimal reading their count is even.
_HEX_BEFORE_CODE = r"[0-9]{0,3}[A-F](?=[A-Z][A-Z_]-?[0-9])"
_MODIFIER = (
    rf"(?P<name>[a-z]{{2}})(?P<value>{_HEX_BEFORE_CODE}|[0-9]{{0,6}}{_EDGE}|[0-9A-Fa-f]{{1,4}}(?=[/^|]|\Z)|[^/^|A-Z]*)"
)
_EVENT = (
    rf"(?P<code>[A-Z][A-Z_])-?"
    rf"(?P<address>{_HEX_BEFORE_CODE}|[0-9]{{0,6}}{_EDGE}|[0-9A-Fa-f]{{1,4}}(?=[/^|*]|\Z)|[0-9]{{0,6}})"
)
# A text should hold no separator; one that does must end where a packet ends, so that a stray "^" swallows no event.
_AFTER_TEXT = r"(?=[/|*]|\Z|[A-Z][A-Z_]-?[0-9]|[a-z]{2}[0-9])"
_TEXT = rf"\^(?P<text>[^^/]*)\^|\^(?P<divided>[^^]*)\^{_AFTER_TEXT}|\^(?P<unclosed>[^/^]*)"
# "/A" begins a text as "|A" does, unless one code with a number or alone, or codes of the table, stand there.
_CODES_AHEAD = rf"(?:[A-Z][A-Z_]|(?:{'|'.join(CODES)})+)(?:-?[0-9]|[/^|*]|\Z|[a-z]{{2}}[0-9])"
_NEXT_EVENT = rf"/(?:[a-z]{{2}}[0-9:-]{{1,10}}/?){{0,8}}[A-Z][A-Z_](?:-?[0-9]{{1,6}}{_EDGE}|[/^|*]|\Z)"
_ASCII = rf"(?<=/)(?!{_CODES_AHEAD})A(?P<ascii>(?:(?!{_NEXT_EVENT}).)*)"
_PACKET = re.compile(
    rf"(?P<slash>/)|{_TEXT}|\*(?P<units>[^/]*)|{_TIME}|{_DATE}|{_MODIFIER}|L(?P<listen>[0-9]+){_EDGE}"
    rf"|{_ASCII}|{_EVENT}|(?P<other>.)",
    re.DOTALL,
)
_GROUP = re.compile(rf"(?:\A|\|)(A[^|]*|(?:\^[^^|]*\^|\^[^^]*\^{_AFTER_TEXT}|[^|])*)")
# Each event carries those that govern it: without a bound, a block of 4 KB with a name in each packet costs 700 times 700.
# The standard has about ten names; the newest stay.
_MOST_MODIFIERS = 32
# A group without its function letter: some senders leave the N out.
_BARE_GROUP = re.compile(r"(?:[a-z]{2}[0-9:-]+/?)*[BCD-KMP-Z][A-Z]-?[0-9A-F]{0,4}(?![A-Za-z])")


@dataclass(slots=True)
class _Draft:
    """An event whose texts and marks are still coming."""

    code: str
    address: str | None
    modifiers: tuple[tuple[str, str], ...]
    texts: list[str]
    late: bool
    listen_in: bool


class _Builder:
    """Collects one block; modifiers live on from packet to packet. Every step costs the same, however long the block."""

    def __init__(self) -> None:
        self.drafts: list[_Draft] = []
        self.modifiers: dict[str, str] = {}
        self.governing: tuple[tuple[str, str], ...] = ()  # the same as a value, shared by the events they govern
        self.texts: list[str] = []  # texts before the first event
        self.trailing: dict[str, str] = {}  # modifiers since the last event
        self.announced = False  # listen-in, before the first event

    def event(self, code: str, address: str, late: bool, listen_in: bool) -> None:
        if self.trailing:
            self.governing = tuple(self.modifiers.items())
            self.trailing = {}
        announced, self.announced = self.announced, False
        self.drafts.append(_Draft(code, address or None, self.governing, self.texts, late, listen_in or announced))
        self.texts = []

    def modifier(self, name: str, value: str) -> None:
        self.modifiers[name] = value
        if len(self.modifiers) > _MOST_MODIFIERS:
            del self.modifiers[next(iter(self.modifiers))]
        self.trailing[name] = value

    def text(self, text: str) -> None:
        (self.drafts[-1].texts if self.drafts and not self.trailing else self.texts).append(text)

    def listen_in(self) -> None:
        if self.drafts:
            self.drafts[-1].listen_in = True
        else:
            self.announced = True

    def finish(self) -> tuple[SiaEvent, ...]:
        """Give what was left over to the last event."""
        if self.drafts and (self.trailing or self.texts):
            last = self.drafts[-1]
            last.modifiers = tuple((dict(last.modifiers) | self.trailing).items())[-_MOST_MODIFIERS:]
            last.texts += self.texts
        return tuple(SiaEvent(d.code, d.address, d.modifiers, tuple(d.texts), d.late, d.listen_in) for d in self.drafts)


def decode(block: str) -> tuple[SiaEvent, ...]:
    """Read a block, for example ``Nri1/BA001/BA002`` (what follows ``#acct|``), into its events.

    Raises:
        SiaDcsError: there is no event in it.
    """
    builder = _Builder()
    for group in _GROUP.findall(block):
        kind = group[:1]
        if kind == "A":
            builder.text(group[1:])
        elif kind in ("N", "O", "L"):
            _read_group(builder, group[1:], late=kind == "O", listen_in=kind == "L")
        elif _BARE_GROUP.match(group):
            _read_group(builder, group, late=False, listen_in=False)
        elif group:
            builder.text(group)
    events = builder.finish()
    if not events:
        raise SiaDcsError(f"no event in the block of {len(block)} characters")
    return events


def _read_group(builder: _Builder, text: str, late: bool, listen_in: bool) -> None:
    for match in _PACKET.finditer(text):
        kind = match.lastgroup
        if kind in ("text", "divided", "unclosed"):
            builder.text(match[kind])
        elif kind in ("ti", "da"):
            builder.modifier(kind, match[kind])
        elif kind == "value":
            builder.modifier(match["name"], match["value"])
        elif kind == "address":
            builder.event(match["code"], match["address"], late, listen_in)
        elif kind == "listen":
            builder.listen_in()
        elif kind in ("ascii", "units") and match[kind]:
            builder.text(match[kind])


def encode(events: tuple[SiaEvent, ...]) -> str:
    """Write events as one block: modifiers first, then code and address, then its texts; ``L0`` where listen-in follows."""
    groups: list[str] = []
    packets: list[str] = []
    current: dict[str, str] = {}
    for number, event in enumerate(events):
        packets += [name + value for name, value in event.modifiers if current.get(name) != value]
        current |= dict(event.modifiers)
        packets.append(event.code + (event.address or "") + "".join(f"^{text}^" for text in event.texts))
        packets += ["L0"] * event.listen_in
        if number + 1 == len(events) or events[number + 1].late != event.late:
            groups.append(("O" if event.late else "N") + "/".join(packets))
            packets = []
    return "|".join(groups)
