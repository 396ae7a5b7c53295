"""Troubles: the first at once, its like counted, and a storm as one."""

import random

from receiver.clock import SECOND_US as S
from receiver.troubles import REASONS, SINGLY_A_MINUTE, WINDOWS_SECONDS, Trouble, Troubles


def stranger(number: int, since_us: int = 0, peer: str = "192.0.2.1:4000", reason: str = "unknown-account") -> Trouble:
    return Trouble(reason, f"account {number} is odd", since_us, 1, f"{number:04d}", "main", peer, "0A")


def test_like_troubles_are_counted_for_a_minute() -> None:
    troubles = Troubles()
    first = Trouble("undecryptable", "t", 0, account="1", listener="main")
    assert troubles.add(first, 0) is first
    assert troubles.add(first, 1) is None
    assert troubles.add(Trouble("undecryptable", "t", 0, account="2", listener="main"), 1) is not None
    assert troubles.add(Trouble("undecryptable", "t", 0, account="1", listener="spare"), 1) is not None
    assert troubles.add(first, 2) is None
    assert troubles.due(59 * S) == []
    assert [(trouble.account, trouble.count) for trouble in troubles.due(61 * S)] == [("1", 2)]
    assert troubles.due(200 * S) == []
    assert troubles.add(first, 201 * S) is first


def test_a_trouble_that_stands_for_many_is_counted_as_many() -> None:
    troubles = Troubles()
    lost = Trouble("paths-lost", "25 paths were lost", 5, 25)
    assert troubles.add(lost, 0) is lost
    assert troubles.add(lost, 20 * S) is None
    assert troubles.add(lost, 40 * S) is None
    assert [(trouble.count, trouble.since_us) for trouble in troubles.due(60 * S)] == [(50, 5)]
    assert troubles.happened["paths-lost"] == 75


def test_each_reason_is_counted_for_its_own_window() -> None:
    for reason in REASONS:
        troubles, window = Troubles(), WINDOWS_SECONDS.get(reason, 60)
        assert troubles.add(stranger(1, reason=reason), 0) is not None
        assert troubles.add(stranger(1, reason=reason), S) is None
        assert troubles.due(window * S - 1) == []
        assert [(trouble.reason, trouble.count) for trouble in troubles.due(window * S)] == [(reason, 1)]


def test_ten_thousand_strangers_in_a_minute_are_twenty_troubles_and_one_with_the_count() -> None:
    troubles, told = Troubles(), []
    for number in range(10_000):
        now_us = number * 60 * S // 10_000
        told += [trouble for trouble in (troubles.add(stranger(number, now_us), now_us),) if trouble]
        told += troubles.due(now_us)
    assert [trouble.account for trouble in told] == [f"{number:04d}" for number in range(SINGLY_A_MINUTE)]
    (storm,) = troubles.due(60 * S)
    assert (storm.count, storm.account, storm.raw, storm.listener) == (9_980, None, None, "main")
    assert "9980 more within a minute, of 9980 accounts, all from 192.0.2.1" in storm.text
    assert storm.since_us == told[-1].since_us + 60 * S // 10_000
    assert troubles.happened["unknown-account"] == 10_000


def test_a_storm_of_what_nobody_sent_names_no_address() -> None:
    troubles = Troubles()
    for number in range(30):
        troubles.add(Trouble("old-key-in-use", "old", 0, account=f"{number:04d}"), 0)
    (storm,) = troubles.due(60 * S)
    assert storm.text.startswith("a storm, 10 more within a minute, of 10 accounts: a panel uses its old key")
    assert storm.peer is None


def test_while_a_storm_goes_on_only_new_accounts_are_told_singly() -> None:
    troubles = Troubles()
    minutes = []
    for minute in range(4):
        told = []
        for second in range(60):
            now_us = (minute * 60 + second) * S
            told += troubles.due(now_us)
            for number in range(500):
                told += [t for t in (troubles.add(stranger(number, now_us, f"192.0.2.{number % 9}:1"), now_us),) if t]
        if minute == 2:
            told += [t for t in (troubles.add(stranger(7777, now_us), now_us),) if t]
        minutes.append([trouble.account for trouble in told])
    assert len(minutes[0]) == SINGLY_A_MINUTE
    assert [len(minute) for minute in minutes[1:]] == [1, 2, 1]
    assert minutes[2][-1] == "7777"
    (last,) = troubles.due(240 * S)
    assert "from several addresses" in last.text
    assert (last.account, last.peer) == (None, None)


