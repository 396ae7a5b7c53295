"""``jsonl``: one CloudEvents JSON object a line, to a file or to standard output.

A file is appended to and synced before its events count as handed over; outside tools rotate it and send SIGHUP. Standard
output is flushed; whoever reads it owns what happens next. Writing happens in a thread of its own: a pipe that nobody
reads blocks that thread and nothing else.
"""

import asyncio
import os
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue

from receiver.config import JsonlSettings
from receiver.errors import DeliveryError
from receiver.events import OutEvent
from receiver.outputs.contract import Surroundings

_STANDARD_OUTPUT = "-"


class JsonlOutput:
    """Appends lines."""

    batch_limit = 200

    def __init__(self, settings: JsonlSettings, _surroundings: Surroundings) -> None:
        self._path = settings.path
        self._file: int | None = None
        self._replaced = False
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._work, name=f"output-{settings.name}", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Append the events, one line each.

        Raises:
            DeliveryError: the file cannot be written.
        """
        lines = b"".join(event.to_json() + b"\n" for event in events)
        loop, done = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

        def settle(error: OSError | None) -> None:
            if not done.done():
                if error is None:
                    done.set_result(None)
                else:
                    done.set_exception(error)

        def write() -> None:
            error = None
            try:
                self._append(lines)
            except OSError as problem:
                error = problem
            loop.call_soon_threadsafe(settle, error)

        self._jobs.put(write)
        try:
            await done
        except OSError as error:
            where = "standard output" if self._path == _STANDARD_OUTPUT else self._path
            raise DeliveryError(f"{where}: {error.strerror}") from error

    def _append(self, lines: bytes) -> None:
        """In the thread: write all of it, and for a file wait until it is on disk."""
        if self._replaced:
            self._let_go()
        if self._file is None:
            self._file = self._open()
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if stat.S_ISREG(os.fstat(self._file).st_mode):
                os.fdatasync(self._file)
        except OSError:
            self._let_go()
            raise

    def _open(self) -> int:
        if self._path == _STANDARD_OUTPUT:
            return sys.stdout.fileno()
        Path(self._path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        size = os.fstat(file).st_size
        if size and stat.S_ISREG(os.fstat(file).st_mode) and os.pread(file, 1, size - 1) != b"\n":
            os.write(file, b"\n")  # a crash tore the last line; its event comes again, whole
        return file

    def _let_go(self) -> None:
        self._replaced = False
        if self._file is not None and self._path != _STANDARD_OUTPUT:
            os.close(self._file)
        self._file = None

    def reopen(self) -> None:
        """Open the path anew before the next line: it was rotated."""
        self._replaced = True

    async def close(self) -> None:
        """End the thread once it has written what it holds."""
        self._jobs.put(self._let_go)
        self._jobs.put(None)
