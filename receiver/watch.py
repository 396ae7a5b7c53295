"""What ``watch`` says: why each frame of one account, or from one address, was taken or refused, and what to change.

It reads the journal and the refusals log of a running receiver, a few times a second. A frame whose account could not be
read is taken for the account's when its bytes hold ``#account[``, or when it comes from the address that is watched.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from receiver import clock
from receiver.accounts import Accounts
from receiver.events import render_or_tell
from receiver.journal import Kind, Lane, Reader, Refusal, Stored
from receiver.sightings import Heard
from receiver.troubles import host_of

_AT_ONCE = 500
_SAME_US = clock.SECOND_US // 10
"""Moments of one message, once by the wall and once by steady time, are closer than that."""
_STORED_US = 3 * clock.SECOND_US // 2  # by then a signal stands in the journal
ADVICE = {
    "not-dc09": "no DC-09: choose SIA DC-09 (SIA-IP, SIA-DCS or ADM-CID over IP) as the panel's protocol for this port",
    "bad-length": "the frame was cut or changed on its way, or the make counts otherwise; compare with the raw bytes",
    "bad-crc": "changed on its way, or the make computes its CRC otherwise: if all its frames fail, it needs a dialect",
    "truncated": "the frame never ended: a bad line, a modem that cuts long packets, or a time-out at the panel",
    "malformed": "the header or the end cannot be read: look at account, prefix and receiver number as set at the panel",
    "from-receiver": "an answer, not a report: two receivers are pointed at each other, or our answers are played back",
    "undecryptable": "set the register's key at the panel, of the same length, and mind whether it wants hex or characters; "
    "or the account has no key yet: add it to the register",
    "plaintext-refused": "switch encryption on at the panel, with the register's key; or set plaintext = accept for now",
    "stale-timestamp": "set the panel's clock and time zone; one that stamps local time needs time_zone in the register",
    "unknown-account": "the panel sends an account that is not registered: set the right one at the panel, or register it",
    "unknown-token": "choose SIA-DCS or ADM-CID as the panel's format",
    "journal-unavailable": "nothing to change at the panel: we cannot store now, see our log; the panel sends it again",
    "register-unavailable": "nothing to change at the panel: we cannot read our register now, see our log",
}
"""For each reason of a refusal what a technician may change."""
_ANSWERS = {"stale-timestamp": "answered NAK with our time", "unknown-token": "answered DUH"}
_OF_FLAGS = {
    "unregistered": "taken, but the account is not in the register: add it",
    "plaintext": "taken in clear though the account has a key: switch encryption on at the panel",
    "unreadable": "taken, but the event could not be read: look at the format set at the panel; a person sees its text",
    "unmapped": "taken, but the event code is in no table: look at the event's programming",
    "clock-suspect": "taken, though the stamp is off: our own clock is in doubt",
    "late": "the panel had stored this event and sends it now",
    "on-test": "taken as a test",
}


class Sought(NamedTuple):
    """Whose frames are watched: an account in upper case, or an address, or both."""

    account: str | None = None
    host: str | None = None

    def holds(self, account: str | None, peer: str | None, raw: bytes) -> bool:
        """Tell whether a frame is one of them."""
        if self.host is not None and peer is not None and host_of(peer).strip("[]") == self.host:
            return True
        if self.account is None:
            return False
        if account is not None:
            return account.upper() == self.account
        return f"#{self.account}[".encode() in raw.upper()


class Watch:
    """One look after another; ``lines`` returns what is new since the last."""

    def __init__(self, reader: Reader, register: Accounts, sought: Sought, raw: bool, now_us: int) -> None:
        """Begin behind what is there now."""
        self._reader, self._register, self._sought, self._raw = reader, register, sought, raw
        newest = reader.last(1)
        self._after = dict.fromkeys(Lane, newest[0].position if newest else 0)
        self._refusal = reader.newest_refusal()
        self._heard_us = now_us
        self._day = _day(now_us)
        self._signals: deque[int] = deque(maxlen=100)  # when the latest came

    def lines(self, now_us: int, heard: Heard | None = None) -> list[str]:
        """Return what came since the last look, oldest first; ``heard`` is the account's latest message, as far as known.

        Raises:
            JournalUnavailable: it cannot be read now.
        """
        found: list[tuple[int, list[str]]] = []
        for lane in Lane:
            while batch := self._reader.after(lane, self._after[lane], _AT_ONCE):
                self._after[lane] = batch[-1].position
                told = [(stored.row.received_us, self._taken(stored)) for stored in batch]
                self._signals += [moment for moment, lines in told if lines]
                found += [(moment, lines) for moment, lines in told if lines]
        while refused := self._reader.refusals_after(self._refusal, _AT_ONCE):
            self._refusal = refused[-1][0]
            found += [(refusal.received_us, self._refused(refusal)) for _, refusal in refused if self._is_sought(refusal)]
        found += self._passed(heard, now_us)
        return self._by_day(sorted(found, key=lambda told: told[0]))

    def before(self, count: int) -> list[str]:
        """Return the same of the latest frames that are there already, up to ``count``."""
        found = [(stored.row.received_us, self._taken(stored)) for stored in self._reader.last(1000)]
        kept = self._reader.refusals(1000)
        found += [(refusal.received_us, self._refused(refusal)) for refusal in kept if self._is_sought(refusal)]
        newest = sorted([told for told in found if told[1]], key=lambda told: told[0])[-count:] if count else []
        return self._by_day(newest)

    def _by_day(self, found: list[tuple[int, list[str]]]) -> list[str]:
        """Return the lines, with a line of its own for the date where it is another than of the line before."""
        told: list[str] = []
        for moment, lines in found:
            if _day(moment) != self._day:
                self._day = _day(moment)
                told.append(f"--- {self._day} ---")
            told += lines
        return told

    def _is_sought(self, refusal: Refusal) -> bool:
        return self._sought.holds(refusal.account, refusal.peer, refusal.raw)

    def _passed(self, heard: Heard | None, now_us: int) -> list[tuple[int, list[str]]]:
        """Return a line on a message that left nothing in the journal, once its signal would be there if it had one."""
        if heard is None or heard.at_us - self._heard_us < _SAME_US or now_us - heard.at_us < _STORED_US:
            return []
        self._heard_us = heard.at_us
        if any(abs(moment - heard.at_us) < _SAME_US for moment in self._signals):
            return []
        words = f"link test or repeat from {heard.peer} ({heard.listener}): acknowledged, the path is alive"
        return [(heard.at_us, [_line(heard.at_us, "TAKEN", words)])]

    # -- in words -------------------------------------------------------------------------------------------------

    def _taken(self, stored: Stored) -> list[str]:
        event = render_or_tell(stored, self._register)
        data: dict[str, Any] = event.cloud_event["data"]
        name = event.entry.account if event.entry.registered else event.account
        if not self._sought.holds(name, data.get("peer"), b""):
            return []
        moment = stored.row.received_us
        if stored.row.kind == Kind.TROUBLE:
            return [_line(moment, "NOTE", f"{data['reason']}: {data['text']}")]
        if stored.row.kind == Kind.PATH:
            return [_line(moment, "NOTE", f"path {data['state']} at listener {data['listener']}")]
        sealed = "encrypted" if data["encrypted"] else "in clear"
        words = (
            f"{data['token']} {data['sequence']} {sealed} from {data['peer']} ({data['listener']}, {data['transport']}): "
        )
        lines = [_line(moment, "TAKEN", words + _what(data))]
        lines += [_more(f"-> {_OF_FLAGS[flag]}") for flag in data["flags"] if flag in _OF_FLAGS]
        if data.get("block_account"):
            lines.append(
                _more(f"-> the data names account {data['block_account']}; the signal belongs to {data['account']}")
            )
        return lines + list(self._bytes(stored.row.raw))

    def _refused(self, refusal: Refusal) -> list[str]:
        answer = _ANSWERS.get(refusal.reason, "no answer")
        where = f"from {refusal.peer} ({refusal.listener}, {refusal.transport})"
        lines = [_line(refusal.received_us, "REFUSED", f"{refusal.reason}, {answer}, {where}: {refusal.text}")]
        if refusal.reason in ADVICE:
            lines.append(_more(f"-> {ADVICE[refusal.reason]}"))
        return lines + list(self._bytes(refusal.raw))

    def _bytes(self, raw: bytes) -> Iterator[str]:
        if self._raw:
            yield _more(repr(raw)[2:-1])
            yield _more(raw.hex().upper())


def _day(moment_us: int) -> str:
    return clock.to_text(moment_us)[:10]


def _what(data: dict[str, Any]) -> str:
    """Say what a signal says."""
    words = data["event"] or data["text"] or "no text"
    code = f"{data['event_code']} " if data["event_code"] else ""
    places = [f"{name} {data[name]}" for name in ("partition", "zone", "user") if data[name]]
    qualifier = f" ({data['qualifier']})" if data["qualifier"] else ""
    return " ".join([f"{code}{words}{qualifier}", *places])


def _line(moment_us: int, word: str, text: str) -> str:
    return _harmless(f"{clock.to_text(moment_us)[11:23]}  {word:<7}  {text}")


def _more(text: str) -> str:
    return _harmless(f"{'':23}{text}")


def _harmless(line: str) -> str:
    """Keep bytes off the wire from steering a terminal."""
    return line if line.isprintable() else ascii(line)[1:-1]
