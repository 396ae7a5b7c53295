"""Our clock under watch, with simulated time: jumps, a dead battery, drift, panels that vote, and attackers that try to."""

from dataclasses import dataclass, field

import pytest

from receiver import clock
from receiver.clockwatch import MADE_US, ClockWatch, Finding
from receiver.config import ClockSettings

S = clock.SECOND_US
START = 1_790_000_000 * S
HOUR = 3600
YEAR = 365 * 86400


@dataclass
class World:
    """True time and steady time run on together; ours is off by ``error``, a panel's by what the test says."""

    error: float = 0.0
    newest: float | None = None  # seconds before START; the newest stored event and its stamp
    settings: ClockSettings = field(default_factory=ClockSettings)

    def __post_init__(self) -> None:
        self.passed = 0.0
        newest_us = 0 if self.newest is None else START - round(self.newest * S)
        self.watch = ClockWatch(self.settings, self.ours, self.steady, newest_us, newest_us)

    @property
    def true(self) -> int:
        return START + round(self.passed * S)

    @property
    def ours(self) -> int:
        return self.true + round(self.error * S)

    @property
    def steady(self) -> int:
        return 77 * S + round(self.passed * S)

    def pass_seconds(self, seconds: int, synchronised: bool | None = True) -> list[Finding]:
        found = []
        for _ in range(seconds):
            self.passed += 1
            found += self.watch.look(self.ours, self.steady, synchronised)
        return found

    def hear(self, panels: int, off: float = 0.0, first: int = 0) -> None:
        for number in range(first, first + panels):
            self.watch.heard(f"{number:04d}", self.true + round(off * S), self.steady)

    def accepts(self, off: float = 0.0) -> bool:
        """Whether a stamp of a panel whose clock is off by so much is accepted, by the window or by a rule."""
        stamp = self.true + round(off * S)
        ahead = (stamp - self.ours) / S
        if -self.settings.behind_seconds - 0.999 <= ahead <= self.settings.ahead_seconds:
            return True
        return self.watch.forgives(stamp, self.ours, self.steady)


def reasons(found: list[Finding]) -> list[str]:
    return [finding.reason for finding in found]


def test_without_evidence_nothing_outside_the_window_is_accepted() -> None:
    world = World(newest=10)
    assert world.pass_seconds(100) == []
    assert world.accepts()
    assert not world.accepts(-42)
    assert not world.accepts(21)
    assert not world.watch.suspect


@pytest.mark.parametrize("jump", [HOUR, -HOUR, 3 * YEAR, -3 * YEAR, 2.5, -2.5])
def test_a_jump_is_told_and_the_clock_before_it_keeps_its_window_for_ten_minutes(jump: float) -> None:
    world = World(newest=10)
    world.pass_seconds(5)
    world.error = jump
    (found,) = [finding for finding in world.pass_seconds(1) if finding.reason == "clock-stepped"]
    assert ("forward" if jump > 0 else "back") in found.text
    assert world.watch.steps == 1
    world.pass_seconds(598)
    assert world.accepts()
    assert not world.accepts(-120)
    if jump > 60:
        world.pass_seconds(3)
        assert not world.accepts()


def test_a_message_in_the_very_second_of_a_jump_is_not_lost() -> None:
    world = World(newest=10)
    world.pass_seconds(5)
    world.passed += 0.3
    world.error = HOUR
    assert world.accepts()
    assert not world.accepts(-120)


def test_what_a_disciplined_clock_does_is_no_jump() -> None:
    world = World()
    for _ in range(3600):
        world.error += 0.0005  # the fastest slew there is
        assert world.pass_seconds(1) == []
    assert world.watch.steps == 0


def test_many_jumps_keep_few_clocks() -> None:
    world = World(newest=10)
    for n in range(100):
        world.error = 100.0 * (n + 1)
        world.pass_seconds(1)
    assert world.watch.steps == 100
    assert len(world.watch._before) == 8


def test_a_dead_battery_is_known_by_the_newest_stored_event() -> None:
    world = World(error=-26 * YEAR, newest=HOUR)
    found = world.pass_seconds(3)
    assert reasons(found) == ["clock-behind-journal"]
    assert "2000" in found[0].text
    assert world.accepts()
    assert world.accepts(-HOUR + 10)
    assert not world.accepts(-HOUR - 60), "older than what was stored: a recording"
    world.error = 0
    world.pass_seconds(1)
    assert not world.accepts(100)


def test_a_dead_battery_is_known_without_a_journal_by_the_age_of_the_program() -> None:
    world = World(error=-26 * YEAR)
    assert reasons(world.pass_seconds(2)) == ["clock-behind-journal"]
    assert world.accepts()
    assert not world.accepts((MADE_US - START) / S - 100)


def test_panels_that_agree_outvote_our_clock_and_are_told_once() -> None:
    world = World(error=-HOUR)
    world.hear(5)
    found = world.pass_seconds(10)
    assert reasons(found) == ["clock-suspect"]
    assert "5 of 5 panels" in found[0].text
    assert "behind theirs" in found[0].text
    assert world.watch.panels_offset_us == pytest.approx(HOUR * S, abs=S)
    assert world.accepts()
    assert not world.accepts(HOUR)
    world.error = 0
    world.pass_seconds(1)
    assert not world.accepts(60)


