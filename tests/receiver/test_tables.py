"""Tables in parts against a dictionary."""

import random

import pytest

from receiver.tables import Table
from tests.wire.running import wait_until


def test_a_table_is_a_dictionary() -> None:
    chance = random.Random(1)
    table, model = Table[int](), dict[str, int]()
    for at in range(20_000):
        name = f"{chance.randrange(3000):06X}"
        assert table.get(name) == model.get(name)
        if name in model and chance.random() < 0.6:
            assert table.take(name) == model.pop(name)
        elif name not in model:
            table.put(name, at)
            model[name] = at
    assert len(table) == len(model)
    assert sorted(table) == sorted(model)
    with pytest.raises(KeyError):
        table.take("none such")
    assert len(table) == len(model)


def test_a_value_is_added_once_and_a_name_that_has_none_is_an_error() -> None:
    table = Table({"A": 1})
    assert (table.add("A", 1), table.add("B", 2), table["A"], table["B"], len(table)) == (False, True, 1, 2, 2)
    assert sorted(table.values()) == [1, 2]
    with pytest.raises(KeyError):
        table["C"]


def test_one_goes_for_one_that_comes_and_of_its_part_the_oldest() -> None:
    table = Table[int]()
    table.make_way("A")  # nobody is there
    names = [f"{n:05d}" for n in range(3000)]
    for at, name in enumerate(names):
        table.put(name, at)
    part = [name for name in names if hash(name) % 1024 == hash(names[-1]) % 1024]
    table.make_way(names[-1])
    assert set(names) - set(table) == {part[0]}
    small = Table({"A": 1})
    for name in names:
        small.make_way(name)
        small.put(name, 0)
        assert list(small) == [name]


def test_a_table_is_asked_for_its_names_while_it_changes() -> None:
    table = Table({f"{n}": n for n in range(5000)})
    seen = []
    for name in table:
        seen.append(name)
        table.put(f"more {name}", 0)
        table.take(name)
    assert {f"{n}" for n in range(5000)} <= set(seen)


def test_a_large_table_is_emptied_in_a_thread_and_a_small_one_just_goes() -> None:
    table, small = Table({f"{n}": n for n in range(20_000)}), Table({"A": 1})
    small.let_go()
    assert len(small) == 1
    table.let_go()
    wait_until(lambda: len(table) == 0)
    assert list(table) == []
