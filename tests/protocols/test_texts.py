"""What an error tells is bounded and repeats nothing of what came: it is logged."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import contact_id, dc09, sia_dcs
from protocols.dc09 import timestamp
from protocols.errors import ProtocolError

SECRET = b"7391"
KEY = dc09.Key(bytes(range(16)))
FRAME = b'"ADM-CID"0001L0#1234[#1234|1121 01 7391][S7391]_10:01:02,11-23-2026'


def _texts(body: bytes) -> list[str]:
    """Return what every step says of a body, and of the bytes as a stream."""
    said = [str(found.error) for found in dc09.split_datagram(b"\n00000040" + body) if isinstance(found, dc09.Damage)]
    for key in (None, KEY):
        try:
            dc09.unseal(dc09.open_envelope(dc09.Frame(b"", body, False)), key)
        except ProtocolError as error:
            said.append(str(error))
    return said


@given(st.integers(0, len(FRAME)), st.integers(0, 3), st.binary(max_size=3))
def test_no_error_of_a_damaged_frame_repeats_its_data(at: int, lost_bytes: int, put: bytes) -> None:
    for text in _texts(FRAME[:at] + put + FRAME[at + lost_bytes :]):
        assert SECRET.decode() not in text
        assert len(text) < 160


@pytest.mark.parametrize(
    "body",
    [
        FRAME.replace(b"[", b"("), FRAME.replace(b"]", b")"), FRAME.replace(b'"', b"'"), FRAME.replace(b"#1234[", b"#1234"),
        FRAME.replace(b"0001", b""), FRAME.replace(b'"ADM-CID"', b'"7391 x"'), FRAME.replace(b"0001", b"x739"), FRAME[::-1],
        FRAME.replace(b"ADM", b"*ADM"), b"7391" * 1000,
    ],
)  # fmt: skip
def test_no_error_of_a_frame_of_another_shape_repeats_it(body: bytes) -> None:
    said = _texts(body)
    assert said
    assert not any("739" in text or len(text) >= 160 for text in said)


@pytest.mark.parametrize("decode", [contact_id.decode, contact_id.decode_telephone, sia_dcs.decode])
@pytest.mark.parametrize("text", ["7391", "1121 01 7391 x", "1234181121017391", "7391" * 1000, "_7391\n"])
def test_no_error_of_a_payload_repeats_it(decode: Callable[[str], object], text: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode(text)
    assert "7391" not in str(caught.value)
    assert len(str(caught.value)) < 160


@pytest.mark.parametrize("key", ["7391", "7391" * 1000, "7391" * 4 + "é"])
def test_no_error_of_a_key_repeats_it(key: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        dc09.Key.parse(key)
    assert "7391" not in str(caught.value)


@pytest.mark.parametrize("stamp", [b"_73:91:00,01-01-2026", b"7391" * 100])
def test_no_error_of_a_time_stamp_repeats_it(stamp: bytes) -> None:
    with pytest.raises(ProtocolError) as caught:
        timestamp.decode(stamp)
    assert "73" not in str(caught.value)


def test_no_error_of_writing_repeats_what_was_to_be_written() -> None:
    event = contact_id.ContactId(contact_id.Qualifier.NEW, "121", "01", "7391")
    with pytest.raises(ProtocolError) as caught:
        contact_id.encode_telephone("1234", event)
    assert "7391" not in str(caught.value)
