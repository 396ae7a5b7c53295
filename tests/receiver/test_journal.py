"""The journal: durable before the receipt, in order, once."""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from receiver import clock
from receiver.config import JournalSettings
from receiver.errors import ConfigError, JournalUnavailable
from receiver.journal import Entry, Journal, Lane, Origin, Reader, Receipt, Refusal
from receiver.journal.jobs import probe
from receiver.journal.records import SCHEMA
from receiver.journal.repeats import Repeats

T = TypeVar("T")
ORIGIN = Origin("1", "1", "main", "tcp")
START = 1_790_000_000_000_000
SECOND = clock.SECOND_US


def entry(identity: bytes, *lanes: Lane, when: int = START, kind: int = 0) -> Entry:
    events = tuple((lane.value, 5, 0) for lane in lanes or [Lane.NORMAL])
    return Entry(kind, identity, when, None, 1, "127.0.0.1:1", "", b"raw " + identity, None, events)


async def append(journal: Journal, message: Entry) -> Receipt:
    """Store one message; raise what is said when it was not stored."""
    (outcome,) = await journal.append([message])
    if isinstance(outcome, JournalUnavailable):
        raise outcome
    return outcome


def with_journal(
    folder: Path, story: Callable[[Journal], Awaitable[T]], settings: JournalSettings | None = None, now_us: int = START,
    steady_us: clock.Clock = clock.steady_us,
) -> T:  # fmt: skip
    """Open the journal, live the story, close it."""

    async def run() -> T:
        journal = Journal(folder, settings or JournalSettings(), [ORIGIN], lambda: now_us, steady_us)
        try:
            return await story(journal)
        finally:
            await journal.close()

    return asyncio.run(run())


def positions(folder: Path) -> list[tuple[int, bytes]]:
    reader = Reader(folder)
    found = [(stored.position, stored.row.identity) for stored in reader.all()]
    reader.close()
    return found


def test_a_receipt_is_given_when_the_row_is_on_disk(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        receipt = await append(journal, entry(b"a"))
        assert (receipt.position, receipt.repeat) == (1, False)
        assert positions(tmp_path) == [(1, b"a")]

    with_journal(tmp_path, story)


def test_messages_that_arrive_together_share_a_commit(tmp_path: Path) -> None:
    syncs: list[int] = []

    async def story(journal: Journal) -> None:
        journal.on_sync = lambda _seconds, rows: syncs.append(rows)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(append(journal, entry(b"%d" % n))) for n in range(250)]
        assert [task.result().position for task in tasks] == list(range(1, 251))

    with_journal(tmp_path, story)
    assert syncs == [250]
    assert [identity for _, identity in positions(tmp_path)] == [b"%d" % n for n in range(250)]


def test_the_events_of_one_message_stand_together(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        assert (await append(journal, entry(b"a", Lane.NORMAL, Lane.URGENT))).position == 1
        assert (await append(journal, entry(b"b"))).position == 3
        assert (await append(journal, entry(b"a"))) == Receipt(1, True)

    with_journal(tmp_path, story)
    assert positions(tmp_path) == [(1, b"a"), (2, b"a"), (3, b"b")]


def test_a_repeat_gets_the_first_receipt_in_flight_on_disk_and_after_a_restart(tmp_path: Path) -> None:
    async def first(journal: Journal) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(append(journal, entry(b"a"))) for _ in range(3)]
        assert [task.result() for task in tasks] == [Receipt(1, False), Receipt(1, True), Receipt(1, True)]
        assert await append(journal, entry(b"a")) == Receipt(1, True)

    steady = [7 * SECOND]

    async def second(journal: Journal) -> None:
        steady[0] += 590 * SECOND
        assert await append(journal, entry(b"a")) == Receipt(1, True)
        steady[0] += 12 * SECOND
        assert await append(journal, entry(b"a")) == Receipt(2, False)

    with_journal(tmp_path, first)
    with_journal(tmp_path, second, now_us=START + 5 * SECOND, steady_us=lambda: steady[0])
    assert positions(tmp_path) == [(1, b"a"), (2, b"a")]


