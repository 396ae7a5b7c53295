"""The newest events in memory: always what the file would tell, or nothing."""

import asyncio
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from receiver.config import JournalSettings
from receiver.journal import Entry, Journal, Lane, Origin, Reader
from receiver.journal.tail import Tail

ORIGIN = Origin("1", "1", "main", "tcp")
LANES = st.lists(st.sampled_from(list(Lane)), min_size=1, max_size=3)


def entry(identity: int, lanes: list[Lane]) -> Entry:
    events = tuple((lane.value, 5, 0) for lane in lanes)
    return Entry(0, b"%d" % identity, 1_790_000_000_000_000, None, 1, "127.0.0.1:1", "", b"raw", None, events)


def urgent_in(entries: list[Entry]) -> int:
    return sum(event[0] == Lane.URGENT for entry in entries for event in entry.events)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(LANES, min_size=1, max_size=40), min_size=1, max_size=30), st.data())
def test_what_it_tells_is_all_there_is_or_it_tells_nothing(groups: list[list[list[Lane]]], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 50))
    tail, everything, position, number = Tail({ORIGIN: 1}, start), list[tuple[int, Lane]](), start + 1, 0
    for lanes_of in groups * 5:
        entries = []
        for lanes in lanes_of:
            number += 1
            entries.append(entry(number, lanes))
        everything += [(at, lane) for at, lane in enumerate((lane for lanes in lanes_of for lane in lanes), position)]
        count = sum(len(lanes) for lanes in lanes_of)
        tail.add(position, count, urgent_in(entries), entries)
        position += count
    for lane in Lane:
        after, limit = data.draw(st.integers(0, position)), data.draw(st.integers(1, 500))
        found = tail.after(lane, after, limit)
        of_lane = [at for at, its in everything if its is lane]
        if found is not None:
            assert [stored.position for stored in found] == [at for at in of_lane if at > after][:limit]
            assert all(stored.row.lane == lane and stored.origin == ORIGIN for stored in found)
        newest = tail.after(lane, max(of_lane, default=start), limit)
        assert newest == []  # an output that has come to the end of its lane never needs the disk


def test_what_stood_on_disk_before_the_start_is_not_in_memory() -> None:
    tail = Tail({ORIGIN: 1}, 7)
    tail.add(8, 1, 0, [entry(1, [Lane.NORMAL])])
    assert tail.after(Lane.NORMAL, 6, 10) is None
    assert tail.after(Lane.URGENT, 6, 10) is None
    assert [stored.position for stored in tail.after(Lane.NORMAL, 7, 10) or ()] == [8]


def test_it_is_bounded_and_an_output_far_behind_reads_the_file() -> None:
    tail, urgent = Tail({ORIGIN: 1}, 0), [Lane.URGENT]
    tail.add(1, 1, 1, [entry(0, urgent)])
    for at in range(2, 5000):
        tail.add(at, 1, 0, [entry(at, [Lane.NORMAL])])
    assert tail.after(Lane.NORMAL, 1000, 10) is None
    assert [stored.position for stored in tail.after(Lane.NORMAL, 4990, 3) or ()] == [4991, 4992, 4993]
    assert tail.after(Lane.URGENT, 0, 10) is None  # it was let go of
    assert tail.after(Lane.URGENT, 1, 10) == []


def test_what_came_to_the_disk_in_another_way_is_read_there() -> None:
    tail = Tail({ORIGIN: 1}, 0)
    tail.add(1, 1, 0, [entry(1, [Lane.NORMAL])])
    tail.forget(5)
    assert tail.after(Lane.NORMAL, 4, 10) is None
    assert tail.after(Lane.NORMAL, 5, 10) == []


def test_the_journal_tells_from_memory_what_the_file_tells(tmp_path: Path) -> None:
    async def story() -> None:
        journal = Journal(tmp_path, JournalSettings(), [ORIGIN])
        for number in range(30):
            await journal.append([entry(3 * number + n, [Lane.NORMAL, Lane(n % 2)]) for n in range(3)])
        reader = Reader(tmp_path)
        for lane in Lane:
            assert journal.newest(lane, 0, 500) == reader.after(lane, 0, 500)
            assert journal.newest(lane, 77, 9) == reader.after(lane, 77, 9)
        reader.close()
        await journal.close()

    asyncio.run(story())
