"""Cutting frames out of streams and datagrams."""

import sys

import pytest

from protocols import dc09
from protocols.dc09 import framing
from protocols.dc09.crc import crc16
from protocols.errors import BadCrc, BadLength, NotDc09, Truncated

ONE = dc09.wrap(b'"ADM-CID"0001L0#1234[#1234|1121 01 005]')
TWO = dc09.wrap(b'"NULL"0000L0#1234[]')
BINARY = dc09.wrap(b'"NULL"0000R1L1#9413[]', binary_crc=True)


def _frames(found: "list[dc09.Frame | dc09.Damage]") -> list[bytes]:
    return [f.raw for f in found if isinstance(f, dc09.Frame)]


def _errors(found: "list[dc09.Frame | dc09.Damage]") -> list[type[Exception]]:
    return [type(f.error) for f in found if isinstance(f, dc09.Damage)]


def test_the_crc_is_crc_16_arc() -> None:
    assert crc16(b"123456789") == 0xBB3D


def test_a_frame_arrives_whole() -> None:
    assert _frames(dc09.Framer().feed(ONE)) == [ONE]


def test_a_frame_arrives_byte_by_byte() -> None:
    framer = dc09.Framer()
    found = [framer.feed(bytes([byte])) for byte in ONE]
    assert not any(found[:-1])
    assert _frames(found[-1]) == [ONE]
    assert not framer.begun


def test_frames_of_one_segment_come_in_order() -> None:
    assert _frames(dc09.Framer().feed(ONE + TWO + BINARY + ONE)) == [ONE, TWO, BINARY, ONE]


@pytest.mark.parametrize("filler", [b"\x00", b"\r\n", b" \x00\r\n"])
def test_filler_between_frames_means_nothing(filler: bytes) -> None:
    found = dc09.split_datagram(filler + ONE + filler + TWO + filler)
    assert _frames(found) == [ONE, TWO]
    assert len(found) == 2


@pytest.mark.parametrize("filler", [b"\n", b"\r\n", b"\n\x00 \r"])
def test_filler_behind_a_frame_begins_none(filler: bytes) -> None:
    framer = dc09.Framer()
    assert _frames(framer.feed(ONE + filler)) == [ONE]
    assert not framer.begun
    assert _frames(framer.feed(TWO[1:] if filler[-1:] == b"\n" else TWO)) == [TWO]  # a LF may yet start one


def test_noise_is_reported_and_does_not_hide_a_frame() -> None:
    found = dc09.Framer().feed(b"GET / HTTP/1.1\r\n\r\n" + ONE)
    assert _errors(found) == [NotDc09]
    assert _frames(found) == [ONE]


def test_a_bad_crc_takes_no_neighbour_with_it() -> None:
    found = dc09.Framer().feed(ONE.replace(b"121", b"131") + TWO)
    assert _errors(found) == [BadCrc]
    assert _frames(found) == [TWO]


def test_a_length_that_is_too_long_takes_no_neighbour_with_it() -> None:
    framer = dc09.Framer()
    found = framer.feed(ONE.replace(b"0027", b"0FFF") + TWO)
    assert _frames(found) == [TWO]
    assert _errors(found) == [Truncated]


def test_a_length_that_is_too_short_takes_no_neighbour_with_it() -> None:
    found = dc09.Framer().feed(ONE.replace(b"0027", b"0020") + TWO)
    assert _errors(found) == [BadLength]
    assert _frames(found) == [TWO]


def test_a_frame_cut_off_and_sent_again_is_found() -> None:
    assert _frames(dc09.Framer().feed(ONE[:30] + ONE)) == [ONE]


def test_a_length_whose_first_digit_is_not_zero_is_refused() -> None:
    assert _errors(dc09.split_datagram(ONE.replace(b"0027", b"1027"))) == [BadLength]


