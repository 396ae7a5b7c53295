"""How long a group is gathered before it goes to the disk."""

from receiver.journal.waiting import Gathering


def _turns(gathering: Gathering, counts: list[int]) -> int:
    """Return after how many turns the group is handed over; ``counts`` is what is in it at each, the last one for ever."""
    gathering.begin()
    turns = 0
    while gathering.goes_on(counts[min(turns, len(counts) - 1)]):
        turns += 1
        assert turns < 1000
    gathering.end(counts[-1])
    return turns


def test_a_lone_signal_waits_for_one_turn_that_brings_nothing_new() -> None:
    assert _turns(Gathering(), [1]) == 1


def test_a_group_grows_while_each_turn_brings_more() -> None:
    assert _turns(Gathering(), [10, 25, 40, 40]) == 3


def test_enough_is_handed_over_at_once() -> None:
    gathering = Gathering()
    assert _turns(gathering, [100]) == 0
    assert _turns(gathering, [5_000]) == 0


def test_half_of_the_last_group_is_given_a_few_turns_for_the_rest_to_come() -> None:
    gathering = Gathering()
    _turns(gathering, [50])
    assert _turns(gathering, [20, 20, 20, 50]) == 4


def test_a_group_as_large_as_the_last_one_is_not_held_up() -> None:
    gathering = Gathering()
    _turns(gathering, [50])
    assert _turns(gathering, [30]) == 1


def test_after_a_large_group_a_lone_signal_is_held_up_once_and_for_few_turns() -> None:
    gathering = Gathering()
    _turns(gathering, [90])
    assert _turns(gathering, [1]) == 5
    assert _turns(gathering, [1]) == 1


def test_a_trickle_does_not_renew_the_patience() -> None:
    gathering = Gathering()
    _turns(gathering, [99])
    trickle = [count for count in range(1, 40) for _ in range(3)]  # something new each third turn
    assert _turns(gathering, trickle) < 10
