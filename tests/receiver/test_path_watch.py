"""The watch over paths, second by second, against what it tells and writes."""

import asyncio
import random
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver import path_file
from receiver.accounts import Account, Accounts
from receiver.cli import main
from receiver.clock import SECOND_US as S
from receiver.config import ListenerSettings, SupervisionSettings
from receiver.errors import JournalUnavailable, RegisterUnavailable
from receiver.intervals import Supervision, parse
from receiver.path_watch import PathWatch
from receiver.paths import PathChange, Paths
from receiver.tables import Table
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble, Troubles

SETTINGS = SupervisionSettings(grace_seconds=10, storm_hold_seconds=30.0, storm_events_per_second=2, save_seconds=10_000.0)
LISTENERS = [ListenerSettings(name="wire", role="primary"), ListenerSettings(name="radio", role="backup")]


class Room:
    """A watch, its paths and what it told; wall time is steady time and an hour."""

    later: Sequence[dict[str, object]] = ()
    """What was told since the paths were written down."""

    def __init__(self, folder: Path, **rows: str) -> None:
        supervision = {name: parse(text) for name, text in rows.items()}
        self.register = Accounts(
            {n: Account(n, supervision_seconds=s.primary_seconds, supervision=s) for n, s in supervision.items()}
        )
        self.paths, self.now_us = Paths(), 0
        self.changes: list[PathChange] = []
        self.troubles: list[Trouble] = []
        self.watch = PathWatch(
            self.paths, SETTINGS, LISTENERS, folder, Telemetry(),
            lambda change, _: self.changes.append(change), lambda trouble, _: self.troubles.append(trouble),
        )  # fmt: skip
        self.watch.begin(self.register, 3600 * S, 0, lambda _position: self.later)

    def until(self, second: int) -> None:
        """Look each second."""
        while self.now_us < second * S:
            self.now_us += S
            for _ in range(50):  # as review() does in a second
                self.watch._go_on_reviewing()
            self.watch.look(self.now_us + 3600 * S, self.now_us)

    def seen(self, account: str, listener: str = "wire") -> None:
        change = self.paths.seen(account, listener, 60, self.now_us)
        if change is not None:
            self.changes.append(change)

    def told(self) -> list[tuple[str, str, str]]:
        found = [(change.account, change.listener, change.state) for change in self.changes]
        self.changes.clear()
        return found

    def reasons(self) -> list[tuple[str, int]]:
        found = [(trouble.reason, trouble.count) for trouble in self.troubles]
        self.troubles.clear()
        return found


def many(count: int, text: str) -> dict[str, str]:
    return {f"A{n:03d}": text for n in range(count)}


def test_many_accounts_never_seen_are_one_trouble_and_few_are_told_one_by_one(tmp_path: Path) -> None:
    room = Room(tmp_path, **many(150, "60"), **{f"B{n}": "120" for n in range(20)})
    room.until(80)
    (never,) = room.troubles
    assert (never.reason, never.count, len(never.accounts or ()), never.account) == ("never-seen", 150, 100, None)
    room.troubles.clear()
    room.until(200)
    assert room.reasons() == [("never-seen", 1)] * 20
    assert room.told() == []
    room.seen("B3")
    room.until(202)
    assert room.reasons() == [("never-seen-cleared", 1)]


def test_the_end_of_what_was_told_as_one_is_told_as_one_also_over_a_restart(tmp_path: Path) -> None:
    room = Room(tmp_path, **many(50, "60"))
    room.until(75)
    assert room.reasons() == [("never-seen", 50)]
    for n in range(30):
        room.seen(f"A{n:03d}")
    room.until(90)
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    again = Room(tmp_path, **many(50, "60"))
    for n in range(30, 49):
        again.seen(f"A{n:03d}")
    again.until(5)
    assert (room.reasons(), again.reasons()) == ([], [])
    again.watch.take(Accounts({f"A{n:03d}": Account(f"A{n:03d}", supervision_seconds=60) for n in range(49)}))
    again.until(10)  # the last of them is not supervised any more
    (over,) = again.troubles
    assert (over.reason, over.account, over.text) == (
        "never-seen-cleared", None, "all accounts told together as never seen were heard, or are not supervised any more",
    )  # fmt: skip
    again.troubles.clear()
    again.until(30)
    assert again.reasons() == []


