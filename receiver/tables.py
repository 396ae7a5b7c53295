"""Dictionaries by account that a million may grow into without holding anybody up.

A dictionary grows by being written anew, and one of texts reads each text for that: 90 ms where 700,000 lie outside the
processor's cache. So it is kept in 1,024 parts, each of which grows by itself, in 0.1 ms. A look costs 0.1 µs more.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

Value = TypeVar("Value")
_PARTS = 1024
_LAST = _PARTS - 1


class Table(Generic[Value]):
    """Values by account."""

    __slots__ = ("_parts", "count")

    def __init__(self) -> None:
        self._parts: list[dict[str, Value]] = [{} for _ in range(_PARTS)]
        self.count = 0

    def get(self, name: str) -> Value | None:
        """Return what stands under a name, None where there is nothing."""
        return self._parts[hash(name) & _LAST].get(name)

    def put(self, name: str, value: Value) -> None:
        """Put a value under a name that has none."""
        self._parts[hash(name) & _LAST][name] = value
        self.count += 1

    def take(self, name: str) -> Value:
        """Take a value out; a part that is emptied by that lets go of its room.

        Raises:
            KeyError: there is none.
        """
        at = hash(name) & _LAST
        value = self._parts[at].pop(name)
        self.count -= 1
        if not self._parts[at]:
            self._parts[at] = {}
        return value

    def names(self) -> Iterator[str]:
        """Return each name."""
        for part in self._parts:
            yield from part
