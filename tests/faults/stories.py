"""What happens to a journal on a failing disk, told in a process that has the fault-injecting layer before libc.

``python -m tests.faults.stories NAME FOLDER`` lives one story and exits 0, or with the traceback of what did not hold.
``work`` is a fixed script of everything the journal does; ``kills`` lives it for each disk operation in it, and dies there.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import random
import sqlite3
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from receiver.config import JournalSettings
from receiver.errors import JournalUnavailable
from receiver.journal import Cursor, Entry, Journal, Lane, Origin, Reader, Receipt, Refusal, writer
from tests.faults.layer import OPEN, SYNC, TRUNCATE, WRITE, Faults

START = 1_790_000_000_000_000
ORIGIN = Origin("1", "1", "main", "tcp")
Told = Callable[[str, int], object]
"""Takes a message's name and the position of its receipt, as soon as there is one."""


def entry(name: str, events: int = 1, kind: int = 0) -> Entry:
    """Return a message; the first of several events is urgent."""
    lanes = [Lane.NORMAL] if events == 1 else [Lane.URGENT, *[Lane.NORMAL] * (events - 1)]
    raw = name.encode() * 40
    return Entry(kind, name.encode(), START, None, 1, "p", "", raw, None, tuple((lane.value, 5, 0) for lane in lanes))


async def append(journal: Journal, message: Entry) -> Receipt:
    """Store one message; raise what is said when it was not stored."""
    (outcome,) = await journal.append([message])
    if isinstance(outcome, JournalUnavailable):
        raise outcome
    return outcome


def opened(folder: Path) -> tuple[Journal, list[Cursor]]:
    """Open the journal and the places of one output."""
    journal = Journal(folder, JournalSettings(), [ORIGIN], lambda: START)
    return journal, [journal.cursor("out", lane) for lane in Lane]


def stored(folder: Path) -> dict[str, list[int]]:
    """Return the positions at which each message begins, as anybody reads them now."""
    reader, found = Reader(folder), dict[str, list[int]]()
    for event in reader.all():
        if event.row.number == 0:
            found.setdefault(event.row.identity.decode(), []).append(event.position)
    reader.close()
    return found


def check(folder: Path, acknowledged: dict[str, int]) -> None:
    """What has a receipt is there, once, where the receipt says; the outputs' places are not ahead of the rows."""
    found = stored(folder)
    assert all(len(positions) == 1 for positions in found.values()), found
    for name, position in acknowledged.items():
        assert found.get(name) == [position], (name, position, found.get(name))
    reader = Reader(folder)
    newest = max([event.position for event in reader.last(1)], default=0)
    assert all(position <= newest for position in reader.cursors().values())
    assert reader.damage() == []
    reader.close()


async def recovered(journal: Journal) -> None:
    """Do what the service does each second until the journal takes signals."""
    async with asyncio.timeout(20):
        while True:
            journal.flush()
            await asyncio.sleep(0.005)
            if journal.failure is None and not journal.busy_seconds:
                return


async def refused(journal: Journal, name: str) -> str:
    """Report a message that must get no receipt; return why."""
    try:
        receipt = await append(journal, entry(name))
    except JournalUnavailable as error:
        return str(error)
    raise AssertionError(f"{name} has the receipt {receipt}")


# -- the fixed script -----------------------------------------------------------------------------------------------


async def work(folder: Path, told: Told, faults: Faults) -> None:
    """Live through groups, messages of several events, repeats, places, refusals, deletions, failed syncs and a restart."""
    for life in range(2):
        journal, (_, normal) = opened(folder)
        for turn in range(4):
            names = [f"{life}.{turn}.{n}" for n in range(1 + turn % 3)]
            waiting = [asyncio.ensure_future(append(journal, entry(name, 1 + turn % 2))) for name in (*names, names[0])]
            journal.append_later([entry(f"own {life}.{turn}", kind=2)])
            for name, task in zip(names, waiting, strict=False):
                told(name, (await task).position)
            assert (await waiting[-1]).repeat
            journal.refuse(Refusal(START, "bad-crc", "text", None, "main", "tcp", "peer", b"junk"))
            reader = Reader(folder)
            found = reader.after(Lane.NORMAL, normal.position, 2)
            reader.close()
            if found:
                normal.advance(found[-1].position, len(found))
                journal.save(normal)
            if turn == 2:
                journal.tidy()
                faults.fail(SYNC, times=2)
                await refused(journal, f"failed-{life}")
                faults.heal()
                told(f"failed-{life}", (await append(journal, entry(f"failed-{life}"))).position)
        assert (await append(journal, entry("0.0.0"))).repeat
        await journal.close()


def live(folder: Path, told: Told, faults: Faults) -> None:
    """Run the script in a loop of its own."""
    asyncio.run(work(folder, told, faults))


