"""CRC-16/ARC, against a second way to compute it and against frames whose CRC others computed."""

import random

import pytest

from protocols.dc09.crc import crc16
from tests import vectors


def _bit_by_bit(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def test_the_check_value_is_that_of_arc() -> None:
    assert crc16(b"123456789") == 0xBB3D


def test_nothing_has_the_initial_value() -> None:
    assert crc16(b"") == 0


def test_the_entry_of_the_table_that_was_misprinted_is_the_computed_one() -> None:
    assert crc16(bytes([100])) == 0xEB01


@pytest.mark.parametrize("byte", range(256))
def test_every_byte_has_its_entry(byte: int) -> None:
    assert crc16(bytes([byte])) == _bit_by_bit(bytes([byte]))


def test_a_long_body_is_computed_as_bit_by_bit() -> None:
    for body in (bytes(range(256)) * 16, random.Random(2).randbytes(4095)):
        assert crc16(body) == _bit_by_bit(body)


def test_it_is_right_at_every_length_and_place_in_memory() -> None:
    """The library takes 16 to 256 bytes at a time and tables for the rest: every way through it is gone."""
    noise = random.Random(1).randbytes(600)
    for size in range(560):
        for start in range(0, 16, 5):
            body = noise[start : start + size]
            assert crc16(body) == _bit_by_bit(body)


def test_zeros_in_front_change_nothing_and_behind_they_do() -> None:
    assert crc16(b"\x00\x00abc") == crc16(b"abc") != crc16(b"abc\x00")


@pytest.mark.parametrize("vector", vectors.load("ajax") + vectors.load("inim"), ids=lambda vector: vector["name"])
def test_captured_frames_carry_this_crc(vector: dict[str, str]) -> None:
    frame = bytes.fromhex(vector["frame"])
    assert int(frame[1:5], 16) == crc16(frame[9:-1])


@pytest.mark.parametrize("vector", vectors.load("eldes")[:5], ids=lambda vector: vector["name"])
def test_eldes_computes_the_same_crc_over_one_byte_too_many(vector: dict[str, str]) -> None:
    frame = bytes.fromhex(vector["frame"])
    assert int(frame[1:5], 16) == crc16(frame[9:]) != crc16(frame[9:-1])
