"""Secrets stay inside: everything a full run leaves behind is searched for them, in every form they could take.

The run does what a receiver does in a bad week: good messages of keyed accounts, impostors of each kind, a register with the
key in the wrong column, a webhook whose address holds a password and that refuses, a kill, every command that prints.
"""

import base64
import re
import signal
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from protocols import dc09
from receiver import clock
from tests.wire.running import Running, frame, said, wait_until

HEX_KEY = "8F3A61C2D4E59B70A1B2C3D4E5F60718"
LONG_KEY = "5D" * 8 + "C7A94E1F0B3826D5" * 3
TEXT_KEY = "till-three=open!"
DEFAULT_KEY = "A9" * 16
PASSWORD, HOOK_SECRET, TOKEN = "correct-horse-77", "hook-signs-with-this", "query-token-4471"
OFFERED_KEY = "C0FFEE00C0FFEE11C0FFEE22C0FFEE33"
USER = "F5B"
ACCOUNTS = (
    f"account,name,key,plaintext\n1A01,plain,,\n2B02,hex,{HEX_KEY},\n2B03,text,{TEXT_KEY},\n2B04,long,{LONG_KEY},accept\n"
)
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z (DEBUG|INFO|WARNING|ERROR) +[a-zA-Z]")


class Refusing(BaseHTTPRequestHandler):
    """A web server that refuses at first and takes later; it keeps what it was sent."""

    taken: ClassVar[list[bytes]] = []
    status: ClassVar[int] = 500

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if type(self).status == 200:
            self.taken.append(body)
        self.send_response(type(self).status, PASSWORD)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing on the test's own error output."""


@pytest.fixture
def hook() -> Iterator[int]:
    Refusing.taken, Refusing.status = [], 500
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield int(server.server_port)
        server.shutdown()


def forms(secret: str) -> set[bytes]:
    """Return how a secret may be written."""
    raw = {secret.encode()}
    if re.fullmatch("(?:[0-9A-Fa-f]{2})+", secret):
        raw.add(bytes.fromhex(secret))
    found = set(raw)
    for text in raw:
        found |= {text.hex().encode(), text.hex().upper().encode(), base64.b64encode(text).rstrip(b"="), repr(text).encode()}
        found |= {str(list(text)).encode(), text[::-1]}
    return found | {secret.lower().encode(), secret.upper().encode()}


def _receive(running: Running) -> bytes:
    """Send one of everything and return all replies, in clear."""
    offered, now = (("K", OFFERED_KEY.encode()),), clock.now_us() // clock.SECOND_US
    keys = {"2B02": dc09.Key.parse(HEX_KEY), "2B03": dc09.Key.parse(TEXT_KEY), "2B04": dc09.Key.parse(LONG_KEY)}
    replies = b""
    for number, (account, key) in enumerate(keys.items()):
        sent = frame(f"{number:04d}", f"1121 01 {USER}", account, key, extended=offered)
        answer = running.tcp(sent)[0]
        assert said(answer, key) == f"ACK {number:04d}"
        envelope = dc09.open_envelope(dc09.split_datagram(answer)[0])  # type: ignore[arg-type]
        # Its ciphertext is left out: random digits may spell anything.
        replies += envelope.frame.body.partition(b"[")[0] + key.decrypt(bytes.fromhex(envelope.content.decode()))
    replies += running.tcp(frame("0100", f"1121 01 {USER}", "1A01", extended=offered))[0]
    replies += running.udp(frame("0101", f"1406 01 {USER}", "2B04", extended=offered)) or b""
    unknown = dc09.Key.parse(DEFAULT_KEY)
    for bad in (
        frame("0102", f"1121 01 {USER}", "2B02", extended=offered),  # in clear
        frame("0103", f"1121 01 {USER}", "2B02", unknown),  # another account's key
        frame("0104", f"1121 01 {USER}", "9999", unknown),
        frame("0105", f"1121 01 {USER}", "8888", extended=offered),
        dc09.encode("XYZ", "0106", dc09.Address(None, "0", "1A01"), f"1121 01 {USER}".encode(), offered),
        dc09.encode("ADM-CID", "0107", dc09.Address(None, "0", "2B02"), b"x", (), now - 900, keys["2B02"]),
        dc09.wrap(f'"ADM-CID"0108L0#1A01[#1A01|1121 01 {USER}[K{OFFERED_KEY}]'.encode().replace(b"]", b"")),
        dc09.wrap(f'"ADM-CID"0109L0#1A01 #1A01|1121 01 {USER}'.encode()),
        dc09.wrap(f'"ACK"0110L0#1A01[#1A01|1121 01 {USER}][K{OFFERED_KEY}]'.encode()),
        frame("0111", f"1121 01 {USER}", "1A01", extended=offered)[:-4],
        frame("0112", f"1121 01 {USER}", "1A01", extended=offered).replace(b"1121", b"1122"),
        b"\n2026-11-24T00:00:00.000000Z INFO    receiver ready\n" * 3,
    ):
        replies += b"".join(running.tcp(bad, seconds=0.2))
    return replies


