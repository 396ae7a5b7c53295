"""Frames whose account is read from the disk: they wait, nobody else does, and each connection keeps its order."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols import dc09
from receiver import aside
from receiver.accounts import Account
from receiver.arrivals import Arrival
from receiver.clock import SECOND_US
from receiver.config import ListenerSettings, SupervisionSettings
from receiver.errors import RegisterUnavailable
from receiver.intervals import Supervision
from receiver.managed import ManagedAccounts, ManagedStore
from receiver.path_watch import PathWatch
from receiver.paths import Paths
from receiver.telemetry import Telemetry
from tests.receiver.test_outputs import Stage, entry
from tests.receiver.test_pipeline import ROUTE, Desk, panel, said
from tests.wire.running import wait_until


class Slow(ManagedStore):
    """A register whose disk answers when it is let; ``broken`` accounts cannot be read."""

    gate = threading.Event()
    read: list[str] = []  # noqa: RUF012 - of all connections
    broken: set[str] = set()  # noqa: RUF012

    def another(self) -> "Slow":
        return Slow(self._file.parent, self._vault)

    def supervised_page(self, after: str) -> list[tuple[str, str, Supervision]]:
        self.gate.wait(10)
        if self.broken:
            raise sqlite3.OperationalError("disk I/O error")
        return super().supervised_page(after)

    def find(self, name: str) -> Account | None:
        self.gate.wait(10)
        self.read.append(name)
        if name in self.broken:
            raise sqlite3.OperationalError("disk I/O error")
        return super().find(name)


class Line:
    """A connection that sends and is answered in order."""

    def __init__(self, room: "Room") -> None:
        self.room = room
        self.owed: list[Arrival] = []
        self.told: list[str] = []

    def send(self, account: str, sequence: str, **more: str) -> None:
        (frame,) = dc09.split_datagram(panel(account, sequence=sequence, **more))
        assert isinstance(frame, dc09.Frame)
        arrival = Arrival(frame, ROUTE, self, 0.0)
        self.owed.append(arrival)
        self.room.desk.pipeline.arrivals.take(arrival)

    def answered(self, arrival: Arrival, now: float) -> None:
        while self.owed and self.owed[0].done:
            self.told.append(said(self.owed.pop(0).reply))

    def let_close(self, ours: bool) -> None:
        """No account here says so."""


class Room:
    """A pipeline over a slow register of the accounts 1000 to 1009."""

    def __init__(self, folder: Path, cached: int = 100) -> None:
        Slow.gate.set()
        Slow.read.clear()
        Slow.broken.clear()
        store = ManagedStore(folder, None)
        rows = [{"account": f"{1000 + n}"} for n in range(10)]
        store.put([*rows, {"account": "77", "dialect": "padded"}, {"account": "88"}], folder)
        store.close()
        self.folder = folder
        self.desk = Desk()
        self.register = ManagedAccounts(Slow(folder, None), None, None, cached)
        self.desk.pipeline.accounts = self.register
        Slow.gate.clear()

    def stored(self) -> list[str]:
        frames = [dc09.split_datagram(row.raw)[0] for row in self.desk.journal.rows]
        envelopes = [dc09.open_envelope(frame) for frame in frames if isinstance(frame, dc09.Frame)]
        return [f"{envelope.address.account} {envelope.sequence}" for envelope in envelopes]


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    Slow.gate.set()
    made.register.close()


async def turns(count: int = 5) -> None:
    """Let the loop go round."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until_told(*lines: Line) -> None:
    async with asyncio.timeout(10):
        while any(line.owed for line in lines):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def test_while_one_account_is_read_all_others_are_answered(room: Room) -> None:
    async def story() -> None:
        slow, known = Line(room), Line(room)
        Slow.gate.set()
        known.send("1000", "0001")
        await until_told(known)
        Slow.gate.clear()
        slow.send("1001", "0001")
        await turns()
        for number in range(2, 6):
            known.send("1000", f"{number:04d}")
            await turns()
        assert (known.told, slow.told) == (["ACK"] * 5, [])
        Slow.gate.set()
        await until_told(slow)
        assert slow.told == ["ACK"]

    asyncio.run(story())
    assert room.stored() == ["1000 0001", *[f"1000 {n:04d}" for n in range(2, 6)], "1001 0001"]


