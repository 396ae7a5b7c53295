"""The conversation with automation software, on a clock that a test turns."""

from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from receiver.outputs.session import ANY, Answer, Outcome, Said, Session, Timing

TIMING = Timing(ack_seconds=4.0, tries=4, heartbeat_seconds=30.0)
BEAT = Said(b"beat")
EVENT, NEXT = Said(b"event"), Said(b"next")


class Talk:
    """Drives a session: what was written, when, and how events ended."""

    def __init__(self, timing: Timing = TIMING, heartbeat: Callable[[], Said] | None = lambda: BEAT) -> None:
        self.now = 0.0
        self.session = Session(timing, heartbeat, self.now)
        self.written: list[tuple[float, bytes]] = []
        self.outcomes: list[Outcome] = []
        if heartbeat is not None and timing.heartbeat_seconds:
            self.until(0.0)
            self.hear(number=heartbeat().number)
            self.written.clear()

    def _note(self, step: tuple[bytes, Outcome | None]) -> None:
        frame, outcome = step
        if frame:
            self.written.append((self.now, frame))
        if outcome:
            self.outcomes.append(outcome)

    def offer(self, said: Said = EVENT) -> None:
        assert self.session.free
        self._note(self.session.offer(said, self.now))

    def hear(self, answer: Answer = Answer.ACK, number: str | None = None) -> None:
        self._note(self.session.hear(answer, number, self.now))

    def until(self, moment: float) -> None:
        while self.session.deadline <= moment:
            self.now = self.session.deadline
            self._note(self.session.wake(self.now))
        self.now = moment

    def frames(self) -> list[bytes]:
        return [frame for _, frame in self.written]


def test_an_acknowledged_event_is_taken_and_the_next_may_go_at_once() -> None:
    talk = Talk()
    talk.offer()
    assert not talk.session.free
    talk.hear()
    assert (talk.outcomes, talk.session.free) == ([Outcome.TAKEN], True)


def test_an_unanswered_event_goes_out_four_times_four_seconds_apart_and_then_only_heartbeats_do() -> None:
    talk = Talk()
    talk.offer()
    talk.until(100)
    assert talk.written[:4] == [(0.0, b"event"), (4.0, b"event"), (8.0, b"event"), (12.0, b"event")]
    assert talk.outcomes == [Outcome.FAILED]
    assert talk.written[4:] == [(16.0, b"beat"), (46.0, b"beat"), (76.0, b"beat")]
    assert (talk.session.failed, talk.session.usable) == (True, False)


def test_the_first_acknowledged_heartbeat_ends_the_failure() -> None:
    talk = Talk()
    talk.offer()
    talk.until(47)
    talk.hear()
    assert not talk.session.failed
    talk.until(47 + 8)  # the copies of the event may still be answered
    assert talk.session.free
    talk.offer()
    talk.hear()
    assert talk.outcomes == [Outcome.FAILED, Outcome.TAKEN]


def test_nobody_gets_an_event_who_has_not_acknowledged_a_heartbeat() -> None:
    session = Session(TIMING, lambda: BEAT, 0.0)
    assert session.wake(0.0).frame == b"beat"
    assert (session.free, session.good, session.failed) == (False, False, False)
    session.hear(Answer.NAK, None, 1.0)
    assert not session.usable
    session.hear(Answer.ACK, None, 2.0)
    assert (session.free, session.good) == (True, True)


def test_a_heartbeat_goes_out_after_thirty_seconds_without_traffic_and_traffic_restarts_that() -> None:
    talk = Talk()
    talk.until(20)
    talk.offer()
    talk.hear()
    talk.until(49.9)
    assert talk.frames() == [b"event"]
    talk.until(50)
    assert talk.written[-1] == (50.0, b"beat")
    talk.hear()
    assert (talk.session.failed, talk.outcomes) == (False, [Outcome.TAKEN])


def test_an_unanswered_heartbeat_is_repeated_and_then_the_link_has_failed() -> None:
    talk = Talk()
    talk.until(46.1)
    assert talk.frames() == [b"beat"] * 5
    assert talk.session.failed


def test_a_nak_brings_the_event_again_at_once_and_four_refuse_it() -> None:
    talk = Talk()
    talk.offer()
    for _ in range(4):
        talk.hear(Answer.NAK)
    assert talk.frames() == [b"event"] * 4
    assert talk.outcomes == [Outcome.REFUSED]
    assert (talk.session.failed, talk.session.free) == (False, True)


def test_a_late_ack_never_passes_for_that_of_the_next_event() -> None:
    """Answers take nine seconds: three copies are out when the first is acknowledged."""
    talk = Talk()
    talk.offer()
    talk.until(9)
    assert len(talk.written) == 3
    talk.hear()
    assert talk.outcomes == [Outcome.TAKEN]
    assert not talk.session.free
    talk.until(13)
    talk.hear()
    assert not talk.session.free
    talk.until(17)
    talk.hear()
    assert talk.session.free


def test_copies_that_are_never_answered_hold_up_the_next_event_for_a_while_only() -> None:
    talk = Talk()
    talk.offer()
    talk.until(5)
    talk.hear()
    talk.until(5 + 4 + 2 * 5 - 0.1)
    assert not talk.session.free
    talk.until(5 + 4 + 2 * 5)
    assert talk.session.free