def test_an_account_heard_before_it_could_be_told_as_never_seen_is_no_news(tmp_path: Path) -> None:
    room = Room(tmp_path, **many(30, "60"))
    room.until(60)
    while not room.watch._never.found:
        room.now_us += S
        for _ in range(3):
            room.watch._go_on_reviewing()
        room.watch.find_some(room.now_us + 3600 * S, room.now_us)
    for n in range(25):
        room.seen(f"A{n:03d}")
    room.until(room.now_us // S + 2)
    assert room.paths.count()["alive"] == 25
    assert {(trouble.reason, trouble.account) for trouble in room.troubles} == {("never-seen", None)}
    assert sum(trouble.count for trouble in room.troubles) == 5


def test_what_is_told_of_an_account_is_told_singly_at_its_beginning_and_at_its_end(tmp_path: Path) -> None:
    """Beginnings and ends go through the sums of troubles, as in a receiver: an end in a sum would close nothing."""
    times = dict.fromkeys(range(15), "60") | dict.fromkeys(range(15, 30), "70") | dict.fromkeys(range(30, 45), "140")
    room = Room(tmp_path, **{f"A{n:03d}": text for n, text in times.items()})
    sums, told = Troubles(), list[Trouble]()

    def until(second: int) -> None:
        while room.now_us < second * S:
            room.until(room.now_us // S + 1)
            found = [sums.add(trouble, room.now_us) for trouble in room.troubles]
            told.extend([*[trouble for trouble in found if trouble is not None], *sums.due(room.now_us)])
            room.troubles.clear()

    until(200)
    singly = {trouble.account for trouble in told if trouble.account is not None}
    assert singly == {f"A{n:03d}" for n in (*range(15), *range(30, 45))}
    assert [trouble.count for trouble in told if trouble.account is None] == [15]
    told.clear()
    for second in range(200, 400, 50):
        for n in range(45):
            room.seen(f"A{n:03d}", "wire")
        until(second + 1)
        if second == 200:
            assert len(told) == 20
        until(second + 50)
    assert {trouble.reason for trouble in told} == {"never-seen-cleared"}
    assert sorted(trouble.account or "" for trouble in told) == ["", *sorted(singly)]


def test_the_end_that_had_to_wait_does_not_close_a_loss_of_that_account(tmp_path: Path) -> None:
    room = Room(tmp_path, **many(20, "60"), **{f"B{n}": "140" for n in range(5)})
    room.until(160)
    assert len(room.reasons()) == 25
    for n in range(20):
        room.seen(f"A{n:03d}")
    for n in range(5):
        room.seen(f"B{n}")
    room.until(165)
    assert room.reasons() == [("never-seen-cleared", 1)] * 20
    room.watch.take(Accounts({f"B{n}": Account(f"B{n}", supervision_seconds=20) for n in range(5)}))
    room.until(230)
    assert sorted(room.told()) == [(f"B{n}", "wire", "lost") for n in range(5)]
    assert room.reasons() == [("listener-silent", 1)]
    room.seen("B3")
    room.until(231)
    assert room.told() == [("B3", "wire", "restored")]
    assert {(t.reason, t.account) for t in room.troubles} == {
        ("listener-silent-cleared", None),
        ("never-seen-cleared", "B3"),
    }


def test_a_storm_is_one_trouble_that_says_where_and_whether_others_are_heard(tmp_path: Path) -> None:
    room = Room(tmp_path, **many(30, "60"), Z="300")
    for name in room.register:
        room.seen(name.account)
    room.until(58)
    room.seen("Z")
    room.until(62)
    (storm,) = room.troubles
    assert (storm.reason, storm.count, storm.listener, len(storm.accounts or ())) == ("paths-lost", 30, "wire", 30)
    assert "30 at listener wire, which still hears others" in storm.text
    assert room.told() == []


def test_a_storm_that_begins_in_the_middle_of_a_look_counts_those_told_before_and_holds_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.paths._LOOKS", 10)
    room = Room(tmp_path, **many(60, "60"))
    for name in room.register:
        room.seen(name.account)
    room.until(50)
    room.told()
    room.now_us = 61 * S
    while room.watch.find_some(room.now_us + 3600 * S, room.now_us - S // 2):
        if len(room.changes) == 10:
            break
    lost = room.told()
    assert [state for _, _, state in lost] == ["lost"] * 10
    room.seen(lost[0][0])  # told, so its return is
    assert room.told() == [(lost[0][0], "wire", "restored")]
    for _ in range(2):
        room.watch.find_some(room.now_us + 3600 * S, room.now_us)
    assert (room.told(), room.paths.held) == ([], 20)  # 20 in 5 s: from here on none is told singly
    held = next(
        name.account
        for name in room.register
        if room.paths.lost(name.account, "wire") and name.account not in {account for account, _, _ in lost}
    )
    room.seen(held)
    assert (room.told(), room.paths.held) == ([], 19)
    while room.watch.find_some(room.now_us + 3600 * S, room.now_us):
        pass
    room.until(62)
    (storm,) = room.troubles
    assert (storm.reason, storm.count) == ("paths-lost", 60)
    room.troubles.clear()
    room.until(120)
    assert {(state, account in dict.fromkeys(a for a, _, _ in lost)) for account, _, state in room.told()} == {
        ("lost", False)
    }
    assert room.paths.count()["lost"] == 58
    assert ("paths-restored", 1) in room.reasons()


@pytest.mark.parametrize("looks", [1, 7, 250])
def test_whatever_comes_between_the_parts_of_looks_a_loss_is_told_before_its_return_and_both_by_turns(
    looks: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.paths._LOOKS", looks)
    for seed in range(6):
        chance = random.Random(seed)
        room = Room(tmp_path / str(seed), **many(80, "20"))
        for name in room.register:
            room.seen(name.account)
        awake = set(chance.sample([name.account for name in room.register], 60))
        for _ in range(150):
            room.until(room.now_us // S + 1)
            if chance.random() < 0.1:
                awake ^= set(chance.sample([name.account for name in room.register], chance.choice([3, 40])))
            for _ in range(12):
                room.now_us += S // 50
                room.watch.find_some(room.now_us + 3600 * S, room.now_us)
                for account in chance.sample(sorted(awake), min(len(awake), 2)):
                    room.seen(account)
            room.now_us -= 12 * S // 50
        while room.watch.find_some(room.now_us + 3600 * S, room.now_us) or room.paths.held:
            room.until(room.now_us // S + 1)
        told: dict[str, list[str]] = {}
        for account, _, state in room.told():
            told.setdefault(account, []).append(state)
        for account, states in told.items():
            assert states == [("lost", "restored")[n % 2] for n in range(len(states))]
            assert (states[-1] == "lost") == room.paths.lost(account, "wire")
        assert sum(states[-1] == "lost" for states in told.values()) == room.paths.count()["lost"]


def test_a_listener_that_lost_all_its_paths_within_seconds_hears_no_others(tmp_path: Path) -> None:
    room = Room(tmp_path, **many(30, "6"))
    room.until(20)
    for name in room.register:
        room.seen(name.account)
    room.until(28)
    assert "wire, which heard nobody for " in room.troubles[-2].text


def test_our_own_line_down_says_so_and_is_told_as_a_silent_listener(tmp_path: Path) -> None:
    room = Room(tmp_path, **many(30, "60"))
    for name in room.register:
        room.seen(name.account)
    room.until(62)
    assert "wire, which heard nobody for 6" in room.troubles[0].text
    assert room.reasons() == [("paths-lost", 30), ("listener-silent", 1)]
    room.until(85)
    for name in room.register:
        room.seen(name.account)
    room.until(86)
    assert room.reasons() == [("listener-silent-cleared", 1)]
    assert room.told() == []
    room.until(100)
    assert room.reasons() == [("paths-restored", 30), ("paths-lost-cleared", 1)]
    assert room.told() == []  # nobody was told singly, so nobody is restored singly


def test_a_silent_listener_is_told_once_with_how_long_it_heard_nobody_and_cleared_also_after_a_restart(
    tmp_path: Path,
) -> None:
    room = Room(tmp_path, **many(30, "60"))
    for name in room.register:
        room.seen(name.account)
    room.until(55)
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    again = Room(tmp_path, **many(30, "60"))
    again.until(15)
    assert "wire, which heard nobody for 6" in again.troubles[0].text  # not since the machine was started
    assert again.reasons() == [("paths-lost", 30), ("listener-silent", 1)]
    asyncio.run(again.watch.close(again.now_us + 3600 * S, again.now_us))
    third = Room(tmp_path, **many(30, "60"))
    third.until(30)
    assert "listener-silent" not in dict(third.reasons())
    third.seen("A003")
    third.until(31)
    assert third.reasons() == [("listener-silent-cleared", 1)]


def test_a_silent_listener_whose_accounts_are_taken_out_is_silent_no_more(tmp_path: Path) -> None:
    room = Room(tmp_path, A="60", B="60")
    for name in room.register:
        room.seen(name.account)
    room.until(65)
    assert room.reasons() == [("listener-silent", 1)]
    room.register._rows = Table()
    room.watch.changed(["A", "B"])
    room.until(70)
    (silent, *ended) = room.troubles
    assert (silent.reason, silent.text) == ("listener-silent-cleared", "listener wire has no supervised paths any more")
    assert [(trouble.reason, trouble.account, trouble.role) for trouble in ended] == [
        ("path-lost-cleared", "A", "primary"), ("path-lost-cleared", "B", "primary"),
    ]  # fmt: skip


def accounts(**rows: str) -> Accounts:
    supervision = {name: parse(text) for name, text in rows.items()}
    return Accounts({n: Account(n, supervision_seconds=s.primary_seconds, supervision=s) for n, s in supervision.items()})


def test_an_account_told_as_never_seen_that_is_awaited_otherwise_has_one_end_for_each_beginning(tmp_path: Path) -> None:
    room = Room(tmp_path, A="60", B="60", C="60")
    room.until(80)
    room.troubles.clear()
    room.watch.take(accounts(A="DP4+0", B="60"))
    room.until(400)
    told = [(trouble.reason, trouble.account, trouble.role) for trouble in room.troubles]
    assert sorted(told[:2]) == [("never-seen-cleared", "A", None), ("never-seen-cleared", "C", None)]
    assert told[2:] == [("never-seen", "A", "primary"), ("never-seen", "A", "backup")]
    assert "account A, told as never seen, is not awaited so any more" in [trouble.text for trouble in room.troubles]
    room.troubles.clear()
    room.seen("A", "radio")
    room.seen("A", "wire")
    room.until(410)
    told = [(trouble.reason, trouble.account, trouble.role) for trouble in room.troubles]
    assert told == [("never-seen-cleared", "A", "backup"), ("never-seen-cleared", "A", "primary")]


def test_an_account_lost_and_taken_out_ends_what_was_told(tmp_path: Path) -> None:
    room = Room(tmp_path, A="60", B="60", C="60")
    for name in "ABC":
        room.seen(name, "radio")
    room.until(65)
    assert len(room.told()) == 3
    room.troubles.clear()
    room.watch.take(accounts(C="60"))
    for _ in range(200):
        room.watch._go_on_reviewing()
    room.seen("C", "radio")
    room.until(66)
    first, second = [trouble for trouble in room.troubles if trouble.account]
    assert {first.account, second.account} == {"A", "B"}
    assert (first.reason, first.listener, first.role) == ("path-lost-cleared", "radio", "backup")
    assert first.text.endswith("told as lost at listener radio, is not supervised there any more")
    assert room.told() == [("C", "radio", "restored")]


def test_what_waits_to_be_ended_and_what_was_told_of_many_is_ended_after_a_restart(tmp_path: Path) -> None:
    rows = many(60, "60")
    room = Room(tmp_path, **rows)
    for name in rows:
        room.seen(name)
    room.until(63)
    for name in rows:
        room.seen(name)
    room.until(64)
    assert [reason for reason, _ in room.reasons()] == ["paths-lost", "listener-silent", "listener-silent-cleared"]
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))  # every path is back, and the storm not over
    again = Room(tmp_path, **rows)
    again.until(2)
    assert again.reasons() == [("paths-restored", 60), ("paths-lost-cleared", 1)]


def test_accounts_heard_at_last_are_told_so_after_a_restart(tmp_path: Path) -> None:
    rows = {f"A{n:02d}": str(60 + 4 * n) for n in range(40)}
    room = Room(tmp_path, **rows)
    room.until(300)
    assert room.reasons() == [("never-seen", 1)] * 40
    for name in rows:
        room.seen(name)
    room.until(301)
    assert room.reasons() == [("never-seen-cleared", 1)] * 20
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    again = Room(tmp_path, **rows)
    again.until(2)
    assert again.reasons() == [("never-seen-cleared", 1)] * 20


def test_a_path_lost_at_a_listener_that_is_no_more_after_a_restart_is_ended(tmp_path: Path) -> None:
    room = Room(tmp_path, A="60")
    room.seen("A", "radio")
    room.until(65)
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    again, troubles = Paths(), list[Trouble]()
    watch = PathWatch(
        again, SETTINGS, LISTENERS[:1], tmp_path, Telemetry(), lambda _change, _at: None,
        lambda trouble, _at: troubles.append(trouble),
    )  # fmt: skip
    watch.begin(room.register, 3700 * S, 0)
    watch.look(3701 * S, S)
    (ended,) = troubles
    assert (ended.reason, ended.account, ended.listener, ended.role) == ("path-lost-cleared", "A", "radio", "backup")


def test_accounts_list_says_how_each_path_stands_as_it_was_written_down(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rows = {"alive": "600", "lost": "60", "never": "60", "awaited": "600", "two": "DP4+0"}
    room = Room(data, **rows)
    for name, listener in (("alive", "wire"), ("lost", "radio"), ("two", "wire")):
        room.seen(name, listener)
    room.until(80)
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    register = [f"{name},{text}" for name, text in rows.items()] + ["free,", "new,60"]
    (tmp_path / "accounts.csv").write_text("account,supervision_seconds\n" + "\n".join(register) + "\n", "utf-8")
    config = tmp_path / "receiver.toml"
    config.write_text(
        '[accounts]\nfile = "accounts.csv"\n[[listeners]]\nname = "wire"\nrole = "primary"\n'
        '[[listeners]]\nname = "radio"\nport = 12129\nrole = "backup"\n', "utf-8",
    )  # fmt: skip
    done = CliRunner().invoke(main, ["accounts", "list", "--paths", "--config", str(config)])
    assert {line.split()[0]: line[18:] for line in done.stdout.splitlines()} == {
        "alive": "alive at wire (primary), last heard 1970-01-01T01:00:00Z",
        "awaited": "not heard yet",
        "free": "unsupervised",
        "lost": "LOST at radio (backup), last heard 1970-01-01T01:00:00Z",
        "never": "NEVER SEEN",
        "new": "not looked at yet",
        "two": "alive at wire (primary), last heard 1970-01-01T01:00:00Z; not heard yet at a backup listener",
    }
    assert done.stderr == "7 accounts, paths as of 1970-01-01T01:01:20Z\n"
    both = CliRunner().invoke(main, ["accounts", "list", "--paths", "--old-keys", "--config", str(config)])
    assert (both.exit_code, "leave one out" in both.stderr) == (2, True)
    (data / "paths.state").write_bytes(b"torn")
    torn = CliRunner().invoke(main, ["accounts", "list", "--paths", "--config", str(config)])
    assert (torn.exit_code, "is damaged" in torn.stderr) == (2, True)
    (data / "paths.state").unlink()
    none = CliRunner().invoke(main, ["accounts", "list", "--paths", "--config", str(config)])
    assert (none.exit_code, "no receiver has written" in none.stderr, "LOST" in none.stdout) == (0, True, False)


def test_after_a_storm_those_still_silent_are_told_a_few_a_second(tmp_path: Path) -> None:
    room = Room(tmp_path, **many(25, "60"), Z="300")
    for name in room.register:
        room.seen(name.account)
    room.until(70)
    for n in range(20):
        room.seen(f"A{n:03d}")
    room.until(89)
    assert room.told() == []
    room.until(90)
    assert len(room.told()) == 2
    room.until(93)
    assert len(room.told()) == 3
    room.until(100)
    assert room.told() == []
    room.seen("A024")
    assert room.told() == [("A024", "wire", "restored")]


def test_while_the_primary_path_is_lost_its_interval_counts_for_the_backup_from_then_on(tmp_path: Path) -> None:
    room = Room(tmp_path, A="DP4+0")  # 90 s, and 5 h for the backup
    room.seen("A", "wire")
    room.seen("A", "radio")
    room.until(92)
    assert room.told() == [("A", "wire", "lost")]
    room.until(150)
    assert room.told() == []
    room.until(185)
    assert room.told() == [("A", "radio", "lost")]
    room.seen("A", "radio")
    room.seen("A", "wire")
    room.until(270)
    room.seen("A", "wire")
    room.until(350)
    assert room.told() == [("A", "radio", "restored"), ("A", "wire", "restored")]  # the backup has its five hours again


def test_changes_of_single_accounts_count_at_once_and_whoever_is_gone_is_forgotten(tmp_path: Path) -> None:
    room = Room(tmp_path, A="60", B="60", c="60")
    for name in ("A", "B", "c"):
        room.seen(name)
    room.until(5)
    rows = {"A": Account("A", supervision_seconds=200), "D": Account("D", supervision_seconds=20)}
    room.register._rows = Table(rows)
    room.watch.changed(["A", "B", "C", "D"])
    assert not room.watch._go_on_with_changes()
    assert room.paths.count() == {"alive": 2, "lost": 0, "never-seen": 1}  # c is spelled otherwise, and found by the review
    room.until(7)
    assert room.paths.count() == {"alive": 1, "lost": 0, "never-seen": 1}
    room.until(190)
    assert (room.told(), room.reasons()) == ([], [("never-seen", 1)])
    room.until(202)
    assert room.told() == [("A", "wire", "lost")]


def test_a_register_that_cannot_be_read_is_reviewed_when_it_can(tmp_path: Path) -> None:
    class Away(Accounts):
        away = True

        def expectations(self) -> Iterator[tuple[str, Supervision]]:
            if self.away:
                raise RegisterUnavailable("gone")
            yield from super().expectations()

    room = Room(tmp_path, A="60")
    register = Away({"B": Account("B", supervision_seconds=60)})
    room.watch.take(register)
    room.until(5)
    assert room.paths.count()["never-seen"] == 0
    register.away = False
    room.until(8)
    assert room.paths.count()["never-seen"] == 1


def test_a_restart_goes_on_where_it_was(tmp_path: Path) -> None:
    room = Room(tmp_path, A="60", B="60")
    room.seen("A")
    room.until(75)
    assert (room.told(), room.reasons()) == ([("A", "wire", "lost")], [("never-seen", 1)])
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    again = Room(tmp_path, A="60", B="60")
    again.until(400)
    assert (again.told(), again.reasons()) == ([], [])
    again.seen("A")
    again.seen("B")
    again.until(402)
    assert (again.told(), again.reasons()) == ([("A", "wire", "restored")], [("never-seen-cleared", 1)])


def test_paths_are_copied_a_part_at_a_time_and_written_down_when_all_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.path_columns.PATHS_A_BLOCK", 10)
    room = Room(tmp_path, **many(100, "600"))
    room.until(1)
    room.watch._save_at_us, room.watch._copying = 0, None
    room.watch.look(room.now_us + 3600 * S, room.now_us)
    steps = 1
    while room.watch._go_on_copying():
        assert not (tmp_path / "paths.state").exists()
        steps += 1
    assert steps == 5
    for thread in threading.enumerate():
        if thread.name == "paths":
            thread.join()
    found = path_file.read(tmp_path / "paths.state")
    assert found is not None
    assert (len(list(found[0].paths())), found[1]) == (100, room.now_us + 3600 * S)


def test_a_folder_that_cannot_be_written_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    room = Room(tmp_path / "gone", A="60")
    for second in (1, 2, 3):
        asyncio.run(room.watch.close(3600 * S, room.now_us))
        room.until(second)
    told = [record.message for record in caplog.records]
    assert told.count("supervised paths cannot be written down for the next start") == 1


def test_an_account_added_in_the_first_second_is_awaited_from_then_on(tmp_path: Path) -> None:
    troubles: list[Trouble] = []
    rows: dict[str, Account] = {}
    watch = PathWatch(
        Paths(), SETTINGS, LISTENERS, tmp_path, Telemetry(), lambda _change, _at: None,
        lambda trouble, _at: troubles.append(trouble),
    )  # fmt: skip
    watch.begin(Accounts(rows), 9000 * S, 5000 * S)
    rows["77"] = Account("77", supervision_seconds=60, supervision=parse("60"))
    watch.changed(["77"])
    watch.look(9001 * S, 5001 * S)
    assert troubles == []


def test_an_account_of_two_paths_is_awaited_on_each_of_them(tmp_path: Path) -> None:
    room = Room(tmp_path, A="DP4+0", B="DP4+0", C="60")
    room.until(1)
    room.seen("A", "wire")
    room.seen("C", "wire")
    assert room.paths.count() == {"alive": 2, "lost": 0, "never-seen": 3}  # A on radio, B on both; C has one path
    room.until(80)
    room.seen("A", "wire")
    room.until(101)
    (never,) = room.troubles
    assert (never.reason, never.account) == ("never-seen", "B")
    assert "never heard at a primary listener; was its panel pointed there?" in never.text
    room.troubles.clear()
    for account in ("B", "A"):  # B's backup has its primary's 90 s from then on, A's five hours
        for second in range(150 if account == "B" else 211, 210 if account == "B" else 5 * 3600 + 11, 60):
            room.until(second)
            room.seen("A", "wire")
            room.seen("C", "wire")
        room.until(210 if account == "B" else 5 * 3600 + 12)
        assert [(t.account, "at a backup listener" in t.text) for t in room.troubles] == [(account, True)]
        room.troubles.clear()
    room.told()
    room.seen("A", "radio")
    room.until(5 * 3600 + 13)
    (cleared,) = room.troubles
    assert (cleared.reason, cleared.account) == ("never-seen-cleared", "A")
    assert "told as never seen at a backup listener, was heard there for the first time" in cleared.text


def test_while_the_primary_was_never_heard_the_backup_is_watched_as_closely(tmp_path: Path) -> None:
    room = Room(tmp_path, A="DP4+0")
    room.until(1)
    room.seen("A", "radio")
    for second in range(60, 300, 60):
        room.until(second)
        room.seen("A", "radio")
    assert room.reasons() == [("never-seen", 1)]
    room.until(240 + 92)
    assert room.told() == [("A", "radio", "lost")]
    room.seen("A", "radio")
    room.seen("A", "wire")
    assert room.told() == [("A", "radio", "restored")]
    for second in range(400, 1000, 60):
        room.until(second)
        room.seen("A", "wire")
    assert (room.told(), room.reasons()) == ([], [("never-seen-cleared", 1)])  # five hours again


def test_what_is_awaited_on_one_path_is_so_after_a_restart_and_no_longer_once_the_category_is_another(
    tmp_path: Path,
) -> None:
    room = Room(tmp_path, A="DP4+0")
    room.until(1)
    room.seen("A", "wire")
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    again = Room(tmp_path, A="DP4+0")
    again.until(1)
    assert again.paths.count() == {"alive": 1, "lost": 0, "never-seen": 1}
    again.watch.take(Accounts({"A": Account("A", supervision_seconds=60)}))
    again.until(2)
    assert again.paths.count() == {"alive": 1, "lost": 0, "never-seen": 0}


def test_what_was_told_since_the_paths_were_written_down_is_taken_over_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"lost": "600", "back": "600", "late": "600", "never": "600", "heard": "600", "gone": "600"}
    room = Room(tmp_path, **rows)
    for name in ("lost", "back", "gone"):
        room.seen(name)
    room.until(5)
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    path = {"listener": "wire", "role": "primary", "last_seen": "1970-01-01T00:30:00Z"}
    later: list[dict[str, object]] = [
        {"state": "lost", "account": "lost", **path}, {"state": "lost", "account": "back", **path},
        {"state": "restored", "account": "back", **path}, {"state": "lost", "account": "late", **path},
        {"state": "lost", "account": "gone", **path}, {"state": "lost", "account": "gone", **path, "listener": "old"},
        {"reason": "never-seen", "account": "never"}, {"reason": "never-seen", "account": "heard"},
        {"reason": "never-seen-cleared", "account": "heard"}, {"reason": "undecryptable", "account": "lost"},
        {"reason": "listener-silent", "account": None, "listener": "radio"}, {"reason": "paths-lost", "account": None},
        {"reason": "listener-silent", "account": None, "listener": "wire"}, {"reason": "paths-restored", "account": None},
        {"reason": "listener-silent-cleared", "account": None, "listener": "wire"},
    ]  # fmt: skip
    del rows["gone"]
    monkeypatch.setattr(Room, "later", later)
    again = Room(tmp_path, **rows)
    again.until(2)
    ended = [(trouble.reason, trouble.account, trouble.listener) for trouble in again.troubles]
    assert ended == [
        ("listener-silent-cleared", None, "radio"), ("path-lost-cleared", "gone", "old"),
        ("path-lost-cleared", "gone", "wire"),
    ]  # fmt: skip
    again.troubles.clear()
    for name in rows:
        again.seen(name)
    assert again.told() == [("lost", "wire", "restored"), ("late", "wire", "restored")]
    again.until(40)
    assert again.reasons() == [("never-seen-cleared", 1), ("paths-lost-cleared", 1)]


def test_a_journal_that_cannot_be_read_keeps_no_path_from_being_watched(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def away(_position: int) -> list[dict[str, object]]:
        raise JournalUnavailable("away")

    room = Room(tmp_path, A="60")
    asyncio.run(room.watch.close(room.now_us + 3600 * S, room.now_us))
    watch = PathWatch(Paths(), SETTINGS, LISTENERS, tmp_path, Telemetry(), lambda *_: None, lambda *_: None)
    watch.begin(room.register, 3600 * S, 0, away)
    assert "what was told last of supervised paths cannot be read" in caplog.text


def test_of_a_thousand_accounts_changed_at_once_a_few_are_read_at_a_time_and_tried_again_where_that_fails(
    tmp_path: Path,
) -> None:
    class Away(Accounts):
        found, away = 0, False

        def find(self, account: str) -> Account:
            if self.away:
                raise RegisterUnavailable("away")
            self.found += 1
            return super().find(account)

    room, names = Room(tmp_path), [f"{n:04d}" for n in range(1000)]
    register = Away({name: Account(name, supervision_seconds=60, supervision=parse("60")) for name in names})
    room.watch._register = register
    room.watch.changed(names)
    assert room.watch._go_on_with_changes()
    assert register.found == 10
    register.away = True
    assert not room.watch._go_on_with_changes()
    register.away = False
    while room.watch._go_on_with_changes():
        pass
    assert room.paths.count()["never-seen"] == register.found == 1000
