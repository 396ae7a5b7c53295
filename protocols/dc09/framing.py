"""DC-09 frames: cutting them out of a stream or a datagram, and wrapping a body into one.

Layout of a frame (clause 5.5.1; the CRC and the length cover the body and nothing else)::

    LF  crc   0LLL  body  CR
    0A  4 hex 4 hex       0D      LLL is hexadecimal and counts the bytes of the body, 4095 at most
    0A  2 raw 4 hex       0D      the binary form of the 2007 edition (Trikdis, Lupusec and others)

The length decides where a frame ends, never CR or LF: the two raw CRC bytes may be CR, LF, NUL or a quote. The form is
told by where the quote of the token stands, byte 9 or byte 7.
"""

import re
import sys
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from msgspec import Struct

from protocols.dc09.crc import TEXTS, crc16
from protocols.errors import BadCrc, BadLength, FramingError, NotDc09, Truncated

MAX_BODY_BYTES = 0xFFF
MAX_FRAME_BYTES = MAX_BODY_BYTES + 10
_HEADER_BYTES = 10
_LF, _CR, _QUOTE = 0x0A, 0x0D, 0x22
_FILLER = b"\x00\r\n "  # between frames these mean nothing (clause 5.5.1; NUL after CR: ioBroker.sia issue 11)
_NOISE_KEPT_BYTES = 512
# What one byte may cost. Headers can be packed so that 500 frames of 4 KB overlap at a byte, each with a CR at its end;
# ordinary damage overlaps twice or thrice. Past these bounds a frame is told as damage unread, so that the loop goes on.
_MOST_OPEN = 32  # frames that began and have not ended
_MOST_TOLD = 16  # pieces of damage told one by one from one feed; the rest is one piece with a count
_CHECKED_PER_BYTE = 4  # bytes of failing CRC for each byte that came ...
_CHECKED_AT_LEAST = 16 * MAX_FRAME_BYTES  # ... and this much more at once, 0.2 ms

# The header of a frame that may follow: text CRC first, the two forms exclude each other.
_HEADER = re.compile(rb'\n(?:([0-9A-Fa-f]{4})([0-9A-Fa-f]{4})"|(..)([0-9A-Fa-f]{4})")', re.DOTALL)
# "0LLL" to its value: a table is strict where int() would take signs, spaces and underscores, and three times as fast.
_LENGTHS = {f"0{a}{b}{c}".encode(): int(a + b + c, 16) for a, b, c in product("0123456789ABCDEFabcdef", repeat=3)}
_LENGTH_TEXTS = [b"0%03X" % length for length in range(MAX_BODY_BYTES + 1)]


class Frame(Struct, frozen=True, gc=False):
    """One whole frame whose length and CRC fit."""

    raw: bytes
    body: bytes
    binary_crc: bool
    over_cr: bool = False
    """Its CRC fits only together with the closing CR (Eldes); the length may count it too."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Bytes that are no frame, why, and what of a frame could be made out."""

    error: FramingError
    raw: bytes
    crc_sent: str | None = None
    crc_computed: str | None = None
    binary_crc: bool | None = None
    length_sent: int | None = None
    length_actual: int | None = None


class _Candidate(NamedTuple):
    """A header was seen at ``start``; the frame reaches from there to ``end`` (``end`` is -1 for a bad first digit)."""

    start: int
    body: int
    end: int


class _Failure(NamedTuple):
    """A candidate that is no frame. It reaches to ``end``, or to where a good frame begins before that."""

    candidate: _Candidate
    error: FramingError
    end: int