def test_nothing_is_lost_from_the_count() -> None:
    troubles, told = Troubles(), []
    for second in range(400):
        told += troubles.due(second * S)
        for number in range(second % 7 * 20):
            told += [t for t in (troubles.add(stranger(number, second * S), second * S),) if t]
    told += troubles.rest()
    assert sum(trouble.count for trouble in told) == troubles.happened["unknown-account"] > 20_000
    assert troubles.rest() == []


def test_a_single_one_too_many_is_told_as_itself_when_the_minute_ends() -> None:
    troubles = Troubles()
    for number in range(SINGLY_A_MINUTE + 1):
        troubles.add(stranger(number), 0)
    (only,) = troubles.due(60 * S)
    assert (only.account, only.count, only.text) == ("0020", 1, "account 20 is odd")


def test_reasons_do_not_take_each_others_room() -> None:
    troubles = Troubles()
    for number in range(1000):
        troubles.add(stranger(number), 0)
    assert troubles.add(stranger(1, reason="second-address"), 0) is not None


def test_memory_stays_bounded_in_any_storm() -> None:
    troubles = Troubles()
    for number in range(50_000):
        troubles.add(stranger(number), 0)
        troubles.add(stranger(number), 0)
    (storm,) = troubles.due(59 * S) or troubles.due(60 * S)[:1]
    windows = troubles._open["unknown-account"].values()
    assert len(windows) <= 10_000
    assert sum(window.held is not None and window.held.raw is not None for window in windows) <= SINGLY_A_MINUTE
    assert "of 10000 or more accounts" in storm.text
    assert storm.count + sum(t.count for t in troubles.rest()) == 100_000 - SINGLY_A_MINUTE


def test_the_end_of_a_storm_is_no_long_look() -> None:
    troubles = Troubles()
    for number in range(10_000):
        troubles.add(stranger(number), 0)
    open_before = len(troubles._open["unknown-account"])
    for second in range(60, 70):
        troubles.due(second * S)
        assert open_before - len(troubles._open["unknown-account"]) <= 1000
        open_before = len(troubles._open["unknown-account"])
    assert open_before == 0


def test_a_beginning_and_its_end_are_never_told_the_other_way_round() -> None:
    """As automation sees them: who ends with an open alarm has one, and who ends with none has none."""
    lost, back = Trouble("automation-lost", "lost", 0, output="cms"), Trouble("automation-restored", "back", 0, output="cms")
    chance = random.Random(7)
    for _ in range(500):
        troubles, now_us, told = Troubles(), 0, []
        for number in range(chance.randint(1, 30)):
            now_us += chance.randint(1, 40) * S
            told += troubles.due(now_us)
            told += [t for t in (troubles.add((lost, back)[number % 2], now_us),) if t]
        told += (
            troubles.rest()
            if chance.random() < 0.5
            else [t for later in range(3) for t in troubles.due(now_us + later * 60 * S)]
        )
        reasons = [trouble.reason for trouble in told]
        assert reasons == [("automation-lost", "automation-restored")[n % 2] for n in range(len(reasons))]
        assert reasons[-1] == ("automation-restored", "automation-lost")[troubles.happened.total() % 2]


def test_an_end_brings_out_at_once_what_was_counted_before_it() -> None:
    troubles = Troubles()
    storm, over = Trouble("paths-lost", "lost", 0, 25, listener="main"), Trouble("paths-lost-cleared", "over", 0)
    assert troubles.add(storm, 0) is storm
    assert troubles.add(Trouble("paths-lost", "lost", 0, 30, listener="spare"), S) is not None
    assert troubles.add(storm, 50 * S) is None
    assert troubles.add(over, 52 * S) is None
    assert [(t.reason, t.count) for t in troubles.due(53 * S)] == [("paths-lost", 25), ("paths-lost-cleared", 1)]
    assert troubles.due(500 * S) == []
    assert troubles.add(over, 501 * S) is over
