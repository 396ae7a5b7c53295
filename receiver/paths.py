"""Supervision of transmission paths: pure state, with steady time passed in; no jump of the wall clock loses a path.

A path is one account as one listener hears it. Any valid message restarts its timer (DC-09 clause 5.5.2). A path that was
silent for longer than its account's interval and margin is lost, and the next message restores it. An account that was
heard at no listener has one path without a listener: it is awaited and, after grace and interval, never seen.

A path is a number, and what is known of it stands under that number in arrays: 110 bytes a path in place of 300 as objects,
and nothing for the collector to walk through. Timers stand on a wheel of one turn, an hour in slots of a second. A message
writes down its moment and leaves the wheel alone; a path is looked at when its slot comes, and set further on if it was
heard since. So a message costs the same with a thousand paths and with a million, and a look happens once an interval.
"""

from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterator

from receiver.clock import SECOND_US
from receiver.path_columns import UNSET, Columns, Hearing
from receiver.path_values import (
    ALIVE,
    AWAITED,
    FREE,
    HELD,
    LOST,
    NEVER,
    NEVER_AS_ONE,
    NOWHERE,
    NOWHERE_OF_ROLE,
    STATES,
    Block,
    Ended,
    Kept,
    PathChange,
    Terms,
)

__all__ = ["NOWHERE", "Kept", "PathChange", "Paths", "Terms"]

_TURN = 3600  # slots of a second; a longer interval is looked at once a turn
_LOOKS = 250  # in one check, 0.2 ms, and 2 ms where memory is slow: it must not hold up a duress

_NOWHERE = (NOWHERE, *NOWHERE_OF_ROLE.values())


