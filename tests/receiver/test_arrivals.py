"""Frames of one turn of the loop share their story; each gets its own reply, in the order its connection sent them."""

import asyncio
from collections.abc import Sequence

import pytest

from protocols import dc09
from receiver import arrivals as arrivals_module
from receiver import clock, payloads
from receiver.accounts import Account
from receiver.arrivals import Arrival, Arrivals
from receiver.errors import JournalUnavailable
from receiver.journal import Entry, Receipt
from receiver.tables import Table
from tests.receiver.test_pipeline import KEY, NOW, ROUTE, Desk, FakeJournal, panel, said


class Reader:
    """Takes replies and keeps them."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def answered(self, arrival: Arrival, now: float) -> None:
        self.told.append(said(arrival.reply))

    def let_close(self, ours: bool) -> None:
        raise AssertionError("no account here has a dialect")


class SlowJournal(FakeJournal):
    """Stores when it is let, as a disk does."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.gate = asyncio.Event()

    async def append(self, entries: Sequence[Entry]) -> list[Receipt | JournalUnavailable]:
        self.calls.append(len(entries))
        await self.gate.wait()
        return await super().append(list(entries))


def _arrival(raw: bytes, reader: Reader) -> Arrival:
    (frame,) = dc09.split_datagram(raw)
    assert isinstance(frame, dc09.Frame)
    return Arrival(frame, ROUTE, reader, 0.0)


def _desk() -> tuple[Desk, SlowJournal]:
    desk, journal = Desk(), SlowJournal()
    desk.pipeline._journal = journal  # type: ignore[assignment]
    return desk, journal


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_frames_of_one_turn_wait_for_one_append() -> None:
    async def story() -> None:
        (desk, journal), reader = _desk(), Reader()
        for number in range(1, 41):
            desk.pipeline.arrivals.take(_arrival(panel(sequence=f"{number:04d}"), reader))
        await _turns()
        assert journal.calls == [40]
        assert reader.told == []
        journal.gate.set()
        await _turns()
        assert reader.told == ["ACK"] * 40

    asyncio.run(story())


def test_a_frame_that_comes_while_the_disk_works_is_judged_and_handed_on_at_once() -> None:
    async def story() -> None:
        (desk, journal), reader = _desk(), Reader()
        for sequence in ("0001", "0002"):
            desk.pipeline.arrivals.take(_arrival(panel(sequence=sequence), reader))
            await _turns()
        assert journal.calls == [1, 1]
        journal.gate.set()
        await _turns()
        assert reader.told == ["ACK", "ACK"]

    asyncio.run(story())


def test_refusals_and_link_tests_do_not_wait_for_the_disk() -> None:
    async def story() -> None:
        (desk, journal), reader = _desk(), Reader()
        stale = panel("5678", key=KEY, panel_time=NOW - 900)
        for raw in (panel(), panel(token="NULL"), stale, panel(token="XYZ"), panel("FFFF")):
            desk.pipeline.arrivals.take(_arrival(raw, reader))
        await _turns()
        assert reader.told == ["ACK", "NAK", "DUH", "silence"]
        journal.gate.set()
        await _turns()
        assert reader.told[4:] == ["ACK"]

    asyncio.run(story())


def test_what_is_not_stored_is_not_acknowledged_and_takes_no_other_frame_with_it() -> None:
    class Full(FakeJournal):
        def _append(self, entry: Entry) -> Receipt | JournalUnavailable:
            return JournalUnavailable("no room") if len(self.rows) >= 2 else super()._append(entry)

    async def story() -> None:
        desk, reader = Desk(), Reader()
        desk.pipeline._journal = Full()  # type: ignore[assignment]
        for sequence in ("0001", "0002", "0003", "0001"):
            desk.pipeline.arrivals.take(_arrival(panel(sequence=sequence), reader))
        await _turns()
        assert reader.told == ["ACK", "ACK", "silence", "silence"]

    asyncio.run(story())