@pytest.mark.parametrize("wanted", [b"\r", b"\n", b'"', b"\x00"])
def test_raw_crc_bytes_may_be_any_character(wanted: bytes) -> None:
    bodies = (b'"NULL"%04d#1234[]' % n for n in range(10000))
    frame = next(f for f in (dc09.wrap(body, True) for body in bodies) if wanted in f[1:3])
    framer = dc09.Framer()
    assert _frames([f for byte in frame for f in framer.feed(bytes([byte]))]) == [frame]


def test_both_crc_forms_and_cases_are_read() -> None:
    lower = ONE[:9].lower() + ONE[9:]
    found = dc09.split_datagram(lower)
    assert isinstance(found[0], dc09.Frame)
    assert not found[0].binary_crc
    binary = dc09.split_datagram(BINARY)[0]
    assert isinstance(binary, dc09.Frame)
    assert binary.binary_crc


def test_damage_tells_what_could_be_made_out() -> None:
    damage = dc09.split_datagram(ONE.replace(b"121", b"131"))[0]
    assert isinstance(damage, dc09.Damage)
    assert damage.length_sent == damage.length_actual == 0x27
    assert damage.crc_sent == ONE[1:5].decode()
    assert damage.crc_computed != damage.crc_sent
    assert damage.binary_crc is False


@pytest.mark.parametrize("cut", [2, 5, 12, len(ONE) - 1])
def test_a_frame_that_never_ends_is_truncated_or_nothing(cut: int) -> None:
    framer = dc09.Framer()
    assert framer.feed(ONE[:cut]) == []
    assert framer.begun
    assert set(_errors(framer.end())) <= {Truncated, NotDc09}
    assert not framer.begun


def test_a_datagram_without_its_cr_is_no_frame() -> None:
    assert _errors(dc09.split_datagram(ONE[:-1])) == [Truncated]


def test_a_datagram_whose_frame_ends_early_has_a_bad_length() -> None:
    assert _errors(dc09.split_datagram(ONE.replace(b"0027", b"0028"))) == [BadLength]


@pytest.mark.parametrize("piece", [b"x" * 65536, b"\n" * 65536, b'\n00000FFF"' * 6000, b'\nAB0FFF"' * 8000])
def test_memory_stays_bounded_whatever_comes(piece: bytes) -> None:
    framer = dc09.Framer()
    for _ in range(20):
        told = sum(len(f.raw) for f in framer.feed(piece))
        assert told <= len(piece) + 2 * dc09.MAX_FRAME_BYTES
        assert len(framer._buffer) <= 2 * dc09.MAX_FRAME_BYTES
        assert len(framer._open) <= dc09.MAX_FRAME_BYTES


def test_a_body_that_is_too_long_cannot_be_wrapped() -> None:
    assert len(dc09.wrap(b"x" * 4095)) == dc09.MAX_FRAME_BYTES
    with pytest.raises(BadLength):
        dc09.wrap(b"x" * 4096)


def test_what_looks_like_a_header_inside_a_good_frame_is_its_data() -> None:
    outer = dc09.wrap(b'"SIA-DCS"0001L0#1234[NHA1^\n00000005"^]')
    assert dc09.split_datagram(outer + ONE) == [*dc09.split_datagram(outer), *dc09.split_datagram(ONE)]


def test_the_longest_frame_is_read() -> None:
    longest = dc09.wrap(b'"ADM-CID"0001L0#1234[' + b"x" * (4095 - 22) + b"]")
    framer = dc09.Framer()
    assert _frames(framer.feed(longest[:4000]) + framer.feed(longest[4000:] + TWO)) == [longest, TWO]


