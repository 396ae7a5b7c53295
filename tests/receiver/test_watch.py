"""What a technician on the phone is told."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols import dc09, errors
from receiver import clock, sightings
from receiver.accounts import Account, Accounts
from receiver.config import JournalSettings
from receiver.errors import PolicyError
from receiver.journal import Entry, Journal, Kind, Origin, Reader, Refusal
from receiver.sightings import Heard, Order, Sightings
from receiver.watch import ADVICE, Sought, Watch
from tests.test_docs import _leaves

NOW = 1_790_000_000 * clock.SECOND_US
ACCOUNT = Sought("AB12")
REGISTER = Accounts({"AB12": Account("ab12")})


def signal(account: str, number: int, at_us: int = NOW, flags: str = "", data: str = "1130 01 001") -> Entry:
    raw = dc09.encode("ADM-CID", f"{number:04}", dc09.Address(None, "0", account), f"#{account}|{data}".encode())
    return Entry(0, bytes([number]) * 16, at_us, None, 1, "192.0.2.7:1", flags, raw, None, ((1, 5, 0),))


def refusal(reason: str, account: str | None, raw: bytes = b"\n\x1b[2J", peer: str = "192.0.2.9:2") -> Refusal:
    return Refusal(NOW, reason, "why it was", account, "main", "tcp", peer, raw)


class Room:
    """A journal of a few lines, and somebody who watches it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store([signal("AB12", 1), signal("9999", 2)], [refusal("bad-crc", "AB12"), refusal("bad-crc", "9999")])
        self.reader = Reader(folder)

    def store(self, entries: list[Entry], refusals: list[Refusal]) -> None:
        async def story() -> None:
            journal = Journal(self.folder, JournalSettings(), [Origin("1", "1", "main", "tcp")])
            for refused in refusals:
                journal.refuse(refused)
            for entry in entries:
                await journal.append([entry])
            await journal.close()

        asyncio.run(story())

    def watch(self, sought: Sought = ACCOUNT, raw: bool = False) -> Watch:
        return Watch(self.reader, REGISTER, sought, raw, NOW)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    made = Room(tmp_path)
    yield made
    made.reader.close()


def test_only_what_is_new_of_the_account_is_told_in_order_with_what_to_change(room: Room) -> None:
    watch = room.watch()
    assert watch.lines(NOW) == []
    later = refusal("stale-timestamp", "ab12")._replace(received_us=NOW + 2)
    room.store([signal("ab12", 3, NOW + 1, "unregistered plaintext"), signal("9999", 4)], [later, refusal("bad-crc", "1")])
    told = watch.lines(NOW)
    assert [line.split()[1] for line in told if not line.startswith(" ")] == ["TAKEN", "REFUSED"]
    assert "ADM-CID 0003 in clear from 192.0.2.7:1 (main, tcp): 130 Burglary" in told[0]
    assert ("partition 01 zone 001" in told[0], "add it" in told[1], "encryption on" in told[2]) == (True, True, True)
    assert "stale-timestamp, answered NAK with our time, from 192.0.2.9:2 (main, tcp): why it was" in told[3]
    assert "time_zone" in told[4]
    assert watch.lines(NOW) == []


def test_a_frame_whose_account_cannot_be_read_is_known_by_its_bytes_or_its_address(room: Room) -> None:
    by_name, by_peer, both = room.watch(), room.watch(Sought(None, "192.0.2.9")), room.watch(Sought("AB12", "192.0.2.9"))
    raw = b'\n0000001A"ADM-CID"0001L0#ab12[#ab12|1130 01 001]'
    room.store([], [refusal("bad-crc", None, raw, "198.51.100.1:5"), refusal("bad-length", None), refusal("not-dc09", None)])
    names = [
        [line.split()[2].rstrip(",") for line in watch.lines(NOW) if "REFUSED" in line] for watch in (by_name, by_peer, both)
    ]
    assert names == [["bad-crc"], ["bad-length", "not-dc09"], ["bad-crc", "bad-length", "not-dc09"]]


def test_the_newest_of_before_come_first_and_raw_shows_bytes_that_cannot_steer_a_terminal(room: Room) -> None:
    assert room.watch().before(0) == []
    told = room.watch(raw=True).before(5)
    assert [line.split()[1] for line in told if not line.startswith(" ")] == ["TAKEN", "REFUSED"]
    assert ("\\n\\x1b[2J" in told[-2], told[-1].strip()) == (True, "0A1B5B324A")
    assert all(line.isprintable() for line in told)


