"""Frames of Eldes panels, whose CRC covers the closing CR: found only when asked for, in any pieces, beside good ones."""

from hypothesis import given
from hypothesis import strategies as st

from protocols import dc09
from protocols.dc09.crc import crc16
from tests import vectors

CAPTURED = [bytes.fromhex(vector["frame"]) for vector in vectors.load("eldes")]
CRC_ONLY, LENGTH_TOO = CAPTURED[:5], CAPTURED[5:]
GOOD = [dc09.encode("ADM-CID", f"{n:04d}", dc09.Address(None, "0", "1234"), b"#1234|1130 01 015") for n in range(3)]


def over_cr(body: bytes, length_too: bool) -> bytes:
    """Write a frame as these panels do."""
    return b"\n%04X0%03X%b\r" % (crc16(body + b"\r"), len(body) + length_too, body)


def feed(pieces: list[bytes], lenient: bool = True) -> list[dc09.Frame | dc09.Damage]:
    framer, found = dc09.Framer(lenient), list[dc09.Frame | dc09.Damage]()
    for piece in pieces:
        found += framer.feed(piece)
    return found


def test_each_captured_frame_is_found_when_its_last_byte_is_there_and_its_body_is_without_the_cr() -> None:
    for raw in CAPTURED:
        (found,) = feed([raw])
        assert found == dc09.Frame(raw, raw[9:-1], False, over_cr=True)
        assert [*feed([raw[:-1]]), *feed([raw[:30], raw[30:]])] == [found]
        assert dc09.split_datagram(raw, over_cr=True) == [found]


def test_without_being_asked_for_they_are_damage() -> None:
    for raw in CAPTURED:
        (found,) = dc09.split_datagram(raw)
        assert isinstance(found, dc09.Damage)
        assert all(isinstance(piece, dc09.Damage) for piece in feed([raw, GOOD[0]], lenient=False)[:1])


def test_one_that_counts_its_cr_takes_nothing_of_the_frame_behind_it() -> None:
    stream = [LENGTH_TOO[0], GOOD[0], CRC_ONLY[0], LENGTH_TOO[1], LENGTH_TOO[0], b"\n\x00 ", GOOD[1]]
    wanted = [raw for raw in stream if raw[-1:] == b"\r" and len(raw) > 3]
    for pieces in (stream, [b"".join(stream)], [bytes([byte]) for byte in b"".join(stream)]):
        found = feed(pieces)
        assert [frame.raw for frame in found] == wanted
        assert [isinstance(frame, dc09.Frame) and frame.over_cr for frame in found] == [raw not in GOOD for raw in wanted]


@given(
    st.lists(st.tuples(st.sampled_from(["good", "crc", "length", "broken"]), st.binary(max_size=40)), max_size=6), st.data()
)
def test_any_mix_in_any_pieces_gives_the_same_frames_and_good_ones_are_never_lost(
    told: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    stream, wanted = b"", list[bytes]()
    for kind, text in told:
        body = b'"ADM-CID"0001L0#1234[' + text.replace(b"\r", b"").replace(b"\n", b"") + b"]"
        if kind == "broken":
            stream += b"\nFFFF0999" + body[:5] + b"\r"
            continue
        raw = dc09.wrap(body) if kind == "good" else over_cr(body, kind == "length")
        stream += raw
        wanted.append(raw)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert [found.raw for found in feed(pieces) if isinstance(found, dc09.Frame)] == wanted


@given(st.binary(max_size=200), st.sampled_from(GOOD))
def test_asking_for_them_changes_nothing_for_frames_by_the_standard(noise: bytes, good: bytes) -> None:
    strict = [found for found in feed([noise + good], lenient=False) if isinstance(found, dc09.Frame)]
    lenient = [found for found in feed([noise + good]) if isinstance(found, dc09.Frame) and not found.over_cr]
    assert strict == lenient


def test_a_body_that_ends_in_cr_is_a_frame_by_the_standard() -> None:
    raw = dc09.wrap(b'"ADM-CID"0001L0#1234[#1234|1130 01 015]_garbage\r')
    for pieces in ([raw], [raw[:20], raw[20:]], [b"x" + raw + GOOD[0]]):
        assert dc09.Frame(raw, raw[9:-1], False) in feed(pieces)


def test_a_masked_key_leaves_a_frame_that_can_be_read_again() -> None:
    for length_too in (False, True):
        raw = over_cr(b'"ADM-CID"0001L0#1234[#1234|1130 01 015][K00112233]', length_too)
        masked = dc09.mask_keys(raw)
        assert len(masked) == len(raw)
        (frame,) = dc09.split_datagram(masked)
        assert isinstance(frame, dc09.Frame)
        assert b"0011" not in masked
