"""A failing machine under the real process: silence while nothing can be stored, words for a person, and all comes back."""

import errno
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from protocols import dc09
from tests.faults.layer import OPEN, SYNC, TRUNCATE, WRITE, Faults, build
from tests.wire.running import PLAIN, Running, frame, read_replies, said, wait_until

QUICK = "[journal]\nmin_free_bytes = 0\n"


def troubles(running: Running, reason: str, file: Path | None = None) -> list[dict[str, Any]]:
    """Return the troubles of a reason that reached the output."""
    return [event for event in running.events("receiver.trouble.v1", file) if event["data"]["reason"] == reason]


def unready(running: Running, words: str) -> str:
    """Wait until /readyz says 503 and why."""

    def why() -> str:
        status, text = running.get("/readyz")
        return text if status == 503 and words in text else ""

    return str(wait_until(why))


def each_once(running: Running, *sequences: str) -> None:
    """What was acknowledged is in the journal once."""
    stored = [event["data"]["sequence"] for event in running.export()]
    assert sorted(stored) == sorted(set(stored))
    assert set(sequences) <= set(stored)


def no_ack(running: Running, sequence: str) -> None:
    assert running.tcp(frame(sequence), seconds=0.3) == []


def ack(running: Running, sequence: str) -> None:
    assert said(running.tcp(frame(sequence))[0]) == f"ACK {sequence}"


class _Panel(threading.Thread):
    """Sends message after message, each until it is acknowledged."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running
        self.going = True
        self.acknowledged: list[str] = []

    def run(self) -> None:
        number = 0
        while self.going:
            number += 1
            told = frame(f"{number:04d}", "1602 00 000")
            while self.going:
                with suppress(OSError):  # nobody listens just now
                    if self._running.tcp(told, seconds=0.5):
                        self.acknowledged.append(f"{number:04d}")
                        break


@contextmanager
def volume(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small file system of its own; skip where that is not allowed."""
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"mounting a tmpfs is not allowed here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room in a file system."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            with suppress(OSError):  # no space left
                while file.write(b"x" * size) == size:
                    continue
    return filler


def test_a_full_disk_withholds_acks_says_why_and_all_comes_back(tmp_path: Path) -> None:
    with (
        volume(tmp_path / "volume", "6m") as disk,
        Running(tmp_path, more=f'[receiver]\ndata_dir = "{disk}/data"\n') as running,
    ):
        wait_until(lambda: troubles(running, "disk-low"))
        assert running.metric("receiver_disk_free_bytes") > 0
        panel = _Panel(running)
        panel.start()
        wait_until(lambda: len(panel.acknowledged) > 10)
        filler = fill(disk)
        unready(running, "full")
        withheld = len(panel.acknowledged)
        wait_until(lambda: troubles(running, "journal-unwritable"))
        assert "journal failed, ACKs are withheld" in running.log()
        assert running.get("/healthz")[0] == 200
        running.kill()
        running.start(wait=False)  # a receiver starts on a full disk too
        unready(running, "full")
        wait_until(lambda: len(troubles(running, "journal-unwritable")) == 2)
        filler.unlink()
        wait_until(lambda: len(panel.acknowledged) > withheld + 10)
        panel.going = False
        panel.join()
        wait_until(lambda: troubles(running, "journal-recovered"))
        assert running.get("/readyz")[0] == 200
        told = [event["id"] for event in troubles(running, "journal-unwritable")]
        assert told[-1] in [event["id"] for event in running.export("receiver.trouble.v1")], (
            "stored later, under the same id"
        )
        each_once(running, *panel.acknowledged)
        assert running.stop() == 0


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("layer"))


@contextmanager
def failing(tmp_path: Path, library: Path, more: str = "") -> Iterator[tuple[Running, Faults]]:
    """Run a receiver over the fault-injecting layer."""
    running = Running(tmp_path, more=QUICK + more)
    faults = Faults.over(tmp_path / "data" / "journal.sqlite", tmp_path, library)
    running.environment = faults.environment()
    with running:
        yield running, faults


BREAKS = [
    (SYNC, errno.EIO, "SQLITE_IOERR_FSYNC"),
    (WRITE, errno.EIO, "SQLITE_IOERR_WRITE"),
    (WRITE | SYNC | TRUNCATE | OPEN, errno.EROFS, "the journal cannot be written"),
]


