"""The settings of outputs to automation software: ``surgard``, ``ademco685``, ``dc07`` and ``dc09``."""

import ipaddress
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from protocols.dc09 import Key
from protocols.errors import KeyFormatError
from receiver.config.settings import OutputSettings, Secret, setting

_ACCOUNT_HELP = "account under which our own troubles are told, four hex digits"
_OVERFLOW_HELP = (
    "an account or number without room in the format: `widen` takes a wider form the other side has, else the event is a "
    "dead letter; `refuse` makes it one at once; `trouble` widens and, where that does not help, cuts and raises a trouble"
)
_MODE_HELP = "`server`: the automation connects to us; `client`: we connect to it"
_ALLOW_HELP = "addresses or networks that may connect; empty allows all. Whoever connects and acknowledges takes alarms away"
_CLIENTS_HELP = (
    "`one`: events go to the longest connected that answers, others stand by; `all`: to every one, taken when one took it "
    "and none is waited for"
)
_FIRST_ZONE, _ZONES = 100, 900


@dataclass(frozen=True, slots=True)
class LinkSettings(OutputSettings):
    """What all links to automation share."""

    mode: str = setting("server", _MODE_HELP, choices=("server", "client"))
    host: str = setting(
        "127.0.0.1", "address to bind or to connect to; there is no encryption: a tunnel, or one machine", "host"
    )
    port: int = setting(1025, "port to bind or to connect to", "port")
    allow: tuple[str, ...] = setting((), _ALLOW_HELP)
    clients: str = setting("one", _CLIENTS_HELP, choices=("one", "all"))
    max_clients: int = setting(4, "connections at a time; a new one takes the place of one that does not answer", "positive")
    ack_seconds: float = setting(4.0, "an answer is waited for so long, then the frame goes out again", "seconds")
    tries: int = setting(4, "times a frame is sent without an ACK before the link counts as failed", "positive")
    own_account: str = setting("0000", _ACCOUNT_HELP, "account4")

    def mistakes(self) -> list[str]:
        """Return what is wrong with the addresses."""
        wrong = []
        for text in self.allow:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError:
                wrong.append(f"allow holds {text!r}; it must be an address such as 192.0.2.7 or a network, 192.0.2.0/24")
        if self.mode == "client" and not self.port:
            wrong.append("port is 0; a client needs the other side's port")
        return wrong


@dataclass(frozen=True, slots=True)
class SurgardSettings(LinkSettings):
    """An output of type ``surgard``: the Sur-Gard format, as MLR2 and System III to 5 receivers speak it."""

    receiver: str = setting("01", "receiver number, two hex digits; the automation finds accounts by it", "hex2")
    line: str = setting(
        "001", "line number; its width is the header's: 3 digits RRLLL, 1 digit RRL, 7 digits", "surgard_line"
    )
    heartbeat_seconds: float = setting(30.0, "a heartbeat after so long without traffic; 0 sends none", "pause")
    forms: tuple[str, ...] = setting(
        ("contact-id", "contact-id-10", "sia"),
        "what the automation takes: Contact ID with accounts of 4 digits, of 10, and SIA",
        choices=("contact-id", "contact-id-10", "sia"),
    )
    sia_digits: int = setting(16, "longest account it takes in SIA, 4 to 16; older automation takes 6", "sia_digits")
    overflow: str = setting("widen", _OVERFLOW_HELP, choices=("widen", "refuse", "trouble"))

    def mistakes(self) -> list[str]:
        """Return what is wrong with addresses and forms."""
        return LinkSettings.mistakes(self) + ([] if self.forms else ["forms is empty; the automation must take one"])


@dataclass(frozen=True, slots=True)
class Ademco685Settings(LinkSettings):
    """An output of type ``ademco685``: Contact ID as the Ademco 685 receiver writes it."""

    receiver: str = setting("1", "receiver number, one hex digit", "hex1")
    line: str = setting("1", "line (group) number, one hex digit", "hex1")
    overflow: str = setting(
        "refuse",
        "an account or number without room: `refuse` makes the event a dead letter; `trouble` cuts it and raises a trouble",
        choices=("refuse", "trouble"),
    )


