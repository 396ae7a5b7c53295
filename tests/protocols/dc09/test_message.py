"""Envelopes and messages: what a frame says once it is cut out."""

import pytest

from protocols import dc09
from protocols.dc09 import cipher, timestamp
from protocols.errors import BadLength, BodyError, EnvelopeError, TimestampError, Undecryptable

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
        (b"#1234", dc09.Address(None, None, "1234")),
        (b"L#1234", dc09.Address(None, "", "1234")),
        (b"L0#1234", dc09.Address(None, "0", "1234")),
        (b"R00aBLFFFFFF#AAA", dc09.Address("00aB", "FFFFFF", "AAA")),
        (b"R1#1", dc09.Address("1", None, "1")),
        (b"L0#foc7688", dc09.Address(None, "0", "foc7688")),
        (b"RSite oneL0#1234", dc09.Address("Site one", "0", "1234")),
        (b"L0#0123456789ABCDEF", dc09.Address(None, "0", "0123456789ABCDEF")),
    ],
)
def test_an_absent_field_is_none_and_an_empty_one_is_empty(printed: bytes, address: dc09.Address) -> None:
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
    sealed = cipher.seal(b"#1234|1121 01 005" + tail, KEY)
    with pytest.raises(Undecryptable):
        _message(b'"*ADM-CID"0001L0#1234[' + sealed, KEY)


def test_a_stamp_is_read_strictly_and_written_back() -> None:
    assert timestamp.encode(timestamp.decode(STAMP)) == STAMP
    for wrong in (b"10:01:02,11-23-2026", b"_10:01:60,11-23-2026", b"_10:01:02,02-30-2026", b"_1:01:02,11-23-2026", b""):
        with pytest.raises(TimestampError):
            timestamp.decode(wrong)


@pytest.mark.parametrize("number", [None, "0", "1234", "FFFFFF"])
@pytest.mark.parametrize("line", [None, "", "0", "1234", "FFFFFF"])
@pytest.mark.parametrize("account", ["0", "123456", "0123456789ABCDEF"])
def test_every_address_of_the_conformance_plan_is_read_and_written(
    number: str | None, line: str | None, account: str
) -> None:
    address = dc09.Address(number, line, account)
    frame = dc09.split_datagram(dc09.encode("ADM-CID", "0001", address, b"x"))[0]
    assert isinstance(frame, dc09.Frame)
    assert dc09.open_envelope(frame).address == address


def test_absent_and_empty_fields_are_written_differently() -> None:
    absent, empty = (dc09.encode("NULL", "0000", dc09.Address(None, line, "1")) for line in (None, ""))
    assert b'"NULL"0000#1[' in absent
    assert b'"NULL"0000L#1[' in empty


def test_the_a0_of_a_nak_is_never_read_as_part_of_the_line() -> None:
    frame = dc09.split_datagram(dc09.wrap(b'"NAK"0000R0L0A0[]_10:01:02,11-23-2026'))[0]
    assert isinstance(frame, dc09.Frame)
    with pytest.raises(EnvelopeError):
        dc09.open_envelope(frame)


def test_a_line_of_three_hexadecimal_digits_is_no_nak() -> None:
    assert _envelope(b'"NULL"0000R0L0A0#1234[]').address == dc09.Address("0", "0A0", "1234")


@pytest.mark.parametrize("token", sorted(dc09.KNOWN_TOKENS | dc09.RECEIVER_TOKENS))
def test_every_token_of_the_standards_is_read(token: str) -> None:
    for star in (False, True):
        envelope = _envelope(f'"{"*" * star}{token}"0001L0#1234[]'.encode())
        assert (envelope.token, envelope.encrypted) == (token, star)


def test_panels_and_receivers_share_no_token() -> None:
    assert not dc09.KNOWN_TOKENS & dc09.RECEIVER_TOKENS


def test_a_token_of_no_standard_is_read_and_left_to_policy() -> None:
    assert _envelope(b'"ZZZ-XYZ"0005L0#1234[whatever]').token not in dc09.KNOWN_TOKENS


def test_the_echo_keeps_case_and_zeros() -> None:
    assert _envelope(b'"NULL"00aFR00abL000#foc7688[]').echo == b"00aFR00abL000#foc7688"


def test_a_bracket_belongs_to_the_content_from_the_first_on() -> None:
    assert _envelope(b'"SIA-DCS"0001L0#1234[a[b]]').content == b"a[b]]"