@pytest.mark.parametrize("jump_seconds", [86400, -86400])
def test_a_jump_of_the_wall_clock_neither_forgets_nor_keeps_a_repeat(tmp_path: Path, jump_seconds: int) -> None:
    steady = [0]

    async def story(journal: Journal) -> None:
        assert await append(journal, entry(b"a")) == Receipt(1, False)
        assert await append(journal, entry(b"b", when=START + jump_seconds * SECOND)) == Receipt(2, False)
        assert await append(journal, entry(b"a", when=START + jump_seconds * SECOND)) == Receipt(1, True)
        steady[0] = 602 * SECOND
        assert await append(journal, entry(b"a", when=START + jump_seconds * SECOND)) == Receipt(3, False)

    with_journal(tmp_path, story, steady_us=lambda: steady[0])


def test_what_bears_a_later_time_than_ours_is_remembered_after_a_restart(tmp_path: Path) -> None:
    async def again(journal: Journal) -> bool:
        return (await append(journal, entry(b"a", when=START))).repeat

    assert with_journal(tmp_path, again) is False
    assert with_journal(tmp_path, again, now_us=START - 86400 * SECOND) is True


def test_a_restart_outside_the_window_forgets(tmp_path: Path) -> None:
    async def again(journal: Journal) -> bool:
        return (await append(journal, entry(b"a"))).repeat

    assert with_journal(tmp_path, again) is False
    assert with_journal(tmp_path, again, now_us=START + 601 * SECOND) is False