def test_what_a_panel_sends_while_its_account_is_read_is_stored_in_the_order_it_came(room: Room) -> None:
    async def story() -> None:
        line, other = Line(room), Line(room)
        Slow.gate.set()
        line.send("1000", "0000")
        await until_told(line)
        Slow.gate.clear()
        line.send("1001", "0001")
        line.send("1000", "0002")  # in memory, and behind the other all the same
        await turns()
        other.send("1001", "0003")
        line.send("1002", "0004")
        line.send("9999", "0005")
        line.send("1001", "0006", token="NULL", data="")
        await turns()
        Slow.gate.set()
        await until_told(line, other)
        assert (line.told, other.told) == (["ACK", "ACK", "ACK", "ACK", "silence", "ACK"], ["ACK"])

    asyncio.run(story())
    stored = room.stored()
    assert [name for name in stored if not name.startswith("1001 0003")] == [
        "1000 0000",
        "1001 0001",
        "1000 0002",
        "1002 0004",
    ]
    assert stored.index("1001 0001") < stored.index("1001 0003")
    assert [refusal.reason for refusal in room.desk.journal.refusals] == ["unknown-account"]


def test_each_account_is_read_once_and_strangers_and_padded_ones_too(room: Room) -> None:
    async def story() -> None:
        lines = [Line(room) for _ in range(30)]
        Slow.gate.set()
        for turn in range(3):
            for number, line in enumerate(lines):
                line.send(("1001", "0077", "9999", "0088")[number % 4], f"{turn:02}{number:02}")
            await until_told(*lines)

    asyncio.run(story())
    assert sorted(Slow.read) == ["0077", "0088", "1001", "77", "88", "9999"]
    texts = {refusal.text for refusal in room.desk.journal.refusals}
    assert texts == {
        "account 9999 is not registered", "account 0088 is not registered; fits account 88 with dialect padded"
    }  # fmt: skip


def test_more_accounts_than_memory_holds_are_all_answered(tmp_path: Path) -> None:
    room = Room(tmp_path, cached=2)

    async def story() -> None:
        lines = [Line(room) for _ in range(10)]
        Slow.gate.set()
        for number, line in enumerate(lines):
            line.send(f"{1000 + number}", "0001")
        await until_told(*lines)
        assert [line.told for line in lines] == [["ACK"]] * 10

    asyncio.run(story())
    room.register.close()


def test_an_account_changed_while_it_was_read_is_read_again(room: Room) -> None:
    async def story() -> None:
        line = Line(room)
        line.send("1001", "0001")
        await turns()
        store = ManagedStore(room.folder, None)
        store.change("1001", lambda row: (row or {}) | {"name": "new"})
        store.close()
        assert room.register.refresh() == {"1001"}
        Slow.gate.set()
        await until_told(line)
        assert line.told == ["ACK"]
        assert room.register.known("1001").name == "new"

    asyncio.run(story())
    assert Slow.read == ["1001", "1001"]


def test_what_cannot_be_read_is_refused_and_asked_for_again(room: Room) -> None:
    async def story() -> None:
        line = Line(room)
        Slow.gate.set()
        Slow.broken.add("1001")
        for number in range(3):
            line.send("1001", f"000{number}")
        line.send("1000", "0003")
        await until_told(line)
        Slow.broken.clear()
        line.send("1001", "0004")
        await until_told(line)
        assert line.told == ["silence"] * 3 + ["ACK", "ACK"]

    asyncio.run(story())
    assert {refusal.reason for refusal in room.desk.journal.refusals} == {"register-unavailable"}


