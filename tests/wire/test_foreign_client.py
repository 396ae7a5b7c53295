"""A dialler that is not ours, dc09-spt 0.0.4 from PyPI: every message is acknowledged by its own checks.

It was written for a cipher library that took text and no longer builds; the tests hand it pycryptodome behind a shim.
"""

import importlib.metadata
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from Crypto.Cipher import AES

from tests.wire.running import PLAIN, Running, wait_until

REASON = "dc09-spt 0.0.4 cannot be imported: `make test` installs it, without the cipher library it declares"
spt = pytest.importorskip("dc09_spt.dc09_spt", reason=REASON)
messages = pytest.importorskip("dc09_spt.msg.dc09_msg", reason=REASON)
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

# Plain, AES-128, AES-192 and AES-256.
SECRETS = {
    PLAIN: None,
    "5A02": "sixteen-letters!",
    "5A04": "it has twenty-four chars",
    "5A03": "thirty-two letters make AES-256!",
}
ROWS = "account,key\n" + "".join(f"{account},{secret or ''}\n" for account, secret in SECRETS.items())
PAYLOADS: dict[str, Callable[[str], str]] = {
    "ADM-CID": lambda account: str(spt.dc05_msg.dc05event(account, {"code": 121, "q": 1, "area": 1, "user": 5})),
    "SIA-DCS": lambda account: str(spt.dc03_msg.dc03event(account, {"code": "HA", "area": 1, "zone": 3})),
    "NULL": lambda _: "]",
}
NUMBERS = [(None, None), (1, 2), (None, 15), (255, None)]


class _TextCipher:
    """Takes text for bytes, letter by letter, and gives bytes back, as the dialler expects."""

    def __init__(self, key: str, mode: int, iv: str) -> None:
        assert mode == AES.MODE_CBC
        self._cipher = AES.new(key.encode("latin-1"), AES.MODE_CBC, iv=iv.encode("latin-1"))

    def encrypt(self, text: str) -> bytes:
        return bytes(self._cipher.encrypt(text.encode("latin-1")))

    def decrypt(self, raw: bytes) -> bytes:
        return bytes(self._cipher.decrypt(raw))


@pytest.fixture(autouse=True)
def _cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "AES", SimpleNamespace(MODE_CBC=AES.MODE_CBC, new=_TextCipher))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("foreign"), accounts=ROWS) as running:
        yield running


def _path(running: Running, transport: str, account: str, numbers: tuple[int | None, int | None] = (None, None)) -> Any:
    return spt.TransPath(
        "127.0.0.1", running.port, account, key=SECRETS[account], receiver=numbers[0], line=numbers[1], type=transport
    )


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("account", [account for account, secret in SECRETS.items() if len(secret or "") != 24])
@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("token", list(PAYLOADS))
def test_it_takes_our_ack(
    foreign: Running, transport: str, account: str, numbers: tuple[int | None, int | None], token: str
) -> None:
    dialler, path = spt.dc09_spt(account), _path(foreign, transport, account, numbers)
    for number in (0,) if token == "NULL" else (10, 171, 9999):  # it writes them as 000A, 00AB and 270F
        assert dialler.transfer_msg(number, token, PAYLOADS[token](account), path) is True


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("numbers", NUMBERS)
@pytest.mark.parametrize("token", list(PAYLOADS))
def test_it_takes_our_ack_under_aes_192(
    foreign: Running, transport: str, numbers: tuple[int | None, int | None], token: str
) -> None:
    message = messages.dc09_msg("5A04", None, *numbers)
    message.key = SECRETS["5A04"]  # its door lets in keys of 16 and 32 letters only; its cipher takes this one too
    link = _path(foreign, transport, "5A04").connect()
    try:
        block = message.dc09block(10, token, PAYLOADS[token]("5A04"))
        verdict, offset = message.dc09answer(10, link.sendAndReceive(block.encode(), 512).decode())
    finally:
        link.disconnect()
    assert verdict == "ACK"
    assert abs(offset) < 5


def test_its_messages_are_read_as_it_meant_them(foreign: Running) -> None:
    for account in (PLAIN, "5A02", "5A03"):
        for token in ("ADM-CID", "SIA-DCS"):
            for number in (10, 171, 9999):
                dialler = spt.dc09_spt(account)
                assert dialler.transfer_msg(number, token, PAYLOADS[token](account), _path(foreign, "tcp", account, (1, 2)))
    found = {
        (
            data["account"],
            data["event_code"],
            data["duress"],
            data["sequence"],
            data["panel_receiver_number"],
            data["panel_line"],
        )
        for data in [event["data"] for event in foreign.export()]
    }
    for account in (PLAIN, "5A02", "5A03"):
        for sequence in ("000A", "00AB", "270F"):
            assert (account, "121", True, sequence, "1", "2") in found
            assert (account, "HA", True, sequence, "1", "2") in found


def test_its_repeat_is_acknowledged_and_makes_no_second_signal(foreign: Running) -> None:
    dialler = spt.dc09_spt("5A03")
    for transport in ("tcp", "udp", "tcp"):
        assert dialler.transfer_msg(4660, "ADM-CID", PAYLOADS["ADM-CID"]("5A03"), _path(foreign, transport, "5A03")) is True
    assert [event["data"]["sequence"] for event in foreign.export()].count("1234") == 1


@pytest.mark.parametrize(("transport", "area"), [("tcp", 7), ("udp", 8)])
def test_its_own_queue_and_link_tests_run_dry(foreign: Running, transport: str, area: int) -> None:
    dialler = spt.dc09_spt("5A02")
    dialler.set_path("main", "primary", "127.0.0.1", foreign.port, key=SECRETS["5A02"], line=3, type=transport)
    dialler.start_poll(60, retry_delay=0.05)
    try:
        for user in range(1, 4):
            dialler.send_msg("CID", {"code": 121, "q": 1, "area": area, "user": user})
        wait_until(lambda: dialler.state()["msgs queued"] == 0 and not dialler.state().get("send active"))
        wait_until(dialler.isConnected)
    finally:
        dialler.stop_poll()
    told = [event["data"] for event in foreign.export()]
    assert [d["user"] for d in told if (d["transport"], d["partition"]) == (transport, f"{area:02d}")] == [
        "001",
        "002",
        "003",
    ]


def test_the_version_that_was_tried_is_the_one_installed() -> None:
    assert importlib.metadata.version("dc09-spt") == "0.0.4"