@pytest.mark.parametrize("data", [b"", b"#1234|", b"#0000|0000 00 000", b"\x00\xff", b'"\r\n"', b"|||"])
def test_any_data_without_a_bracket_is_kept_as_bytes(data: bytes) -> None:
    assert _message(b'"ADM-CID"0001L0#1234[' + data + b"]").data == data


def test_extended_blocks_keep_their_order_letters_and_repeats() -> None:
    message = _message(b'"ADM-CID"0001L0#1234[x][X1][E115000][X2][][\xffb]' + STAMP)
    assert message.extended == (("X", b"1"), ("E", b"115000"), ("X", b"2"), ("", b""), ("\xff", b"b"))


def test_extended_text_in_either_charset_is_written_as_it_came() -> None:
    for text in ("Bäckerei €".encode("cp1252"), "Улица".encode(), b"\x81\x8d"):
        raw = dc09.encode("SIA-DCS", "0001", dc09.Address(None, "0", "1234"), b"NHA1", (("S", text),))
        frame = dc09.split_datagram(raw)[0]
        assert isinstance(frame, dc09.Frame)
        assert dc09.unseal(dc09.open_envelope(frame), None).extended == (("S", text),)


@pytest.mark.parametrize("stamp", [b"_\x01\x80\xff\x00:\x07\x1a\n\r\x22" + bytes(range(0x90, 0x99)), b"_" * 20])
def test_twenty_bytes_of_junk_for_a_stamp_are_kept_and_name_no_moment(stamp: bytes) -> None:
    assert len(stamp) == timestamp.SIZE_BYTES
    message = _message(b'"ADM-CID"0001L0#1234[#1234|1121 01 005][Sx]' + stamp)
    assert (message.data, message.extended) == (b"#1234|1121 01 005", (("S", b"x"),))
    assert (message.stamp, message.panel_time) == (stamp, None)


def test_a_clear_message_needs_no_stamp() -> None:
    message = _message(b'"NULL"0000L0#1234[]')
    assert (message.stamp, message.panel_time) == (b"", None)


def test_a_key_is_not_used_on_a_clear_message() -> None:
    assert _message(b'"ADM-CID"0001L0#1234[#1234|1121 01 005]', KEY).data == b"#1234|1121 01 005"


@pytest.mark.parametrize("token", ["NULL", "ACK"])
def test_an_encrypted_message_without_the_bar_is_read(token: str) -> None:
    sealed = KEY.encrypt(b"p" * 11 + b"]" + STAMP).hex().encode()
    message = _message(f'"*{token}"0000L0#1234['.encode() + sealed, KEY)
    assert (message.data, message.panel_time) == (b"", timestamp.decode(STAMP))


def test_an_encrypted_message_keeps_brackets_inside_its_text() -> None:
    sealed = cipher.seal(b"#1234|NHA1^Till [3]^][Sx]" + STAMP, KEY)
    message = _message(b'"*SIA-DCS"0001L0#1234[' + sealed, KEY)
    assert (message.data, message.extended) == (b"#1234|NHA1^Till [3]^", (("S", b"x"),))


def test_a_clear_body_under_a_star_is_undecryptable() -> None:
    with pytest.raises(Undecryptable):
        _message(b'"*ADM-CID"0001L0#1234[#1234|1121 01 005]' + STAMP, KEY)


def test_what_is_refused_tells_no_clear_text_of_an_encrypted_message() -> None:
    sealed = cipher.seal(b"#1234|the vault is open]", KEY)
    with pytest.raises(Undecryptable) as caught:
        _message(b'"*ADM-CID"0001L0#1234[' + sealed, KEY)
    assert "vault" not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("key", [None, KEY])
def test_the_longest_message_is_written_and_one_byte_more_is_refused(binary: bool, key: dc09.Key | None) -> None:
    address = dc09.Address(None, "0", "1234")

    def write(size: int) -> bytes:
        return dc09.encode("ADM-CID", "0001", address, b"x" * size, (), 0, key, binary)

    fits = max(size for size in range(4096) if len(_bare(address, size, key)) <= 4095)
    assert dc09.split_datagram(write(fits))[0].raw == write(fits) or key is not None
    with pytest.raises(BadLength):
        write(fits + 1)


def _bare(address: dc09.Address, size: int, key: dc09.Key | None) -> str:
    """Return text as long as the body of such a message."""
    body = 1 + size + timestamp.SIZE_BYTES
    return '"ADM-CID"0001L0#1234[' + "x" * (body if key is None else 1 + 2 * ((body + 1) // 16 + 1) * 16)
