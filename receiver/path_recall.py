"""What was told of paths after they were written down last, read from the journal: the receiver was killed meanwhile.

Without it a path that was told as lost in the last minute would be alive again, heard, and never be told as restored.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from receiver import clock
from receiver.errors import JournalUnavailable, ReceiverError, RegisterUnavailable
from receiver.journal import Kind, Reader
from receiver.path_values import ALIVE, AWAITED, LOST, NEVER, NEVER_AS_ONE, NOWHERE, NOWHERE_OF_ROLE, Ended, Told
from receiver.paths import Paths

_OF_OUR_OWN = b'"reason": "', b'"state": "'
"""What stands in every trouble and in every path event: a start after a crash looks into no other group of signals."""

Since = Callable[[int], Iterable[Mapping[str, Any]]]
"""From a position of the journal to the data of the path and trouble events that follow."""


def told_since(reader: Reader, position: int) -> Iterator[Mapping[str, Any]]:
    """Return the data of path and trouble events that are stored after a position, in order.

    Raises:
        JournalUnavailable: the file cannot be read now.
    """
    for stored in reader.holding_after(position, _OF_OUR_OWN):
        if stored.row.kind in (Kind.PATH, Kind.TROUBLE) and not stored.lost:
            yield json.loads(stored.row.body or b"{}")


class Recall:
    """Takes over one event after another, at a start: ``now_us`` is wall time, and ``told`` what has no end yet."""

    def __init__(self, paths: Paths, told: Told, listeners: Iterable[str], now_us: int, steady_us: int) -> None:
        self._paths, self._listeners = paths, frozenset(listeners)
        self._now_us, self._steady_us = now_us, steady_us
        self._silent = {name for name in self._listeners if paths.silent(name) > 1}
        if told.silent is not None:
            self._silent = set(told.silent)
        self._told = told
        paths.ended.extend(Ended(*ended) for ended in told.ended)
        self.storm = False
        """A storm was told since the paths were written down, and not its end."""

    @property
    def told(self) -> Told:
        """What has no end yet, after all that."""
        return self._told._replace(silent=sorted(self._silent))

    def take_all(self, since: Since) -> ReceiverError | None:
        """Take over what was told after the paths were written down; return what kept us from it."""
        try:
            for data in () if self._told.position is None else since(self._told.position):
                self.take(data)
        except (JournalUnavailable, RegisterUnavailable) as error:
            return error
        return None

    def take(self, data: Mapping[str, Any]) -> None:
        """Take over a path event or a trouble."""
        reason, account = data.get("reason", ""), data.get("account")
        if "state" in data:
            self._take_path(data, data["state"] == "lost")
        elif reason == "path-lost-cleared":
            self._take_path(data, False)
        elif reason in ("never-seen", "never-seen-cleared"):
            self._take_never(data, account, reason == "never-seen")
        elif reason in ("paths-lost", "paths-lost-cleared"):
            self.storm = reason == "paths-lost"
            self._told = self._told._replace(storm=self.storm)
        elif reason == "paths-restored":
            self._told = self._told._replace(back=0)
        elif reason == "listener-silent":
            self._silent.add(data["listener"])
        elif reason == "listener-silent-cleared":
            self._silent.discard(data["listener"])

    def _take_path(self, data: Mapping[str, Any], lost: bool) -> None:
        account, listener = data["account"], data["listener"]
        seen_us = self._steady_us
        if "last_seen" in data and lost:
            seen_us -= max(0, self._now_us - clock.from_text(data["last_seen"]))
        self._end(account, listener, "lost")
        known = listener in self._listeners and self._paths.recall(
            account, listener, LOST if lost else ALIVE, seen_us, self._steady_us
        )
        if lost and not known:
            self._paths.ended.append(Ended(account, listener, data.get("role", ""), "lost", heard=False))

    def _take_never(self, data: Mapping[str, Any], account: str | None, begun: bool) -> None:
        if account is None:
            self._told = self._told._replace(never_as_one=begun)
        for name in [account] if account else data.get("accounts", ()):
            listener = NOWHERE_OF_ROLE.get(data.get("role", ""), NOWHERE)
            self._end(name, listener, "never-seen")
            state = (NEVER if account else NEVER_AS_ONE) if begun else AWAITED
            self._paths.recall(name, listener, state, self._steady_us, self._steady_us)

    def _end(self, account: str, listener: str, state: str) -> None:
        """Take an end out that waited to be told: it has been, or there is a new beginning."""
        waiting = self._paths.ended
        for ended in [
            ended for ended in waiting if (ended.account, ended.listener, ended.state) == (account, listener, state)
        ]:
            waiting.remove(ended)