class _Found:
    """What one feed found. Past a bound damage is counted in place of told, so that a dense kind of it costs no more."""

    __slots__ = ("items", "told", "untold", "untold_raw")

    def __init__(self) -> None:
        self.items: list[Frame | Damage] = []
        self.told = 0
        self.untold = 0
        self.untold_raw = b""

    def full(self, raw: bytes) -> bool:
        """Say whether one more piece of damage, ``raw``, is only counted; count it."""
        if self.told < _MOST_TOLD:
            self.told += 1
            return False
        self.untold += 1
        self.untold_raw = self.untold_raw or raw[:_NOISE_KEPT_BYTES]
        return True

    def all(self) -> list[Frame | Damage]:
        """Return everything; what was only counted is one piece of damage at the end."""
        if self.untold:
            error = NotDc09(f"{self.untold} more damaged pieces came at once; this is the first of them")
            self.items.append(Damage(error, self.untold_raw))
        return self.items


class Framer:
    """Cuts a stream into frames, whatever pieces it comes in; never raises and never holds more than one frame's bytes.

    A frame that turns out damaged takes no neighbour with it: the search goes on behind its header. While a frame is still
    incomplete, a whole one with a fitting CRC further on proves that the first will never end. Each byte is searched once,
    each header judged once, and what failing frames may cost is bounded by the bytes that came (``docs/decisions/0005``).
    No byte is told twice: what is returned is never longer than what was fed.

    With ``over_cr`` frames of Eldes panels are found too, whose CRC covers the closing CR, and whose length may count it. No
    other frame looks so while no body ends in CR; but damage passes for such a frame once in 65,536 times.
    """

    __slots__ = ("_buffer", "_credit", "_failure", "_nearest_end", "_open", "_over_cr", "_reported", "_searched")

    def __init__(self, over_cr: bool = False) -> None:
        self._over_cr = over_cr
        self._credit = _CHECKED_AT_LEAST
        self._forget()

    def _forget(self) -> None:
        self._buffer = b""
        self._open: list[_Candidate] = []  # headers whose frames have not arrived whole, by start
        self._nearest_end = sys.maxsize  # none of them can be judged before the buffer reaches this
        self._searched = 0  # headers were looked for up to here
        self._reported = 0  # bytes before this belong to a Frame or a Damage already
        self._failure: _Failure | None = None  # not told yet: a good frame may begin inside it

    @property
    def empty(self) -> bool:
        """Whether nothing is held."""
        return not self._buffer

    @property
    def begun(self) -> bool:
        """Whether a frame may have begun: more is held than filler, of which a last LF stays in case it starts a frame."""
        return bool(self._buffer.strip(_FILLER))

    def feed(self, data: bytes) -> list[Frame | Damage]:
        """Take the next bytes of the stream and return what they completed, in order."""
        if not self._buffer:
            frame = exactly_one(data)
            if frame is not None:
                return [frame]
        self._buffer += data
        self._credit = min(self._credit, _CHECKED_AT_LEAST) + _CHECKED_PER_BYTE * len(data)
        found = _Found()
        if len(self._buffer) >= self._nearest_end:
            self._judge_open(found)
        self._search(found)
        self._trim(found)
        return found.all()

    def end(self) -> list[Frame | Damage]:
        """Give up what is held (end of the stream, or too long a wait) and return it as damage."""
        found = _Found()
        if self._open:
            first, self._open = self._open[0], []
            closed = self._buffer.find(b"\r", first.body) >= 0
            self._fail(
                first,
                BadLength("the frame ends before its length field says")
                if closed
                else Truncated("a frame began and did not end"),
                found,
            )
        self._report(len(self._buffer), found)
        self._forget()
        return found.all()

    # -- finding and judging --------------------------------------------------------------------------------------

    def _judge_open(self, found: _Found) -> None:
        """Judge again what had not arrived whole."""
        waiting, self._open, self._nearest_end, taken = self._open, [], sys.maxsize, 0
        for candidate in waiting:
            if candidate.start >= taken:
                taken = max(taken, self._judge(candidate, found))

    def _search(self, found: _Found) -> None:
        """Find and judge every header not looked at before; not those inside a good frame."""
        while match := _HEADER.search(self._buffer, self._searched):
            length = _LENGTHS.get(match[2] or match[4])
            body = match.end() - 1
            self._searched = body  # two headers never overlap: the quote of one would be in the number of the other
            self._judge(_Candidate(match.start(), body, -1 if length is None else body + length + 1), found)
        # The end of the buffer may cut a header short: look at its last bytes again next time.
        self._searched = max(self._searched, len(self._buffer) - _HEADER_BYTES + 1)

    def _judge(self, candidate: _Candidate, found: _Found) -> int:
        """Take a good frame and return its end, or 0 where there is none; hold one that has not arrived whole."""
        if self._over_cr and self._counts_cr(candidate):
            counted = candidate._replace(end=candidate.end - 1)
            self._take(counted, found, over_cr=True)
            return counted.end
        if candidate.end > len(self._buffer):
            self._hold(candidate, found)
            return 0
        error = self._check(candidate)
        if error is None:
            self._take(candidate, found)
            return candidate.end
        if isinstance(error, BadCrc) and self._over_cr and self._fits(candidate, candidate.end):
            self._take(candidate, found, over_cr=True)
            return candidate.end
        if not self._open and candidate.start >= self._reported:
            # Not told: what lies inside bytes told already, or inside a frame that may still end well.
            self._fail(candidate, error, found)
        return 0

    def _counts_cr(self, candidate: _Candidate) -> bool:
        """Say whether the length counts the CR, and the CRC covers it: the frame ends a byte before it should."""
        end = candidate.end - 1
        if not candidate.body < end <= len(self._buffer) or self._buffer[end - 1] != _CR:
            return False
        if self._buffer[end : end + 1] == b"\r":  # it ends by the standard as well
            return False
        return end - candidate.body <= self._credit and self._fits(candidate, end)

    def _fits(self, candidate: _Candidate, end: int) -> bool:
        """Say whether the CRC is that of all bytes up to ``end``, a CR among them; what fails costs as any CRC does."""
        if _crc_text(self._buffer, candidate) == f"{crc16(self._buffer[candidate.body : end]):04X}":
            return True
        self._credit -= end - candidate.body
        return False

    def _check(self, candidate: _Candidate) -> FramingError | None:
        if candidate.end < 0:
            return BadLength("the first digit of the length field is not 0")
        if self._buffer[candidate.end - 1] != _CR:
            return BadLength("the frame does not end where its length field says")
        size = candidate.end - candidate.body
        if size > self._credit:
            return NotDc09("too many frames begin inside one another here; this one was not read")
        if _crc_text(self._buffer, candidate) == f"{crc16(self._body(candidate)):04X}":
            return None
        self._credit -= size
        return BadCrc("the CRC does not fit the bytes it covers")

    def _body(self, candidate: _Candidate) -> bytes:
        return self._buffer[candidate.body : candidate.end - 1]

    def _hold(self, candidate: _Candidate, found: _Found) -> None:
        """Remember a frame that has not arrived whole; of too many, give up the older half."""
        if len(self._open) == _MOST_OPEN:
            stuck, self._open = self._open[0], self._open[_MOST_OPEN // 2 :]
            self._fail(stuck, Truncated("many others began before this frame ended"), found)
            self._report(self._open[0].start, found)
            self._nearest_end = min(held.end for held in self._open) - self._over_cr
        self._open.append(candidate)
        self._nearest_end = min(self._nearest_end, candidate.end - self._over_cr)

    def _take(self, candidate: _Candidate, found: _Found, over_cr: bool = False) -> None:
        """Accept a good frame; one that began before it and has not ended never will."""
        if self._open:
            self._fail(self._open[0], Truncated("the next frame began before this one ended"), found)
            self._open, self._nearest_end = [], sys.maxsize
        self._report(candidate.start, found)
        raw = self._buffer[candidate.start : candidate.end]
        found.items.append(Frame(raw, self._body(candidate), candidate.body - candidate.start == 7, over_cr))
        self._reported = candidate.end
        self._searched = max(self._searched, candidate.end)

    # -- telling what is no frame ---------------------------------------------------------------------------------

    def _fail(self, candidate: _Candidate, error: FramingError, found: _Found) -> None:
        """Note a candidate that is no frame; it is told when it is known where the next thing begins."""
        self._report(candidate.start, found)
        if isinstance(error, BadCrc):
            end = candidate.end
        else:
            last = min(len(self._buffer), candidate.start + MAX_FRAME_BYTES)
            closing = self._buffer.find(b"\r", candidate.body, last)
            end = last if closing < 0 else closing + 1
        self._failure = _Failure(candidate, error, end)
        self._reported = end

    def _report(self, until: int, found: _Found) -> None:
        """Tell everything before ``until`` that was not told yet."""
        if self._failure is not None:
            failure, self._failure = self._failure, None
            self._reported = min(failure.end, until)
            self._tell(failure, found)
        noise = self._buffer[self._reported : until]
        if noise.strip(_FILLER) and not found.full(noise):
            found.items.append(Damage(NotDc09("no frame in these bytes"), noise[:_NOISE_KEPT_BYTES]))
        self._reported = max(self._reported, until)

    def _tell(self, failure: _Failure, found: _Found) -> None:
        """Describe a frame that is none, as far as it can be made out."""
        candidate, error, _ = failure
        raw = self._buffer[candidate.start : self._reported]
        if found.full(raw):
            return
        body = (
            self._body(candidate)
            if isinstance(error, BadCrc)
            else raw[candidate.body - candidate.start :].removesuffix(b"\r")
        )
        found.items.append(
            Damage(
                error,
                raw,
                crc_sent=_crc_text(self._buffer, candidate),
                crc_computed=f"{crc16(body):04X}",
                binary_crc=candidate.body - candidate.start == 7,
                length_sent=int(self._buffer[candidate.body - 4 : candidate.body], 16),
                length_actual=len(body),
            )
        )

    def _trim(self, found: _Found) -> None:
        """Let go of bytes that can no longer be part of a frame."""
        if self._open:
            keep_from = self._open[0].start
        else:
            start = self._buffer.find(b"\n", self._searched)
            keep_from = start if start >= 0 else len(self._buffer)
        self._report(keep_from, found)
        if not keep_from:
            return
        self._buffer = self._buffer[keep_from:]
        self._searched = max(0, self._searched - keep_from)
        self._reported = max(0, self._reported - keep_from)
        if self._open:
            self._open = [_Candidate(c.start - keep_from, c.body - keep_from, c.end - keep_from) for c in self._open]
            self._nearest_end -= keep_from


def _crc_text(buffer: bytes, candidate: _Candidate) -> str:
    sent = buffer[candidate.start + 1 : candidate.body - 4]
    return sent.hex().upper() if len(sent) == 2 else sent.decode("ascii").upper()


def exactly_one(data: bytes) -> Frame | None:
    """Return the frame when ``data`` is one good frame and nothing else, as nearly always; None for the long way."""
    length = _LENGTHS.get(data[5:9])
    if length is None or len(data) != length + 10 or data[0] != _LF or data[9] != _QUOTE or data[-1] != _CR:
        return None
    body = data[9:-1]
    crc = TEXTS[crc16(body)]
    if crc != data[1:5] and crc != data[1:5].upper():
        return None
    return Frame(data, body, False, False)


def split_datagram(data: bytes, over_cr: bool = False) -> list[Frame | Damage]:
    """Cut one datagram into frames; one is expected, more are taken, what is left over is damage."""
    frame = exactly_one(data)
    if frame is not None:
        return [frame]
    framer = Framer(over_cr)
    return framer.feed(data) + framer.end()


def wrap(body: bytes, binary_crc: bool = False) -> bytes:
    """Put LF, CRC, length and CR around ``body`` (4095 bytes at most).

    Raises:
        BadLength: the body is too long for the length field.
    """
    if len(body) > MAX_BODY_BYTES:
        raise BadLength(f"a body has {MAX_BODY_BYTES} bytes at most, this one has {len(body)}")
    crc = crc16(body)
    text = crc.to_bytes(2, "big") if binary_crc else TEXTS[crc]
    return b"\n%b%b%b\r" % (text, _LENGTH_TEXTS[len(body)], body)
