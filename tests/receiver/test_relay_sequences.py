"""The sequences of relayed messages."""

from receiver.outputs.dc09 import Sequences

ALIKE = ("1234", "ADM-CID", b"1130 01 001")


def test_a_message_bears_the_same_sequence_each_time_even_after_a_restart() -> None:
    sequences = Sequences()
    assert [sequences.give(17, ALIKE, 0.0), sequences.give(17, ALIKE, 5.0)] == ["0017", "0017"]
    assert Sequences().give(17, ALIKE, 0.0) == "0017"
    assert [Sequences().give(place, ALIKE, 0.0) for place in (1, 9999, 10000)] == ["0001", "9999", "0001"]


def test_two_that_look_alike_do_not_bear_one_sequence_within_the_window() -> None:
    sequences = Sequences()
    assert sequences.give(5, ALIKE, 0.0) == "0005"
    assert sequences.give(10004, ALIKE, 100.0) == "0006"
    assert sequences.give(10004, ALIKE, 101.0) == "0006"
    assert sequences.give(10004, ("9999",), 101.0) == "0005"
    assert sequences.give(20003, ALIKE, 601.0) == "0005"


def test_a_flood_of_alike_messages_ends_and_the_first_9999_differ() -> None:
    sequences = Sequences()
    given = [sequences.give(place, ALIKE, place / 1000) for place in range(1, 10_201)]
    assert len(set(given[:9999])) == 9999