@pytest.mark.parametrize("error", [HOUR, 2 * YEAR])
def test_a_clock_set_forward_for_good_is_outvoted_after_the_ten_minutes(error: float) -> None:
    world = World(newest=10)
    world.hear(5)
    world.pass_seconds(10)
    world.error = error
    for _ in range(7):
        world.pass_seconds(100)
        world.hear(6)
    world.pass_seconds(1)
    assert world.accepts()
    assert not world.accepts(-120)


def test_slow_drift_is_no_jump_and_is_found_by_the_panels() -> None:
    world = World(newest=10)
    for n in range(100):
        world.hear(8)
        found = world.pass_seconds(1)
        world.error += 1.0  # each step is below what is called a jump
        if n < 40:
            assert found == []
    world.hear(8)
    world.pass_seconds(1)
    assert world.watch.steps == 0
    assert world.accepts()


def test_fewer_than_five_keys_open_no_window() -> None:
    world = World(newest=10)
    for _ in range(50):
        world.hear(4, off=500)
        world.pass_seconds(1)
    assert not world.accepts(500)
    assert world.watch.panels_offset_us is None


def test_a_minority_opens_no_window_however_often_it_speaks() -> None:
    world = World(newest=10)
    for _ in range(50):
        world.hear(10, off=500)
        world.hear(10, first=100)
        world.pass_seconds(1)
    assert not world.accepts(500)


def test_panels_that_are_wrong_each_in_a_way_of_its_own_open_no_window() -> None:
    world = World(newest=10)
    for n in range(20):
        world.hear(1, off=300.0 * (n + 1), first=n)
    world.pass_seconds(2)
    assert not any(world.accepts(300.0 * (n + 1)) for n in range(20))


def test_old_recordings_of_many_panels_do_not_vote() -> None:
    world = World(newest=100)
    world.hear(3)
    world.pass_seconds(2)
    world.hear(50, off=-86400, first=1000)
    world.pass_seconds(2)
    assert not world.accepts(-86400)
    assert not world.watch.suspect


def test_old_recordings_stay_out_while_the_clock_is_in_doubt() -> None:
    world = World(newest=100)
    world.hear(5)
    world.pass_seconds(2)
    world.error = -86400 + 600
    world.pass_seconds(2)
    assert world.watch.suspect
    assert world.accepts()
    assert not world.watch.forgives(world.ours - 300 * S, world.ours, world.steady)


def test_a_recording_does_not_take_the_place_of_a_living_panel() -> None:
    world = World(newest=10)
    world.hear(6)
    world.hear(6, off=-59)
    world.pass_seconds(1)
    assert world.watch.panels_offset_us == pytest.approx(0, abs=2 * S)


def test_votes_are_forgotten_after_five_minutes_and_bounded_in_number() -> None:
    world = World(error=-HOUR)
    world.hear(5000)
    assert len(world.watch._votes) == 1000
    world.pass_seconds(140)
    assert world.accepts()
    world.pass_seconds(170)
    assert world.watch.panels_offset_us is None
    assert not world.accepts()


def test_a_kernel_that_says_unsynchronised_is_told_once_and_relaxes_nothing() -> None:
    world = World(newest=10)
    assert world.pass_seconds(300, synchronised=False) == []
    assert reasons(world.pass_seconds(1000, synchronised=False)) == ["clock-unsynchronised"]
    assert world.watch.synchronised is False
    assert not world.accepts(100)
    assert not world.watch.suspect
    world.pass_seconds(5, synchronised=True)
    assert reasons(world.pass_seconds(400, synchronised=False)) == ["clock-unsynchronised"]


@pytest.mark.parametrize("word", [True, None])
def test_a_kernel_that_is_content_or_says_nothing_is_no_trouble(word: bool | None) -> None:
    assert World().pass_seconds(1000, synchronised=word) == []


def test_zero_turns_the_kernels_word_off() -> None:
    assert World(settings=ClockSettings(unsynchronised_seconds=0)).pass_seconds(1000, synchronised=False) == []


def test_retention_waits_while_the_clock_may_be_far_ahead() -> None:
    world = World(newest=10)
    assert not world.watch.holds_retention(world.steady)
    world.error = YEAR
    world.pass_seconds(1)
    assert world.watch.holds_retention(world.steady)
    assert World(error=YEAR, newest=10).watch.holds_retention(world.steady)
    assert not World(error=0, newest=HOUR).watch.holds_retention(world.steady)


def test_the_kernel_is_asked_and_the_clocks_are_read_together() -> None:
    assert clock.synchronised() in (True, False, None)
    wall_us, steady_us = clock.both_us()
    assert 0 <= clock.now_us() - wall_us < 10 * S
    assert 0 <= clock.steady_us() - steady_us < 10 * S