@pytest.mark.parametrize("where", ["before the disk", "after the disk", "at the disk"])
def test_our_own_bug_leaves_frames_unanswered_but_never_in_hand(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        (desk, journal), reader, told = _desk(), Reader(), list[str]()
        monkeypatch.setattr(desk.telemetry, "crashed", lambda _where, error: told.append(str(error)))
        desk.pipeline.accounts._rows = Table({"1234": Account("1234"), "BAD": Account("BAD")})
        if where == "before the disk":
            decode = payloads.decode
            bad = ValueError("our bug")

            def broken(message: dc09.Message, dialect: str = "") -> tuple[payloads.Event, ...]:
                if message.envelope.address.account == "BAD":
                    raise bad
                return decode(message, dialect)

            monkeypatch.setattr(payloads, "decode", broken)
        elif where == "after the disk":

            def no_telling(**fields: object) -> None:
                if fields["account"] == "BAD":
                    raise ValueError("our bug")

            monkeypatch.setattr(desk.telemetry, "stored_signal", no_telling)
        else:
            monkeypatch.setattr(journal, "append", None)
        for raw in (panel("BAD"), panel(), panel(token="NULL")):
            desk.pipeline.arrivals.take(_arrival(raw, reader))
        journal.gate.set()
        await _turns()
        expected = ["ACK", "silence", "silence"] if where == "at the disk" else ["ACK", "ACK", "silence"]
        assert sorted(reader.told) == expected
        assert len(told) == expected.count("silence")

    asyncio.run(story())


def test_a_turn_says_when_it_has_enough_to_do() -> None:
    async def nothing(arrivals: Sequence[Arrival]) -> None:
        handled.append(len(arrivals))

    async def story() -> None:
        arrivals, reader = Arrivals(nothing, lambda _arrivals, _error: None), Reader()
        for _ in range(500):
            assert not arrivals.many
            arrivals.take(_arrival(panel(), reader))
        assert arrivals.many
        await _turns()
        assert handled == [500]
        assert not arrivals.many

    handled: list[int] = []
    asyncio.run(story())


# -- a storm of link tests -------------------------------------------------------------------------------------------------


class Storm:
    """Link tests and signals by number, and which were handled together."""

    def __init__(self) -> None:
        self.handled: list[list[str]] = []
        self.arrivals = Arrivals(self._handle, lambda _arrivals, _error: None)

    async def _handle(self, arrivals: Sequence[Arrival]) -> None:
        self.handled.append([f"{arrival.panel}" for arrival in arrivals])

    def take(self, token: str, count: int, first: int = 0) -> None:
        """Take frames that come now; each is told by its token and number."""
        raw = _arrival(panel(token=token), Reader()).frame
        for number in range(first, first + count):
            self.arrivals.take(Arrival(raw, ROUTE, f"{token} {number}", clock.monotonic()))  # type: ignore[arg-type]

    @property
    def counts(self) -> list[int]:
        """How many were handled together each time."""
        return [len(together) for together in self.handled]


@pytest.mark.parametrize("token", ["NULL", "*NULL"])
def test_a_signal_overtakes_many_link_tests_that_were_read_before_it(token: str) -> None:
    async def story() -> None:
        storm = Storm()
        storm.take("NULL", 1000)
        storm.take("ADM-CID", 1)
        await _turns(1)
        assert storm.handled == [["ADM-CID 0"]]
        storm.take("ADM-CID", 1, first=1)
        await _turns(20)
        assert storm.handled[1] == ["ADM-CID 1"]
        assert storm.counts[2:] == [256] * 3 + [232]
        assert [name for some in storm.handled[2:] for name in some] == [f"NULL {number}" for number in range(1000)]
        assert storm.arrivals.tests_waiting == 0

    sealed = dc09.wrap(b'"*NULL"0000L0#5678[' + b"00" * 32)
    assert dc09.is_link_test(_arrival(sealed if token == "*NULL" else panel(token=token), Reader()).frame)
    asyncio.run(story())


def test_few_frames_are_handled_as_they_came() -> None:
    async def story() -> None:
        storm = Storm()
        storm.take("NULL", 254)
        storm.take("ADM-CID", 1)
        await _turns(3)
        assert storm.counts == [255]
        assert storm.handled[0][-1] == "ADM-CID 0"

    asyncio.run(story())


def test_link_tests_wait_half_a_second_at_most_while_more_and_more_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        storm, now = Storm(), 100.0
        monkeypatch.setattr(clock, "monotonic", lambda: now)
        storm.take("NULL", 300)
        for _ in range(10):
            storm.take("ADM-CID", 256)
            await _turns(1)
        assert storm.counts == [256] * 10
        now += 0.6
        storm.take("ADM-CID", 256)
        await _turns(1)
        assert storm.counts == [256] * 11 + [32]

    asyncio.run(story())


def test_no_more_link_tests_wait_than_there_is_memory_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        storm = Storm()
        for number in range(5):
            storm.take("NULL", 300, first=300 * number)
            await _turns(1)
            assert storm.arrivals.tests_waiting <= 400
        assert [name for some in storm.handled for name in some] == [f"NULL {number}" for number in range(1100)]

    monkeypatch.setattr(arrivals_module, "_TESTS_KEPT", 400)
    asyncio.run(story())


def test_heavy_senders_wait_for_link_tests_that_wait() -> None:
    async def story() -> None:
        storm = Storm()
        storm.take("NULL", 600)
        await _turns(1)
        assert storm.arrivals.many
        await _turns(5)
        assert not storm.arrivals.many

    asyncio.run(story())
