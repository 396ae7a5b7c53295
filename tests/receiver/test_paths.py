"""Supervision of paths: pure state against steady time, a naive model beside it, storms, and the file over a restart."""

import random
from pathlib import Path
from zlib import crc32

import pytest

from receiver import path_file
from receiver.clock import SECOND_US as S
from receiver.errors import PathsUnreadable
from receiver.paths import NOWHERE, PathChange, Paths, Terms
from receiver.storms import STORM_COUNT, Storm

HOUR = 3600


def states(changes: list[PathChange]) -> list[tuple[str, str]]:
    return [(change.account, change.state) for change in changes]


def test_a_path_is_lost_after_its_interval_and_told_once() -> None:
    paths = Paths()
    assert paths.seen("1", "main", 60, 0) is None
    paths.seen("1", "main", 60, 30 * S)
    assert paths.check(89 * S) == []
    assert [change.state for change in paths.check(91 * S)] == ["lost"]
    assert paths.check(1000 * S) == []
    assert paths.count() == {"alive": 0, "lost": 1, "never-seen": 0}
    restored = paths.seen("1", "main", 60, 1000 * S)
    assert restored is not None
    assert (restored.state, restored.last_seen_us) == ("restored", 30 * S)
    assert [change.state for change in paths.check(1061 * S)] == ["lost"]


def test_paths_of_one_account_are_told_apart_by_listener() -> None:
    paths = Paths()
    paths.role = {"main": "primary", "radio": "backup"}.__getitem__
    paths.terms = lambda _account, listener, _seconds: Terms(60 if listener == "main" else 600)
    paths.seen("1", "main", 60, 0)
    paths.seen("1", "radio", 60, 0)
    (lost,) = paths.check(100 * S)
    assert (lost.listener, lost.role, lost.interval_seconds) == ("main", "primary", 60)
    (lost,) = paths.check(601 * S)
    assert (lost.listener, lost.role, lost.interval_seconds) == ("radio", "backup", 600)


def test_the_margin_is_added_to_the_interval_and_not_told_as_part_of_it() -> None:
    paths = Paths()
    paths.terms = lambda _account, _listener, seconds: Terms(seconds, 30)
    paths.seen("1", "main", 60, 0)
    assert paths.check(89 * S) == []
    (lost,) = paths.check(91 * S)
    assert lost.interval_seconds == 60


def test_an_interval_longer_than_the_wheels_turn_is_kept() -> None:
    paths = Paths()
    paths.seen("1", "main", 25 * HOUR, 0)
    assert [paths.check(n * HOUR * S) for n in range(1, 25)] == [[]] * 24
    assert states(paths.check(25 * HOUR * S + S)) == [("1", "lost")]


def test_a_check_that_comes_hours_late_misses_nobody() -> None:
    paths = Paths()
    for n in range(50):
        paths.seen(str(n), "main", 60 + 200 * n, n * S)
    assert len(paths.check(100 * HOUR * S)) == 50
    assert paths.count()["lost"] == 50


def test_a_path_no_longer_supervised_is_forgotten_and_a_changed_interval_counts_at_once() -> None:
    paths = Paths()
    paths.seen("1", "main", 60, 0)
    paths.seen("2", "main", 25 * HOUR, 0)
    paths.begin_review()
    paths.confirm("2", lambda _: Terms(90), 10 * S)
    assert len(list(paths.sweep())) == 2
    assert states(paths.check(100 * S)) == [("2", "lost")]
    assert paths.seen("1", "main", 60, 100 * S) is None
    assert states(paths.check(200 * S)) == [("1", "lost")]


def test_a_shorter_interval_begins_when_it_is_set_and_is_not_held_against_what_was_silent_before() -> None:
    paths = Paths()
    for account in ("1", "2"):
        paths.seen(account, "main", HOUR, 0)
        paths.confirm(account, lambda _: Terms(90, 10), 600 * S)
    assert paths.check(601 * S) == []  # it had an hour until a moment ago
    paths.seen("1", "main", 90, 640 * S)
    assert states(paths.check(701 * S)) == [("2", "lost")]
    assert states(paths.check(741 * S)) == [("1", "lost")]
    assert not paths._not_before


