"""A real receiver in a process of its own, on loopback, on a folder it keeps over kills and restarts."""

import json
import random
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from protocols import dc09
from receiver import clock

_BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT of Linux
PLAIN, KEYED = "1A01", "2B02"
SECRET = "00112233445566778899AABBCCDDEEFF"
KEY = dc09.Key.parse(SECRET)
ACCOUNTS = f"account,name,key\n{PLAIN},plain panel,\n{KEYED},keyed panel,{SECRET}\n"


_PORTS = random.sample(range(10000, 32000), 20000)  # below those that outgoing connections take by themselves


def free_port() -> int:
    """Return a port that is free for TCP and UDP, a different one each time."""
    while True:
        port = _PORTS.pop()
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", port))
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def connect_from(source: str, port: int, timeout: float = 5.0) -> socket.socket:
    """Connect from an address of 127.0.0.0/8.

    The kernel chooses the port at ``connect``: one chosen at ``bind`` would be nobody else's for the minute after, and a
    flood would leave no port for other tests.
    """
    link = socket.socket()
    try:
        link.settimeout(timeout)
        link.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        link.bind((source, 0))
        link.connect(("127.0.0.1", port))
    except OSError:
        link.close()
        raise
    return link


def wait_until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Return what ``condition`` gives as soon as it is true; fail after ``seconds``."""
    until = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)
    return found


def frame(
    sequence: str, event: str = "1130 01 001", account: str = PLAIN, key: dc09.Key | None = None, **more: Any
) -> bytes:
    """Return one ADM-CID frame of a panel with the right time."""
    address, now = dc09.Address(None, "0", account), clock.now_us() // clock.SECOND_US
    return dc09.encode("ADM-CID", sequence, address, f"#{account}|{event}".encode(), panel_time=now, key=key, **more)


class Running:
    """A receiver's process and the panel's side of its sockets."""

    def __init__(
        self, folder: Path, listener: str = "", more: str = "", accounts: str = ACCOUNTS, outputs: str | None = None
    ) -> None:
        self.folder, self.port, self.http = folder, free_port(), free_port()
        while self.http == self.port:
            self.http = free_port()
        self.events_file, self.log_file, self.config = folder / "events.jsonl", folder / "log", folder / "receiver.toml"
        self.stdout_file = folder / "stdout"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "accounts.csv").write_text(accounts, "utf-8")
        if outputs is None:
            outputs = '[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "events.jsonl"\n'
        host = "" if "host" in listener else 'host = "127.0.0.1"\n'
        self.config.write_text(
            f'[[listeners]]\n{host}port = {self.port}\n{listener}\n[accounts]\nfile = "accounts.csv"\n'
            f"[http]\nport = {self.http}\n{more}\n{outputs}",
            "utf-8",
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.environment: dict[str, str] | None = None  # of the process; None is our own

    def __enter__(self) -> "Running":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def start(self, stdout: int | None = None, wait: bool = True) -> None:
        """Start the process and wait until it is ready; ``stdout`` takes the place of a file."""
        with self.log_file.open("ab") as log, self.stdout_file.open("ab") as file:
            command = [sys.executable, "-m", "receiver", "serve", "--config", str(self.config)]
            out = file if stdout is None else stdout
            self.process = subprocess.Popen(command, stdout=out, stderr=log, stdin=subprocess.DEVNULL, env=self.environment)
        if wait:
            wait_until(self._ready, 20)

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        return self.get("/readyz")[0] == 200

    def signal(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def stop(self) -> int:
        """Ask it to stop and return its exit code."""
        self.signal(signal.SIGTERM)
        assert self.process is not None
        return self.process.wait(15)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(15)

    def limit_files(self, size_bytes: int = resource.RLIM_INFINITY) -> None:
        """Let no file of the process grow beyond this, as a full disk would; without a size, give the room back."""
        assert self.process is not None
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))

    def get(self, page: str) -> tuple[int, str]:
        """Return status and text of a page of the monitor, 0 when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{page}", timeout=3) as answer:
                return int(answer.status), answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, *labels: str) -> float:
        """Return a metric, summed over the labels that are not given as ``name="value"``."""
        found = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", self.get("/metrics")[1], re.MULTILINE)
        return sum(float(value) for told, value in found if set(labels) <= set(told.split(",")))

    def log(self) -> str:
        """Return all log lines so far."""
        return self.log_file.read_text("utf-8", "replace")

    def events(self, kind: str = "receiver.signal.v1", file: Path | None = None) -> list[dict[str, Any]]:
        """Return the events of a type that reached the output's file."""
        file = file or self.events_file
        if not file.is_file():
            return []
        lines = file.read_text("utf-8").split("\n")
        return [event for event in map(json.loads, (line for line in lines if line.endswith("}"))) if event["type"] == kind]

    def export(self, kind: str = "receiver.signal.v1") -> list[dict[str, Any]]:
        """Return every stored event of a type, by the command."""
        done = self.command("journal", "export", "--config", str(self.config))
        assert done.returncode == 0, done.stderr
        return [event for event in map(json.loads, done.stdout.splitlines()) if event["type"] == kind]

    @staticmethod
    def command(*args: str, feed: str | None = None) -> "subprocess.CompletedProcess[str]":
        """Run one command of the receiver's command line."""
        return subprocess.run(
            [sys.executable, "-m", "receiver", *args], capture_output=True, text=True, timeout=60, input=feed
        )

    def add_listener(self, settings: str) -> int:
        """Write one more listener into the configuration, for the next start, and return its port."""
        port = free_port()
        told = self.config.read_text("utf-8")
        self.config.write_text(f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n{settings}\n' + told, "utf-8")
        return port

    # -- the panel's side --------------------------------------------------------------------------------------------

    def connect(self, host: str = "127.0.0.1") -> socket.socket:
        """Open a connection."""
        link = socket.create_connection((host, self.port), timeout=5)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link

    def tcp(self, *pieces: bytes, replies: int = 1, seconds: float = 5.0) -> list[bytes]:
        """Send pieces on a new connection and return the replies."""
        with self.connect() as link:
            for piece in pieces:
                link.sendall(piece)
            return read_replies(link, replies, seconds)

    def udp(self, datagram: bytes, seconds: float = 5.0, host: str = "127.0.0.1") -> bytes | None:
        """Send a datagram and return what comes back from the very port it went to."""
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.connect((host, self.port))
            link.send(datagram)
            ready, _, _ = select.select([link], [], [], seconds)
            return link.recv(65535) if ready else None


def read_replies(link: socket.socket, wanted: int, seconds: float) -> list[bytes]:
    """Read until so many replies came, the other side closed, or the time is over."""
    framer, found = dc09.Framer(), list[bytes]()
    until = time.monotonic() + seconds
    while len(found) < wanted:
        ready, _, _ = select.select([link], [], [], max(0.0, until - time.monotonic()))
        data = link.recv(65536) if ready else b""
        if not data:
            break
        found += [reply.raw for reply in framer.feed(data)]
    return found


def is_closed(link: socket.socket, seconds: float = 10.0) -> bool:
    """Tell whether the other side ends the connection in time; what it still says is read."""
    link.settimeout(seconds)
    try:
        while link.recv(65536):
            continue
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def said(reply: bytes | None, key: dc09.Key | None = None) -> str:
    """Return ``ACK 0042``: the token and sequence of a reply that a panel could use."""
    assert reply is not None, "no reply"
    found = dc09.split_datagram(reply)
    assert len(found) == 1
    assert isinstance(found[0], dc09.Frame), reply
    envelope = dc09.open_envelope(found[0])
    dc09.unseal(envelope, key)
    assert envelope.encrypted is (key is not None)
    return f"{envelope.token} {envelope.sequence}"
