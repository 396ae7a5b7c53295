"""What holds for any bytes: a value or a ProtocolError, the same value back, and no good frame lost."""

from itertools import pairwise

from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocols import contact_id, dc09, sia_dcs
from protocols.contact_id import ContactId, Qualifier
from protocols.dc09 import cipher, timestamp
from protocols.errors import ProtocolError
from receiver import payloads

KEY = dc09.Key(bytes(range(32)))
HEX = "0123456789ABCDEF"
addresses = st.builds(
    dc09.Address,
    st.none() | st.text(HEX, min_size=1, max_size=6),
    st.none() | st.text(HEX, max_size=6),
    st.text(HEX, min_size=3, max_size=16),
)
sequences = st.integers(0, 9999).map("{:04d}".format)
datas = st.binary(max_size=200).filter(lambda data: not set(data) & set(b"[]"))
extended = st.lists(st.tuples(st.sampled_from("AHILMOPRSTVXYZ"), datas), max_size=4).map(tuple)
moments = st.integers(0, 4102444799)
messages = st.builds(
    dc09.encode,
    st.sampled_from(sorted(dc09.KNOWN_TOKENS)), sequences, addresses, datas, extended, moments,
    st.sampled_from([None, KEY]), st.booleans(),
)  # fmt: skip


def _read(raw: bytes) -> dc09.Message:
    found = dc09.split_datagram(raw)
    assert len(found) == 1
    assert isinstance(found[0], dc09.Frame)
    return dc09.unseal(dc09.open_envelope(found[0]), KEY)


@given(
    st.sampled_from(sorted(dc09.KNOWN_TOKENS)), sequences, addresses, datas, extended, moments, st.booleans(), st.booleans()
)
def test_a_message_comes_back_as_it_was_written(
    token: str, sequence: str, address: dc09.Address, data: bytes, blocks: tuple[tuple[str, bytes], ...], when: int,
    sealed: bool, binary: bool,
) -> None:  # fmt: skip
    message = _read(dc09.encode(token, sequence, address, data, blocks, when, KEY if sealed else None, binary))
    assert (message.envelope.token, message.envelope.sequence, message.envelope.address) == (token, sequence, address)
    assert (message.data, message.extended, message.panel_time) == (data, blocks, when)
    assert (message.envelope.encrypted, message.envelope.frame.binary_crc) == (sealed, binary)


@given(st.lists(messages, max_size=5), st.data())
def test_frames_survive_any_chopping(frames: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    framer, found = dc09.Framer(), list[dc09.Frame | dc09.Damage]()
    for start, end in pairwise([0, *cuts, len(stream)]):
        found += framer.feed(stream[start:end])
    assert [f.raw for f in found] == frames


@given(messages, messages, st.data())
def test_a_damaged_frame_never_takes_its_neighbours_with_it(first: bytes, last: bytes, data: st.DataObject) -> None:
    middle = bytearray(data.draw(messages))
    at = data.draw(st.integers(0, len(middle) - 1))
    middle[at] ^= data.draw(st.integers(1, 255))
    stream = first + bytes(middle) + last
    cut = data.draw(st.integers(0, len(stream)))
    framer = dc09.Framer()
    found = [f.raw for f in framer.feed(stream[:cut]) + framer.feed(stream[cut:]) if isinstance(f, dc09.Frame)]
    assert first in found
    assert last in found


@given(st.binary(max_size=400), st.booleans())
@example(b'\n00000000"', False)
def test_any_bytes_are_frames_or_damage(data: bytes, in_two: bool) -> None:
    framer = dc09.Framer()
    half = len(data) // 2 if in_two else 0
    found = framer.feed(data[:half]) + framer.feed(data[half:]) + framer.end()
    assert all(isinstance(f, dc09.Frame | dc09.Damage) for f in found)
    assert not framer.begun


@given(st.binary(max_size=200) | st.builds(lambda head, rest: head + rest, st.just(b'"*ADM-CID"0001L0#1234['), st.binary()))
def test_any_body_is_a_message_or_a_protocol_error(body: bytes) -> None:
    for key in (None, KEY):
        try:
            message = dc09.unseal(dc09.open_envelope(dc09.Frame(b"", body, False)), key)
        except ProtocolError:
            continue
        payloads.extended_by_name(message)
        assert payloads.decode(message) or message.envelope.token == dc09.LINK_TEST


@given(st.binary(min_size=1, max_size=300))
def test_any_plain_text_under_the_key_is_a_message_or_a_protocol_error(plain: bytes) -> None:
    sealed = KEY.encrypt(plain.ljust(len(plain) + -len(plain) % 16, b"x")).hex().encode()
    try:
        _read(dc09.wrap(b'"*SIA-DCS"0001L0#1234[' + sealed))
    except ProtocolError:
        return


@given(st.binary(max_size=100).filter(lambda body: b"|" not in body))
def test_a_sealed_body_comes_back(body: bytes) -> None:
    assert cipher.unseal(cipher.seal(body + b"]", KEY), KEY) == body + b"]"


@given(st.text(max_size=60))
def test_any_text_is_an_event_or_a_protocol_error(text: str) -> None:
    for decode in (contact_id.decode, sia_dcs.decode, contact_id.decode_telephone, dc09.Key.parse):
        try:
            decode(text)
        except ProtocolError:
            continue


sia_text = st.text("NOLAri1d5HBPt:/^|*+-0F ", max_size=60).map(lambda text: "N" + text)


@given(sia_text)
@settings(max_examples=300)
def test_every_event_of_a_block_has_a_code_and_no_block_is_slow(text: str) -> None:
    try:
        found = sia_dcs.decode(text)
    except ProtocolError:
        return
    assert all(len(event.code) == 2 for event in found)


@given(
    st.sampled_from(Qualifier), st.text("0123456789BCDEF", min_size=3, max_size=3),
    st.text(HEX, min_size=2, max_size=2), st.text(HEX, min_size=3, max_size=3),
)  # fmt: skip
def test_a_contact_id_event_comes_back(qualifier: Qualifier, code: str, partition: str, number: str) -> None:
    event = ContactId(qualifier, code, partition, number)
    assert contact_id.decode(contact_id.encode(event)) == event
    assert contact_id.decode_telephone(contact_id.encode_telephone("12EF", event)) == ("12EF", event)


@given(moments)
def test_a_time_stamp_comes_back(moment: int) -> None:
    assert timestamp.decode(timestamp.encode(moment)) == moment