def test_an_account_never_heard_is_told_after_grace_and_interval_and_is_not_called_lost() -> None:
    paths = Paths()
    paths.grace_us = 100 * S
    paths.confirm("1", lambda _: Terms(60), 0)
    paths.confirm("1", lambda _: Terms(60), 50 * S)
    assert paths.check(159 * S) == []
    assert paths.count() == {"alive": 0, "lost": 0, "never-seen": 1}
    (never,) = paths.check(161 * S)
    assert (never.account, never.listener, never.state) == ("1", NOWHERE, "never-seen")
    assert paths.check(1000 * S) == []
    assert (paths.never(never, as_one=False), paths.never(never, as_one=False)) == (True, False)
    assert paths.seen("1", "main", 60, 1000 * S) is None
    assert list(paths.ended) == [("1", "", "", "never-seen", True)]
    assert paths.count() == {"alive": 1, "lost": 0, "never-seen": 0}
    paths.confirm("1", lambda _: Terms(60), 1001 * S)
    assert paths.count() == {"alive": 1, "lost": 0, "never-seen": 0}


def test_an_awaited_account_that_is_heard_in_time_is_no_news() -> None:
    paths = Paths()
    paths.confirm("1", lambda _: Terms(60), 0)
    paths.seen("1", "main", 60, 30 * S)
    assert list(paths.ended) == []
    assert states(paths.check(91 * S)) == [("1", "lost")]