def test_a_disk_that_hangs_holds_nobody_for_long_and_who_is_in_memory_is_served(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "PATIENCE_SECONDS", 0.05)

    async def story() -> None:
        slow, known, late = Line(room), Line(room), Line(room)
        Slow.gate.set()
        known.send("1000", "0001")
        await until_told(known)
        Slow.gate.clear()
        slow.send("1001", "0001")
        slow.send("1000", "0002")
        await until_told(slow)  # the patience is over
        late.send("1002", "0001")
        late.send("9999", "0002")
        known.send("1000", "0003")
        await turns()
        assert (slow.told, late.told, known.told) == (["silence", "ACK"], ["silence", "silence"], ["ACK", "ACK"])
        with pytest.raises(RegisterUnavailable, match="has not answered"):
            room.register.refresh()
        Slow.gate.set()
        async with asyncio.timeout(10):
            while room.register._desperate:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert room.register.refresh() == ()
        for line, account in ((slow, "1001"), (late, "1002")):
            line.send(account, "0009")
        await until_told(slow, late)
        assert (slow.told[-1], late.told[-1]) == ("ACK", "ACK")

    asyncio.run(story())


@pytest.mark.parametrize("hangs", [False, True])
def test_another_register_in_the_meantime_is_asked_anew(room: Room, hangs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if hangs:
        monkeypatch.setattr(aside, "PATIENCE_SECONDS", 0.05)

    async def story() -> None:
        if hangs:
            first = Line(room)
            first.send("1002", "0001")
            await until_told(first)
            assert first.told == ["silence"]
            room.desk.pipeline.accounts = ManagedAccounts(ManagedStore(room.folder, None), None, None, 10)
            first.send("1002", "0001")
            await until_told(first)
            assert first.told == ["silence", "ACK"]
            room.desk.pipeline.accounts.close()
            return
        line = Line(room)
        line.send("1001", "0001")
        await turns()
        room.desk.pipeline.accounts = ManagedAccounts(ManagedStore(room.folder, None), None, None, 10)
        room.register.close()
        Slow.gate.set()
        await until_told(line)
        assert line.told == ["ACK"]
        room.desk.pipeline.accounts.close()

    asyncio.run(story())


def test_who_is_supervised_is_read_in_turns_and_the_watch_goes_on_meanwhile(room: Room) -> None:
    store = ManagedStore(room.folder, None)
    store.put([{"account": f"{n:05d}", "supervision_seconds": "60"} for n in range(6000)], room.folder)
    store.close()
    paths = Paths()
    watch = PathWatch(
        paths, SupervisionSettings(), [ListenerSettings()], room.folder, Telemetry(), lambda *_: None, lambda *_: None
    )
    watch.begin(room.register, 0, 0)
    for second in (1, 2):
        watch.look(second * SECOND_US, second * SECOND_US)
        assert paths.count()["never-seen"] == 0  # the disk has not answered, and the look is over
    Slow.gate.set()
    found = room.register.expectations_in_turns()
    supervised = [account for expected in found if expected is not None for account in expected[:1]]
    assert supervised == sorted(supervised)
    assert len(supervised) == 6000

    def all_awaited() -> bool:
        watch.look(3 * SECOND_US, 3 * SECOND_US)
        return paths.count()["never-seen"] == 6000

    wait_until(all_awaited)
    Slow.broken.add("")
    with pytest.raises(RegisterUnavailable, match="disk I/O error"):
        list(room.register.expectations_in_turns())


def test_an_output_waits_for_an_account_on_the_disk_and_the_loop_does_not(room: Room) -> None:
    async def story(stage: Stage) -> None:
        await stage.journal.append([entry(1, account="1001"), entry(2, account="1002")])
        turned = 0

        def done() -> bool:
            nonlocal turned
            turned += 1
            if turned == 5:  # the loop has gone round while the disk did not answer
                assert stage.target.taken == []
                Slow.gate.set()
            return len(stage.target.taken) == 2

        await stage.forward(done, room.register)
        assert [event.entry.registered for event in stage.target.taken] == [True, True]

    Stage(room.folder / "journal").play(story)
    assert Slow.read == ["1001", "1002"]


def test_an_output_tries_again_where_the_register_cannot_be_read(room: Room) -> None:
    async def story(stage: Stage) -> None:
        Slow.gate.set()
        Slow.broken.add("1001")
        await stage.journal.append([entry(1, account="1001")])

        def done() -> bool:
            if len(Slow.read) > 1:
                Slow.broken.clear()
            return bool(stage.target.taken)

        await stage.forward(done, room.register)

    Stage(room.folder / "journal").play(story)
    assert len(Slow.read) >= 3