def test_a_failing_disk_withholds_acks_until_it_works_again(tmp_path: Path, library: Path) -> None:
    with failing(tmp_path, library) as (running, faults):
        ack(running, "0001")
        for number, (operations, error, words) in enumerate(BREAKS, 2):
            faults.fail(operations, error)
            no_ack(running, f"{number:04d}")
            assert words in unready(running, "the journal cannot be written")
            no_ack(running, f"{number:04d}")
            assert said(running.tcp(dc09.encode("NULL", "0000", dc09.Address(None, "0", PLAIN)))[0]) == "ACK 0000"
            wait_until(lambda: troubles(running, "journal-unwritable"))
            faults.heal()
            wait_until(lambda: running.get("/readyz")[0] == 200)
            ack(running, f"{number:04d}")
        told = troubles(running, "journal-unwritable")[0]
        assert running.metric("receiver_journal_failures_total") >= len(BREAKS)
        wait_until(lambda: troubles(running, "journal-recovered"))
        same = [event for event in troubles(running, "journal-unwritable") if event["id"] == told["id"]]
        assert len(same) == 2, "past the journal at once, and through it when it was stored"
        each_once(running, "0001", "0002", "0003", "0004")
        assert sorted({event["data"]["sequence"] for event in running.events()}) == ["0001", "0002", "0003", "0004"]
        assert running.stop() == 0


def test_a_slow_disk_makes_panels_wait_and_nothing_else(tmp_path: Path, library: Path) -> None:
    with failing(tmp_path, library, "slow_sync_seconds = 0.5\n") as (running, faults):
        ack(running, "0001")
        faults.set(delay_us=1_500_000, delay=SYNC)
        with running.connect() as link:
            began = time.monotonic()
            link.sendall(frame("0002"))
            assert said(running.tcp(dc09.encode("NULL", "0000", dc09.Address(None, "0", PLAIN)))[0]) == "ACK 0000"
            assert time.monotonic() - began < 1.0, "the loop waited for the disk"
            assert said(read_replies(link, 1, 10)[0]) == "ACK 0002"
            assert time.monotonic() - began > 1.4
        assert wait_until(lambda: troubles(running, "journal-slow"))[0]["data"]["count"] >= 1
        faults.heal()
        wait_until(lambda: running.metric("receiver_journal_slow_syncs_total") >= 1)
        ack(running, "0003")


def test_a_disk_that_hangs_makes_the_receiver_unready_and_it_still_stops_in_time(tmp_path: Path, library: Path) -> None:
    with failing(tmp_path, library) as (running, faults):
        ack(running, "0001")
        faults.set(delay_us=40_000_000, delay=SYNC)
        no_ack(running, "0002")
        unready(running, "has not answered for")
        wait_until(lambda: troubles(running, "journal-slow"))
        began = time.monotonic()
        assert running.stop() == 0
        assert time.monotonic() - began < 10


def test_a_journal_that_vanishes_is_waited_for_and_never_made_anew(tmp_path: Path) -> None:
    with Running(tmp_path, more=QUICK) as running:
        ack(running, "0001")
        data, away = tmp_path / "data", tmp_path / "away"
        data.rename(away)
        no_ack(running, "0002")
        unready(running, "is gone; is the volume mounted?")
        assert not data.exists()
        data.mkdir()  # as an unmounted volume leaves it
        no_ack(running, "0002")
        time.sleep(1.2)
        assert not (data / "journal.sqlite").exists()
        wait_until(lambda: troubles(running, "journal-unwritable"))
        shutil.rmtree(data)
        away.rename(data)
        wait_until(lambda: running.get("/readyz")[0] == 200)
        ack(running, "0002")
        ack(running, "0003")
        wait_until(lambda: {event["data"]["sequence"] for event in running.events()} == {"0001", "0002", "0003"})
        each_once(running, "0001", "0002", "0003")
        assert running.stop() == 0


def test_another_journal_in_the_place_of_ours_is_not_written_to(tmp_path: Path) -> None:
    with Running(tmp_path, more=QUICK) as running:
        data, away, old = tmp_path / "data", tmp_path / "away", tmp_path / "old"
        ack(running, "0001")
        wait_until(running.events)
        old.mkdir()
        with closing(sqlite3.connect(data / "journal.sqlite")) as db:
            db.execute("VACUUM INTO ?", (str(old / "journal.sqlite"),))  # a backup, put back in haste
        ack(running, "0002")
        data.rename(away)
        old.rename(data)
        no_ack(running, "0003")
        unready(running, "is not the journal that was written")
        data.rename(old)
        away.rename(data)
        wait_until(lambda: running.get("/readyz")[0] == 200)
        ack(running, "0003")
        each_once(running, "0001", "0002", "0003")