def test_any_course_of_messages_and_looks_agrees_with_a_naive_model() -> None:
    for seed in range(30):
        chance = random.Random(seed)
        paths, last = Paths(), dict[tuple[str, str], int]()
        lost: set[tuple[str, str]] = set()
        interval = {str(n): chance.choice([1, 5, 60, 300, 4000, 9000]) for n in range(12)}
        now = chance.randrange(10**9)
        for _ in range(400):
            now += chance.choice([S // 7, S, 3 * S, 40 * S, 700 * S, 5000 * S])
            if chance.random() < 0.6:
                path = chance.choice(list(interval)), chance.choice(["main", "radio"])
                change = paths.seen(*path, interval[path[0]], now)
                assert (change is not None) == (path in lost)
                lost.discard(path)
                last[path] = now
            else:
                due = {path: last[path] + interval[path[0]] * S for path in last.keys() - lost}
                found = {(change.account, change.listener) for change in paths.check(now)}
                assert {path for path in due if due[path] <= now // S * S} <= found  # at the latest with the next second
                assert found <= {path for path in due if due[path] <= now}
                lost |= found
        assert paths.count() == {"alive": len(last) - len(lost), "lost": len(lost), "never-seen": 0}


@pytest.mark.parametrize("looks", [1, 3, 7])
def test_looks_in_parts_with_messages_between_them_agree_with_a_naive_model(
    looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.paths._LOOKS", looks)
    for seed in range(20):
        chance = random.Random(seed)
        paths, last, lost = Paths(), dict[str, int](), set[str]()
        interval = {str(n): chance.choice([1, 2, 5, 5, 5, 60, 4000]) for n in range(40)}
        now = chance.randrange(10**9)
        for _ in range(1500):
            now += chance.choice([0, S // 50, S // 50, S // 7, S, 3 * S, 50 * S if chance.random() < 0.1 else 0])
            if chance.random() < 0.4:
                path = chance.choice(list(interval))
                change = paths.seen(path, "main", interval[path], now)
                assert (change is not None) == (path in lost)  # restored only if it was told lost before
                lost.discard(path)
                last[path] = now
                continue
            found = [change.account for change in paths.check(now)]
            assert len(found) <= looks
            assert all(path not in lost and last[path] + interval[path] * S <= now for path in found)
            lost.update(found)
            if not paths.is_behind(now):
                assert {path for path in last if last[path] + interval[path] * S <= now // S * S} <= lost
        assert paths.count() == {"alive": len(last) - len(lost), "lost": len(lost), "never-seen": 0}


def test_a_path_heard_between_two_parts_of_a_look_is_restored_if_it_was_found_and_else_never_lost() -> None:
    paths = Paths()
    for n in range(600):
        paths.seen(str(n), "main", 60, 0)
    assert states(paths.check(61 * S)) == [(str(n), "lost") for n in range(250)]
    restored = paths.seen("0", "main", 60, 61 * S)
    assert restored is not None
    assert paths.seen("599", "main", 60, 61 * S) is None
    assert len(paths.check(61 * S)) == 250
    assert states(paths.check(61 * S)) == [(str(n), "lost") for n in range(500, 599)]
    assert paths.check(120 * S) == []
    assert sorted(states(paths.check(122 * S))) == [("0", "lost"), ("599", "lost")]


def test_a_slot_that_was_begun_before_we_were_held_up_for_hours_is_looked_at_whole() -> None:
    paths = Paths()
    for n in range(400):
        paths.seen(str(n), "main", 60, 0)
    paths.check(61 * S)
    for n in range(250):
        paths.seen(str(n), "main", 60, 61 * S)
    found: list[PathChange] = []
    while paths.is_behind(9 * HOUR * S):
        found += paths.check(9 * HOUR * S)
    assert sorted(int(change.account) for change in found) == list(range(400))


def test_a_million_losses_at_one_moment_are_found_in_many_small_steps() -> None:
    paths = Paths()
    for n in range(120_000):
        paths.seen(str(n), "main", 60, 0)
    found = []
    while paths.is_behind(60 * S):
        found.append(len(paths.check(60 * S)))
    assert found == [250] * 480


# -- storms --------------------------------------------------------------------------------------------------------------


def losses(count: int, listener: str = "main", first: int = 0) -> list[PathChange]:
    return [PathChange(f"{n:04d}", listener, "lost", 0, 60) for n in range(first, first + count)]


def test_fewer_than_twenty_losses_are_no_storm() -> None:
    storm = Storm()
    assert not storm.add(losses(STORM_COUNT - 1), 0)
    assert not storm.add(losses(1), 6 * S)
    assert storm.due(7 * S) is None


def test_twenty_losses_within_five_seconds_are_told_as_one_with_a_list_and_later_ones_with_the_next() -> None:
    storm = Storm()
    assert not storm.add(losses(19), S)
    assert storm.add(losses(1, "radio", 19), 5 * S)
    told = storm.due(5 * S)
    assert told is not None
    assert (told.lost, told.since_us, told.accounts, told.listeners) == (20, S, ("0019",), {"radio": 1})
    assert storm.add(losses(300, first=20), 6 * S)
    assert storm.due(7 * S) is None
    told = storm.due(10 * S)
    assert told is not None
    assert (told.lost, len(told.accounts)) == (300, 100)


def test_a_storm_holds_what_trickles_in_and_ends_a_while_after_the_last_twenty() -> None:
    storm = Storm(hold_us=60 * S)
    assert storm.add(losses(50), 0)
    assert storm.add(losses(1), 30 * S)
    assert storm.rages(59 * S)
    assert not storm.rages(60 * S)
    assert not storm.add(losses(1), 61 * S)


def test_held_losses_that_come_back_are_never_told_singly_and_the_others_are() -> None:
    paths = Paths()
    for n in range(30):
        paths.seen(str(n), "main", 60, 0)
    for change in paths.check(61 * S):
        paths.hold(change)
    assert paths.silent("main") == 30
    assert [paths.seen(str(n), "main", 60, 70 * S) for n in range(25)] == [None] * 25
    assert paths.quietly_restored == 25
    assert states(paths.release(3)) == [("25", "lost"), ("26", "lost"), ("27", "lost")]
    assert states(paths.release(9)) == [("28", "lost"), ("29", "lost")]
    assert paths.release(9) == []
    restored = paths.seen("29", "main", 60, 80 * S)
    assert restored is not None
    assert restored.last_seen_us == 0
    assert paths.count() == {"alive": 26, "lost": 4, "never-seen": 0}


# -- copies ------------------------------------------------------------------------------------------------------------


def test_paths_that_come_and_go_while_they_are_copied_are_each_in_the_copy_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.path_columns.PATHS_A_BLOCK", 4)
    for seed in range(40):
        chance = random.Random(seed)
        paths, there = Paths(), set[tuple[str, str]]()

        def act(paths: Paths = paths, there: set[tuple[str, str]] = there, chance: random.Random = chance) -> None:
            account = str(chance.randrange(60))
            what = chance.randrange(3)
            if what == 0:
                paths.forget(account)
                there.difference_update({(account, ""), (account, "main")})
            elif what == 1 or (account, "main") in there:
                paths.seen(account, "main", 60, 5 * S)
                there.discard((account, ""))
                there.add((account, "main"))
            else:
                paths.confirm(account, lambda _: Terms(60), 5 * S)
                there.add((account, ""))

        for _ in range(100):
            act()
        always, ever, kept = there.copy(), there.copy(), None
        copying = paths.keeping(7 * S)
        while kept is None:
            for _ in range(chance.randrange(4)):
                act()
                always &= there
                ever |= there
            kept = next(copying)
        found = [(path.account, kept.listeners[path.listener]) for path in kept.paths()]
        assert len(found) == len(set(found))
        assert always <= set(found) <= ever
        assert {(path.account, kept.listeners[path.listener]) for path in paths.kept(7 * S).paths()} == there


def test_room_is_made_in_small_steps() -> None:
    paths, rooms = Paths(), [0]
    for _ in paths.making_room(1100):
        rooms.append(paths._columns.room)
        paths.seen(f"A{len(rooms)}", "main", 60, S)
    assert rooms == [0, 250, 500, 750, 1000, 1100]
    assert list(paths.making_room(1000)) == []
    assert paths.count()["alive"] == 5


def test_columns_grow_where_more_paths_come_than_there_is_room_for() -> None:
    paths = Paths()
    paths.make_room(10)
    paths.make_room(5)
    for n in range(100):
        paths.seen(str(n), "main", 60, n * S)
    assert [(path.account, path.age_us) for path in paths.kept(100 * S).paths()] == [
        (str(n), (100 - n) * S) for n in range(100)
    ]


# -- over a restart ------------------------------------------------------------------------------------------------------


def again(paths: Paths, now_us: int, gap_us: int, new_us: int, folder: Path, grace_seconds: int = 100) -> Paths:
    """Return what a new process knows, by way of the file."""
    path_file.write(folder / "paths.state", paths.kept(now_us), 5_000 * S)
    found = path_file.read(folder / "paths.state")
    assert found is not None
    kept, wall_us = found
    assert wall_us == 5_000 * S
    resumed = Paths()
    resumed.grace_us = grace_seconds * S
    resumed.resume(kept, ["main"], str, gap_us, new_us)
    return resumed


def test_paths_written_down_in_the_format_before_are_read(tmp_path: Path) -> None:
    paths, file = Paths(), tmp_path / "paths.state"
    paths.seen("1", "main", 60, 0)
    path_file.write(file, paths.kept(0), 5_000 * S)
    body = file.read_bytes()[:-4].replace(b"receiver paths 3", b"receiver paths 2")
    file.write_bytes(body + crc32(body).to_bytes(4, "little"))
    found = path_file.read(file)
    assert found is not None
    assert [path.account for path in found[0].paths()] == ["1"]


def test_a_restart_loses_nobody_before_the_grace_is_over(tmp_path: Path) -> None:
    paths = Paths()
    for n in range(40):
        paths.seen(str(n), "main", 60, 0)
    resumed = again(paths, 50 * S, 0, 7 * S, tmp_path)
    resumed.seen("3", "main", 60, 20 * S)
    assert states(resumed.check(106 * S)) == [("3", "lost")]  # it was heard since, so its interval counts
    assert len(resumed.check(108 * S)) == 39


def test_the_time_we_were_down_is_not_held_against_a_path_and_its_last_message_is_told_right(tmp_path: Path) -> None:
    paths = Paths()
    paths.seen("1", "main", 60, 0)
    resumed = again(paths, 10 * S, 3600 * S, 7 * S, tmp_path, grace_seconds=0)
    assert resumed.check(56 * S) == []
    (lost,) = resumed.check(58 * S)
    assert (7 * S - lost.last_seen_us) // S == 3610
    third = again(resumed, 60 * S, 100 * S, 0, tmp_path)
    restored = third.seen("1", "main", 60, S)
    assert restored is not None
    assert (0 - restored.last_seen_us) // S == 3763  # 10 s, an hour down, 53 s, 100 s down


def test_what_was_told_before_a_restart_is_not_told_again_and_its_end_is(tmp_path: Path) -> None:
    paths = Paths()
    paths.seen("lost", "main", 60, 0)
    paths.seen("held", "main", 60, 0)
    paths.confirm("never", lambda _: Terms(60), 0)
    paths.confirm("awaited", lambda _: Terms(3000), 0)
    for change in paths.check(500 * S):
        if change.account == "held":
            paths.hold(change)
        if change.account == "never":
            paths.never(change, as_one=False)
    resumed = again(paths, 510 * S, 0, 0, tmp_path)
    assert resumed.count() == {"alive": 0, "lost": 2, "never-seen": 2}
    resumed.confirm("never", lambda _: Terms(60), 0)
    assert states(resumed.check(4000 * S)) == [("awaited", "never-seen")]
    assert states(resumed.release(9)) == [("held", "lost")]
    restored = resumed.seen("lost", "main", 60, 1000 * S)
    assert restored is not None
    assert restored.state == "restored"
    resumed.seen("never", "main", 60, 1000 * S)
    assert list(resumed.ended) == [("never", "", "", "never-seen", True)]


def test_paths_of_listeners_that_are_gone_are_not_taken_over_and_those_of_accounts_go_with_the_first_review(
    tmp_path: Path,
) -> None:
    paths = Paths()
    paths.seen("1", "main", 60, 0)
    paths.seen("2", "main", 60, 0)
    paths.seen("2", "radio", 60, 0)
    resumed = again(paths, 0, 0, 0, tmp_path)
    assert resumed.count()["alive"] == 2
    resumed.begin_review()
    resumed.confirm("2", lambda _: Terms(90), 0)
    list(resumed.sweep())
    assert states(resumed.check(200 * S)) == [("2", "lost")]
    assert resumed.count() == {"alive": 0, "lost": 1, "never-seen": 0}


def test_a_path_begun_while_the_register_is_reviewed_is_kept_and_one_taken_out_is_forgotten_at_once() -> None:
    paths = Paths()
    paths.begin_review()
    paths.seen("1", "main", 60, 0)
    paths.seen("2", "main", 60, 0)
    paths.seen("2", "radio", 60, 0)
    list(paths.sweep())
    assert paths.count()["alive"] == 3
    paths.forget("2")
    assert paths.count()["alive"] == 1


def test_the_file_is_ours_alone_and_damage_of_any_byte_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / "paths.state"
    assert path_file.read(file) is None
    paths = Paths()
    paths.seen("1", "main", 60, 0)
    path_file.write(file, paths.kept(0), 0)
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["paths.state"]
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(PathsUnreadable):
            path_file.read(file)
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        with pytest.raises(PathsUnreadable):
            path_file.read(file)


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    paths = Paths()
    with pytest.raises(OSError, match="No such file"):
        path_file.write(tmp_path / "gone" / "paths.state", paths.kept(0), 0)
