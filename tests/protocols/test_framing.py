"""Cutting frames out of streams and datagrams."""

import pytest

from protocols import dc09
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


@pytest.mark.parametrize("cut", [1, 5, 12, len(ONE) - 1])
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
