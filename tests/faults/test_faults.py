"""The journal on a disk that fails, at every step: what has a receipt is there, once; what has none is nobody's alarm yet.

The stories themselves stand in ``stories.py``; each runs in a process of its own over the layer of ``faults.c``.
"""

import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.config import JournalSettings
from receiver.journal import Journal, writer
from tests.faults import stories
from tests.faults.layer import MARK, SYNC, TRUNCATE, UNLINK, WRITE, Faults, Operation, build, read_log

SECTOR_BYTES = 512
LOSSES_AT_EACH_RECEIPT = int(os.environ.get("LOSSES", "3"))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("layer"))


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder in memory where there is one: a kill leaves the page cache alone, so the disk itself has no part in it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:  # noqa: S108
        yield Path(folder)


def live(story: str, folder: Path, library: Path, with_log: bool = False) -> tuple[str, Faults]:
    """Live a story over the layer; fail with what it said."""
    faults = Faults.over(folder / "data", folder, library)
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.stories", story, str(folder / "data")],
        env=faults.environment(with_log), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, faults


@pytest.mark.parametrize("story", [name for name in stories.STORIES if name != "power"])
def test_on_a_failing_disk_nothing_is_acknowledged_that_is_not_stored(story: str, tmp_path: Path, library: Path) -> None:
    live(story, tmp_path, library)


def test_a_kill_between_any_two_steps_loses_nothing_and_stores_nothing_twice(memory: Path, library: Path) -> None:
    told, _ = live("kills", memory, library)
    sys.stdout.write(told)
    assert int(told.split()[0]) > 100


class _Disk:
    """What a power loss would leave: of each file what was synced, and what came after it, perhaps."""

    def __init__(self) -> None:
        self.durable: dict[str, bytearray] = {}
        self.pending: dict[str, list[Operation]] = {}

    def take(self, operation: Operation) -> None:
        if operation.kind in (WRITE, TRUNCATE, UNLINK):
            self.pending.setdefault(operation.path, []).append(operation)
        elif operation.kind == SYNC:
            content = self._after(operation.path, self.pending.pop(operation.path, []))
            self.durable[operation.path] = bytearray() if content is None else content
            for path in [path for path in self.pending if path.startswith(operation.path + "/")]:
                self._forget_unlinked(path)  # it was the folder's sync

    def _forget_unlinked(self, path: str) -> None:
        operations = self.pending[path]
        last = max([number for number, operation in enumerate(operations) if operation.kind == UNLINK], default=None)
        if last is not None:
            self.durable.pop(path, None)
            self.pending[path] = operations[last + 1 :]

    def _after(self, path: str, operations: list[Operation]) -> bytearray | None:
        content: bytearray | None = bytearray(self.durable.get(path, b"")) if path in self.durable else None
        for operation in operations:
            if operation.kind == UNLINK:
                content = None
                continue
            content = bytearray() if content is None else content
            end = operation.offset + len(operation.data)
            content.extend(bytes(max(0, end - len(content))))
            if operation.kind == WRITE:
                content[operation.offset : end] = operation.data
            else:
                del content[operation.offset :]
        return content

    def lose_power(self, folder: Path, chance: random.Random) -> None:
        """Write one of the possible disks: all, none or any sectors of what was not synced reached it."""
        share = chance.choice([0.0, 1.0, chance.random()])
        for path in sorted(self.durable.keys() | self.pending.keys()):
            kept: list[Operation] = []
            for operation in self.pending.get(path, []):
                if operation.kind == WRITE:
                    kept += [piece for piece in _sectors(operation) if chance.random() < share]
                elif chance.random() < share:
                    kept.append(operation)
                elif operation.kind == UNLINK:
                    break  # the old file is still there; what follows went into another one
            content = self._after(path, kept)
            if content is not None and path.endswith(("sqlite", "-wal", "-journal")):
                (folder / Path(path).name).write_bytes(content)


def _sectors(write: Operation) -> list[Operation]:
    pieces, at = [], 0
    while at < len(write.data):
        size = SECTOR_BYTES - (write.offset + at) % SECTOR_BYTES
        pieces.append(write._replace(offset=write.offset + at, data=write.data[at : at + size]))
        at += size
    return pieces


def _open_after_loss(folder: Path) -> None:
    async def open_and_close() -> None:
        journal = Journal(folder, JournalSettings(), [stories.ORIGIN], lambda: stories.START)
        damage = journal.damage
        await journal.close()
        assert damage is None, damage

    asyncio.run(open_and_close())


def test_a_power_loss_at_any_receipt_takes_no_acknowledged_signal(
    memory: Path, library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_LOG_PAGES", 8)
    seed = random.randrange(10**6)
    sys.stdout.write(f"\nseed {seed}\n")
    chance, disk = random.Random(seed), _Disk()
    _, faults = live("power", memory, library, with_log=True)
    told = [line.split() for line in (memory / "data" / "told").read_text().splitlines()]
    acknowledged: dict[str, int] = {}
    losses = 0
    for operation in read_log(faults.log):
        disk.take(operation)
        marked = operation.kind == MARK
        if marked:
            name, position = told[operation.offset - 1]
            acknowledged[name] = int(position)
        for _ in range(LOSSES_AT_EACH_RECEIPT if marked else chance.random() < 0.1):
            losses += 1
            home = memory / f"loss{losses}"
            home.mkdir()
            disk.lose_power(home, chance)
            _open_after_loss(home)
            stories.check(home, acknowledged)
            shutil.rmtree(home)
    assert len(acknowledged) == len(told)
    assert losses > len(told)
    sys.stdout.write(f"{losses} power losses, {len(acknowledged)} messages acknowledged, none lost\n")
