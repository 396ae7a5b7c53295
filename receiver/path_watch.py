"""Looks after supervised paths: who is lost, never seen, part of a storm; and writes all of them down.

What has to be done for many paths is done for some at a time, so that no panel waits for it: looks at those that are due,
copies to be written down, the review of the register. A loss is told in the step that finds it; what is told of several at
once, each second.

Only changes are told. Many losses at once are one trouble with a count and a list, and the single ones follow for those who
are still silent when the storm is over. What was told before a restart is not told again after it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from receiver import path_file
from receiver.accounts import Account, Accounts
from receiver.clock import SECOND_US, both_us, monotonic
from receiver.config import ListenerSettings, SupervisionSettings
from receiver.errors import PathsUnreadable, RegisterUnavailable
from receiver.intervals import Supervision
from receiver.never_seen import NeverSeen, tell_lost_ends
from receiver.path_recall import Recall, Since
from receiver.path_values import NOWHERE_OF_ROLE, Ended, Told
from receiver.paths import Kept, PathChange, Paths, Terms
from receiver.storms import Burst, Storm
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble

_STEPS = 100  # accounts and paths reviewed at once, 0.3 ms, and up to 2 ms where a million are out of the processor's cache
_CHANGES = 10  # accounts changed by a command that are read at once, 1 ms: a key is opened for each
_BLOCKS = 2  # of paths copied at once, 0.2 ms
_RENEWALS, _MOST_RENEWALS = 50, 1_000_000  # backups looked after at once, 1 ms, and those that wait for it
_STEP_SECONDS, _REST_SECONDS = 0.01, 0.5  # between two steps at least, and where there is nothing to do
_LOOK_SECONDS, _IDLE_SECONDS = 0.005, 0.1  # the same of looks at paths that are due
_LAST_WRITE_SECONDS = 2.0

_ROLE_OF = {listener: role for role, listener in NOWHERE_OF_ROLE.items()}

TellPath = Callable[[PathChange, int], None]
Raise = Callable[[Trouble, int], None]


class PathWatch:
    """The watch over all paths. ``tell_path`` and ``raise_trouble`` take an event and the wall time."""

    def __init__(
        self, paths: Paths, settings: SupervisionSettings, listeners: Sequence[ListenerSettings], data_dir: Path,
        telemetry: Telemetry, tell_path: TellPath, raise_trouble: Raise,
    ) -> None:  # fmt: skip
        self.settings = settings
        self.unsupervised = 0
        self._paths = paths
        self._roles = {listener.name: listener.role for listener in listeners}
        self._file = data_dir / path_file.FILE_NAME
        self._telemetry = telemetry
        self._tell_path = tell_path
        self._raise = raise_trouble
        self._register = Accounts({})
        self._storm = Storm(int(settings.storm_hold_seconds * SECOND_US))
        self._told_as_one = False  # and not yet path by path
        self._silent: set[str] = set()
        self._review: Iterator[bool] = iter(())
        self._review_again = False
        self._changed: deque[str] = deque()
        self._renewals: deque[str] = deque(maxlen=_MOST_RENEWALS)
        self._steady_us = 0
        self._never = NeverSeen(paths, raise_trouble)
        self._lost_ended: deque[Ended] = deque(maxlen=_MOST_RENEWALS)
        self._losers: set[str] = set()  # listeners that lost a path since the last look
        self._save_at_us = 0
        self._copying: Iterator[Kept | None] | None = None
        self._copied_us = self._copied_at = 0  # wall time of the copy that is being made, and the journal's position
        self._writing = threading.Lock()
        self._write_failed: OSError | None = None
        self._failure_told = False
        self.position: Callable[[], int] = lambda: 0
        """The journal's newest position on disk; replaced by whoever knows it."""
        paths.terms = lambda account, listener, _seconds: self._wanted(account, listener)
        paths.role = self._role
        self._primaries = [name for name, role in self._roles.items() if role == "primary"]
        self._backups = [name for name, role in self._roles.items() if role == "backup"]
        self._both = bool(self._primaries and self._backups)
        paths.grace_us = int(settings.grace_seconds * SECOND_US)

    def begin(self, register: Accounts, now_us: int, steady_us: int, told_since: Since = lambda _position: ()) -> None:
        """Go on with the paths that were written down, and await those of the register that are not among them.

        ``told_since`` returns what was told of them after that.
        """
        self._register, self._steady_us = register, steady_us
        try:
            found = path_file.read(self._file)
        except PathsUnreadable as error:
            self._telemetry.warned("the state of supervised paths begins anew, none is lost until it was heard", error=error)
            found = None
        if found is not None:  # else they are written down at once: a crash would forget what was told
            self._save_at_us = steady_us + self._save_us()
            kept, wall_us = found
            gap_us = path_file.gap_us(wall_us, now_us)
            self._paths.resume(kept, self._roles.keys(), register.spelled, gap_us, steady_us)
            recall = Recall(self._paths, kept.told, self._roles, now_us, steady_us)
            if (failed := recall.take_all(told_since)) is not None:
                self._telemetry.warned("what was told last of supervised paths cannot be read", error=failed)
            self._resume(recall)
        self._paths.make_room(len(register))
        self.take(register)

    def _resume(self, recall: Recall) -> None:
        """Go on with what was told and has no end yet."""
        told = recall.told
        if recall.storm:
            self._storm.resume(self._steady_us)
        self._told_as_one = told.storm or self._paths.held > 0
        self._never.as_one = told.never_as_one or self._paths.never_as_one > 0
        self._paths.quietly_restored = told.back
        self._silent = set(told.silent or ())

    def _told(self) -> Told:
        waiting = [*self._paths.ended, *self._never.ended, *self._lost_ended]
        silent, roles = sorted(self._silent), self._roles
        back = self._paths.quietly_restored
        return Told(self._told_as_one, self._never.as_one, back, silent, waiting, roles, self._copied_at)

    def take(self, register: Accounts) -> None:
        """Take a register that was read anew; `review` goes through it a part at a time."""
        self._register = register
        self._review = self._reviewing(register, register.expectations_in_turns())
        self._review_again = False

    def changed(self, names: Collection[str]) -> None:
        """Take the accounts of these upper-case names as they are in the register; `review` looks at a few at a time."""
        self._changed.extend(names)

    def _go_on_with_changes(self) -> bool:
        with suppress(RegisterUnavailable):  # told of elsewhere; tried again after a rest
            for _ in range(min(len(self._changed), _CHANGES)):
                entry = self._register.find(name := self._changed[0])
                supervision = _supervision(entry)
                if supervision is None:
                    self._paths.forget(name)
                    self._review_again = True  # it may have been spelled otherwise
                else:
                    self._confirm(entry.account, supervision)
                self._changed.popleft()
            return bool(self._changed)
        return False

    def _reviewing(self, register: Accounts, expected: Iterator[tuple[str, Supervision] | None]) -> Iterator[bool]:
        """Review one account a step; False where the next has not been read yet."""
        supervised = 0
        for _ in self._paths.making_room(len(register)):
            yield True
        self._paths.begin_review()
        for found in expected:
            if found is not None:
                supervised += 1
                self._confirm(*found)
            yield found is not None
        self.unsupervised = max(0, len(register) - supervised)
        for _ in self._paths.sweep():
            yield True

    def _confirm(self, account: str, supervision: Supervision) -> None:
        roles = tuple(NOWHERE_OF_ROLE) if self._both and supervision.has_two_paths else ()
        self._paths.confirm(account, lambda listener: self._terms(account, supervision, listener), self._steady_us, roles)

    def _role(self, listener: str) -> str:
        """Return the role of a listener, also of one that stands for all of a role."""
        return self._roles.get(listener) or _ROLE_OF.get(listener, "")

    def _wanted(self, account: str, listener: str) -> Terms | None:
        """Return what is wanted of a path that begins, or has to be held to something else."""
        supervision = _supervision(self._register.find(account))
        return None if supervision is None else self._terms(account, supervision, listener)

    def _terms(self, account: str, supervision: Supervision, listener: str) -> Terms:
        margin = supervision.margin_seconds
        seconds = supervision.seconds(self._role(listener), self._primary_lost(account, supervision, listener))
        return Terms(seconds, self.settings.margin_seconds if margin is None else margin)

    def _primary_lost(self, account: str, supervision: Supervision, listener: str) -> bool:
        """Tell whether the backup path has to stand in for the primary one."""
        if supervision.backup_seconds == supervision.primary_seconds or self._role(listener) != "backup":
            return False
        return any(self._paths.lost(account, name) for name in (*self._primaries, NOWHERE_OF_ROLE["primary"]))

    # -- some at a time ---------------------------------------------------------------------------------------------

    @property
    def parts(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """What is to run beside the looks of each second."""
        return self.find, self.review

    async def find(self) -> None:
        """Look, for ever, at the paths that are due, some at a time, in a quarter of the time at most."""
        while True:
            began = monotonic()
            now_us, steady_us = both_us()
            busy = self.find_some(now_us, steady_us)
            took = monotonic() - began
            await asyncio.sleep(max(_LOOK_SECONDS, 3 * took) if busy else _IDLE_SECONDS)

    def find_some(self, now_us: int, steady_us: int) -> bool:
        """Look at some of the paths that are due, tell at once of those that are lost, and return whether more are due.

        A path heard after this step is restored, so its loss must have been told by then, or be held.
        """
        changes = self._paths.check(steady_us)
        if changes:
            lost = [change for change in changes if change.state == "lost"]
            self._never.found += [change for change in changes if change.state != "lost"]
            self._losers.update(change.listener for change in lost)
            if self._storm.add(lost, steady_us):
                for change in lost:
                    self._paths.hold(change)
            else:
                for change in lost:
                    self._tell_path(change, now_us)
            if self._backups:
                self._renewals.extend([change.account for change in lost if change.role == "primary"])
        return self._paths.is_behind(steady_us)

    async def review(self) -> None:
        """Go on, for ever, with what a change of the register, a lost primary path or the next writing down asks.

        It does a little at a time and takes a twentieth of the time at most, however slow memory is: panels go first.
        """
        while True:
            began = monotonic()
            busy = self._go_on_reviewing()
            busy |= self._go_on_with_changes()
            self._go_on_renewing(self._steady_us)
            busy |= self._go_on_copying()
            took = monotonic() - began
            await asyncio.sleep(max(_STEP_SECONDS, 19 * took) if busy or self._renewals else _REST_SECONDS)

    def _go_on_reviewing(self) -> bool:
        """Review a part of the register and tell whether there is more.

        A register that cannot be read is told of elsewhere, and reviewed from its beginning.
        """
        try:
            for _ in range(_STEPS):
                if not (more := next(self._review, None)):
                    break
        except RegisterUnavailable:
            self._review_again = True
            more = None
        if more is None and self._review_again:
            self.take(self._register)
            return True
        return more is not None

    def _go_on_renewing(self, steady_us: int) -> None:
        with suppress(RegisterUnavailable):
            for _ in range(min(len(self._renewals), _RENEWALS)):
                account = self._renewals.popleft()
                for name in (*self._backups, NOWHERE_OF_ROLE["backup"]):
                    self._paths.renew(account, name, steady_us)

    def _go_on_copying(self) -> bool:
        """Copy some more of the paths, write them down when all are there, and tell whether more are left."""
        for kept in islice(self._copying or (), _BLOCKS):
            if kept is not None:
                self._copying = None
                self._write_in_thread(kept._replace(told=self._told()), self._copied_us)
        return self._copying is not None

    # -- once a second --------------------------------------------------------------------------------------------

    def look(self, now_us: int, steady_us: int) -> None:
        """Tell what is told of many paths at once; and do a step of what ``parts`` do, for one who only looks."""
        self._steady_us = steady_us
        self._go_on_reviewing()
        self._go_on_with_changes()
        self.find_some(now_us, steady_us)
        self._go_on_with_storm(now_us, steady_us)
        never = self._never.tell(now_us, steady_us)
        if self._backups:
            self._renewals.extend([change.account for change in never if change.role == "primary"])
        restored, self._paths.restored_primaries = self._paths.restored_primaries, []
        if self._backups:
            self._renewals.extend(restored)
        self._go_on_renewing(steady_us)
        losers, self._losers = self._losers, set()
        self._tell_silent(losers, now_us)
        self._tell_ended(now_us, steady_us)
        if steady_us >= self._save_at_us and self._copying is None:
            self._save_at_us = steady_us + self._save_us()
            self._copying, self._copied_us = self._paths.keeping(steady_us), now_us
            self._copied_at = self.position()
        self._go_on_copying()
        if self._write_failed is not None and not self._failure_told:
            self._telemetry.warned("supervised paths cannot be written down for the next start", error=self._write_failed)
        self._failure_told = self._write_failed is not None

    def _go_on_with_storm(self, now_us: int, steady_us: int) -> None:
        """Tell of a storm, and of its end."""
        burst = self._storm.due(steady_us)
        if burst is not None:
            self._tell_burst(burst, now_us, steady_us)
        self._storm.over(steady_us)
        if self._storm.rages(steady_us):
            return
        for change in self._paths.release(self.settings.storm_events_per_second):
            self._tell_path(change, now_us)
        count, self._paths.quietly_restored = self._paths.quietly_restored, 0
        if count:
            text = f"{count} paths of the storm were heard again before they were told one by one"
            self._raise(Trouble("paths-restored", text, now_us, count), now_us)
        if self._told_as_one and not self._paths.held:
            self._told_as_one = False
            text = "the storm of lost paths is over: what is still lost has been told path by path"
            self._raise(Trouble("paths-lost-cleared", text, now_us), now_us)

    def _tell_burst(self, burst: Burst, now_us: int, steady_us: int) -> None:
        self._told_as_one = True
        parts = []
        for name, count in burst.listeners.items():
            silent_us = steady_us - self._paths.heard_us(name)
            others = self._paths.hears(name) and silent_us < SECOND_US * 10
            heard = "still hears others" if others else f"heard nobody for {silent_us // SECOND_US} s"
            parts.append(f"{count} at listener {name}, which {heard}")
        text = f"{burst.lost} paths were lost at once ({'; '.join(parts)}): look at our own line first"
        only = next(iter(burst.listeners)) if len(burst.listeners) == 1 else None
        since_us = now_us - steady_us + burst.since_us
        self._raise(
            Trouble("paths-lost", text, since_us, burst.lost, listener=only, accounts=burst.accounts or None), now_us
        )

    def _tell_silent(self, listeners: set[str], now_us: int) -> None:
        """Tell once of each listener that hears none of its paths any more, and when it hears one again."""
        for name in sorted(name for name in self._silent if not self._paths.silent(name)):
            self._silent.remove(name)
            text = f"listener {name} hears supervised panels again; paths still lost are restored one by one"
            if not self._paths.hears(name):
                text = f"listener {name} has no supervised paths any more"
            self._raise(Trouble("listener-silent-cleared", text, now_us, listener=name), now_us)
        for name in sorted(listeners - self._silent):
            count = self._paths.silent(name)
            if count > 1:
                self._silent.add(name)
                text = f"all {count} supervised paths of listener {name} are lost: look at our own line and its port first"
                self._raise(Trouble("listener-silent", text, now_us, listener=name), now_us)

    def _tell_ended(self, now_us: int, steady_us: int) -> None:
        """Tell of paths told as lost that are not supervised any more, and of accounts not missed any more."""
        while self._paths.ended:
            ended = self._paths.ended.popleft()
            (self._lost_ended if ended.state == "lost" else self._never.ended).append(ended)
        tell_lost_ends(self._lost_ended, self._paths, self.settings.storm_events_per_second, self._raise, now_us)
        self._never.tell_ends(tuple(self._roles), now_us, steady_us)

    # -- over a restart -------------------------------------------------------------------------------------------

    def _save_us(self) -> int:
        return int(self.settings.save_seconds * SECOND_US)

    def _write_in_thread(self, kept: Kept, now_us: int, done: Callable[[], None] = lambda: None) -> None:
        """Write all paths down in a thread: a disk that hangs must not hold up a duress."""
        if self._writing.locked() and self._write_failed is None:
            self._write_failed = OSError("the one before has not ended")
        threading.Thread(target=self._write, args=(kept, now_us, done), name="paths", daemon=True).start()

    def _write(self, kept: Kept, now_us: int, done: Callable[[], None]) -> None:
        with self._writing:
            try:
                path_file.write(self._file, kept, now_us)
                self._write_failed = None
            except OSError as error:
                self._write_failed = error
        done()

    async def close(self, now_us: int, steady_us: int) -> None:
        """Write all paths down for the next start, if the disk takes them in time."""
        loop, written = asyncio.get_running_loop(), asyncio.Event()
        self._copying = None
        self._copied_at = self.position()
        kept = self._paths.kept(steady_us)._replace(told=self._told())
        self._write_in_thread(kept, now_us, lambda: _say(loop, written))
        try:
            async with asyncio.timeout(_LAST_WRITE_SECONDS):
                await written.wait()
        except TimeoutError:
            self._telemetry.warned("supervised paths were not written down: the disk hangs", file=self._file)


def _supervision(account: Account) -> Supervision | None:
    seconds = account.supervision_seconds
    return account.supervision or (Supervision(seconds, seconds) if seconds else None)


def _say(loop: asyncio.AbstractEventLoop, written: asyncio.Event) -> None:
    with suppress(RuntimeError):  # too late: the loop is closed
        loop.call_soon_threadsafe(written.set)
