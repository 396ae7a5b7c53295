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

from protocols.dc09.crc import crc16
from protocols.errors import BadCrc, BadLength, FramingError, NotDc09, Truncated

MAX_BODY_BYTES = 0xFFF
MAX_FRAME_BYTES = MAX_BODY_BYTES + 10
_HEADER_BYTES = 10
_LF, _CR, _QUOTE = 0x0A, 0x0D, 0x22
_FILLER = b"\x00\r\n "  # between frames these mean nothing (clause 5.5.1; NUL after CR: ioBroker.sia issue 11)
_NOISE_KEPT_BYTES = 512

# The header of a frame that may follow: text CRC first, the two forms exclude each other.
_HEADER = re.compile(rb'\n(?:([0-9A-Fa-f]{4})([0-9A-Fa-f]{4})"|(..)([0-9A-Fa-f]{4})")', re.DOTALL)
# "0LLL" to its value: a table is strict where int() would take signs, spaces and underscores, and three times as fast.
_LENGTHS = {f"0{a}{b}{c}".encode(): int(a + b + c, 16) for a, b, c in product("0123456789ABCDEFabcdef", repeat=3)}


class Frame(NamedTuple):
    """One whole frame whose length and CRC fit."""

    raw: bytes
    body: bytes
    binary_crc: bool


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