async def power(folder: Path, faults: Faults) -> None:
    """Live the script while the layer writes down every operation and every receipt."""
    mark = ctypes.CDLL(None).faults_mark
    mark.argtypes = [ctypes.c_int64]
    told: list[tuple[str, int]] = []

    def tell(name: str, position: int) -> None:
        told.append((name, position))
        mark(len(told))

    await work(folder, tell, faults)
    (folder / "told").write_text("\n".join(f"{name} {position}" for name, position in told))


def kills(folder: Path, faults: Faults) -> None:
    """Die before each disk operation of the script in turn, begin again from what is left, and check."""
    number = 0
    while True:
        number += 1
        home = folder / str(number)
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            faults.set(count=0, die_at=number)
            live(home, _teller(write), faults)
            os._exit(0)
        os.close(write)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        faults.set(die_at=0)
        faults.heal()
        with os.fdopen(read) as pipe:
            acknowledged = {name: int(at) for name, at in (line.split() for line in pipe)}
        if code == 0:
            assert len(acknowledged) == 16
            sys.stdout.write(f"{number - 1} operations, a kill before each\n")
            return
        assert code == 9, code
        _begin_again(home, acknowledged)


def _teller(pipe: int) -> Told:
    return lambda name, position: os.write(pipe, f"{name} {position}\n".encode())


def _begin_again(home: Path, acknowledged: dict[str, int]) -> None:
    """The next life: panels send again what got no receipt, and what did; both get one."""

    async def next_life() -> None:
        journal, _ = opened(home)
        assert journal.damage is None, journal.damage
        for name, position in acknowledged.items():
            assert await append(journal, entry(name)) == Receipt(position, True)
        for name in ("0.0.0", "0.3.0", "failed-0", "1.1.1", "failed-1", "new"):
            acknowledged[name] = (await append(journal, entry(name))).position
        await journal.close()

    asyncio.run(next_life())
    check(home, acknowledged)


FAILED_SYNCS = [(times, pretend, reader) for times in (1, 2, -1) for pretend in (0, 1) for reader in (False, True)]


# -- failures ------------------------------------------------------------------------------------------------------


async def a_sync_that_failed(folder: Path, faults: Faults) -> None:
    """The sync fails after the log was written: no receipt; the repeat is stored once, whether the row was found or not."""
    journal, (_, normal) = opened(folder)
    acknowledged = {"first": (await append(journal, entry("first"))).position}
    for number, (times, pretend, with_reader) in enumerate(FAILED_SYNCS):
        reader = Reader(folder) if with_reader else None  # keeps SQLite from emptying its log when the writer closes
        name = f"b{number}"
        faults.fail(SYNC, times=times, pretend=pretend)
        assert "SQLITE_IOERR_FSYNC" in await refused(journal, name)
        assert journal.failure is not None
        faults.heal()
        again = await append(journal, entry(name))  # the panel repeats
        assert again.position == 2 + number, again
        assert await append(journal, entry(name)) == Receipt(again.position, True)
        acknowledged[name] = again.position
        assert normal.waiting == 2 + number
        if reader is not None:
            assert [event.position for event in reader.after(Lane.NORMAL, 0, 100)] == sorted(acknowledged.values())
            reader.close()
    await journal.close()
    check(folder, acknowledged)


async def an_adopted_row_is_handed_on(folder: Path, faults: Faults) -> None:
    """Nobody repeats what a failed sync left on disk: it goes to the outputs all the same, and stays known as stored."""
    journal, (_, normal) = opened(folder)
    await append(journal, entry("a"))
    woken: list[int] = []
    journal.notify(lambda: woken.append(normal.waiting))
    faults.fail(SYNC)
    await refused(journal, "b")
    faults.heal()
    await recovered(journal)
    assert stored(folder) == {"a": [1], "b": [2]}
    assert woken == [2]
    assert normal.waiting == 2
    assert await append(journal, entry("b")) == Receipt(2, True)
    assert await append(journal, entry("c")) == Receipt(3, False)
    await journal.close()


async def a_mend_that_fails_half_way(folder: Path, faults: Faults) -> None:
    """What a failed sync left on disk was found, and then the disk failed again: it is found and adopted the next time."""
    journal, (_, normal) = opened(folder)
    await append(journal, entry("a"))
    faults.fail(SYNC)
    await refused(journal, "b")
    faults.heal()
    with contextlib.closing(sqlite3.connect(folder / "journal.sqlite", isolation_level=None)) as other:
        other.execute("CREATE TRIGGER no BEFORE INSERT ON probe BEGIN SELECT RAISE(ABORT, 'no probe'); END")
        assert "no probe" in await refused(journal, "c")
        other.execute("DROP TRIGGER no")
    await recovered(journal)
    assert normal.waiting == 2
    assert await append(journal, entry("b")) == Receipt(2, True)
    assert await append(journal, entry("c")) == Receipt(3, False)
    await journal.close()
    check(folder, {"a": 1, "b": 2, "c": 3})