class Paths:
    """Every supervised path. ``terms`` and ``role`` are replaced by whoever knows the register and the listeners."""

    def __init__(self) -> None:
        self.terms: Callable[[str, str, int], Terms | None] = lambda _account, _listener, seconds: Terms(seconds)
        self.role: Callable[[str], str] = lambda _listener: ""
        self.ended: deque[Ended] = deque(maxlen=100_000)
        """What was told singly as lost or never seen and has an end but a restoration; who tells of it takes it out."""
        self.quietly_restored = 0
        self.restored_primaries: list[str] = []
        """Accounts whose primary path is back; whoever gives their backup its own interval again takes them out."""
        self.grace_us = 0
        self._began_us = 0
        self._there: dict[str, Hearing] = {}
        self._listeners: list[str] = []
        self._count = [0] * len(STATES)
        self._columns = at = Columns()
        self.make_room, self.making_room = at.make_room, at.making_room  # for a register of so many accounts
        self._account, self._listener, self._state, self._seen_us = at.account, at.listener, at.state, at.seen_us
        self._interval, self._margin, self._gap_us = at.interval, at.margin, at.gap_us
        self._slot, self._round_of = at.slot, at.round_of
        self._round = 0
        self._not_before: dict[int, int] = {}  # paths whose interval was shortened: they get all of it from then on
        self._wheel: list[array[int] | None] = [None] * _TURN
        self._turned = 0  # the last second whose slot was looked at, and how far we are with the next one
        self._looked = 0

    # -- what comes in --------------------------------------------------------------------------------------------

    def seen(self, account: str, listener: str, interval_seconds: int, now_us: int) -> PathChange | None:
        """Note a valid message; return the restoration when the path was lost and that was told."""
        there = self._there.get(listener)
        number = None if there is None else there.paths.get(account)
        if there is None or number is None:
            self._begin(account, listener, ALIVE, self.terms(account, listener, interval_seconds), now_us)
            return None
        there.heard_us = now_us
        if self._state[number] == ALIVE:
            self._seen_us[number] = now_us
            return None
        return self._restore(number, now_us)

    def _restore(self, number: int, now_us: int) -> PathChange | None:
        told = self._state[number] == LOST
        change = self._change(number, "restored") if told else None
        self.quietly_restored += not told
        self._seen_us[number] = now_us
        self._turn_to(number, ALIVE)
        self._put(number, now_us)
        if self.role(self._listeners[self._listener[number]]) == "primary":
            self.restored_primaries.append(self._account[number])
        return change

    def confirm(self, account: str, wanted: Callable[[str], Terms], now_us: int, roles: Collection[str] = ()) -> None:
        """Hold the paths of an account to what the register wants at each listener; await it where it was never heard.

        With ``roles`` it is to be heard at a listener of each; without, at any.
        """
        heard: set[str] = set()
        for listener, there in self._there.items():
            number = there.paths.get(account)
            if number is not None:
                self._round_of[number] = self._round
                self._revise(number, wanted(listener), now_us)
                if listener not in _NOWHERE:
                    heard.add(self.role(listener))
        missing = {NOWHERE_OF_ROLE[role] for role in roles if role not in heard} if roles else set() if heard else {NOWHERE}
        for listener in _NOWHERE:
            number = self._find(account, listener)
            if number is None and listener in missing:
                self._begin(account, listener, AWAITED, wanted(listener), now_us)
            elif number is not None and listener not in missing:
                self._forget(number)

    def _begin(self, account: str, listener: str, state: int, terms: Terms | None, now_us: int) -> None:
        if terms is None:
            return  # not supervised any more
        there = self._there.get(listener)
        if there is None:
            there = self._there[listener] = Hearing(len(self._listeners))
            self._listeners.append(listener)
        if listener not in _NOWHERE:
            self._meet(account, self.role(listener))
        number = self._columns.take(account)
        self._listener[number] = there.number
        self._seen_us[number] = now_us
        self._interval[number], self._margin[number] = terms
        there.paths.put(account, number)
        there.heard_us = now_us
        self._round_of[number] = self._round
        self._turn_to(number, state)
        self._put(number, now_us)

    def _meet(self, account: str, role: str) -> None:
        """An awaited account was heard, at a listener of a role: it is awaited there no more."""
        for listener in (NOWHERE, NOWHERE_OF_ROLE.get(role, NOWHERE)):
            if (number := self._find(account, listener)) is not None:
                if self._state[number] in (NEVER, NEVER_AS_ONE) and role == "primary":
                    self.restored_primaries.append(account)
                self._forget(number, heard=True)

    def _forget(self, number: int, heard: bool = False) -> None:
        account, listener = self._account[number], self._listeners[self._listener[number]]
        if self._state[number] in (LOST, NEVER):
            state = "lost" if self._state[number] == LOST else "never-seen"
            self.ended.append(Ended(account, listener, self.role(listener), state, heard))
        self._there[listener].paths.take(account)
        self._turn_to(number, FREE)
        self._columns.give_back(number)
        self._not_before.pop(number, None)

    def _turn_to(self, number: int, state: int) -> None:
        old = self._state[number]
        self._state[number] = state
        self._count[old] -= 1
        self._count[state] += 1
        if (old == ALIVE) != (state == ALIVE):
            self._there[self._listeners[self._listener[number]]].alive += 1 if state == ALIVE else -1

    # -- the wheel ------------------------------------------------------------------------------------------------

    def _due_us(self, number: int) -> int:
        """Return when a path is lost if it stays silent.

        Before it was heard again after a start, not within the grace: who calls again after our absence takes a while.
        """
        seen_us = self._seen_us[number]
        due_us = seen_us + (self._interval[number] + self._margin[number]) * SECOND_US
        if self._state[number] == AWAITED:
            due_us += self.grace_us
        if self._not_before:
            due_us = max(due_us, self._not_before.get(number, 0))
        return due_us if seen_us >= self._began_us else max(due_us, self._began_us + self.grace_us)

    def _put(self, number: int, now_us: int) -> None:
        """Put a path on the slot of the second in which it is due, or would be if it were heard now; a turn ahead at most.

        Heard within the grace after a start, it is due before that ends.
        """
        if_heard_us = now_us + (self._interval[number] + self._margin[number]) * SECOND_US
        due_us = min(self._due_us(number), if_heard_us)
        second = max(-(-due_us // SECOND_US), now_us // SECOND_US + 1, self._turned + 1)
        slot = min(second, self._turned + _TURN - 1) % _TURN
        self._slot[number] = slot
        there = self._wheel[slot]
        if there is None:
            there = self._wheel[slot] = array("I")
        there.append(number)

    def is_behind(self, now_us: int) -> bool:
        """Tell whether there are paths to look at in a second that is over."""
        return self._turned < now_us // SECOND_US

    def check(self, now_us: int) -> list[PathChange]:
        """Look at 250 paths of the seconds that are over, at most; return the paths lost and the accounts found never seen.

        Who calls tells of them before the next message is heard: else it would be told restored, and lost after that.
        """
        gone: list[PathChange] = []
        looks, now_second = _LOOKS, now_us // SECOND_US
        if self._turned < now_second - _TURN:  # held up for longer than a turn: each slot once
            self._turned, self._looked = now_second - _TURN, 0
        while self._turned < now_second and looks > 0:
            slot = (self._turned + 1) % _TURN
            numbers, first = self._wheel[slot] or (), self._looked
            self._looked = last = min(len(numbers), first + looks)
            for number in numbers[first:last]:
                if self._slot[number] == slot:  # else it was set further on since
                    self._look(number, now_us, gone)
            looks -= last - first
            if last == len(numbers):
                self._wheel[slot] = None
                self._turned, self._looked = self._turned + 1, 0
        return gone

    def _look(self, number: int, now_us: int, gone: list[PathChange]) -> None:
        due_us = self._due_us(number)
        if self._not_before.get(number, now_us + 1) <= now_us:
            del self._not_before[number]
        if due_us > now_us:
            self._put(number, now_us)
            return
        self._slot[number] = UNSET
        if self._state[number] == ALIVE:
            gone.append(self._change(number, "lost"))
            self._turn_to(number, LOST)
        elif self._state[number] == AWAITED:
            gone.append(self._change(number, "never-seen"))  # and awaited until `never` says that it was told

    def _change(self, number: int, state: str) -> PathChange:
        listener, seen_us = self._listeners[self._listener[number]], self._seen_us[number]
        if seen_us < self._began_us:
            seen_us -= self._gap_us[number]
        return PathChange(self._account[number], listener, state, seen_us, self._interval[number], self.role(listener))

    def never(self, change: PathChange, as_one: bool) -> bool:
        """Note that an account found never seen is told now, with others as one or singly; False: awaited no more."""
        number = self._find(change.account, change.listener)
        if number is None or self._state[number] != AWAITED:
            return False
        self._turn_to(number, NEVER_AS_ONE if as_one else NEVER)
        return True

    @property
    def never_as_one(self) -> int:
        """How many accounts told together as never seen are still not heard."""
        return self._count[NEVER_AS_ONE]

    # -- storms ---------------------------------------------------------------------------------------------------

    def hold(self, change: PathChange) -> None:
        """Note that a loss was not told singly; ``release`` brings it back unless the path is heard before."""
        number = self._find(change.account, change.listener)
        assert number is not None  # it was found lost a moment ago
        self._turn_to(number, HELD)

    def release(self, most: int) -> list[PathChange]:
        """Return held losses, to be told singly now."""
        released: list[PathChange] = []
        number = -1
        while len(released) < most and self._count[HELD]:
            number = self._state.find(HELD, number + 1)
            self._turn_to(number, LOST)
            released.append(self._change(number, "lost"))
        return released

    @property
    def held(self) -> int:
        """How many losses are held."""
        return self._count[HELD]

    def silent(self, listener: str) -> int:
        """Return how many supervised paths a listener has when all of them are lost, else 0."""
        there = self._there.get(listener)
        return 0 if there is None or there.alive else len(there.paths)

    def hears(self, listener: str) -> bool:
        """Tell whether a listener has a supervised path that is alive."""
        return listener in self._there and self._there[listener].alive > 0

    def heard_us(self, listener: str) -> int:
        """Return when a supervised account was last heard at a listener."""
        return self._there[listener].heard_us

    def lost(self, account: str, listener: str) -> bool:
        """Tell whether a path is lost, told or not, or was told as never seen."""
        number = self._find(account, listener)
        return number is not None and self._state[number] in (LOST, HELD, NEVER, NEVER_AS_ONE)

    def _find(self, account: str, listener: str) -> int | None:
        there = self._there.get(listener)
        return None if there is None else there.paths.get(account)

    def renew(self, account: str, listener: str, now_us: int) -> None:
        """Take over what a path is allowed now."""
        number = self._find(account, listener)
        terms = None if number is None else self.terms(account, listener, self._interval[number])
        if number is not None and terms is not None:
            self._revise(number, terms, now_us)

    # -- the register was read again --------------------------------------------------------------------------------

    def begin_review(self) -> None:
        """From here on each account of the register is confirmed; ``sweep`` then forgets what was not."""
        self._round = (self._round + 1) % 256

    def sweep(self) -> Iterator[None]:
        """Forget the paths that the review did not confirm, one look a step."""
        for number in range(self._columns.used):
            if self._state[number] != FREE and self._round_of[number] != self._round:
                self._forget(number)
            yield

    def forget(self, account: str) -> None:
        """Forget the paths of an account that is not supervised any more."""
        for there in self._there.values():
            number = there.paths.get(account)
            if number is not None:
                self._forget(number)

    def _revise(self, number: int, terms: Terms, now_us: int) -> None:
        """Hold a path to what is wanted of it now; a shorter interval begins now, for nobody called by it before."""
        if terms != (before := (self._interval[number], self._margin[number])):
            self._interval[number], self._margin[number] = terms
            if self._state[number] in (ALIVE, AWAITED):
                if sum(terms) < sum(before):
                    self._not_before[number] = now_us + sum(terms) * SECOND_US
                self._put(number, now_us)

    # -- over a restart -------------------------------------------------------------------------------------------

    def keeping(self, now_us: int) -> Iterator[Kept | None]:
        """Copy all paths, some of them a step; what comes at the end is to be written down, as of this moment."""
        blocks: list[Block] = []
        for _ in self._columns.copy(blocks):
            yield None
        yield Kept(self._listeners.copy(), self._began_us, now_us, blocks)

    def kept(self, now_us: int) -> Kept:
        """Copy all paths at once: 100 ms for a million."""
        (kept,) = [kept for kept in self.keeping(now_us) if kept is not None]
        return kept

    def resume(
        self, kept: Kept, listeners: Collection[str], spelled: Callable[[str], str], gap_us: int, now_us: int
    ) -> None:
        """Begin with paths that were written down ``gap_us`` ago, at these listeners and nowhere.

        A path's clock stood still meanwhile: we were not there to hear it. ``spelled`` returns the register's own text of an
        account where it is in memory, so that it is kept once.
        """
        self._began_us = now_us
        self._listeners = kept.listeners.copy()
        self._there = {name: Hearing(n) for n, name in enumerate(kept.listeners)}
        left_out = {n for n, name in enumerate(kept.listeners) if name not in _NOWHERE and name not in listeners}
        there = [self._there[name] for name in kept.listeners]
        for block in kept.blocks:
            first = self._columns.extend(block, kept, now_us, gap_us)
            for number, name in enumerate(block.names.decode("ascii").split(), first):
                state, listener = self._state[number], self._listener[number]
                if state == LOST and listener in left_out:
                    where = kept.listeners[listener]
                    self.ended.append(
                        Ended(spelled(name), where, (kept.told.roles or {}).get(where, ""), "lost", heard=False)
                    )
                if state == FREE or listener in left_out:
                    self._state[number] = FREE
                    self._columns.give_back(number)
                    continue
                self._account[number] = account = spelled(name)
                there[listener].paths.put(account, number)
                there[listener].alive += state == ALIVE
                there[listener].heard_us = max(there[listener].heard_us, self._seen_us[number])
                self._count[state] += 1
                if state in (ALIVE, AWAITED):
                    self._put(number, now_us)

    def recall(self, account: str, listener: str, state: int, seen_us: int, now_us: int) -> bool:
        """Put a path to what was told of it after it was written down; False where it is not supervised any more."""
        number = self._find(account, listener)
        if number is None and (state in (LOST, NEVER, NEVER_AS_ONE)):
            self._begin(account, listener, ALIVE, self.terms(account, listener, 0), now_us)
            number = self._find(account, listener)
        if number is None:
            return False
        self._slot[number] = UNSET
        self._seen_us[number], self._gap_us[number] = seen_us, 0
        self._turn_to(number, state)
        if state in (ALIVE, AWAITED):
            self._put(number, now_us)
        return True

    def count(self) -> dict[str, int]:
        """Return how many paths are alive and lost, and how many supervised accounts were never heard."""
        alive, lost, held, awaited, never, _, as_one = self._count
        return {"alive": alive, "lost": lost + held, "never-seen": awaited + never + as_one}
