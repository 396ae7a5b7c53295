"""Automation software for tests, written from the formats' public descriptions and not from our own code.

It cuts its stream at DC4, CR or a length, answers as it is told to, and keeps what it saw: every frame it got, and of which
it said that it has it. It can listen or connect, go away in the middle, and come back.
"""

import socket
import threading
import time
from collections.abc import Callable

ACK, NAK = b"\x06", b"\x15"
HEARTBEAT = b"1" + b"01" + b"000" + b" " * 11 + b"@" + b" " * 4 + b"\x14"

Answer = Callable[[bytes], bytes | None]


def acknowledge(_frame: bytes) -> bytes | None:
    return ACK


def stay_silent(_frame: bytes) -> bytes | None:
    return None


class Automation:
    """One program at the other end; ``end`` is the byte that ends a frame."""

    def __init__(self, port: int, end: bytes = b"\x14", listens: bool = False) -> None:
        self.port, self.end, self.listens = port, end, listens
        self.answer: Answer = acknowledge
        self.frames: list[bytes] = []
        self.taken: list[bytes] = []
        self.moments: list[float] = []
        self.die_after: int | None = None
        self.hangs_up: Callable[[bytes], bool] = lambda _frame: False
        self.connections = 0
        self._link: socket.socket | None = None
        self._server: socket.socket | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> "Automation":
        self._stopped.clear()
        self.die_after = None
        if self.listens:
            self._server = socket.create_server(("127.0.0.1", self.port))
            self._server.settimeout(0.1)
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Go away as a killed program does."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join(10)
            self._thread = None

    def __enter__(self) -> "Automation":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def events(self) -> list[bytes]:
        """Return the frames that are no heartbeats."""
        return [frame for frame in list(self.frames) if frame != HEARTBEAT]

    def had(self) -> list[bytes]:
        """Return the events it said it has."""
        return [frame for frame in list(self.taken) if frame != HEARTBEAT]

    def _live(self) -> None:
        while not self._stopped.is_set():
            link = self._meet()
            if link is None:
                continue
            self.connections += 1
            with link:
                self._serve(link)
        if self._server is not None:
            self._server.close()

    def _meet(self) -> socket.socket | None:
        try:
            if self._server is not None:
                return self._server.accept()[0]
            return socket.create_connection(("127.0.0.1", self.port), timeout=5)
        except OSError:
            self._stopped.wait(0.05)
            return None

    def _serve(self, link: socket.socket) -> None:
        link.settimeout(0.05)
        held = b""
        while not self._stopped.is_set():
            try:
                data = link.recv(4096)
            except TimeoutError:
                continue
            except OSError:
                return
            if not data:
                return
            held += data
            while self.end in held:
                frame, _, held = held.partition(self.end)
                if not self._take(link, frame + self.end):
                    return

    def _take(self, link: socket.socket, frame: bytes) -> bool:
        """Keep a frame and answer it; False when it goes away right here."""
        self.frames.append(frame)
        self.moments.append(time.monotonic())
        answer = self.answer(frame)
        if self.die_after is not None:
            self.die_after -= 1
            if self.die_after < 0:
                self._stopped.set()
                return False  # it has the frame, and nobody knows
        if self.hangs_up(frame):
            return False
        if answer is not None:
            if ACK in answer or b'"ACK"' in answer:
                self.taken.append(frame)
            try:
                link.sendall(answer)
            except OSError:
                return False
        return True