async def a_disk_that_stays_broken(folder: Path, faults: Faults) -> None:
    """As long as any kind of operation fails there is no receipt; when it heals, the same process goes on."""
    journal, _ = opened(folder)
    acknowledged = {"a": (await append(journal, entry("a"))).position}
    breaks = [
        (WRITE, errno.ENOSPC), (WRITE, errno.EIO), (SYNC, errno.EIO), (WRITE | SYNC | OPEN | TRUNCATE, errno.EROFS),
        (SYNC | TRUNCATE, errno.EDQUOT),
    ]  # fmt: skip
    for number, (operations, error) in enumerate(breaks):
        faults.fail(operations, error)
        for attempt in range(3):
            await refused(journal, f"{number}.{attempt}")
            journal.flush()
        journal.append_later([entry(f"own {number}", kind=2)])
        faults.heal()
        for attempt in range(3):
            name = f"{number}.{attempt}"
            acknowledged[name] = (await append(journal, entry(name))).position
    await journal.close()
    check(folder, acknowledged)
    assert [len(stored(folder)[f"own {number}"]) for number in range(len(breaks))] == [1] * len(breaks)


async def a_write_that_is_cut_short(folder: Path, faults: Faults) -> None:
    """Half a write is no write."""
    journal, _ = opened(folder)
    faults.fail(WRITE, errno.ENOSPC, half=1)
    await refused(journal, "a")
    faults.heal()
    acknowledged = {name: (await append(journal, entry(name))).position for name in ("a", "b")}
    await journal.close()
    check(folder, acknowledged)


async def a_slow_disk(folder: Path, faults: Faults) -> None:
    """While a sync takes its time the loop turns, panels wait, and get their receipts."""
    journal, _ = opened(folder)
    await append(journal, entry("a"))
    faults.set(delay_us=400_000, delay=SYNC)
    task = asyncio.ensure_future(append(journal, entry("b")))
    turns, busiest = 0, 0.0
    while not task.done():
        await asyncio.sleep(0.01)
        turns, busiest = turns + 1, max(busiest, journal.busy_seconds)
    assert turns > 20, "the loop stood still"
    assert busiest > 0.3
    assert task.result() == Receipt(2, False)
    faults.heal()
    await journal.close()


async def anything_at_random(folder: Path, faults: Faults) -> None:
    """Faults come and go at random under load; a small model knows what has a receipt and what not."""
    seed = int(os.environ.get("SEED", random.randrange(10**6)))
    sys.stderr.write(f"SEED={seed}\n")
    chance, acknowledged, unanswered = random.Random(seed), dict[str, int](), list[str]()
    kinds = [WRITE, SYNC, TRUNCATE, OPEN, WRITE | SYNC, WRITE | SYNC | OPEN | TRUNCATE]
    for life in range(3):
        journal, _ = opened(folder)
        reader = Reader(folder) if chance.random() < 0.5 else None
        for turn in range(60):
            if chance.random() < 0.3:
                faults.fail(
                    chance.choice(kinds), chance.choice([errno.EIO, errno.ENOSPC]), chance.randrange(6),
                    chance.choice([1, 1, 3, -1]), half=chance.randrange(2), pretend=chance.randrange(2),
                )  # fmt: skip
            elif chance.random() < 0.4:
                faults.heal()
            fresh = [f"{life}.{turn}.{n}" for n in range(chance.randrange(4))]
            names = [*unanswered[:3], *fresh, *chance.sample(sorted(acknowledged), min(2, len(acknowledged)))]
            tasks = [(name, asyncio.ensure_future(append(journal, entry(name)))) for name in names]
            if chance.random() < 0.3:
                journal.flush()
            await asyncio.wait([task for _, task in tasks]) if tasks else await asyncio.sleep(0)
            unanswered += [name for name in fresh if name not in unanswered]
            for name, task in tasks:
                with contextlib.suppress(JournalUnavailable):
                    _take(acknowledged, unanswered, name, task.result())
        faults.heal()
        for name in list(unanswered):
            _take(acknowledged, unanswered, name, await append(journal, entry(name)))
        check(folder, acknowledged)
        if reader is not None:
            reader.close()
        await journal.close()
        check(folder, acknowledged)


def _take(acknowledged: dict[str, int], unanswered: list[str], name: str, receipt: Receipt) -> None:
    assert acknowledged.setdefault(name, receipt.position) == receipt.position, (name, receipt, acknowledged[name])
    if name in unanswered:
        unanswered.remove(name)


STORIES: dict[str, Callable[[Path, Faults], Awaitable[None]]] = {
    story.__name__: story
    for story in (
        a_sync_that_failed, an_adopted_row_is_handed_on, a_mend_that_fails_half_way,
        a_disk_that_stays_broken, a_write_that_is_cut_short, a_slow_disk,
        anything_at_random, power,
    )
}  # fmt: skip


def main() -> None:
    """Live one story."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    writer._LOG_PAGES = 8  # a checkpoint at every few groups, so that the stories meet many
    faults = Faults.here()
    if name == "kills":
        kills(folder, faults)
    else:

        async def run() -> None:
            await STORIES[name](folder, faults)

        asyncio.run(run())


if __name__ == "__main__":
    main()
