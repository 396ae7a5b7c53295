"""Tells of accounts that were never heard, and of the end of that: one by one, or those that would end in a sum as one.

And of paths told as lost that nobody waits for any more.
"""

from collections import deque
from collections.abc import Callable, Sequence

from receiver.path_values import Ended
from receiver.paths import PathChange, Paths
from receiver.troubles import Singly, Trouble

_LISTED = 100


class NeverSeen:
    """What was found and is not told yet, and ends that wait for their turn: 20 a minute are told singly."""

    def __init__(self, paths: Paths, raise_trouble: Callable[[Trouble, int], None]) -> None:
        self._paths, self._raise = paths, raise_trouble
        self.as_one = False
        """Many were told as one, and not yet that it is over."""
        self.found: list[PathChange] = []
        self.ended: deque[Ended] = deque(maxlen=100_000)
        self._begun_singly, self._ended_singly = Singly(), Singly()

    def tell(self, now_us: int, steady_us: int) -> list[PathChange]:
        """Tell of those found since the last look that are awaited still; return them."""
        found, self.found = self.found, []
        as_one = len(found) > self._begun_singly.room(steady_us)
        never = [change for change in found if self._paths.never(change, as_one)]
        for change in () if as_one else never:
            where = f" at a {change.role} listener" if change.role else ""
            text = (
                f"account {change.account} is supervised (every {change.interval_seconds} s) and was never heard{where}; "
                f"was its panel pointed {'there' if where else 'here'}?"
            )
            self._begun_singly.raised(steady_us)
            role = change.role or None
            self._raise(Trouble("never-seen", text, now_us, account=change.account, role=role), now_us)
        if as_one and never:
            self._tell_as_one(never, now_us, steady_us)
        return never

    def _tell_as_one(self, never: Sequence[PathChange], now_us: int, steady_us: int) -> None:
        self.as_one = True
        names = tuple(dict.fromkeys(change.account for change in never))[:_LISTED]
        what = "paths of supervised accounts" if any(change.role for change in never) else "supervised accounts"
        text = f"{what} that were never heard: {len(never)}; were their panels pointed here?"
        self._begun_singly.raised(steady_us)
        self._raise(Trouble("never-seen", text, now_us, len(never), accounts=names), now_us)

    def tell_ends(self, listeners: Sequence[str], now_us: int, steady_us: int) -> None:
        """Tell who is missed no more: one by one those told so, 20 a minute; of the others when none is left."""
        for _ in range(min(len(self.ended), self._ended_singly.room(steady_us))):
            ended = self.ended.popleft()
            if any(self._paths.lost(ended.account, name) for name in listeners):
                self.ended.append(ended)  # lost meanwhile: that must not be closed
                continue
            where = f" at a {ended.role} listener" if ended.role else ""
            there = "there " if where else ""
            what = f"was heard {there}for the first time" if ended.heard else f"is not awaited {there or 'so '}any more"
            text = f"account {ended.account}, told as never seen{where}, {what}"
            self._ended_singly.raised(steady_us)
            role = ended.role or None
            self._raise(Trouble("never-seen-cleared", text, now_us, account=ended.account, role=role), now_us)
        if self.as_one and not self._paths.never_as_one and self._ended_singly.room(steady_us):
            self.as_one = False
            text = "all accounts told together as never seen were heard, or are not supervised any more"
            self._ended_singly.raised(steady_us)
            self._raise(Trouble("never-seen-cleared", text, now_us), now_us)


def tell_lost_ends(
    waiting: deque[Ended], paths: Paths, most: int, raise_trouble: Callable[[Trouble, int], None], now_us: int
) -> None:
    """Tell of some paths told as lost that are not supervised any more."""
    for _ in range(min(len(waiting), most)):
        ended = waiting.popleft()
        if paths.lost(ended.account, ended.listener):  # supervised again, and lost: that must not be closed
            waiting.append(ended)
            continue
        name, where, role = ended.account, ended.listener, ended.role or None
        text = f"account {name}, told as lost at listener {where}, is not supervised there any more"
        raise_trouble(Trouble("path-lost-cleared", text, now_us, account=name, listener=where, role=role), now_us)