def test_what_came_on_another_day_stands_under_its_date(room: Room) -> None:
    day_us = 86_400 * clock.SECOND_US
    watch = Watch(room.reader, REGISTER, ACCOUNT, False, NOW + day_us)
    before = watch.before(5)
    assert [line for line in before if line.startswith("---")] == ["--- 2026-09-21 ---"] == before[:1]
    room.store([signal("ab12", 3, NOW + day_us), signal("ab12", 4, NOW + day_us)], [])
    told = watch.lines(NOW + day_us)
    assert [line for line in told if line.startswith("---")] == ["--- 2026-09-22 ---"] == told[:1]


def test_troubles_and_paths_of_the_account_are_told_too(room: Room) -> None:
    watch = room.watch()
    trouble = b'{"reason": "second-address", "text": "two of them", "account": "AB12", "peer": null}'
    path = b'{"account": "AB12", "listener": "main", "state": "lost"}'
    other = b'{"account": "77", "listener": "main", "state": "lost"}'
    rows = [
        Entry(kind.value, bytes([n]) * 16, NOW, None, 1, "", "", b"", body, ((1, 5, 0),))
        for n, (kind, body) in enumerate(((Kind.TROUBLE, trouble), (Kind.PATH, path), (Kind.PATH, other)), 50)
    ]
    room.store(rows, [])
    told = watch.lines(NOW)
    assert ["second-address: two of them" in told[0], "path lost at listener main" in told[1], len(told)] == [True, True, 2]


def test_what_leaves_nothing_in_the_journal_is_told_once_and_a_signal_is_not_told_twice(room: Room) -> None:
    watch, second = room.watch(), clock.SECOND_US
    heard = Heard(NOW + second, "main", "192.0.2.7:1")
    assert watch.lines(NOW + 2 * second, heard) == []  # its signal may be on its way to the disk
    told = watch.lines(NOW + 3 * second, heard)
    assert (len(told), "link test or repeat from 192.0.2.7:1 (main)" in told[0]) == (1, True)
    assert watch.lines(NOW + 4 * second, heard) == []
    room.store([signal("ab12", 3, NOW + 5 * second)], [])
    assert len(watch.lines(NOW + 5 * second, heard)) == 1
    assert watch.lines(NOW + 9 * second, heard._replace(at_us=NOW + 5 * second + 900)) == []
    assert room.watch().lines(NOW + 9 * second, Heard(NOW - second, "main", "p")) == []  # before we looked


def test_every_reason_of_a_refusal_has_advice() -> None:
    own = {"bad-key", "bad-timestamp", "unreadable", "does-not-fit", "no-equivalent"}  # never a frame's reason
    reasons = {getattr(leaf, "reason") for leaf in _leaves(errors.ProtocolError) | _leaves(PolicyError)} - own  # noqa: B009
    assert reasons | {"journal-unavailable", "register-unavailable"} == set(ADVICE)


def test_the_receiver_writes_who_was_heard_only_while_somebody_watches(tmp_path: Path) -> None:
    desk = Sightings(tmp_path, {"AB12": (clock.steady_us(), "main", "192.0.2.7:1")}.get)
    asyncio.run(desk.look())
    assert list(tmp_path.iterdir()) == []
    order, stranger = Order(tmp_path, "ab12"), Order(tmp_path, "77")
    assert order.heard() is None
    asyncio.run(desk.look())
    heard = order.heard()
    assert heard is not None
    assert (heard.listener, heard.peer, abs(heard.at_us - clock.now_us()) < 5 * clock.SECOND_US) == (
        "main",
        "192.0.2.7:1",
        True,
    )
    assert stranger.heard() is None
    stranger.close()
    for file in (tmp_path / "orders").iterdir():
        os.utime(file, (0, clock.now_us() / clock.SECOND_US - sightings.STALE_SECONDS - 1))
    asyncio.run(desk.look())
    assert list((tmp_path / "orders").iterdir()) == []
    order.close()


def test_a_panel_that_writes_zeros_in_front_of_its_account_is_watched_by_the_registers_own_text(room: Room) -> None:
    register = Accounts({"AB12": Account("ab12", dialect="padded"), "9999": Account("9999")})
    watch = Watch(room.reader, register, ACCOUNT, False, NOW)
    room.store([signal("00AB12", 3), signal("009999", 4)], [])
    (line,) = watch.lines(NOW)
    assert "ADM-CID 0003" in line
