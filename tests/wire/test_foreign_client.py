"""A dialler that is not ours, dc09-spt 0.0.4: every message is acknowledged by its own checks."""

from types import SimpleNamespace
from typing import Any

import pytest
from Crypto.Cipher import AES

from tests.wire.running import Running

spt = pytest.importorskip("dc09_spt.dc09_spt", reason="dc09-spt is not installed; `make test` does it")
messages = pytest.importorskip("dc09_spt.msg.dc09_msg")
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

SECRETS = {"5A01": None, "5A02": "sixteen-letters!", "5A03": "thirty-two letters make AES-256!"}
ROWS = "account,key\n" + "".join(f"{account},{secret or ''}\n" for account, secret in SECRETS.items())
PAYLOADS = {
    "ADM-CID": lambda account: spt.dc05_msg.dc05event(account, {"code": 121, "q": 1, "area": 1, "user": 5}),
    "SIA-DCS": lambda account: spt.dc03_msg.dc03event(account, {"code": "HA", "area": 1, "zone": 3}),
    "NULL": lambda _: "]",
}


class _TextCipher:
    """The dialler was written for a library that took text; this gives it what it expects of the one we have."""

    def __init__(self, key: str, iv: str) -> None:
        self._cipher = AES.new(key.encode("latin-1"), AES.MODE_CBC, iv=iv.encode("latin-1"))

    def encrypt(self, text: str) -> bytes:
        return self._cipher.encrypt(text.encode("latin-1"))

    def decrypt(self, raw: bytes) -> bytes:
        return bytes(self._cipher.decrypt(raw))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Running(tmp_path_factory.mktemp("foreign"), accounts=ROWS) as running:
        yield running


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("account", list(SECRETS))
@pytest.mark.parametrize("numbers", [(None, None), (1, 2), (None, 15), (255, None)])
@pytest.mark.parametrize("token", list(PAYLOADS))
def test_it_takes_our_ack(
    foreign: Running, monkeypatch: pytest.MonkeyPatch, transport: str, account: str,
    numbers: tuple[int | None, int | None], token: str,
) -> None:  # fmt: skip
    shim = SimpleNamespace(MODE_CBC=AES.MODE_CBC, new=lambda key, _mode, iv: _TextCipher(key, iv))
    monkeypatch.setattr(messages, "AES", shim)
    dialler = spt.dc09_spt(account)
    path = spt.TransPath(
        "127.0.0.1", foreign.port, account, key=SECRETS[account], receiver=numbers[0], line=numbers[1], type=transport
    )
    for number in (0,) if token == "NULL" else (10, 171, 9999):  # written as 000A, 00AB and 270F
        assert dialler.transfer_msg(number, token, PAYLOADS[token](account), path) is True  # type: ignore[no-untyped-call]


def test_its_messages_are_read_as_it_meant_them(foreign: Running) -> None:
    found = {
        (e["data"]["token"], e["data"]["event_code"], e["data"]["duress"], e["data"]["sequence"]) for e in foreign.export()
    }
    for sequence in ("000A", "00AB", "270F"):
        assert ("ADM-CID", "121", True, sequence) in found
        assert ("SIA-DCS", "HA", True, sequence) in found
