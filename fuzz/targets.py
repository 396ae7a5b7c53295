"""What is fuzzed: each target takes any bytes and returns, or the contract is broken. Knows no fuzzer, so tests replay it.

The first byte of an input chooses how the rest is taken: sizes of pieces, in clear or under the key, with the CRC that fits.
A fuzzer never guesses a CRC or a ciphertext, so the targets make them.
"""

import json
import re
from collections.abc import Callable
from zoneinfo import ZoneInfo

from fuzz.memory import MemoryJournal
from fuzz.single import Strict, handle_one
from protocols import contact_id, dc09, sia_dcs
from protocols.dc09 import cipher
from protocols.errors import ProtocolError
from receiver import events, explain
from receiver.accounts import Account, Accounts
from receiver.clock import SECOND_US
from receiver.config import ClockSettings
from receiver.journal import Origin, Stored
from receiver.pipeline import Pipeline, Route

KEY = dc09.Key(bytes(range(32)))
NOW = 1_790_000_000
STAMP = b"_14:13:20,09-21-2026"  # NOW
_LONGEST_PLAIN_BYTES = 2000  # hexadecimal text doubles it
_ROWS_HELD = 20_000


def frame(data: bytes) -> None:
    """Cut the bytes in pieces and feed them: frames fit their CRC, no byte is told twice, little is held."""
    piece_bytes, stream = 1 + (data[0] if data else 0), data[1:]
    if piece_bytes == 256:
        piece_bytes = len(stream) or 1
    for over_cr in (False, True):
        _check_found(stream, _found(stream, piece_bytes, over_cr))
    assert len(dc09.mask_keys(stream)) == len(stream)


def _found(stream: bytes, piece_bytes: int, over_cr: bool) -> list[dc09.Frame | dc09.Damage]:
    framer, found = dc09.Framer(over_cr), list[dc09.Frame | dc09.Damage]()
    for start in range(0, len(stream), piece_bytes):
        found += framer.feed(stream[start : start + piece_bytes])
        assert len(framer._buffer) <= dc09.MAX_FRAME_BYTES
    found += framer.end()
    assert not framer.begun
    return found


def _check_found(stream: bytes, found: list[dc09.Frame | dc09.Damage]) -> None:
    assert sum(len(piece.raw) for piece in found) <= len(stream)
    for piece in found:
        assert piece.raw in stream
        if isinstance(piece, dc09.Frame):
            covered = piece.body + b"\r" if piece.over_cr else piece.body
            crc = dc09.wrap(covered[:4095], piece.binary_crc)[1 : 3 if piece.binary_crc else 5]
            assert piece.raw[1 : 1 + len(crc)].upper() == crc.upper() or len(covered) > 4095
            assert piece.raw.endswith(piece.body + b"\r")


def message(data: bytes) -> None:
    """Open the bytes as the body of a frame, in clear and with a key; and as what was encrypted under the key."""
    for body in (data, _sealed(data), _sealed(b"|" + data + STAMP)):
        for key in (None, KEY):
            try:
                opened = dc09.unseal(dc09.open_envelope(dc09.Frame(b"", body, False)), key)
            except ProtocolError as error:
                _check_text(error)
                continue
            assert opened.body.startswith(opened.data + b"]")
            assert opened.panel_time is not None or not opened.envelope.encrypted
            _check_masked(opened, dc09.read_body(opened.envelope, dc09.mask_body(opened)))


def _check_masked(message: dc09.Message, masked: dc09.Message) -> None:
    assert (masked.data, masked.panel_time) == (message.data, message.panel_time)
    assert len(masked.body) == len(message.body)
    for (letter, value), (same, kept) in zip(message.extended, masked.extended, strict=True):
        assert (same, kept) == (letter, re.sub(rb"[^\[_]", b"*", value) if letter == "K" else value)


def _check_text(error: ProtocolError) -> None:
    assert len(str(error)) < 200, "the text of an error is bounded"


def _sealed(plain: bytes) -> bytes:
    """Return a body whose content is ``plain`` under the key, filled up in front to whole blocks."""
    plain = plain[-_LONGEST_PLAIN_BYTES:]
    plain = bytes(-len(plain) % cipher.BLOCK_BYTES) + plain
    return b'"*ADM-CID"0001L0#5678[' + KEY.encrypt(plain).hex().encode() if plain else b'"*ADM-CID"0001L0#5678['


def contact_id_event(data: bytes) -> None:
    """Read the bytes as a Contact ID event; what can be written again reads the same."""
    text = data.decode("utf-8", "replace")
    for decode in (contact_id.decode, lambda digits: contact_id.decode_telephone(digits)[1]):
        try:
            event = decode(text)
        except ProtocolError as error:
            _check_text(error)
            continue
        assert contact_id.decode(contact_id.encode(event)) == event


