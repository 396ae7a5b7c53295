"""Ordinary events that come close together go together; the first after a pause, and what is urgent, wait for nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.accounts import Accounts
from receiver.outputs import pace
from tests.receiver.test_outputs import Stage, entry


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def _follow(stage: Stage) -> "asyncio.Future[None]":
    running = asyncio.ensure_future(stage.forwarder.run(Accounts({})))
    await stage.journal.append([entry(1)])
    await _until(lambda: stage.target.numbers() == [1])
    return running


async def _end(running: "asyncio.Future[None]") -> None:
    running.cancel()
    await asyncio.wait([running])


def test_what_comes_within_the_moment_goes_together_and_what_is_urgent_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "_MOMENT_SECONDS", 1.0)

    async def story(stage: Stage) -> None:
        running = await _follow(stage)
        for number in (2, 3, 4):
            await stage.journal.append([entry(number)])
        await asyncio.sleep(0.05)
        assert stage.target.numbers() == [1]
        await stage.journal.append([entry(5, urgent=True)])
        await _until(lambda: stage.target.numbers() == [1, 5])
        await _until(lambda: stage.target.numbers() == [1, 5, 2, 3, 4])
        assert stage.target.sizes == [1, 1, 3]
        await _end(running)

    Stage(tmp_path).play(story)


def test_many_do_not_wait_for_the_end_of_the_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_MOMENT_SECONDS", 60.0)

    async def story(stage: Stage) -> None:
        running = await _follow(stage)
        await stage.journal.append([entry(number) for number in range(2, 51)])
        await asyncio.sleep(0.05)
        assert len(stage.target.taken) == 1
        await stage.journal.append([entry(51)])  # as many as the target takes at once
        await _until(lambda: stage.target.numbers() == list(range(1, 52)))
        await _end(running)

    Stage(tmp_path).play(story)


def test_an_output_that_takes_one_at_a_time_never_waits_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_MOMENT_SECONDS", 60.0)

    async def story(stage: Stage) -> None:
        running = await _follow(stage)
        for number in (2, 3, 4):
            await stage.journal.append([entry(number)])
        await _until(lambda: stage.target.numbers() == [1, 2, 3, 4])
        await _end(running)

    stage = Stage(tmp_path)
    stage.target.batch_limit = 1
    stage.play(story)
