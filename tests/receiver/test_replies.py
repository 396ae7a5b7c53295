"""ACK, NAK and DUH as bytes."""

import pytest

from protocols import dc09
from receiver import replies
from receiver.journal import Receipt

KEY = dc09.Key(bytes(range(32)))
NOW = 1_790_000_000
RECEIPT = Receipt(1, repeat=False)


def _message(address: dc09.Address, key: dc09.Key | None, binary: bool, sequence: str = "0042") -> dc09.Message:
    raw = dc09.encode("ADM-CID", sequence, address, b"#1234|SECRETDATA", (("V", b"SECRETLINK"),), NOW, key, binary)
    frame = dc09.split_datagram(raw)[0]
    assert isinstance(frame, dc09.Frame)
    return dc09.unseal(dc09.open_envelope(frame), key)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("numbers", [(None, None), (None, ""), ("00aB", "FFFFFF")])
@pytest.mark.parametrize("sequence", ["0000", "00aF", "9999"])
def test_an_ack_echoes_what_came_as_it_came(
    key: dc09.Key | None, binary: bool, numbers: tuple[str | None, str | None], sequence: str
) -> None:
    address = dc09.Address(*numbers, "1a2B")
    reply = replies.ack(_message(address, key, binary, sequence), RECEIPT, key, NOW * 1_000_000)
    frame = dc09.split_datagram(reply)[0]
    assert isinstance(frame, dc09.Frame)
    envelope = dc09.open_envelope(frame)
    assert (envelope.token, envelope.sequence, envelope.address) == ("ACK", sequence, address)
    assert (frame.binary_crc, envelope.encrypted) == (binary, key is not None)
    told = dc09.unseal(envelope, key)
    assert (told.data, told.extended, told.panel_time) == (b"", (), NOW if key else None)
    assert b"SECRET" not in told.body + reply


def test_an_encrypted_ack_has_a_fresh_pad_each_time() -> None:
    message = _message(dc09.Address(None, "0", "1234"), KEY, binary=False)
    assert len({replies.ack(message, RECEIPT, KEY, NOW * 1_000_000) for _ in range(50)}) == 50


def test_an_ack_takes_a_receipt() -> None:
    message = _message(dc09.Address(None, "0", "1234"), None, binary=False)
    with pytest.raises(AssertionError):
        replies.ack(message, None, None, 0)  # type: ignore[arg-type]


def test_nak_is_always_the_same_but_for_our_time() -> None:
    envelope = _message(dc09.Address("7", "8", "1234"), KEY, binary=False).envelope
    assert replies.nak(envelope, NOW * 1_000_000)[9:] == b'"NAK"0000R0L0A0[]_14:13:20,09-21-2026\r'


def test_duh_is_in_clear_also_for_an_encrypted_message() -> None:
    envelope = _message(dc09.Address("7", "8", "1234"), KEY, binary=True).envelope
    assert replies.duh(envelope)[7:] == b'"DUH"0042R7L8#1234[]\r'