def sia_dcs_block(data: bytes) -> None:
    """Read the bytes as a SIA block; what comes out is bounded by its length, and can be written."""
    text = data.decode("utf-8", "replace")
    try:
        found = sia_dcs.decode(text)
    except ProtocolError as error:
        _check_text(error)
        return
    assert 0 < len(found) <= len(text) // 2
    assert all(len(event.code) == 2 and len(event.modifiers) <= 32 for event in found)
    assert sum(len(event.address or "") + sum(map(len, event.texts)) for event in found) <= len(text)
    try:  # junk may be read as an event that, written down, means a text: "/APA1"
        sia_dcs.decode(sia_dcs.encode(found))
    except ProtocolError as error:
        _check_text(error)


class _Desk:
    """A whole receiver without sockets and disk, and accounts of every kind."""

    def __init__(self) -> None:
        rows = {
            "1234": Account("1234", supervision_seconds=60),
            "5678": Account("5678", key=KEY, accepts_plaintext=False),
            "9ABC": Account("9ABC", key=KEY, time_zone=ZoneInfo("America/New_York"), dialect="ajax+bosch+pima+trikdis"),
            "AAAA": Account("AAAA", time_zone=ZoneInfo("Asia/Tokyo"), name="north", site="hall", instructions="call"),
        }
        self.accounts = Accounts(rows, None, accept_unknown=False)
        self.journal = MemoryJournal()
        self.now = NOW
        self.pipeline = Pipeline(
            self.accounts, ClockSettings(), self.journal, Strict(), lambda: self.now * SECOND_US  # type: ignore[arg-type]
        )  # fmt: skip


_desk: list[_Desk] = []
_ROUTE = Route("main", "udp", "127.0.0.1:40112", 1)
_ORIGIN = Origin("1", "1", "main", "udp")


def pipeline(data: bytes) -> None:
    """Hand the bytes to the whole receiver: raw, in a frame that fits, or under the key, with the disk failing or not."""
    if not _desk or len(_desk[0].journal.rows) > _ROWS_HELD:
        _desk[:] = [_Desk()]
    desk, choice, rest = _desk[0], data[0] if data else 0, data[1:]
    desk.journal.failing = choice & 12 == 12
    desk.pipeline.accounts.accept_unknown = bool(choice & 16)
    desk.now += choice >> 5
    raw = _as_chosen(choice, rest, desk.now)
    for found in dc09.split_datagram(raw):
        if isinstance(found, dc09.Damage):
            desk.pipeline.handle_damage(found, _ROUTE)
        else:
            _handle(desk, found)
    told = explain.explain(raw, KEY, desk.now * SECOND_US)
    json.dumps(told)


def _as_chosen(choice: int, rest: bytes, now: int) -> bytes:
    if choice & 3 == 0:
        return rest
    if choice & 3 == 1:
        return dc09.wrap(rest[: dc09.MAX_FRAME_BYTES - 10], bool(choice & 4))
    token, account = ("SIA-DCS", "5678") if choice & 3 == 2 else ("ADM-CID", "9ABC")
    body, sequence = rest[: _LONGEST_PLAIN_BYTES - 50], f"{len(rest) % 10000:04d}"
    return dc09.encode(token, sequence, dc09.Address(None, "0", account), body, (), now, KEY, bool(choice & 4))


def _handle(desk: _Desk, found: dc09.Frame) -> None:
    """No receipt, no ACK; never more bytes than came; and what was stored can be read."""
    before = len(desk.journal.rows)
    waiting = handle_one(desk.pipeline, found, _ROUTE)
    try:
        waiting.send(None)
    except StopIteration as done:
        reply: bytes | None = done.value
    stored = desk.journal.rows[before:]
    assert not (stored and desk.journal.failing)
    # The UDP listener withholds the one kind of reply that is longer: DUH to a token of one or two characters.
    assert reply is None or len(reply) <= len(found.raw) or (b'"DUH"' in reply[:16] and len(reply) <= len(found.raw) + 2)
    signals = [row for row in stored if row.kind == 0]
    assert not signals or (reply is not None and b"ACK" in reply[:16])
    for position, row in enumerate(stored, before + 1):
        assert events.render(Stored(position, row, _ORIGIN), desk.accounts).to_json()


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frame": frame,
    "message": message,
    "contact_id": contact_id_event,
    "sia_dcs": sia_dcs_block,
    "pipeline": pipeline,
}
