"""The framer against a slow model that looks at everything ever sent, whatever the pieces it came in."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from protocols import dc09
from tests.properties.test_protocols import addresses, datas, extended, moments, sequences

# In clear: what is encrypted has a fresh pad each time, and could not be drawn again.
messages = st.builds(
    dc09.encode, st.sampled_from(sorted(dc09.KNOWN_TOKENS)), sequences, addresses, datas, extended, moments, st.none(),
    st.booleans(),
)  # fmt: skip

noises = st.binary(max_size=40) | st.text('\n\r"#[]0123456789ABCDEF', max_size=40).map(lambda text: text.encode("ascii"))


def good_frames(stream: bytes) -> list[bytes]:
    """Return every frame in ``stream`` whose length and CRC fit, from the left; looks at each place, cares for no time."""
    found, at = [], 0
    while (at := stream.find(b"\n", at)) >= 0:
        raw = next((raw for crc_bytes in (4, 2) if (raw := _frame_at(stream, at, crc_bytes))), b"")
        found += [raw] if raw else []
        at += len(raw) or 1
    return found


def _frame_at(stream: bytes, at: int, crc_bytes: int) -> bytes:
    """Return the good frame with this form of CRC that begins at ``at``, or nothing."""
    header_bytes = 1 + crc_bytes + 4
    length = stream[at + header_bytes - 4 : at + header_bytes]
    if len(length) < 4 or length.translate(None, b"0123456789ABCDEFabcdef") or length[:1] != b"0":
        return b""
    size = header_bytes + int(length, 16) + 1
    raw = stream[at : at + size]
    body = raw[header_bytes:-1]
    whole = dc09.wrap(body, crc_bytes == 2)
    crc_sent = raw[1 : 1 + crc_bytes]
    crc_fits = crc_sent == whole[1:3] if crc_bytes == 2 else crc_sent.upper() == whole[1:5]
    return raw if len(raw) == size and crc_fits and raw[-1:] == b"\r" and body[:1] == b'"' else b""


class FramerMachine(RuleBasedStateMachine):
    """One stream and what was sent into it."""

    def __init__(self) -> None:
        super().__init__()
        self.framer = dc09.Framer()
        self.sent = b""
        self.meant: list[bytes] = []
        self.found: list[dc09.Frame | dc09.Damage] = []

    def _feed(self, data: bytes, piece_bytes: int) -> None:
        self.sent += data
        for start in range(0, len(data), piece_bytes):
            self.found += self.framer.feed(data[start : start + piece_bytes])

    @rule(frame=messages, piece_bytes=st.sampled_from([1, 7, 64, 5000]))
    def good(self, frame: bytes, piece_bytes: int) -> None:
        """A frame arrives; it comes out with its last byte, whatever came before it."""
        self._feed(frame, piece_bytes)
        self.meant.append(frame)
        if not self._an_accident():
            assert isinstance(self.found[-1], dc09.Frame)
            assert self.found[-1].raw == frame

    @rule(frame=messages, kept=st.floats(0, 1), piece_bytes=st.sampled_from([1, 7, 5000]))
    def broken_off(self, frame: bytes, kept: float, piece_bytes: int) -> None:
        """A frame begins and stops."""
        self._feed(frame[: int(kept * (len(frame) - 1))], piece_bytes)

    @rule(frame=messages, at=st.floats(0, 1), bits=st.integers(1, 255), piece_bytes=st.sampled_from([1, 7, 5000]))
    def damaged(self, frame: bytes, at: float, bits: int, piece_bytes: int) -> None:
        """A frame arrives with one byte changed."""
        place = int(at * (len(frame) - 1))
        self._feed(frame[:place] + bytes([frame[place] ^ bits]) + frame[place + 1 :], piece_bytes)

    @rule(frame=messages, length=st.integers(0, 0xFFF), piece_bytes=st.sampled_from([1, 5000]))
    def of_another_length(self, frame: bytes, length: int, piece_bytes: int) -> None:
        """A frame arrives whose length field is wrong."""
        self._feed(b"\n00000%03X" % length + frame[9:], piece_bytes)

    @rule(data=noises, piece_bytes=st.sampled_from([1, 5000]))
    def noise(self, data: bytes, piece_bytes: int) -> None:
        """Anything arrives."""
        self._feed(data, piece_bytes)

    @rule(count=st.integers(1, 60), length=st.integers(0xF00, 0xFFF), piece_bytes=st.sampled_from([1, 5000]))
    def headers(self, count: int, length: int, piece_bytes: int) -> None:
        """Headers come packed, each for a long frame."""
        self._feed(b'\n\rA0%03X"' % length * count, piece_bytes)

    @rule()
    def end(self) -> None:
        """The stream ends or waits too long; another begins."""
        self.found += self.framer.end()
        assert not self.framer.begun
        assert self.framer.end() == []
        self._account_for_all()
        self.sent, self.meant, self.found = b"", [], []

    def _an_accident(self) -> bool:
        """Say whether one packed header has the right CRC, as one in 65,536 has: it may hide good frames."""
        return any(len(raw) > 3000 for raw in good_frames(self.sent))

    @invariant()
    def every_good_frame_came_out_once_and_in_order(self) -> None:
        came = [found.raw for found in self.found if isinstance(found, dc09.Frame)]
        if not self._an_accident():
            assert came == good_frames(self.sent)
            assert [raw for raw in came if raw in self.meant] == self.meant

    @invariant()
    def no_byte_is_told_twice_and_few_are_held(self) -> None:
        told = sum(len(found.raw) for found in self.found)
        assert told + len(self.framer._buffer) <= len(self.sent)
        assert len(self.framer._buffer) <= dc09.MAX_FRAME_BYTES
        assert len(self.framer._open) <= 32

    def _account_for_all(self) -> None:
        """What was not told is filler, or noise beyond what is kept of it."""
        told = b"".join(found.raw for found in self.found)
        if len(self.sent) < 512:
            assert len(self.sent.strip(b"\x00\r\n ")) == 0 or told
        assert all(found.raw in self.sent for found in self.found)

    def teardown(self) -> None:
        self.end()


TestFramer = FramerMachine.TestCase
TestFramer.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)
