"""Makes the committed corpus from the test vectors: a few tiny files a target. ``python -m fuzz.seeds`` writes them anew."""

import re
from pathlib import Path

from protocols import dc09
from protocols.errors import ProtocolError
from tests import vectors

CORPUS = Path(__file__).with_name("corpus")
_IN_CLEAR, _UNDER_KEY, _PIECES_OF_SEVEN = 1, 2, 6
_MOST_OF_A_KIND = 14
# What broke the receiver once.
_FOUND = {
    "degrees-of-400-digits": b'"ADM-CID"0001L0#1234[#1234|1130 01 001][X' + b"9" * 400 + b"E1]",
    "altitude-of-400-digits": b'"ADM-CID"0002L0#1234[#1234|1130 01 001][Z' + b"9" * 400 + b"]",
    "last-hour-of-9999-far-west": b'"ADM-CID"0003L0#9ABC[#9ABC|1130 01 001]_23:59:59,12-31-9999',
    "first-hour-of-0001-far-east": b'"ADM-CID"0004L0#AAAA[#AAAA|1130 01 001]_00:00:00,01-01-0001',
    "a-key-that-is-data": b'"SIA-DCS"0006L0#1234[#1234|N][K/HA1/BA2]/PA3][K0123]_10:01:02,11-23-2026',
    "a-token-of-one-letter": b'"X"0007#1234[]',
    "more-events-than-a-frame-should-hold": b'"SIA-DCS"0005L0#1234[#1234|N' + b"BA" * 400 + b"]",
}


def _bodies() -> dict[str, bytes]:
    """Return bodies of frames by name, one for each token, form and kind of address, data and extended data."""
    chosen: dict[str, tuple[str, bytes]] = {}
    for vector in vectors.frames():
        found = dc09.split_datagram(bytes.fromhex(vector["frame"]))
        if found and isinstance(found[0], dc09.Frame) and len(found[0].body) < 300:
            shape = re.sub(rb"[0-9A-Fa-f]{2,}", b"0", found[0].body)
            shape = re.sub(rb"[a-z]+", b"a", shape)
            chosen.setdefault(shape.decode("latin-1"), (vector["name"], found[0].body))
    return {name.replace("/", "-"): body for name, body in chosen.values()}


def make() -> dict[str, dict[str, bytes]]:
    """Return the corpus: target to file name to content."""
    bodies = _bodies()
    some = dict(list(bodies.items())[:: max(1, len(bodies) // (2 * _MOST_OF_A_KIND))])
    plain: dict[str, bytes] = {}
    for name, body in bodies.items():
        try:
            plain[name] = dc09.unseal(dc09.open_envelope(dc09.Frame(b"", body, False)), None).data
        except ProtocolError:
            continue
    blocks = [vector["block"].encode() for vector in vectors.load("sia-blocks") + vectors.load("sia-traps")]
    one = dc09.wrap(b'"NULL"0000L0#1234[]')
    events = [data.partition(b"|")[2] for data in plain.values() if re.fullmatch(rb"#?\w*\|.{5,40}", data) and b" " in data]
    return {
        "frame": {name: bytes([_PIECES_OF_SEVEN]) + dc09.wrap(body, number % 3 == 0) for number, (name, body) in
                  enumerate(list(some.items())[:_MOST_OF_A_KIND])}
        | {
            "two": b"\xff" + one + one, "cut": b"\x00" + one[:20] + one, "packed": b"\xff" + b'\n\rA00F0"' * 40,
            "noise": b"\xffGET / HTTP/1.0\r\n\r\n", "key-block": b"\xff" + dc09.wrap(b'"NULL"0000L0#1[][K00112233]'),
        },
        "message": dict(list(some.items())[:24]),
        "contact_id": {f"event-{n:02d}": text for n, text in enumerate(sorted(set(events))[:_MOST_OF_A_KIND])}
        | {"telephone": b"1234181121010014", "letters": b"E121 01 005", "long": b"1130 1 12345"},
        "sia_dcs": {f"block-{n:02d}": block for n, block in enumerate(blocks[::2])},
        "pipeline": {f"clear-{name}": bytes([_IN_CLEAR]) + body for name, body in list(some.items())[:_MOST_OF_A_KIND]}
        | {f"sealed-{name}": bytes([_UNDER_KEY + n % 2]) + data for n, (name, data) in enumerate(list(plain.items())[::6])}
        | {f"found-{name}": bytes([_IN_CLEAR]) + body for name, body in _FOUND.items()}
        | {"raw": b"\x00" + one, "failing": b"\x0d" + b'"ADM-CID"0001L0#1234[#1234|1121 01 005]'},
    }  # fmt: skip


def main() -> None:
    """Write the corpus; files that are not made here stay."""
    for target, files in make().items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (CORPUS / target / name).write_bytes(content)


if __name__ == "__main__":
    main()
