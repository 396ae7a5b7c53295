"""Budgets, the crowd at the door, and turns: pure state, with time passed in."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from receiver.arrivals import Arrival, Arrivals
from receiver.listeners.budget import Budgets, source_of, source_of_peer
from receiver.listeners.crowd import Crowd
from receiver.listeners.turns import Turns


def test_a_budget_is_its_burst_and_comes_back_at_its_rate() -> None:
    budgets = Budgets(burst=5, per_second=2.0, sources=10)
    assert [budgets.take("a", 100.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert [budgets.take("a", 100.4), budgets.take("a", 100.5), budgets.take("a", 100.5)] == [False, True, False]
    assert [budgets.take("a", 1000.0) for _ in range(6)] == [True] * 5 + [False]


def test_one_source_takes_nothing_from_another() -> None:
    budgets = Budgets(burst=1, per_second=1.0, sources=10)
    assert [budgets.take(source, 1.0) for source in ("a", "a", "b", "b")] == [True, False, True, False]


def test_sources_beyond_the_table_share_one_budget_and_the_table_never_grows() -> None:
    budgets = Budgets(burst=3, per_second=1.0, sources=4)
    for source in "abcd":
        assert budgets.take(source, 1.0)
    assert [budgets.take(f"forged {n}", 1.0) for n in range(10)] == [True] * 3 + [False] * 7
    assert budgets.take("a", 1.0)  # who was there keeps his own
    assert len(budgets) <= 5


def test_sources_that_were_quiet_are_forgotten() -> None:
    budgets = Budgets(burst=3, per_second=1.0, sources=100)
    for n in range(100):
        budgets.take(f"old {n}", 1.0)
    for n in range(100):
        budgets.take("new", 100.0 + n)
        budgets.take(f"other {n}", 100.0 + n)
    assert len(budgets) < 20


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 5)), max_size=200), st.integers(1, 5), st.integers(1, 4))
def test_no_source_ever_gets_more_than_burst_and_rate_allow(
    taken: list[tuple[str, float]], burst: int, sources: int
) -> None:
    budgets, now, granted = Budgets(burst, 2.0, sources), 0.0, dict[str, int]()
    for source, pause in taken:
        now += pause
        granted[source] = granted.get(source, 0) + budgets.take(source, now)
        assert len(budgets) <= sources + 1
    # One who was forgotten or came late may draw on his own and on the shared budget, never on more.
    assert all(count <= 2 * (burst + now * 2.0 + 1) for count in granted.values())


@pytest.mark.parametrize(
    ("peer", "source"),
    [
        ("192.0.2.7:40112", "192.0.2.7"), ("[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64"),
        ("[fe80::1%eth0]:1", "fe80::/64"),
    ],
)  # fmt: skip
def test_a_source_is_an_address_or_the_64_bits_a_site_has(peer: str, source: str) -> None:
    assert source_of_peer(peer) == source


def test_an_ipv4_address_is_one_source_over_both_families() -> None:
    assert source_of("::ffff:192.0.2.7") == source_of("192.0.2.7") == "192.0.2.7"


@dataclass(eq=False)
class Guest:
    source: str
    opened: float
    owed: bool = False


def _crowd(*guests: Guest, most: int = 100, per_source: int = 100) -> Crowd[Guest]:
    crowd = Crowd[Guest](most, per_source, grace_seconds=1.0)
    for guest in guests:
        crowd.enter(guest)
    return crowd


def test_the_oldest_stranger_makes_room_and_only_after_its_grace() -> None:
    old, young = Guest("a", 10.0), Guest("b", 11.0)
    crowd = _crowd(old, young, most=2)
    assert crowd.too_many("c") == "max-connections"
    assert crowd.makes_room("max-connections", "c", 10.5) is None
    assert crowd.makes_room("max-connections", "c", 11.5) is old
    crowd.leave(old)
    assert crowd.too_many("c") == ""
    assert crowd.makes_room("max-connections", "c", 11.5) is None


def test_a_panel_that_was_answered_or_whose_frame_is_in_hand_makes_no_room() -> None:
    proven, in_hand, stranger = Guest("a", 0.0), Guest("a", 0.0, owed=True), Guest("a", 1.0)
    crowd = _crowd(proven, in_hand, stranger, most=3)
    crowd.prove(proven)
    assert crowd.makes_room("max-connections", "a", 99.0) is stranger
    crowd.leave(stranger)
    assert crowd.makes_room("max-connections", "a", 99.0) is None


def test_for_the_limit_of_a_source_only_its_own_strangers_make_room() -> None:
    other, own = Guest("a", 0.0), Guest("b", 5.0)
    crowd = _crowd(other, own, per_source=1)
    assert crowd.too_many("b") == "max-connections-per-source"
    assert crowd.makes_room("max-connections-per-source", "b", 99.0) is own
    crowd.prove(own)
    assert crowd.makes_room("max-connections-per-source", "b", 99.0) is None


@given(st.lists(st.tuples(st.sampled_from(["enter", "prove", "leave"]), st.integers(0, 9)), max_size=60))
def test_a_crowd_counts_right_whatever_comes_and_goes(steps: list[tuple[str, int]]) -> None:
    crowd, guests, inside = _crowd(per_source=2), [Guest("ab"[n % 2], 0.0) for n in range(10)], set[int]()
    for step, n in steps:
        if step == "enter" and n not in inside:
            crowd.enter(guests[n])
            inside.add(n)
        elif step == "prove" and n in inside:
            crowd.prove(guests[n])
        elif step == "leave":
            crowd.leave(guests[n])
            inside.discard(n)
        for place, source in enumerate("ab"):
            full = sum(n % 2 == place for n in inside) >= 2
            assert (crowd.too_many(source) != "") is full
    for guest in guests:
        crowd.leave(guest)
    assert not crowd.all
    assert crowd.makes_room("max-connections", "a", 99.0) is None


async def _no_story(_: Sequence[Arrival]) -> None:
    """Bring no frames."""


_NOTHING = Arrivals(_no_story, lambda _arrivals, _error: None)


class Busy:
    def __init__(self, name: str, slices: int, told: list[str]) -> None:
        self.name, self.slices, self.told = name, slices, told

    def work(self) -> bool:
        self.told.append(self.name)
        self.slices -= 1
        return self.slices > 0


def test_heavy_senders_are_worked_off_one_slice_each_in_turn() -> None:
    told: list[str] = []

    async def run() -> None:
        turns = Turns(_NOTHING)
        for name, slices in (("a", 3), ("b", 1), ("c", 2)):
            turns.add(Busy(name, slices, told))
        for _ in range(10):
            await asyncio.sleep(0)

    asyncio.run(run())
    assert "".join(told) == "abcaca"


def test_everybody_else_gets_on_between_the_slices_of_a_heavy_sender() -> None:
    told: list[str] = []

    class Slow(Busy):
        def work(self) -> bool:
            until = asyncio.get_running_loop().time() + 0.006
            while asyncio.get_running_loop().time() < until:
                pass
            return super().work()

    async def run() -> None:
        Turns(_NOTHING).add(Slow("heavy", 3, told))
        for _ in range(4):
            await asyncio.sleep(0)
            told.append("other")

    asyncio.run(run())
    assert told == ["heavy", "other"] * 3 + ["other"]
