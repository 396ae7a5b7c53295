"""Keys in clear are taken out of what is kept; everything else stays."""

import pytest

from protocols import dc09

SECRET = b"00112233445566778899AABBCCDDEEFF"
ADDRESS = dc09.Address(None, "0", "1234")


def _exchange(key: bytes = SECRET, binary_crc: bool = False) -> bytes:
    blocks = (("S", b"Till"), ("K", key), ("H", b"10:01:02,11-23-2026"))
    return dc09.encode("ADM-CID", "0001", ADDRESS, b"#1234|1602 00 000", blocks, 1_790_000_000, None, binary_crc)


def _message(raw: bytes) -> dc09.Message:
    (frame,) = dc09.split_datagram(raw)
    assert isinstance(frame, dc09.Frame)
    return dc09.unseal(dc09.open_envelope(frame), None)


@pytest.mark.parametrize("binary_crc", [False, True])
def test_a_masked_frame_reads_as_before_but_for_its_key(binary_crc: bool) -> None:
    raw = _exchange(binary_crc=binary_crc)
    masked = dc09.mask_keys(raw)
    before, after = _message(raw), _message(masked)
    assert len(masked) == len(raw)
    assert dict(after.extended) == dict(before.extended) | {"K": b"*" * 32}
    assert (after.data, after.stamp, after.envelope.echo) == (before.data, before.stamp, before.envelope.echo)
    assert after.envelope.frame.binary_crc is binary_crc


def test_every_frame_of_several_and_every_key_of_one_is_masked() -> None:
    twice = dc09.encode("ADM-CID", "0001", ADDRESS, b"#1|1602 00 000", (("K", SECRET), ("K", SECRET)))
    masked = dc09.mask_keys(twice + _exchange() + twice)
    assert SECRET not in masked
    assert [type(found) for found in dc09.split_datagram(masked)] == [dc09.Frame] * 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[: raw.index(SECRET) + 30],
        lambda raw: raw.replace(b"Till", b"Tell"),
        lambda raw: raw.replace(b"][K", b"[K"),
        lambda raw: b"noise" + raw,
        lambda raw: raw[20:],
        lambda raw: raw.replace(SECRET + b"]", SECRET),
    ],
)
def test_damaged_bytes_are_masked_too(damage: "object") -> None:
    raw = damage(_exchange())  # type: ignore[operator]
    masked = dc09.mask_keys(raw)
    assert b"00112233" not in masked
    assert len(masked) == len(raw)
    assert masked.startswith(raw[: raw.index(b"[K") + 2])


def test_a_key_that_does_not_end_is_masked_to_the_end() -> None:
    raw = dc09.wrap(b'"ADM-CID"0001L0#1234[#1234|1602 00 000][K' + SECRET)
    assert dc09.mask_keys(raw) == dc09.wrap(b'"ADM-CID"0001L0#1234[#1234|1602 00 000][K' + b"*" * 32)


@pytest.mark.parametrize("data", [b"#1234|NHA1^[Kitchen]^", b"K1234", b"no key"])
def test_what_is_no_key_stays_as_it_came(data: bytes) -> None:
    raw = dc09.encode("SIA-DCS", "0001", ADDRESS, data, (("S", b"Kiosk"),))
    assert dc09.mask_keys(raw) == raw


def test_a_decrypted_body_is_masked() -> None:
    body = b"#1234|1602 00 000][K" + SECRET + b"][Sx]_10:01:02,11-23-2026"
    sealed = dc09.wrap(b'"ADM-CID"0001L0#1234[' + body)
    assert dc09.mask_body(_message(sealed)) == body.replace(SECRET, b"*" * 32)


@pytest.mark.parametrize("data", [b"#1234|NHA1^a][Kb] c^/BA2", b"#1234|N][K/HA1/BA2]/PA3"])
def test_data_that_looks_like_a_key_stays_whole_and_means_the_same(data: bytes) -> None:
    raw = dc09.wrap(b'"SIA-DCS"0001L0#1234[' + data + b"^][K" + SECRET + b"]_10:01:02,11-23-2026")
    before, after = _message(raw), _message(dc09.mask_keys(raw))
    assert before.data == after.data == data + b"^"
    assert after.extended == (("K", b"*" * 32),)
    assert dc09.mask_body(before) == after.body


def test_masking_what_cannot_be_read_moves_no_end_of_data() -> None:
    tail = b"][K00]123][K" + b"x" * 20 + b"_______:_yyyyyy.]RP]"
    before = _message(dc09.wrap(b'"S"1267#6[data' + tail))
    after = dc09.read_body(before.envelope, dc09.mask_body(before))
    assert before.data == after.data == b"data"
    assert b"x" not in after.body


def test_a_key_in_a_frame_that_is_no_message_is_masked() -> None:
    raw = dc09.wrap(b'"adm-cid"0001L0#1234[#1234|1602 00 000[K' + SECRET + b"]")
    assert SECRET not in dc09.mask_keys(raw)
    assert SECRET not in dc09.mask_keys(dc09.wrap(b'"*ADM-CID"0001L0#1234[#1234|1602 00 000][K' + SECRET + b"]"))


def test_nothing_to_mask_costs_no_copy() -> None:
    raw = dc09.encode("ADM-CID", "0001", ADDRESS, b"#1234|1121 01 005")
    assert dc09.mask_keys(raw) is raw


def test_a_frame_whose_data_does_not_close_is_masked_as_damage_is() -> None:
    raw = dc09.wrap(b'"ADM-CID"0001L0#1234[#1234|1121 01 005[K00112233')
    assert dc09.mask_keys(raw) == dc09.wrap(b'"ADM-CID"0001L0#1234[#1234|1121 01 005[K********')
