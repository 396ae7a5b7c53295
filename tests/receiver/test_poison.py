"""An event at which the other side fails each time: found out by what else gets through, and never taken for an outage."""

import asyncio
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import pytest

from receiver.accounts import Accounts
from receiver.errors import DeliveryError, FailedAtEvent
from receiver.events import OutEvent
from receiver.journal import DEAD, Lane
from receiver.outputs import forwarder
from receiver.outputs.poison import Patience
from tests.receiver.test_outputs import Stage, entry


def at(position: int, events: Sequence[OutEvent]) -> DeliveryError | None:
    """Fail where a batch holds the event at a position; what stands before it was taken."""
    for number, event in enumerate(events):
        if event.stored.position == position:
            return FailedAtEvent("the connection broke", number)
    return None


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "_LONGEST_RETRY_SECONDS", 0.05)


_NUMBERS = count(1)  # every message is another


async def store(stage: Stage, *accounts: str, urgent: bool = False) -> None:
    for account in accounts:
        await stage.journal.append([entry(next(_NUMBERS), urgent, account)])


def drained(stage: Stage, taken: int) -> bool:
    """Whether so many were taken and nothing waits, cursors and dead letters settled too."""
    waits = any(cursor.waiting for cursor in stage.forwarder.cursors.values())
    return len(stage.target.taken) == taken and not waits


def dead(stage: Stage) -> list[int]:
    return [stored.position for letter, stored in stage.reader.letters("bus") if letter.state == DEAD]


@pytest.mark.parametrize("batch_limit", [1, 50])
@pytest.mark.parametrize("max_tries", [1, 3])
def test_an_event_at_which_the_link_breaks_each_time_becomes_a_dead_letter_and_the_rest_goes_on(
    tmp_path: Path, batch_limit: int, max_tries: int
) -> None:
    async def story(stage: Stage) -> None:
        stage.target.batch_limit = batch_limit
        stage.target.fails = lambda events: at(7, events)
        await store(stage, *[f"{n % 4:04d}" for n in range(20)])
        await stage.forward(lambda: drained(stage, 19))
        assert dead(stage) == [7]
        assert stage.telemetry.delivered["bus"] == 19
        assert sorted(stage.target.numbers()) == [n for n in range(1, 21) if n != 7]
        for account in range(4):
            mine = [event.stored.position for event in stage.target.taken if event.account == f"{account:04d}"]
            assert mine == sorted(mine)
        assert [trouble.reason for trouble in stage.troubles] == ["dead-letter"]
        assert "while it takes others: the connection broke" in stage.troubles[0].text

    Stage(tmp_path, max_tries=max_tries).play(story)


def test_a_duress_at_which_the_link_breaks_is_told_loudly_and_ordinary_ones_show_that_it_is_its_fault(
    tmp_path: Path,
) -> None:
    async def story(stage: Stage) -> None:
        stage.target.batch_limit = 1
        await store(stage, "1111", "2222", "3333")
        await store(stage, "4444", urgent=True)
        stage.target.fails = lambda events: at(4, events)
        await stage.forward(lambda: drained(stage, 3))
        assert dead(stage) == [4]
        assert "a DURESS at position 4" in stage.troubles[0].text

    Stage(tmp_path, max_tries=3).play(story)


