"""Tables in parts against a dictionary."""

import random

import pytest

from receiver.tables import Table


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
    assert table.count == len(model)
    assert sorted(table.names()) == sorted(model)
    with pytest.raises(KeyError):
        table.take("none such")
    assert table.count == len(model)
