"""Envelopes and messages: what a frame says once it is cut out."""

import pytest

from protocols import dc09
from protocols.dc09 import timestamp
from protocols.errors import BodyError, EnvelopeError, TimestampError, Undecryptable

KEY = dc09.Key(bytes(range(16)))
STAMP = b"_10:01:02,11-23-2026"


def _envelope(body: bytes) -> dc09.Envelope:
    frame = dc09.split_datagram(dc09.wrap(body))[0]
    assert isinstance(frame, dc09.Frame)
    return dc09.open_envelope(frame)


def _message(body: bytes, key: dc09.Key | None = None) -> dc09.Message:
    return dc09.unseal(_envelope(body), key)


@pytest.mark.parametrize(
    ("printed", "address"),
    [
        (b"#1234", (None, None, "1234")),
        (b"L#1234", (None, "", "1234")),
        (b"L0#1234", (None, "0", "1234")),
        (b"R00aBLFFFFFF#AAA", ("00aB", "FFFFFF", "AAA")),
        (b"R1#1", ("1", None, "1")),
        (b"L0#foc7688", (None, "0", "foc7688")),
        (b"RSite oneL0#1234", ("Site one", "0", "1234")),
        (b"L0#0123456789ABCDEF", (None, "0", "0123456789ABCDEF")),
    ],
)
def test_an_absent_field_is_none_and_an_empty_one_is_empty(printed: bytes, address: tuple[str | None, ...]) -> None:
    envelope = _envelope(b'"NULL"0000' + printed + b"[]")
    assert envelope.address == address
    assert envelope.echo == b"0000" + printed


@pytest.mark.parametrize(
    "body",
    [
        b'"NAK"0000R0L0A0[]', b'"ACK"0000NoneL0#1409[]', b'"adm-cid"0001L0#1[]', b'"NULL"00_0L0#1[]', b'"NULL"000L0#1[]',
        b'"NULL"0000L0#[]', b'"NULL"0000L0#12345678901234567[]', b'"NULL"0000L0#12 4[]', b'"NULL', b"", b'"NULL"0000L0#1234',
        b'"**NULL"0000L0#1[]', b'"THISTOKENISTOOLONG"0000L0#1[]', b'"NULL"0000L0000000#1[]',
    ],
)  # fmt: skip
def test_a_header_of_another_shape_is_refused(body: bytes) -> None:
    with pytest.raises(EnvelopeError):
        dc09.open_envelope(dc09.Frame(dc09.wrap(body), body, False))


def test_a_hexadecimal_sequence_is_taken_as_it_is() -> None:
    assert _envelope(b'"NULL"00aFL0#1234[]').sequence == "00aF"


def test_data_extended_data_and_stamp_are_split() -> None:
    message = _message(b'"ADM-CID"0001L0#1234[#1234|1121 01 005][SFirst Street][X004E54.0][X1]' + STAMP)
    assert message.data == b"#1234|1121 01 005"
    assert message.extended == (("S", b"First Street"), ("X", b"004E54.0"), ("X", b"1"))
    assert message.panel_time == timestamp.decode(STAMP)


@pytest.mark.parametrize(
    ("text", "data", "extended"),
    [
        (b"Nri1/HA001^Till [3]^]", b"Nri1/HA001^Till [3]^", ()),
        (b"NBA1^a]b^][Sx]", b"NBA1^a]b^", (("S", b"x"),)),
        (b"N][Sx]" + STAMP, b"N", (("S", b"x"),)),
        (b"N][]", b"N", (("", b""),)),
    ],
)
def test_brackets_inside_a_text_do_not_end_the_data(text: bytes, data: bytes, extended: tuple[object, ...]) -> None:
    message = _message(b'"SIA-DCS"0001L0#1234[' + text)
    assert (message.data, message.extended) == (data, extended)


@pytest.mark.parametrize("junk", [b"_\xff\x00junk", b"_99:99:99,99-99-9999", b"xyz", b"[half"])
def test_junk_where_a_clear_stamp_belongs_is_no_stamp(junk: bytes) -> None:
    message = _message(b'"ADM-CID"0001L0#1234[#1234|1121 01 005]' + junk)
    assert message.data == b"#1234|1121 01 005"
    assert message.panel_time is None


def test_a_clear_body_without_a_bracket_is_refused() -> None:
    with pytest.raises(BodyError):
        _message(b'"ADM-CID"0001L0#1234[no end')


@pytest.mark.parametrize("text", ["Überfall Kasse 3".encode("cp1252"), "Улица".encode()])
def test_text_in_either_charset_survives_as_bytes(text: bytes) -> None:
    assert _message(b'"SIA-DCS"0001L0#1234[NHA1^' + text + b"^]").data == b"NHA1^" + text + b"^"


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_a_message_is_sealed_and_unsealed(bits: int) -> None:
    key = dc09.Key(bytes(range(bits // 8)))
    when = timestamp.decode(STAMP)
    raw = dc09.encode("ADM-CID", "0007", dc09.Address("1", "", "AB12"), b"#AB12|1121 01 005", (("S", b"x"),), when, key)
    frame = dc09.split_datagram(raw)[0]
    assert isinstance(frame, dc09.Frame)
    message = dc09.unseal(dc09.open_envelope(frame), key)
    assert (message.data, message.extended, message.panel_time) == (b"#AB12|1121 01 005", (("S", b"x"),), when)
    assert message.envelope.encrypted
    with pytest.raises(Undecryptable):
        dc09.unseal(message.envelope, dc09.Key(bytes(16)))
    with pytest.raises(Undecryptable):
        dc09.unseal(message.envelope, None)


@pytest.mark.parametrize("tail", [b"]", b"][Sx]", b"]" + STAMP + b"x", b"]_99:00:00,11-23-2026", b"] junk", b"][half"])
def test_an_encrypted_body_must_end_in_a_time_stamp(tail: bytes) -> None:
    from protocols.dc09 import cipher

    sealed = cipher.seal(b"#1234|1121 01 005" + tail, KEY)
    with pytest.raises(Undecryptable):
        _message(b'"*ADM-CID"0001L0#1234[' + sealed, KEY)


def test_a_stamp_is_read_strictly_and_written_back() -> None:
    assert timestamp.encode(timestamp.decode(STAMP)) == STAMP
    for wrong in (b"10:01:02,11-23-2026", b"_10:01:60,11-23-2026", b"_10:01:02,02-30-2026", b"_1:01:02,11-23-2026", b""):
        with pytest.raises(TimestampError):
            timestamp.decode(wrong)