def test_a_backup_put_beside_the_log_of_ours_is_told_and_our_log_is_not_written_into_it(tmp_path: Path) -> None:
    with Running(tmp_path, more=QUICK) as running:
        file, ours, backup = tmp_path / "data" / "journal.sqlite", tmp_path / "ours", tmp_path / "backup"
        ack(running, "0001")
        wait_until(running.events)
        with closing(sqlite3.connect(file)) as db:
            db.execute("VACUUM INTO ?", (str(backup),))
        before = backup.read_bytes()
        ours.hardlink_to(file)
        backup.rename(file)
        for number in range(2, 100):  # into the log; that the file is another shows with the output's place
            if not (answered := running.tcp(frame(f"{number:04}"), seconds=0.3)):
                break
            assert said(answered[0]) == f"ACK {number:04}"
        unready(running, "the -wal file beside it is that one's: put the right file back")
        assert file.read_bytes() == before
        ours.rename(file)
        wait_until(lambda: running.get("/readyz")[0] == 200)
        ack(running, "0100")
        each_once(running, *[f"{n:04}" for n in range(1, number)], "0100")


def _damage(file: Path, offset: int, size: int) -> None:
    with file.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xa5" * size)


def test_a_damaged_journal_is_kept_aside_and_told_and_the_receiver_starts(tmp_path: Path) -> None:
    with Running(tmp_path, more=QUICK) as running:
        sequences = [f"{n:04d}" for n in range(1, 301)]
        assert len(running.tcp(*[frame(s) for s in sequences], replies=300)) == 300
        wait_until(lambda: len(running.events()) == 300)
        assert running.stop() == 0
        file = tmp_path / "data" / "journal.sqlite"
        _damage(file, file.read_bytes().index(b'"ADM-CID"0100') // 4096 * 4096, 4096)
        running.start()
        told = wait_until(lambda: troubles(running, "journal-damaged"))[0]["data"]
        kept = running.export()
        assert told["count"] == 300 - len(kept)
        assert 0 < told["count"] < 60
        folder = next((tmp_path / "data").glob("damaged-*"))
        assert str(folder) in told["text"]
        assert folder.stat().st_mode & 0o777 == 0o700
        assert (folder / "journal.sqlite").is_file()
        assert [e["data"]["sequence"] for e in kept] == [sequences[e["data"]["position"] - 1] for e in kept]
        ack(running, "0301")
        assert running.export()[-1]["data"]["position"] > 300
        assert len(running.events()) <= 302, "what was handed over is not handed over again"


def test_damage_in_the_log_hides_no_acknowledged_signal(tmp_path: Path) -> None:
    with Running(tmp_path, more=QUICK) as running:
        sequences = [f"{n:04d}" for n in range(1, 41)]
        for sequence in sequences:
            ack(running, sequence)
        running.kill()
        log = tmp_path / "data" / "journal.sqlite-wal"
        frames = log.read_bytes()
        at = frames.index(b'"ADM-CID"0020')  # in a page of the log, not the last
        _damage(log, at, 4)
        running.start()
        assert wait_until(lambda: troubles(running, "journal-damaged"))
        stored = [event["data"]["sequence"] for event in running.export()]
        assert len(stored) >= 39
        assert stored[-1] == "0040"


def test_a_backlog_is_told_before_it_is_full_when_it_is_and_when_it_has_gone(tmp_path: Path) -> None:
    outputs = '[[outputs]]\nname = "{0}"\ntype = "jsonl"\npath = "{0}.jsonl"\n'
    blocked = tmp_path / "dead.jsonl"
    blocked.mkdir()
    with Running(
        tmp_path,
        more="[journal]\nmin_free_bytes = 0\nmax_backlog = 20\n",
        outputs=outputs.format("dead") + outputs.format("events"),
    ) as running:
        assert len(running.tcp(*[frame(f"{n:04d}") for n in range(1, 18)], replies=17)) == 17
        told = wait_until(lambda: troubles(running, "backlog-high"))[0]["data"]
        assert told["output"] == "dead"
        assert len(running.tcp(*[frame(f"{n:04d}") for n in range(18, 30)], replies=12, seconds=0.5)) < 12
        wait_until(lambda: troubles(running, "backlog-full"))
        no_ack(running, "0030")
        unready(running, "max_backlog is 20")
        blocked.rmdir()
        wait_until(lambda: troubles(running, "backlog-cleared"), 40)
        ack(running, "0030")
        assert running.get("/readyz")[0] == 200
        wait_until(lambda: len(running.events(file=blocked)) == len(running.events()))
        assert [len(troubles(running, f"backlog-{word}")) for word in ("high", "full", "cleared")] == [1, 1, 1]