def test_one_who_gives_up_waiting_takes_nothing_from_the_others(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        tasks = [asyncio.ensure_future(append(journal, entry(b"%d" % n))) for n in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        done, _ = await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks] == [False, True, False]
        assert (tasks[0].result().position, tasks[2].result().position) == (1, 3)
        assert len(done) == 3

    with_journal(tmp_path, story)
    assert len(positions(tmp_path)) == 3


def test_too_much_waiting_for_the_disk_is_refused(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        tasks = [asyncio.ensure_future(append(journal, entry(b"%d" % n))) for n in range(6)]
        done, _ = await asyncio.wait(tasks)
        assert sum(isinstance(task.exception(), JournalUnavailable) for task in done) == 1

    with_journal(tmp_path, story, JournalSettings(max_waiting=5))
    assert len(positions(tmp_path)) == 5


def test_a_backlog_withholds_receipts_until_the_output_comes_back(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        cursor = journal.cursor("out", Lane.NORMAL)
        for n in range(3):
            await append(journal, entry(b"%d" % n))
        with pytest.raises(JournalUnavailable, match="max_backlog is 3"):
            await append(journal, entry(b"x"))
        cursor.advance(3, 3)
        journal.save(cursor)
        assert await _room(journal)
        assert (await append(journal, entry(b"x"))).position == 4

    with_journal(tmp_path, story, JournalSettings(max_backlog=3))


async def _room(journal: Journal) -> bool:
    """Wait until the journal takes signals again."""
    for _ in range(100_000):
        with contextlib.suppress(JournalUnavailable):
            journal.check_room()
            return True
        await asyncio.sleep(0)
    return False


async def _recovered(journal: Journal) -> bool:
    """Wait until the journal was written again."""
    for _ in range(100_000):
        if journal.failure is None:
            return True
        await asyncio.sleep(0)
    return False


def test_a_failing_commit_gives_no_receipt_stores_nothing_and_recovers(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        await append(journal, entry(b"a"))
        other = sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)
        other.execute("CREATE TRIGGER no BEFORE INSERT ON groups BEGIN SELECT RAISE(ABORT, 'no more'); END")
        journal.refuse(Refusal(START, "bad-crc", "text", None, "main", "tcp", "peer", b"kept over the failure"))
        with pytest.raises(JournalUnavailable, match="no more"):
            await append(journal, entry(b"b"))
        failure = journal.failure
        assert failure is not None
        for _ in range(2000):
            await asyncio.sleep(0)
        assert journal.failure is failure, "the disk was tried again though nobody asked"
        other.execute("DROP TRIGGER no")
        other.close()
        journal.flush()
        assert await _recovered(journal)
        receipt = await append(journal, entry(b"b"))
        assert receipt == Receipt(2, False)

    with_journal(tmp_path, story)
    assert positions(tmp_path) == [(1, b"a"), (2, b"b")]
    reader = Reader(tmp_path)
    assert [refusal.raw for refusal in reader.refusals(5)] == [b"kept over the failure"]
    reader.close()


def test_cursors_and_their_backlog_survive_a_restart(tmp_path: Path) -> None:
    async def first(journal: Journal) -> None:
        cursor = journal.cursor("out", Lane.NORMAL)
        for n in range(5):
            await append(journal, entry(b"%d" % n, Lane.NORMAL if n else Lane.URGENT))
        assert cursor.waiting == 4
        cursor.advance(3, 2)
        journal.save(cursor)

    async def second(journal: Journal) -> tuple[int, int]:
        cursor = journal.cursor("out", Lane.NORMAL)
        return cursor.position, cursor.waiting

    with_journal(tmp_path, first)
    assert with_journal(tmp_path, second) == (3, 2)


def test_a_lane_is_read_in_order_after_a_position(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        for n in range(10):
            await append(journal, entry(b"%d" % n, Lane.URGENT if n % 3 == 0 else Lane.NORMAL))

    with_journal(tmp_path, story)
    reader = Reader(tmp_path)
    assert [s.position for s in reader.after(Lane.URGENT, 1, 2)] == [4, 7]
    assert [s.position for s in reader.after(Lane.NORMAL, 3, 100)] == [5, 6, 8, 9]
    assert [s.position for s in reader.last(3)] == [8, 9, 10]
    assert reader.last(1)[0].origin == ORIGIN
    assert len({stored.event_id for stored in reader.all()}) == 10
    assert reader.damage() == []
    reader.close()


def test_refusals_are_kept_and_bounded(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        for n in range(1200):
            kept = journal.refuse(Refusal(START + n, "bad-crc", "text", None, "main", "tcp", "peer", b"%d" % n))
            assert kept is (n < 1000)
        journal.flush()
        await append(journal, entry(b"a"))
        journal.tidy()
        await append(journal, entry(b"b"))

    with_journal(tmp_path, story, JournalSettings(refusals_kept=10))
    reader = Reader(tmp_path)
    assert [refusal.raw for refusal in reader.refusals(100)] == [b"%d" % n for n in range(990, 1000)]
    reader.close()


def test_retention_deletes_what_is_old_and_delivered_and_never_the_newest(tmp_path: Path) -> None:
    day = 86400 * SECOND

    async def story(journal: Journal) -> None:
        cursor = journal.cursor("out", Lane.NORMAL)
        for n in range(6):
            await append(journal, entry(b"%d" % n, when=START - (100 if n < 4 else 1) * day))
        cursor.advance(3, 3)
        journal.save(cursor)
        journal.tidy()
        await append(journal, entry(b"last"))

    with_journal(tmp_path, story)
    assert [position for position, _ in positions(tmp_path)] == [4, 5, 6, 7]


def test_nothing_is_deleted_for_its_age_while_our_clock_is_in_doubt(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        cursor = journal.cursor("out", Lane.NORMAL)
        for n in range(6):
            await append(journal, entry(b"%d" % n))
        cursor.advance(6, 6)
        journal.save(cursor)
        journal.tidy(keep_old=True)
        await append(journal, entry(b"last"))

    with_journal(tmp_path, story, now_us=START + 365 * 86400 * SECOND)
    assert len(positions(tmp_path)) == 7


def test_one_folder_serves_one_receiver_and_is_private(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    async def story(_: Journal) -> None:
        with pytest.raises(ConfigError, match="another receiver"):
            Journal(folder, JournalSettings())

    with_journal(folder, story)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "journal.sqlite").stat().st_mode & 0o777 == 0o600


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()

    async def story(_: Journal) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(ConfigError, match="format 99"):
        with_journal(tmp_path, story)
    with pytest.raises(ConfigError, match="format 99"):
        Reader(tmp_path)
    with pytest.raises(ConfigError, match="no journal"):
        Reader(tmp_path / "elsewhere")


def test_a_damaged_file_is_reported(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        async with asyncio.TaskGroup() as group:
            for n in range(2000):
                group.create_task(append(journal, entry(b"%d" % n)))

    with_journal(tmp_path, story)
    file = tmp_path / "journal.sqlite"
    with file.open("r+b") as raw:
        raw.seek(4096)
        raw.write(os.urandom(60 * 4096))
    reader = Reader(tmp_path)
    assert reader.damage()
    reader.close()


def test_repeats_are_bounded_in_number() -> None:
    repeats = Repeats(600, 30)
    for n in range(100):
        repeats.add({b"%d" % n: n + 1}, START + n)
    assert len(repeats) <= 40
    assert repeats.find(b"99", START + 100) == 100
    assert repeats.find(b"1", START + 100) is None


def test_repeats_leave_the_window_and_give_their_memory_back() -> None:
    repeats = Repeats(10, 1000)
    for n in range(200):
        repeats.add({b"%d" % n: n + 1}, START + n * SECOND)
    assert repeats.find(b"199", START + 200 * SECOND) == 200
    assert repeats.find(b"185", START + 200 * SECOND) is None
    assert len(repeats) < 30
    repeats.add({}, START)


def test_the_last_messages_of_a_quiet_site_leave_the_window_too() -> None:
    repeats = Repeats(600, 1000)
    repeats.add({b"a": 1}, START)
    repeats.add({b"b": 2, b"c": 3}, START + SECOND // 2)
    assert [repeats.find(name, START + 599 * SECOND) for name in (b"a", b"b", b"c")] == [1, 2, 3]
    assert [repeats.find(name, START + 602 * SECOND) for name in (b"a", b"b", b"c")] == [None, None, None]


def test_messages_in_one_call_get_each_its_own_outcome_in_order(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        await append(journal, entry(b"old"))
        outcomes = await journal.append(
            [entry(b"a", Lane.NORMAL, Lane.URGENT), entry(b"old"), entry(b"b"), entry(b"a"), entry(b"c", *[Lane.NORMAL] * 9)]
        )
        assert outcomes[:4] == [Receipt(2, False), Receipt(1, True), Receipt(4, False), Receipt(2, True)]
        assert isinstance(outcomes[4], JournalUnavailable), "five more found room, nine did not"
        assert positions(tmp_path) == [(1, b"old"), (2, b"a"), (3, b"a"), (4, b"b")]
        assert await journal.append([]) == []

    with_journal(tmp_path, story, JournalSettings(max_waiting=8))


def test_a_message_on_its_way_to_the_disk_is_waited_for_with_what_is_new(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        first = asyncio.ensure_future(journal.append([entry(b"a"), entry(b"b")]))
        for _ in range(100):
            if not journal.busy_seconds:
                await asyncio.sleep(0)
        assert await journal.append([entry(b"c"), entry(b"b"), entry(b"a")]) == [
            Receipt(3, False),
            Receipt(2, True),
            Receipt(1, True),
        ]
        assert await first == [Receipt(1, False), Receipt(2, False)]

    with_journal(tmp_path, story)


def test_a_failing_commit_gives_no_receipt_to_any_message_of_a_call_but_to_repeats(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        await append(journal, entry(b"a"))
        with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite", isolation_level=None)) as other:
            other.execute("CREATE TRIGGER no BEFORE INSERT ON groups BEGIN SELECT RAISE(ABORT, 'no more'); END")
            new, old, again = await journal.append([entry(b"b"), entry(b"a"), entry(b"b")])
            assert old == Receipt(1, True)
            assert isinstance(new, JournalUnavailable)
            assert isinstance(again, JournalUnavailable)
            assert "no more" in str(new)
            other.execute("DROP TRIGGER no")
        assert await journal.append([entry(b"b"), entry(b"a")]) == [Receipt(2, False), Receipt(1, True)]

    with_journal(tmp_path, story)


def test_tens_of_thousands_of_messages_go_in_one_commit_in_rows_of_bounded_size(tmp_path: Path) -> None:
    syncs: list[int] = []

    async def story(journal: Journal) -> None:
        journal.on_sync = lambda _seconds, events: syncs.append(events)
        cursor = journal.cursor("out", Lane.URGENT)
        lanes = [Lane.URGENT if n % 100 == 0 else Lane.NORMAL for n in range(20_000)]
        receipts = await journal.append([entry(b"%d" % n, lane) for n, lane in enumerate(lanes)])
        assert receipts == [Receipt(n, False) for n in range(1, 20_001)]
        assert cursor.waiting == 200

    with_journal(tmp_path, story)
    assert syncs == [20_000]
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        rows, longest = db.execute("SELECT COUNT(*), MAX(length(content)) FROM groups").fetchone()
    assert rows > 10
    assert longest < 70_000
    assert [identity for _, identity in positions(tmp_path)] == [b"%d" % n for n in range(20_000)]


def test_what_waits_is_counted_from_a_place_within_a_commit(tmp_path: Path) -> None:
    lanes = [Lane.URGENT if n % 5 == 0 else Lane.NORMAL for n in range(40)]

    async def fill(journal: Journal) -> None:
        for lane in Lane:
            journal.cursor("out", lane)
        await journal.append([entry(b"%d" % n, lane, Lane.NORMAL) for n, lane in enumerate(lanes)])

    with_journal(tmp_path, fill)
    reader = Reader(tmp_path)
    for lane in Lane:
        for place in range(81):

            async def waiting(journal: Journal, lane: Lane = lane, place: int = place) -> int:
                cursor = journal.cursor("out", lane)
                cursor.position = place
                journal.save(cursor)
                await journal.do(lambda _db: None)
                return journal.cursor("out", lane).waiting

            if place % 9 == 0:
                assert with_journal(tmp_path, waiting) == len(reader.after(lane, place, 1000)), (lane, place)
    reader.close()


def test_an_older_journal_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        db.execute("PRAGMA user_version = 1")

    async def story(_: Journal) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(ConfigError, match="format 1, this program reads format 2: let the program that wrote it hand"):
        with_journal(tmp_path, story)


@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_the_database_of_another_program_is_refused_and_stays_as_it_is(tmp_path: Path, version: int, mode: str) -> None:
    file = tmp_path / "journal.sqlite"
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.execute(f"PRAGMA journal_mode = {mode}")
        db.executescript(f"CREATE TABLE invoices (number); CREATE TABLE customers (name); PRAGMA user_version = {version};")
    before = file.read_bytes()

    async def story(_: Journal) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(ConfigError, match="is a database, and no journal of this program"):
        with_journal(tmp_path, story)
    with pytest.raises(ConfigError, match="is a database, and no journal of this program"):
        Reader(tmp_path)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("damaged-*"))


@pytest.mark.parametrize(
    "script", ["PRAGMA journal_mode = WAL", SCHEMA.partition(";")[0], SCHEMA + "CREATE TABLE invoices (n);"]
)
def test_a_journal_cut_short_at_its_making_or_added_to_another_file_by_an_earlier_version_is_opened(
    tmp_path: Path, script: str
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db:
        db.executescript(script)

    async def story(journal: Journal) -> None:
        await append(journal, entry(b"one"))

    with_journal(tmp_path, story)
    assert positions(tmp_path) == [(1, b"one")]


def test_a_group_is_deleted_when_all_of_it_is_delivered(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        cursor = journal.cursor("out", Lane.NORMAL)
        old = START - 100 * 86400 * SECOND
        for n in range(3):
            await journal.append([entry(b"%d.%d" % (n, m), when=old) for m in range(4)])
        for place, left in ((3, 12), (6, 8)):
            cursor.position = place
            journal.tidy()
            await journal.do(lambda _db: None)
            assert len(positions(tmp_path)) == left

    with_journal(tmp_path, story)


def test_a_cursor_goes_with_the_next_signals_and_by_itself_when_none_come(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        commits: list[int] = []
        cursor = journal.cursor("out", Lane.NORMAL)
        await journal.do(probe)  # a new output's place is written along
        journal.on_sync = lambda _seconds, rows: commits.append(rows)
        await append(journal, entry(b"a"))
        cursor.advance(1, 1)
        journal.save(cursor)
        await append(journal, entry(b"b"))
        assert commits == [1, 1]
        assert _place(tmp_path) == 1
        cursor.advance(2, 1)
        journal.save(cursor)
        async with asyncio.timeout(5):
            while len(commits) < 3:  # noqa: ASYNC110 - nothing tells of a commit without signals
                await asyncio.sleep(0.001)
        assert (commits, _place(tmp_path)) == ([1, 1, 0], 2)

    with_journal(tmp_path, story)


def _place(folder: Path) -> int:
    reader = Reader(folder)
    found = reader.cursors()["out", Lane.NORMAL]
    reader.close()
    return found


def test_quiet_waits_for_the_commit_under_way_and_for_no_other(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        await journal.quiet()  # nobody waits: at once
        first = asyncio.ensure_future(append(journal, entry(b"first")))
        await asyncio.sleep(0)
        quiet = asyncio.ensure_future(journal.quiet())
        await asyncio.sleep(0)
        assert not quiet.done()
        assert not first.done()
        await first
        second = asyncio.ensure_future(append(journal, entry(b"second")))
        await asyncio.wait_for(quiet, 5)
        assert not second.done()
        await second

    with_journal(tmp_path, story)


def test_quiet_ends_with_a_commit_that_fails(tmp_path: Path) -> None:
    async def story(journal: Journal) -> None:
        def fail(_connection: sqlite3.Connection) -> None:
            raise JournalUnavailable("no")

        job = asyncio.ensure_future(journal.do(fail))
        await asyncio.sleep(0)
        await asyncio.wait_for(journal.quiet(), 5)
        with pytest.raises(JournalUnavailable):
            await job

    with_journal(tmp_path, story)