HOLD_UP = dc09.wrap(b'"SIA-DCS"0002L0#1234[#1234|Nri1/HA001]')
DAMAGE = {
    "a flipped bit": ONE[:20] + bytes([ONE[20] ^ 1]) + ONE[21:],
    "a wrong CRC": ONE[:1] + b"0000" + ONE[5:],
    "a CRC that is no number": ONE[:1] + b"XYZ!" + ONE[5:],
    "a length one too long": ONE.replace(b"0027", b"0028"),
    "a length one too short": ONE.replace(b"0027", b"0026"),
    "a length far too long": ONE.replace(b"0027", b"0FFF"),
    "a length of nothing": ONE.replace(b"0027", b"0000"),
    "a length that ends in the neighbour": ONE.replace(b"0027", b"0040"),
    "a length with a bad first digit": ONE.replace(b"0027", b"F027"),
    "a length that is no number": ONE.replace(b"0027", b"00_7"),
    "a lost LF": ONE[1:],
    "a lost CR": ONE[:-1],
    "a lost quote": ONE[:9] + ONE[10:],
    "a lost byte": ONE[:25] + ONE[26:],
    "a byte too many": ONE[:25] + b"x" + ONE[25:],
    "only its header": ONE[:10],
    "half of it": ONE[:24],
    "half of it twice": ONE[:24] + ONE[:24],
    "a binary CRC that is wrong": BINARY[:1] + b"\x00\x00" + BINARY[3:],
    "a binary length far too long": BINARY.replace(b"0015", b"0FFF"),
}


@pytest.mark.parametrize("neighbour", [TWO, BINARY, HOLD_UP], ids=["text", "binary", "hold-up"])
@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=DAMAGE)
def test_damage_takes_no_good_neighbour_with_it_whatever_the_pieces(damaged: bytes, neighbour: bytes) -> None:
    stream = ONE + damaged + neighbour
    whole, single = dc09.Framer(), dc09.Framer()
    assert _frames(whole.feed(stream)) == [ONE, neighbour]
    assert _frames([found for byte in stream for found in single.feed(bytes([byte]))]) == [ONE, neighbour]


@pytest.mark.parametrize("damaged", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_told_and_never_passed_over_in_silence(damaged: bytes) -> None:
    found = dc09.split_datagram(damaged + TWO)
    assert _errors(found)
    assert _frames(found) == [TWO]


def test_every_one_of_many_damaged_frames_is_told() -> None:
    bad = DAMAGE["a flipped bit"]
    assert _errors(dc09.Framer().feed(bad * 3 + TWO)) == [BadCrc] * 3


@pytest.mark.parametrize("frame", [ONE, TWO, BINARY], ids=["text", "short", "binary"])
def test_a_frame_may_be_cut_anywhere(frame: bytes) -> None:
    for cut in range(len(frame) + 1):
        framer = dc09.Framer()
        assert _frames(framer.feed(frame[:cut]) + framer.feed(frame[cut:])) == [frame]


@pytest.mark.parametrize("crc", [b"\r\r", b"\n\n", b'""', b"\x00\x00", b"\r\n", b'\n"', b"0n"])
def test_two_raw_crc_bytes_at_once_may_mean_something_elsewhere(crc: bytes) -> None:
    start = b'"NULL"0000L0#1234['
    filled = (start + bytes([a, b]) + b"]" for a in range(256) for b in range(256))  # two bytes reach every CRC
    frame = next(dc09.wrap(body, True) for body in filled if crc16(body).to_bytes(2, "big") == crc)
    assert frame[1:3] == crc
    framer = dc09.Framer()
    assert _frames([found for byte in ONE + frame + TWO for found in framer.feed(bytes([byte]))]) == [ONE, frame, TWO]


def test_a_whole_frame_inside_an_unfinished_one_is_taken_and_the_unfinished_one_told() -> None:
    unfinished = ONE[:30]
    framer = dc09.Framer()
    assert framer.feed(unfinished) == []
    found = framer.feed(HOLD_UP)
    assert _frames(found) == [HOLD_UP]
    assert _errors(found) == [BadLength]  # by its length it would end inside the other
    assert isinstance(found[0], dc09.Damage)
    assert found[0].raw == unfinished


def test_a_header_inside_an_unfinished_good_frame_is_not_told_as_damage() -> None:
    outer = dc09.wrap(b'"SIA-DCS"0001L0#1234[NHA1^\n00000002"x\r^]')
    framer = dc09.Framer()
    assert [found for byte in outer for found in framer.feed(bytes([byte]))] == dc09.split_datagram(outer)


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"\n" * 40 + b"!", b"\xff" * 700])
def test_noise_is_told_once_and_kept_bounded(noise: bytes) -> None:
    found = dc09.split_datagram(noise)
    assert _errors(found) == [NotDc09]
    assert isinstance(found[0], dc09.Damage)
    assert found[0].raw in noise
    assert len(found[0].raw) <= 512
    assert found[0].crc_sent is None
    assert found[0].length_sent is None


