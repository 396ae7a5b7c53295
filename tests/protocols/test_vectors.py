"""Every captured and made frame, decoded, answered and, where it can be, encoded again byte for byte."""

from typing import Any

import pytest

from protocols import dc09
from protocols.dc09 import cipher
from protocols.errors import ProtocolError
from receiver import clock
from receiver.explain import explain
from tests import vectors

FRAMES = vectors.frames()


def _named(found: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in found]


def _key(vector: dict[str, Any]) -> dc09.Key | None:
    return dc09.Key.parse(vector["key"]) if vector["key"] else None


@pytest.mark.parametrize("vector", _named(FRAMES))
def test_a_frame_is_judged_read_and_answered_as_its_vector_says(vector: dict[str, Any]) -> None:
    now_us = clock.from_text(vector["now"]) if vector["now"] else clock.from_text("2026-11-23T10:00:00Z")
    told = explain(bytes.fromhex(vector["frame"]), _key(vector), now_us)
    assert told["verdict"] == vector["verdict"], told
    for name, value in vector.get("message", {}).items():
        assert told["message"][name] == value
    for wanted, event in zip(vector.get("events") or [], told["events"], strict=bool(vector.get("events"))):
        for name, value in wanted.items():
            assert value in event["flags"] if name == "has_flag" else event[name] == value
    if vector.get("reply"):
        assert told["reply"] == vector["reply"].lower()


def _opened(encrypted: bool) -> list[Any]:
    """Return the vectors whose message can be read, whatever the answer to it is."""
    found = []
    for vector in FRAMES:
        frame = dc09.split_datagram(bytes.fromhex(vector["frame"]))[:1]
        try:
            assert isinstance(frame[0], dc09.Frame)
            envelope = dc09.open_envelope(frame[0])
            dc09.unseal(envelope, _key(vector))
        except (AssertionError, IndexError, ProtocolError):
            continue
        if envelope.encrypted is encrypted:
            found.append(vector)
    return found


def test_every_vector_that_is_not_answered_with_silence_is_asserted_both_ways() -> None:
    opened = {vector["name"] for encrypted in (False, True) for vector in _opened(encrypted)}
    assert {vector["name"] for vector in FRAMES if vector["verdict"] != "silence"} <= opened


def test_names_and_origins_are_told_once() -> None:
    names = [vector["name"] for vector in FRAMES]
    assert len(names) == len(set(names))
    assert all(vector["source"] for vector in FRAMES)


@pytest.mark.parametrize("vector", _named(_opened(encrypted=False)))
def test_a_clear_message_is_encoded_as_it_came(vector: dict[str, Any]) -> None:
    frame = dc09.split_datagram(bytes.fromhex(vector["frame"]))[0]
    assert isinstance(frame, dc09.Frame)
    message = dc09.unseal(dc09.open_envelope(frame), None)
    again = dc09.encode(
        message.envelope.token, message.envelope.sequence, message.envelope.address, message.data, message.extended,
        message.panel_time, None, frame.binary_crc,
    )  # fmt: skip
    if message.stamp and message.panel_time is None:  # junk where the stamp belongs is kept, and never written
        again = dc09.wrap(again[9:-1] + message.stamp)
    assert again == (frame.raw if frame.binary_crc else frame.raw[:9].upper() + frame.raw[9:])


@pytest.mark.parametrize("vector", _named(_opened(encrypted=True)))
def test_an_encrypted_message_is_sealed_as_it_came_with_the_same_pad(vector: dict[str, Any]) -> None:
    frame = dc09.split_datagram(bytes.fromhex(vector["frame"]))[0]
    assert isinstance(frame, dc09.Frame)
    key = _key(vector)
    assert key is not None
    envelope = dc09.open_envelope(frame)
    plain = key.decrypt(bytes.fromhex(envelope.content.decode("ascii")))
    body = cipher.unseal(envelope.content, key)
    pad = plain[: len(plain) - len(body)]
    sealed = key.encrypt(plain).hex().upper().encode("ascii")
    if pad.endswith(b"|"):  # the form without a bar is read and never written
        assert cipher.seal(body, key, pad[:-1]) == sealed
    head = frame.body[: len(frame.body) - len(envelope.content)]
    again = dc09.wrap(head + sealed, frame.binary_crc)
    if envelope.content == envelope.content.upper():
        assert again == frame.raw
    else:  # lower-case hexadecimal text is read; upper-case is written
        assert again[10:].upper() == frame.raw[10:].upper()


def test_eldes_frames_whose_crc_covers_the_cr_are_refused_for_that_reason() -> None:
    for vector in vectors.load("eldes"):
        told = explain(bytes.fromhex(vector["frame"]), None, 0)
        assert told["reason"] in ("bad-crc", "bad-length")
        assert told["frame"]["crc_sent"] != told["frame"]["crc_computed"]
