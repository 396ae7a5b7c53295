"""The fault-injecting layer: builds ``faults.c`` and steers it from a test.

It needs Linux and a C compiler; elsewhere tests skip and say so.
"""

import errno
import mmap
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

WRITE, SYNC, TRUNCATE, OPEN, UNLINK, MARK = 1, 2, 4, 8, 16, 32
_FIELDS = ["fail", "error", "skip", "times", "delay", "delay_us", "die_at", "count", "half", "log_only", "pretend"]
_SOURCE = Path(__file__).with_name("faults.c")


def build(folder: Path) -> Path:
    """Return the library, compiled into ``folder``; skip the test where that cannot be."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("the fault-injecting layer needs Linux and a C compiler (cc)")
    library = folder / "faults.so"
    if not library.exists():
        command = [compiler, "-O1", "-shared", "-fPIC", "-Wall", "-o", str(library), str(_SOURCE), "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return library


class Faults:
    """One control file; the processes that are started with ``environment`` obey it."""

    def __init__(self, control: Path, library: Path, under: Path) -> None:
        self._library, self._control, self._under = library, control, under
        self.log = control.with_name("disk.log")
        with control.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)

    @classmethod
    def over(cls, under: Path, folder: Path, library: Path) -> "Faults":
        """Make the layer for files whose path begins with ``under``; its own files go into ``folder``."""
        control = folder / "control"
        control.write_bytes(bytes(8 * len(_FIELDS)))
        return cls(control, library, under)

    @classmethod
    def here(cls) -> "Faults":
        """Return the layer that this very process runs over."""
        return cls(Path(os.environ["FAULTS_CONTROL"]), Path(os.environ["LD_PRELOAD"]), Path(os.environ["FAULTS_UNDER"]))

    def environment(self, with_log: bool = False) -> dict[str, str]:
        """Return the environment of a process whose disk this is."""
        more = {"FAULTS_LOG": str(self.log)} if with_log else {}
        return os.environ | {
            "LD_PRELOAD": str(self._library), "FAULTS_UNDER": str(self._under), "FAULTS_CONTROL": str(self._control), **more,
        }  # fmt: skip

    def set(self, **values: int) -> None:
        """Change fields of the control; what is not named stays."""
        for name, value in values.items():
            struct.pack_into("q", self._map, 8 * _FIELDS.index(name), value)

    def get(self, name: str) -> int:
        """Return a field of the control."""
        return int(struct.unpack_from("q", self._map, 8 * _FIELDS.index(name))[0])

    def fail(self, operations: int, error: int = errno.EIO, skip: int = 0, times: int = -1, **more: int) -> None:
        """Let operations fail from now on, the first ``skip`` left out, so many ``times``."""
        self.set(fail=0)
        self.set(error=error, skip=skip, times=times, **more)
        self.set(fail=operations)

    def heal(self) -> None:
        """The disk is well again."""
        self.set(fail=0, delay=0, half=0, log_only=0, pretend=0, skip=0)


class Operation(NamedTuple):
    """One operation of the log; ``offset`` is a truncation's size and a mark's number."""

    kind: int
    path: str
    offset: int
    data: bytes


def read_log(file: Path) -> list[Operation]:
    """Return what a process did to its disk, in order."""
    content, at, found = file.read_bytes(), 0, list[Operation]()
    while at < len(content):
        kind, name = struct.unpack_from("=BH", content, at)
        path = content[at + 3 : at + 3 + name].decode()
        offset, length = struct.unpack_from("=qI", content, at + 3 + name)
        at += 3 + name + 12
        stored = length if kind == WRITE else 0
        found.append(Operation(kind, path, offset, content[at : at + stored]))
        at += stored
    return found
