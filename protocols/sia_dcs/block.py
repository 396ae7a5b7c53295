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


_EDGE = r"(?=[/^|*a-z]|[A-Z][A-Z_]|L[0-9]|$)"
_TIME = r"ti(?P<ti>[0-9:]{0,8})"
_DATE = r"da(?P<da>[0-9-]{0,10})"
_MODIFIER = rf"(?P<name>[a-z]{{2}})(?P<value>[0-9]{{0,6}}{_EDGE}|[0-9A-Fa-f]{{1,4}}(?=[/^|]|$)|[^/^|A-Z]*)"
_EVENT = rf"(?P<code>[A-Z][A-Z_])-?(?P<address>[0-9]{{0,6}}{_EDGE}|[0-9A-Fa-f]{{1,4}}(?=[/^|*]|$)|[0-9]{{0,6}})"
_PACKET = re.compile(
    rf"(?P<slash>/)|\^(?P<text>[^^]*)\^?|\*(?P<units>[^/]*)|{_TIME}|{_DATE}|{_MODIFIER}"
    rf"|L(?P<listen>[0-9]+){_EDGE}|{_EVENT}|(?<=/)A(?P<ascii>.*)|(?P<other>.)",
    re.DOTALL,
)
# A group without its function letter: some senders leave the N out.
_BARE_GROUP = re.compile(r"(?:[a-z]{2}[0-9:-]+/?)*[BCD-KMP-Z][A-Z]-?[0-9A-F]{0,4}(?![A-Za-z])")


class _Builder:
    """Collects one block; modifiers live on from packet to packet."""

    def __init__(self) -> None:
        self.events: list[SiaEvent] = []
        self.modifiers: dict[str, str] = {}
        self.texts: list[str] = []  # texts before the first event
        self.trailing: dict[str, str] = {}  # modifiers since the last event
        self.announced = False  # listen-in, before the first event

    def event(self, code: str, address: str, late: bool, listen_in: bool) -> None:
        self.trailing.clear()
        self.events.append(
            SiaEvent(
                code, address or None, tuple(self.modifiers.items()), tuple(self.texts), late, listen_in or self.announced
            )
        )
        self.texts.clear()

    def modifier(self, name: str, value: str) -> None:
        self.modifiers[name] = value
        self.trailing[name] = value

    def text(self, text: str) -> None:
        if self.events and not self.trailing:
            self._amend(texts=(*self.events[-1].texts, text))
        else:
            self.texts.append(text)

    def listen_in(self) -> None:
        if self.events:
            self._amend(listen_in=True)
        else:
            self.announced = True

    def _amend(
        self,
        texts: tuple[str, ...] | None = None,
        listen_in: bool | None = None,
        modifiers: tuple[tuple[str, str], ...] | None = None,
    ) -> None:
        last = self.events[-1]
        self.events[-1] = SiaEvent(
            last.code,
            last.address,
            last.modifiers if modifiers is None else modifiers,
            last.texts if texts is None else texts,
            last.late,
            last.listen_in if listen_in is None else listen_in,
        )

    def finish(self) -> tuple[SiaEvent, ...]:
        """Give what was left over to the last event."""
        if self.events and (self.trailing or self.texts):
            last = self.events[-1]
            self._amend(modifiers=tuple((dict(last.modifiers) | self.trailing).items()), texts=(*last.texts, *self.texts))
        return tuple(self.events)


def decode(block: str) -> tuple[SiaEvent, ...]:
    """Read a block, for example ``Nri1/BA001/BA002`` (what follows ``#acct|``), into its events.

    Raises:
        SiaDcsError: there is no event in it.
    """
    builder = _Builder()
    for group in _split_groups(block):
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
        raise SiaDcsError(f"no event in the block {block[:60]!r}")
    return events


def _split_groups(block: str) -> list[str]:
    """Split at ``|``, except inside a ``^text^``."""
    pieces = block.split("|")
    groups = [pieces[0]]
    for piece in pieces[1:]:
        if groups[-1].count("^") % 2:
            groups[-1] += "|" + piece
        else:
            groups.append(piece)
    return groups


def _read_group(builder: _Builder, text: str, late: bool, listen_in: bool) -> None:
    for match in _PACKET.finditer(text):
        kind = match.lastgroup
        if kind == "text":
            builder.text(match["text"])
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
    """Write events as one block: modifiers first, then code and address, then its texts."""
    out, current = "O" if events[0].late else "N", dict[str, str]()
    packets: list[str] = []
    for event in events:
        packets += [name + value for name, value in event.modifiers if current.get(name) != value]
        current |= dict(event.modifiers)
        packets.append(event.code + (event.address or "") + "".join(f"^{text}^" for text in event.texts))
    return out + "/".join(packets)