def test_filler_alone_is_nothing() -> None:
    assert dc09.split_datagram(b"\x00\r\n  \r\n\x00") == []
    assert dc09.split_datagram(b"") == []


def test_a_framer_goes_on_after_its_end() -> None:
    framer = dc09.Framer()
    framer.feed(ONE[:20])
    assert _errors(framer.end()) == [Truncated]
    assert framer.end() == []
    assert _frames(framer.feed(ONE)) == [ONE]


def test_the_rest_of_a_datagram_after_a_good_frame_is_told() -> None:
    found = dc09.split_datagram(TWO + ONE[:20])
    assert _frames(found) == [TWO]
    assert _errors(found) == [Truncated]


def test_damage_of_the_binary_form_tells_its_crc_in_hexadecimal() -> None:
    damage = dc09.split_datagram(BINARY[:1] + b"\x0d\xff" + BINARY[3:])[0]
    assert isinstance(damage, dc09.Damage)
    assert damage.crc_sent == "0DFF"
    assert damage.crc_computed == BINARY[1:3].hex().upper()
    assert damage.binary_crc is True


def test_a_frame_keeps_its_bytes_as_received() -> None:
    lower = ONE[:9].lower() + ONE[9:]
    frame = dc09.split_datagram(lower)[0]
    assert isinstance(frame, dc09.Frame)
    assert (frame.raw, frame.body) == (lower, ONE[9:-1])


ENDLESS = {"noise": b"x", "line feeds": b"\n", "carriage returns": b"\r", "a frame that grows": b"#"}


@pytest.mark.parametrize("byte", ENDLESS.values(), ids=ENDLESS)
def test_twenty_megabytes_without_an_end_leave_less_than_ten_kilobytes(byte: bytes) -> None:
    framer = dc09.Framer()
    framer.feed(b'\n00000FFF"ADM-CID"0001L0#1234[')
    before = _held_bytes(framer)
    for _ in range(320):
        framer.feed(byte * 65536)
        assert _held_bytes(framer) < 10_000
    assert before < 10_000


def test_the_most_hostile_headers_leave_less_than_a_hundred_kilobytes() -> None:
    framer = dc09.Framer()
    for _ in range(8):
        framer.feed(b'\nAB0FFF"' * 8192)  # the densest packing: each may begin a frame of full length
        assert _held_bytes(framer) < 100_000


def _held_bytes(framer: dc09.Framer) -> int:
    """Count what a framer keeps from one piece to the next: its bytes, and what it noted of each header in them."""
    noted = sum(sys.getsizeof(header) + sum(map(sys.getsizeof, header)) for header in framer._open)
    return sys.getsizeof(framer._buffer) + sys.getsizeof(framer._open) + noted


def _packed(header: bytes) -> bytes:
    """Return headers of about 4 KB, packed as densely as can be, so that a CR stands where each frame would end."""
    fits = (header.replace(b"LLL", b"%03X" % length) for length in range(4090, 4000, -1))
    return next(h for h in fits if h[(h.index(b'"') + int(h[h.index(b'"') - 3 : h.index(b'"')], 16)) % len(h)] == 0x0D)