def test_while_nothing_gets_through_nothing_is_condemned_and_all_comes_in_order_later(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.target.fails = lambda _events: FailedAtEvent("the connection broke")
        await store(stage, *[f"{n % 3:04d}" for n in range(12)])
        await store(stage, "0001", urgent=True)
        await stage.forward(lambda: len(stage.target.sizes) >= 12)
        assert (dead(stage), stage.target.taken) == ([], [])
        stage.target.fails = lambda _events: None
        await stage.forward(lambda: drained(stage, 13))
        assert stage.target.numbers() == [13, *range(1, 13)]
        assert dead(stage) == []

    Stage(tmp_path, max_tries=1).play(story)


def test_a_link_that_breaks_after_every_few_events_condemns_none(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.target.batch_limit = 3

        def flap(_events: Sequence[OutEvent]) -> DeliveryError | None:
            return FailedAtEvent("the connection broke") if len(stage.target.sizes) % 3 == 0 else None

        stage.target.fails = flap
        await store(stage, *[f"{n % 3:04d}" for n in range(30)])
        await stage.forward(lambda: drained(stage, 30))
        assert sorted(stage.target.numbers()) == list(range(1, 31))
        for account in range(3):
            mine = [event.stored.position for event in stage.target.taken if event.account == f"{account:04d}"]
            assert mine == sorted(mine)
        assert dead(stage) == []

    Stage(tmp_path, max_tries=1).play(story)


def test_a_server_that_cannot_be_had_again_and_again_in_between_condemns_none(tmp_path: Path) -> None:
    """The event is in hand at one break; what else fails before others are taken is that the server is away."""

    async def story(stage: Stage) -> None:
        stage.target.batch_limit = 1
        errors = iter([FailedAtEvent("broke"), *[DeliveryError("away")] * 4])
        stage.target.fails = lambda _events: next(errors, None)
        await store(stage, "0001", "0002", "0003")
        await stage.forward(lambda: drained(stage, 3))
        assert dead(stage) == []

    Stage(tmp_path, max_tries=1).play(story)


def test_behind_the_same_account_alone_nothing_is_tried_until_another_reports(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.target.batch_limit = 1
        stage.target.fails = lambda events: at(1, events)
        await store(stage, *["0001"] * 4)
        await stage.forward(lambda: len(stage.target.sizes) >= 5)
        assert (dead(stage), stage.target.taken) == ([], [])
        await store(stage, "0002", "0003")
        await stage.forward(lambda: drained(stage, 5))
        assert dead(stage) == [1]
        assert stage.target.numbers() == [5, 6, 2, 3, 4]

    Stage(tmp_path, max_tries=1).play(story)


def test_an_event_tried_in_place_of_the_suspect_and_not_taken_keeps_its_place_in_its_account(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.target.batch_limit = 1
        stage.target.fails = lambda events: at(1, events) or at(2, events)
        await store(stage, "0001", "0002", "0002", "0003", "0004", "0003", "0002", "0001")
        await stage.forward(lambda: drained(stage, 6))
        assert sorted(dead(stage)) == [1, 2]
        for account in ("0002", "0003"):
            mine = [event.stored.position for event in stage.target.taken if event.account == account]
            assert mine == sorted(mine)

    Stage(tmp_path, max_tries=1).play(story)


def test_a_dead_letter_that_breaks_the_link_once_more_lies_dead_again_and_holds_up_nobody(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.target.batch_limit = 1
        stage.target.fails = lambda events: at(1, events)
        await store(stage, "0001", "0002", "0003")
        await stage.forward(lambda: drained(stage, 2))
        assert dead(stage) == [1]
        await stage.forwarder.dead_letters.recall([1])
        await store(stage, "0004")
        await stage.forward(lambda: drained(stage, 3))
        assert dead(stage) == [1]
        await stage.forwarder.dead_letters.recall([1])
        stage.target.fails = lambda _events: None
        await stage.forward(lambda: drained(stage, 4) and not dead(stage))

    Stage(tmp_path, max_tries=2).play(story)


def test_our_own_event_told_directly_is_tried_so_often_and_then_comes_from_the_journal_alone(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await store(stage, "0001", "0002")
        stored = stage.reader.after(Lane.NORMAL, 0, 1)[0]
        stage.forwarder.tell_directly(stored)
        direct = list[int]()

        def fail(events: Sequence[OutEvent]) -> DeliveryError | None:
            direct.append(len(events))
            return FailedAtEvent("broke") if len(direct) <= 3 else None

        stage.target.fails = fail
        await stage.forward(lambda: drained(stage, 2))
        assert direct == [1, 1, 1, 2]

    Stage(tmp_path, max_tries=3).play(story)


def test_patience_counts_only_failures_with_the_event_in_hand() -> None:
    patience = Patience(2)
    broke, away = FailedAtEvent("broke"), DeliveryError("away")
    assert [patience.is_over(7, error) for error in (broke, away, broke)] == [False, False, True]
    assert not patience.is_over(8, broke)
    patience.begin()
    assert not patience.is_over(8, broke)


def test_order_of_tries_is_suspect_another_suspect_another_suspect(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        stage.target.batch_limit = 1
        tried = list[int]()

        def fail(events: Sequence[OutEvent]) -> DeliveryError | None:
            tried.append(events[0].stored.position)
            return at(1, events)

        stage.target.fails = fail
        await store(stage, "0001", "0002", "0003", "0004")
        running = asyncio.ensure_future(stage.forwarder.run(Accounts({})))
        async with asyncio.timeout(20):
            while len(tried) < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        running.cancel()
        await asyncio.wait([running])
        assert tried[:6] == [1, 2, 1, 3, 1, 4]

    Stage(tmp_path, max_tries=3).play(story)
