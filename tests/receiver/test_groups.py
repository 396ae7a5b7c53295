"""A commit's messages in one row: what was packed comes back, and an altered byte is never taken for a message."""

import random
from itertools import pairwise

import pytest

from receiver.journal import Entry
from receiver.journal.groups import MOST_BYTES, PART_MESSAGES, Group, is_whole, pack, unpack

START = 1_790_000_000_000_000


def entry(number: int, events: int = 1, size: int = 80, urgent: bool = False) -> Entry:
    raw = random.Random(number).randbytes(size)
    told = ((0, 1, 1) if urgent else (1, 5, 0),) * events
    return Entry(0, b"%016d" % number, START + number, -5, 1, "é", "late", raw, None if number % 2 else b"clear", told)


def opened(group: Group) -> list[tuple[int, Entry]]:
    messages, holes = unpack(group.last, group.first, group.parts, group.content)
    assert holes == []
    return messages


def test_messages_come_back_as_they_were_at_their_positions() -> None:
    entries = [entry(n, events=1 + n % 3, urgent=n % 7 == 0) for n in range(50)]
    (group,) = pack(1001, entries)
    messages = opened(group)
    assert [found for _, found in messages] == entries
    position = 1001
    for at, found in messages:
        assert at == position
        position += len(found.events)
    assert (group.first, group.last, group.received_us) == (1001, position - 1, START + 49)
    assert group.urgent == sum(len(e.events) for n, e in enumerate(entries) if n % 7 == 0)
    assert is_whole(group.last, group.first, group.parts, group.content)


def test_a_large_commit_is_several_rows_of_bounded_size_without_a_gap() -> None:
    entries = [entry(n, size=4100) for n in range(200)] + [entry(n) for n in range(200, 20_000)]
    groups = pack(7, entries)
    assert len(groups) > 20
    assert max(len(group.content) for group in groups) <= MOST_BYTES + PART_MESSAGES * 4300
    assert [found for group in groups for _, found in opened(group)] == entries
    assert groups[0].first == 7
    assert all(one.last + 1 == other.first for one, other in pairwise(groups))


def test_a_message_of_many_events_is_stored_once() -> None:
    (group,) = pack(1, [entry(1, events=1990, size=4096)])
    assert (group.first, group.last) == (1, 1990)
    assert len(group.content) < 4096 + 1990 * 4 + 200


@pytest.mark.parametrize("seed", range(30))
def test_an_altered_byte_costs_its_part_and_is_never_taken_for_a_message(seed: int) -> None:
    chance = random.Random(seed)
    entries = [entry(n, events=1 + n % 2) for n in range(100)]
    (group,) = pack(500, entries)
    sound = dict(opened(group))
    for _ in range(20):
        parts, content = bytearray(group.parts), bytearray(group.content)
        where = chance.choice([parts, content])
        where[chance.randrange(len(where))] ^= 1 << chance.randrange(8)
        messages, holes = unpack(group.last, group.first, bytes(parts), bytes(content))
        assert all(sound[position] == found for position, found in messages)
        assert holes
        assert not is_whole(group.last, group.first, bytes(parts), bytes(content))
        if where is content:
            lost = sum(last - first + 1 for first, last in holes)
            assert lost <= 2 * PART_MESSAGES
            assert lost + sum(len(found.events) for _, found in messages) == group.last - group.first + 1


def test_content_that_is_cut_short_gives_what_is_whole() -> None:
    entries = [entry(n) for n in range(100)]
    (group,) = pack(1, entries)
    messages, holes = unpack(group.last, group.first, group.parts, group.content[: len(group.content) // 2])
    assert [found for _, found in messages] == entries[: len(messages)]
    assert len(messages) == 48
    assert holes == [(49, 100)]


def test_a_group_at_another_place_is_not_taken_for_that_place() -> None:
    (group,) = pack(1, [entry(n) for n in range(20)])
    assert unpack(group.last + 100, group.first + 100, group.parts, group.content).messages == []