def _commands(running: Running) -> bytes:
    """Run every command that prints and return what it printed."""
    config = ("--config", str(running.config))
    said_all = b""
    for args in (
        ("journal", "show", "--last", "100", *config), ("journal", "show", "--refused", "--last", "100", *config),
        ("journal", "export", *config), ("journal", "verify", *config), ("accounts", "list", *config),
        ("check-config", str(running.config)), ("health", *config),
        ("simulate", "127.0.0.1", str(running.port), "--account", "2B02", "--key", HEX_KEY, "--event", "1602 00 000"),
        ("decode", "--key", HEX_KEY, frame("0001", "1602 00 000", "2B02", dc09.Key.parse(HEX_KEY)).hex()),
        ("decode", "--key", HEX_KEY + "0", "0A"),
    ):  # fmt: skip
        done = running.command(*args)
        said_all += done.stdout.encode() + done.stderr.encode()
    return said_all


def test_no_secret_shows_up_anywhere_after_a_full_run(tmp_path: Path, hook: int) -> None:
    outputs = (
        f'[[outputs]]\nname = "hook"\ntype = "webhook"\nurl = "http://user:{PASSWORD}@127.0.0.1:{hook}/{TOKEN}?t={TOKEN}"\n'
        f'secret = "{HOOK_SECRET}"\n[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "events.jsonl"\n'
    )
    more = '[log]\nlevel = "debug"\n'
    with Running(tmp_path, outputs=outputs, more=more, accounts=ACCOUNTS) as running:
        running.config.write_text(
            running.config.read_text("utf-8").replace("[accounts]\n", f'[accounts]\ndefault_key = "{DEFAULT_KEY}"\n'),
            "utf-8",
        )
        running.stop()
        running.start()
        replies = _receive(running)
        wait_until(lambda: running.metric("receiver_output_failures_total") >= 1)
        register = tmp_path / "accounts.csv"
        register.write_text(
            ACCOUNTS + f"3C03,{HEX_KEY}\n3C04,shifted,,{HEX_KEY}\n3C05,shifted,{HEX_KEY}00,refuse\n", "utf-8"
        )
        running.signal(signal.SIGHUP)
        wait_until(lambda: "reload failed" in running.log())
        register.write_text(ACCOUNTS, "utf-8")
        printed = _commands(running)
        running.kill()
        Refusing.status = 200
        running.start()
        stored = len(running.export())
        wait_until(lambda: len({line for line in Refusing.taken if b"receiver.signal" in line}) >= stored, 30)
        metrics = running.get("/metrics")[1].encode()
        running.stop()

    log = running.log_file.read_bytes()
    seen = {
        "log": log, "metrics": metrics, "standard output": running.stdout_file.read_bytes(),
        "events": running.events_file.read_bytes(), "webhook": b"".join(Refusing.taken), "replies": replies,
        "commands": printed,
    } | {f"data/{file.name}": file.read_bytes() for file in (tmp_path / "data").iterdir() if file.is_file()}  # fmt: skip
    secrets = (HEX_KEY, LONG_KEY, TEXT_KEY, DEFAULT_KEY, PASSWORD, HOOK_SECRET, TOKEN, OFFERED_KEY)
    found = {(place, secret) for place, text in seen.items() for secret in secrets for form in forms(secret) if form in text}
    assert found == set()
    assert USER.encode() in seen["events"], "the run did not do what it was to do"
    for place in ("log", "metrics", "replies"):
        assert USER.encode() not in seen[place], f"a user's number stands in the {place}"


def test_bytes_of_the_wire_cannot_forge_a_log_line(tmp_path: Path) -> None:
    forged = "2026-11-24T00:00:00.000000Z INFO    receiver ready account=1A01"
    with Running(tmp_path, more='[log]\nlevel = "debug"\n') as running:
        for bad in (
            f"\r\n{forged}\r\n\x1b[2J\x1b]0;x\x07".encode(),
            dc09.wrap(f'"ADM-CID\n{forged}\n"0001L0#1A01[]'.encode()),
            dc09.wrap(f'"ADM-CID"0001L0#1A01\n{forged}\n[]'.encode()),
            dc09.wrap(f'"X-1"0002R\x85{forged}L0#1A01[]'.encode("latin-1")),
            frame("0003", f"1121 01 001\n{forged}\n\u2028\u2029\u202e", "1A01"),
        ):
            running.tcp(bad, seconds=0.2)
            running.udp(bad, seconds=0.1)
        running.stop()
        lines = running.log().split("\n")
    assert lines.pop() == ""
    assert [line for line in lines if not LOG_LINE.match(line) or not line.isprintable()] == []
    assert sum(line.split(None, 2)[2].startswith("receiver ready") for line in lines) == 1


def test_files_are_private_and_no_core_is_dumped(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        running.tcp(frame("0001"))
        wait_until(running.events)
        assert running.process is not None
        limits = Path(f"/proc/{running.process.pid}/limits").read_text("ascii")
        assert re.search(r"Max core file size +0 +0 ", limits)
        files = [running.events_file, *(tmp_path / "data").rglob("*")]
        loose = [f.name for f in files if not f.is_socket() and f.stat().st_mode & 0o077]
        assert loose == []
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_another_user_cannot_attach(tmp_path: Path) -> None:
    with Running(tmp_path) as running, socket.create_connection(("127.0.0.1", running.port)):
        assert running.process is not None
        status = Path(f"/proc/{running.process.pid}/stat").stat()
        assert status.st_uid == 0, "a process closed to debuggers belongs to root in /proc"