GOOD = dc09.wrap(b'"ADM-CID"0001L0#1234[#1234|1121 01 005]_10:01:02,11-23-2026')
HOSTILE = {
    "binary frames inside one another": _packed(b'\n\rA0LLL"'),
    "text frames inside one another": _packed(b'\n00000LLL"\r'),
    "frames that begin and never end": b'\nAB0FFF"',
    "frames with a bad first digit": b'\nAB1000"\r',
    "frames that end elsewhere": b'\nAB0000"x',
    "line feeds": b"\n",
    "carriage returns": b"\r",
    "headers that break off": b"\n00000000",
    "a CR far away": b'\nAB1000"' + b"x" * 4100,
}


def _steps(pattern: bytes, piece_bytes: int) -> float:
    """Count the calls a byte costs, of Python's functions and C's; no time, so that a busy machine tells the same."""
    data = pattern * (16384 // len(pattern))
    calls = 0

    def count(_frame: object, event: str, _what: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    framer = dc09.Framer()
    sys.setprofile(count)
    try:
        for start in range(0, len(data), piece_bytes):
            framer.feed(data[start : start + piece_bytes])
    finally:
        sys.setprofile(None)
    return calls / len(data)


@pytest.mark.parametrize("piece_bytes", [16384, 1460, 8, 1])
@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE)
def test_no_bytes_cost_more_than_eight_times_the_steps_of_good_frames(pattern: bytes, piece_bytes: int) -> None:
    assert _steps(pattern, piece_bytes) < 8 * _steps(GOOD, piece_bytes)


@pytest.mark.parametrize("piece_bytes", [262144, 1460, 1])
@pytest.mark.parametrize("pattern", HOSTILE.values(), ids=HOSTILE)
def test_no_bytes_cost_more_than_six_bytes_of_crc_each(
    pattern: bytes, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    summed = 0

    def counting(data: bytes) -> int:
        nonlocal summed
        summed += len(data)
        return crc16(data)

    monkeypatch.setattr(framing, "crc16", counting)
    data = pattern * (min(262144, piece_bytes * 10000) // len(pattern))
    framer = dc09.Framer()
    for start in range(0, len(data), piece_bytes):
        framer.feed(data[start : start + piece_bytes])
    assert summed <= 6 * len(data) + 16 * dc09.MAX_FRAME_BYTES


def test_a_good_frame_after_damage_of_any_usual_kind_is_found_however_much_of_it_there_was() -> None:
    for damaged in DAMAGE.values():
        assert _frames(dc09.split_datagram(damaged * 500 + TWO))[-1] == TWO


def test_more_than_sixteen_pieces_of_damage_at_once_are_told_as_one_with_a_count() -> None:
    bad = DAMAGE["a flipped bit"]
    found = dc09.split_datagram(bad * 40 + TWO)
    assert _errors(found) == [BadCrc] * 16 + [NotDc09]
    assert "24 more" in str(found[-1].error if isinstance(found[-1], dc09.Damage) else "")
    assert found[-1].raw == bad
    assert _frames(found) == [TWO]


def test_of_too_many_unfinished_frames_the_older_are_given_up_and_a_good_one_is_found() -> None:
    framer = dc09.Framer()
    found = framer.feed(b'\nAB0FFF"x' * 100) + framer.feed(ONE)
    assert _frames(found) == [ONE]
    assert set(_errors(found)) <= {Truncated, NotDc09}
    assert sum(len(f.raw) for f in found) == 900 + len(ONE)


def test_a_good_frame_inside_a_damaged_one_is_told_once() -> None:
    outer = dc09.wrap(b'"SIA-DCS"0001L0#1234[NHA1^' + TWO + b"^]").replace(b"HA1", b"HA2")
    found = dc09.split_datagram(outer + ONE)
    assert _frames(found) == [TWO, ONE]
    assert sum(len(f.raw) for f in found) == len(outer) + len(ONE)


def test_the_rest_after_an_unfinished_frame_is_told_too() -> None:
    rest = b"\r" + ONE.replace(b"121", b"131")
    found = dc09.split_datagram(ONE.replace(b"0027", b"0FFF")[:-1] + rest)
    assert _errors(found) == [BadLength, NotDc09]
    assert sum(len(f.raw) for f in found) == len(ONE) - 1 + len(rest)