class Framer:
    """Cuts a stream into frames, whatever pieces it comes in; never raises and never holds more than one frame's bytes.

    A frame that turns out damaged takes no neighbour with it: the search goes on at the byte after its LF. While a
    frame is still incomplete, a whole one with a fitting CRC further on proves that the first will never end.
    Every byte is searched once and every header judged once, so the work is linear in what came.
    """

    __slots__ = ("_buffer", "_nearest_end", "_open", "_reported", "_searched")

    def __init__(self) -> None:
        self._buffer = b""
        self._forget()

    def _forget(self) -> None:
        self._open: list[_Candidate] = []  # headers whose frames have not arrived whole
        self._nearest_end = 0  # none of them can be judged before the buffer reaches this
        self._searched = 0  # headers were looked for up to here
        self._reported = 0  # bytes before this belong to a Frame or a Damage already

    @property
    def begun(self) -> bool:
        """Whether bytes are held that may become a frame."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> list[Frame | Damage]:
        """Take the next bytes of the stream and return what they completed, in order."""
        if not self._buffer:
            frame = _exactly_one(data)
            if frame is not None:
                return [frame]
        self._buffer += data
        found: list[Frame | Damage] = []
        fresh = self._find_headers()
        if fresh or len(self._buffer) >= self._nearest_end:
            self._searched = max(self._searched, self._judge(self._open + fresh, found))
        self._trim(found)
        return found

    def end(self) -> list[Frame | Damage]:
        """Give up what is held (end of the stream, or too long a wait) and return it as damage."""
        found: list[Frame | Damage] = []
        if self._open:
            first = self._open[0]
            closed = self._buffer.find(b"\r", first.body) >= 0
            wrong: FramingError = (
                BadLength("the frame ends before its length field says")
                if closed
                else Truncated("a frame began and did not end")
            )
            found.append(self._damage(first, wrong))
        else:
            self._report_noise(len(self._buffer), found)
        self._buffer = b""
        self._forget()
        return found

    def _find_headers(self) -> list[_Candidate]:
        """Return every place not looked at before where a frame may begin."""
        found = []
        while match := _HEADER.search(self._buffer, self._searched):
            length = _LENGTHS.get(match[2] or match[4])
            body = match.end() - 1
            found.append(_Candidate(match.start(), body, -1 if length is None else body + length + 1))
            self._searched = match.start() + 1
        # The end of the buffer may cut a header short: look at its last bytes again next time.
        self._searched = max(self._searched, len(self._buffer) - _HEADER_BYTES + 1)
        return found

    def _judge(self, candidates: list[_Candidate], found: list[Frame | Damage]) -> int:
        """Decide every candidate that arrived whole, keep the others, and return where the last good frame ended."""
        self._open, taken = [], 0
        for candidate in candidates:
            if candidate.start < taken:
                continue  # inside a good frame
            if candidate.end > len(self._buffer):
                self._open.append(candidate)
                continue
            error = self._check(candidate)
            if error is None:
                self._take(candidate, found)
                taken = candidate.end
            elif not self._open and candidate.start >= self._reported:
                # Not reported: what lies inside bytes reported already, or inside a frame that may still end well.
                self._report_noise(candidate.start, found)
                found.append(self._damage(candidate, error))
        self._nearest_end = min((c.end for c in self._open), default=sys.maxsize)
        return taken

    def _check(self, candidate: _Candidate) -> FramingError | None:
        if candidate.end < 0:
            return BadLength("the first digit of the length field is not 0")
        if self._buffer[candidate.end - 1] != _CR:
            return BadLength("the frame does not end where its length field says")
        if _crc_text(self._buffer, candidate) != f"{crc16(self._body(candidate)):04X}":
            return BadCrc("the CRC does not fit the bytes it covers")
        return None

    def _body(self, candidate: _Candidate) -> bytes:
        return self._buffer[candidate.body : candidate.end - 1]

    def _take(self, candidate: _Candidate, found: list[Frame | Damage]) -> None:
        """Accept a good frame; one that began before it and has not ended never will."""
        if self._open:
            stuck = self._open[0]
            self._report_noise(stuck.start, found)
            found.append(self._damage(stuck, Truncated("the next frame began before this one ended"), candidate.start))
            self._open = []
        else:
            self._report_noise(candidate.start, found)
        raw = self._buffer[candidate.start : candidate.end]
        found.append(Frame(raw, self._body(candidate), candidate.body - candidate.start == 7))
        self._reported = candidate.end

    def _report_noise(self, until: int, found: list[Frame | Damage]) -> None:
        noise = self._buffer[self._reported : until]
        if noise.strip(_FILLER):
            found.append(Damage(NotDc09("no frame in these bytes"), noise[:_NOISE_KEPT_BYTES]))
        self._reported = max(self._reported, until)

    def _damage(self, candidate: _Candidate, error: FramingError, until: int | None = None) -> Damage:
        """Describe a frame that is none, as far as it can be made out; ``until`` is where the next one begins."""
        closing = self._buffer.find(b"\r", candidate.body, until)
        if isinstance(error, BadCrc):
            closing = candidate.end - 1
        end = (until or len(self._buffer)) if closing < 0 else closing + 1
        end = min(end, candidate.start + MAX_FRAME_BYTES)
        self._reported = max(self._reported, end)
        body = self._buffer[candidate.body : closing if closing >= 0 else end]
        return Damage(
            error,
            self._buffer[candidate.start : end],
            crc_sent=_crc_text(self._buffer, candidate),
            crc_computed=f"{crc16(body):04X}",
            binary_crc=candidate.body - candidate.start == 7,
            length_sent=int(self._buffer[candidate.body - 4 : candidate.body], 16),
            length_actual=len(body),
        )

    def _trim(self, found: list[Frame | Damage]) -> None:
        """Let go of bytes that can no longer be part of a frame."""
        if self._open:
            keep_from = self._open[0].start
        else:
            start = self._buffer.find(b"\n", self._searched)
            keep_from = start if start >= 0 else len(self._buffer)
        self._report_noise(keep_from, found)
        self._buffer = self._buffer[keep_from:]
        self._searched = max(0, self._searched - keep_from)
        self._reported = max(0, self._reported - keep_from)
        self._open = [_Candidate(c.start - keep_from, c.body - keep_from, c.end - keep_from) for c in self._open]
        self._nearest_end -= keep_from


def _crc_text(buffer: bytes, candidate: _Candidate) -> str:
    sent = buffer[candidate.start + 1 : candidate.body - 4]
    return sent.hex().upper() if len(sent) == 2 else sent.decode("ascii").upper()


def _exactly_one(data: bytes) -> Frame | None:
    """Return the frame when ``data`` is one good frame and nothing else, as nearly always; None for the long way."""
    length = _LENGTHS.get(data[5:9])
    if length is None or len(data) != length + 10 or data[0] != _LF or data[9] != _QUOTE or data[-1] != _CR:
        return None
    body = data[9:-1]
    if b"%04X" % crc16(body) != data[1:5].upper():
        return None
    return Frame(data, body, False)


def split_datagram(data: bytes) -> list[Frame | Damage]:
    """Cut one datagram into frames; one is expected, more are taken, what is left over is damage."""
    frame = _exactly_one(data)
    if frame is not None:
        return [frame]
    framer = Framer()
    return framer.feed(data) + framer.end()


def wrap(body: bytes, binary_crc: bool = False) -> bytes:
    """Put LF, CRC, length and CR around ``body`` (4095 bytes at most).

    Raises:
        BadLength: the body is too long for the length field.
    """
    if len(body) > MAX_BODY_BYTES:
        raise BadLength(f"a body has {MAX_BODY_BYTES} bytes at most, this one has {len(body)}")
    crc = crc16(body)
    if binary_crc:
        return b"\n%b0%03X%b\r" % (crc.to_bytes(2, "big"), len(body), body)
    return b"\n%04X0%03X%b\r" % (crc, len(body), body)
