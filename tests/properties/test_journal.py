"""The journal against a small model, with the process lost between any two steps.

A crash is a copy of the files taken while the writer may be in the middle of a commit; what is opened next is the copy. What
was acknowledged before is there, once, in order; what was not may be there or not, and then never twice.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from receiver.config import JournalSettings
from receiver.errors import JournalUnavailable
from receiver.journal import Entry, Journal, Lane, Origin, Reader, Receipt, writer

START = 1_790_000_000_000_000
ORIGIN = Origin("1", "1", "main", "tcp")
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - the disk itself has no part in this


@pytest.fixture(autouse=True, scope="module")
def _many_checkpoints() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "_LOG_PAGES", 8)
        yield


class JournalMachine(RuleBasedStateMachine):
    """One journal and what the model knows of it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(prefix="journal-", dir=MEMORY))
        self.lives = 0
        self.loop = asyncio.new_event_loop()
        self.acknowledged: dict[bytes, int] = {}  # identity to position
        self.waiting: list[tuple[bytes, asyncio.Task[Receipt]]] = []
        self.handed_over = 0

    @initialize()
    def begin(self) -> None:
        self.folder = self.base / "0"
        self._open()

    def _open(self) -> None:
        async def make() -> None:
            self.journal = Journal(self.folder, JournalSettings(), [ORIGIN], lambda: START)
            self.cursor = self.journal.cursor("out", Lane.NORMAL)

        self.loop.run_until_complete(make())

    @rule(name=st.integers(0, 12), events=st.integers(1, 3))
    def report(self, name: int, events: int) -> None:
        """A panel reports; some report the same message again."""
        identity = b"message %d" % name
        entry = Entry(0, identity, START, None, 1, "p", "", b"raw", None, ((1, 5, 0),) * events)
        self.waiting.append((identity, self.loop.create_task(self._append(entry))))

    async def _append(self, entry: Entry) -> Receipt:
        (outcome,) = await self.journal.append([entry])
        if isinstance(outcome, JournalUnavailable):
            raise outcome
        return outcome

    @rule(turns=st.integers(1, 4))
    def go_on(self, turns: int) -> None:
        """The loop turns a little; commits may begin or end."""
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))
        self._note()

    @rule()
    def settle(self) -> None:
        """Everybody gets an answer."""
        if self.waiting:
            self.loop.run_until_complete(asyncio.wait([task for _, task in self.waiting]))
        self._note()

    @rule()
    def hand_over(self) -> None:
        """The output takes what there is."""
        reader = Reader(self.folder)
        found = reader.after(Lane.NORMAL, self.cursor.position, 5)
        reader.close()
        if found:
            self.cursor.advance(found[-1].position, len(found))
            self.journal.save(self.cursor)
            self.handed_over = found[-1].position

    @rule(name=st.integers(0, 12), turns=st.integers(0, 6))
    def lose_the_folder_for_a_while(self, name: int, turns: int) -> None:
        """The volume goes and comes back, perhaps in the middle of a commit: what was written to it meanwhile is found."""
        away = self.base / "away"
        self.folder.rename(away)
        self.report(name, 2)
        self.go_on(turns)
        away.rename(self.folder)
        self.loop.run_until_complete(self._recover())
        self.settle()

    async def _recover(self) -> None:
        async with asyncio.timeout(20):
            while self.journal.busy_seconds or self.journal.failure is not None:
                self.journal.flush()
                await asyncio.sleep(0)

    def _note(self) -> None:
        for identity, task in [entry for entry in self.waiting if entry[1].done()]:
            if isinstance(task.exception(), JournalUnavailable):
                continue
            receipt = task.result()
            if identity in self.acknowledged:
                assert receipt == Receipt(self.acknowledged[identity], True)
            self.acknowledged[identity] = receipt.position
        self.waiting = [entry for entry in self.waiting if not entry[1].done()]

    @rule()
    def crash(self) -> None:
        """The process is lost; the next one finds the files as they were."""
        self._note()
        self.lives += 1
        copy = self.base / str(self.lives)
        copy.mkdir()
        for file in sorted(self.folder.glob("journal.sqlite*")):  # the file first, then its log
            if not file.name.endswith("-shm"):
                shutil.copy(file, copy / file.name)
        self._drop()
        self.folder = copy
        self._open()
        assert self.cursor.position <= max(self.handed_over, 0) or self.cursor.position == 0

    def _drop(self) -> None:
        for _, task in self.waiting:
            task.cancel()
        with contextlib.suppress(JournalUnavailable):
            self.loop.run_until_complete(self.journal.close())
        self.waiting = []

    @invariant()
    def acknowledged_is_there_once_and_in_order(self) -> None:
        if not hasattr(self, "journal"):
            return
        assert self.journal.damage is None
        reader = Reader(self.folder)
        found = [(s.row.identity, s.position) for s in reader.all() if s.row.number == 0]
        reader.close()
        identities = [identity for identity, _ in found]
        assert len(identities) == len(set(identities))
        assert self.acknowledged.items() <= dict(found).items()
        assert [position for _, position in found] == sorted(position for _, position in found)

    def teardown(self) -> None:
        if hasattr(self, "journal"):
            self._drop()
        self.loop.close()
        shutil.rmtree(self.base)


TestJournal = JournalMachine.TestCase
TestJournal.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