def test_answers_with_numbers_belong_to_their_frame_whenever_they_come() -> None:
    talk = Talk()
    talk.offer(Said(b"one", "0001"))
    talk.until(5)
    talk.hear(Answer.ACK, "0001")
    assert talk.session.free
    talk.offer(Said(b"two", "0002"))
    talk.hear(Answer.ACK, "0001")
    assert talk.outcomes == [Outcome.TAKEN]
    talk.hear(Answer.ACK, "0002")
    assert talk.outcomes == [Outcome.TAKEN, Outcome.TAKEN]


def test_an_event_that_gets_no_answer_twice_while_heartbeats_do_is_refused_and_not_the_links_fault() -> None:
    talk = Talk()
    talk.offer()
    talk.until(16.5)
    talk.hear()
    talk.until(30)
    talk.offer()
    talk.until(46.5)
    talk.hear()
    assert talk.outcomes == [Outcome.FAILED, Outcome.REFUSED]
    assert not talk.session.failed


def test_an_event_is_not_refused_when_the_heartbeat_too_went_unanswered() -> None:
    talk = Talk()
    talk.offer()
    talk.until(47)
    talk.hear()
    talk.until(60)
    talk.offer()
    talk.until(76.5)
    assert talk.outcomes == [Outcome.FAILED, Outcome.FAILED]


def test_a_slow_side_that_answers_heartbeats_late_is_not_lost_for_ever() -> None:
    talk = Talk()
    talk.offer()
    talk.until(21)  # the heartbeat of second 16 was given up at 20
    assert talk.session.failed
    talk.hear()
    assert not talk.session.failed


def test_not_now_fails_the_link_at_once_and_never_refuses_the_event_at_once() -> None:
    talk = Talk()
    talk.offer(Said(b"one", "0001"))
    talk.hear(Answer.NOT_NOW, ANY)
    assert (talk.outcomes, talk.session.failed) == ([Outcome.FAILED], True)
    talk = Talk()
    talk.offer(Said(b"one", "0001"))
    talk.hear(Answer.NEVER, "0001")
    assert (talk.outcomes, talk.session.failed, talk.frames()) == ([Outcome.REFUSED], False, [b"one"])


@pytest.mark.parametrize("heartbeat", [None, lambda: BEAT])
def test_without_heartbeats_the_next_event_tries_the_link(heartbeat: Callable[[], Said] | None) -> None:
    talk = Talk(Timing(4.0, 4, 0.0), heartbeat)
    talk.offer()
    talk.until(60)
    assert (talk.outcomes, talk.frames()) == ([Outcome.FAILED], [b"event"] * 4)
    assert talk.session.free
    talk.offer()
    talk.hear()
    assert (talk.outcomes[-1], talk.session.failed) == (Outcome.TAKEN, False)


class Peer:
    """Another side that answers what it got, in order, each copy after a delay of its own, or not at all.

    A ``serial`` one begins with a copy when it is done with the one before.
    """

    def __init__(self, talk: Talk, delays: Sequence[float | None], serial: bool = False) -> None:
        self._talk, self._delays, self._serial = talk, delays, serial
        self._due: list[tuple[float, bytes]] = []
        self._read = 0
        self.answered: set[bytes] = set()

    def turn(self) -> None:
        """Let time run to the next thing that happens."""
        talk = self._talk
        for moment, frame in talk.written[self._read :]:
            delay = self._delays[self._read % len(self._delays)]
            self._read += 1
            if delay is not None:
                last = self._due[-1][0] if self._due else 0.0
                at = max(moment, last) + delay if self._serial else max(moment + delay, last)
                self._due.append((at, frame))
        talk.until(min([talk.session.deadline, talk.now + 5, *(moment for moment, _ in self._due[:1])]))
        if self._due and self._due[0][0] <= talk.now:
            self.answered.add(self._due.pop(0)[1])
            talk.hear()


@given(st.lists(st.none() | st.floats(0, 7.9), min_size=1, max_size=12))
@example([5.0, 5.0])
@example([None, 0.1, 7.9])
def test_an_event_is_taken_only_when_a_copy_of_it_was_answered(delays: list[float | None]) -> None:
    _try_events(Talk(), delays, serial=False)


@given(st.floats(0, 15.9))
@example(8.0)
@example(9.0)
def test_nor_by_a_side_that_is_slow_with_each_frame_in_turn(delay: float) -> None:
    _try_events(Talk(), [delay], serial=True)


def _try_events(talk: Talk, delays: Sequence[float | None], serial: bool) -> None:
    peer = Peer(talk, delays, serial)
    for number in range(12):
        for _ in range(60):
            if talk.session.free:
                break
            peer.turn()
        else:
            return  # it answers too little to go on
        said = Said(b"event %d" % number)
        talk.offer(said)
        ended = len(talk.outcomes)
        while len(talk.outcomes) == ended:
            peer.turn()
        assert talk.outcomes[-1] is not Outcome.TAKEN or said.frame in peer.answered