@dataclass(frozen=True, slots=True)
class Dc07Settings(LinkSettings):
    """An output of type ``dc07``: frames in the shape of SIA DC-07; its rules of acknowledgement are unverified."""

    receiver: str = setting("1", "receiver number in R, 1 to 6 hex digits", "hex6")
    line: str = setting("1", "line number in L, 1 to 6 hex digits", "hex6")
    forms: tuple[str, ...] = setting(
        ("contact-id", "sia"), "what the automation takes: `ADM-CID`, `SIA-DCS`", choices=("contact-id", "sia")
    )
    overflow: str = setting("widen", _OVERFLOW_HELP, choices=("widen", "refuse", "trouble"))

    def mistakes(self) -> list[str]:
        """Return what is wrong with addresses and forms."""
        return LinkSettings.mistakes(self) + ([] if self.forms else ["forms is empty; the automation must take one"])


@dataclass(frozen=True, slots=True)
class Dc09Settings(OutputSettings):
    """An output of type ``dc09``: each signal goes on to another DC-09 receiver in a frame of our own."""

    host: str = setting("", "address of the other receiver")
    port: int = setting(12128, "its port, TCP", "port")
    key: Secret = setting(Secret(), "AES key of our frames to it, as in the account register; empty sends in clear")
    receiver_number: str = setting(
        "", "R of our frames, 1 to 6 hex digits; empty sends the panel's own, or none", "hex6_or_empty"
    )
    line: str = setting(
        "", "L of our frames, 1 to 6 hex digits; empty sends the panel's own, 0 where it sent none", "hex6_or_empty"
    )
    own_account: str = setting("0000", _ACCOUNT_HELP, "account4")
    link_test_account: str = setting(
        "", "account of our link tests, registered there with our key; empty sends none, and then silence about one event "
        "is told from a dead link only by others that are taken", "account_or_empty"
    )  # fmt: skip
    heartbeat_seconds: float = setting(60.0, "a link test after so long without traffic; 0 sends none", "pause")
    ack_seconds: float = setting(4.0, "an ACK is waited for so long, then the frame goes out again", "seconds")
    tries: int = setting(4, "times a frame is sent without an ACK before the link counts as failed", "positive")
    occurred_at: bool = setting(True, "add `[H…]` with the time of the event where the panel sent none")

    def mistakes(self) -> list[str]:
        """Return what is wrong with address and key; the key is never repeated."""
        wrong = [] if self.host and self.port else ["host or port is missing; a relay needs the other receiver's address"]
        if self.key:
            try:
                Key.parse(self.key.text)
            except KeyFormatError as error:
                wrong.append(f"key: {error}")
        return wrong


AUTOMATION_TYPES: dict[str, type[OutputSettings]] = {
    "surgard": SurgardSettings, "ademco685": Ademco685Settings, "dc07": Dc07Settings, "dc09": Dc09Settings,
}  # fmt: skip


def zone_of_link(name: str) -> str:
    """Return the zone number under which the loss of an output's link is told: of its name, so that it stays the same."""
    return f"{_FIRST_ZONE + zlib.crc32(name.encode()) % _ZONES}"


def links_told_alike(outputs: Sequence[OutputSettings]) -> list[str]:
    """Return a sentence for each two links whose losses automation could not tell apart; none where it is told of none."""
    links = [output for output in outputs if isinstance(output, LinkSettings | Dc09Settings)]
    if not any(link.troubles for link in links):
        return []
    return [
        f"[[outputs]] {one.name} and {other.name} would both be told to automation as zone {zone_of_link(one.name)}, and "
        "the return of one would close the loss of the other; give the new one another name (an output that is renamed is "
        "handed only what comes after that)"
        for one, other in combinations(links, 2)
        if one.name != other.name and zone_of_link(one.name) == zone_of_link(other.name)
    ]
