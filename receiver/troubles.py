"""Troubles: what an operator must be told of beside the signals; pure state, with time passed in.

The first of its kind goes out at once. Its like, from the same account at the same listener or output, are counted for the
reason's window and then told as one with their ``count``. Of each reason at most 20 are told singly in a minute; all
others become one trouble at the end of that minute, with their ``count`` and the number of accounts, so that a storm is one
line and not ten thousand. While a storm goes on, only what was not heard of before is told singly.

What has an end shares its window with it, so that none overtakes the other: who is told last that a link is lost must not
have been told before that it is back. Who raises these keeps to what one person can read (``Singly``).
"""

from collections import Counter, deque
from dataclasses import dataclass, replace

from receiver.clock import SECOND_US

REASONS = {
    "undecryptable": "an encrypted message that no known key opens",
    "plaintext-refused": "a message in clear for an account that has a key",
    "unknown-account": "a message of an account that is not registered",
    "unknown-token": "a message in a format that is in no table of the standards",
    "second-address": "an account reports from a second address while the first is alive",
    "replayed": "messages that were accepted before came again, with time stamps that are used up",
    "downgraded": "an account that reported encrypted now reports in clear",
    "sequence-reused": "a sequence number used again at once, with other data",
    "block-account-differs": "a message names another account inside than in its header",
    "reflected-reply": "a reply that only a receiver sends came in",
    "clock-stepped": "our own clock jumped",
    "clock-behind-journal": "our own clock is before the newest stored event",
    "clock-unsynchronised": "the kernel says that nothing keeps our clock right",
    "clock-suspect": "messages were accepted, or most panels agree, against our own clock",
    "journal-damaged": "a stored event or a part of the journal's file that cannot be read again",
    "journal-unwritable": "the journal cannot be written and ACKs are withheld",
    "journal-recovered": "the journal takes signals again",
    "journal-slow": "the journal's disk takes longer than slow_sync_seconds",
    "disk-low": "less room on the journal's disk than min_free_bytes",
    "disk-cleared": "there is room on the journal's disk again",
    "backlog-high": "an output is at 80 % of max_backlog",
    "backlog-full": "an output is at max_backlog and ACKs are withheld",
    "backlog-cleared": "the outputs have caught up",
    "dead-letter": "an output's target refused an event for good; it lies in the output's dead letters",
    "automation-lost": "an output's automation software does not answer; events wait for it",
    "automation-restored": "an output's automation software answers again",
    "does-not-fit": "an account or number had no room in an automation format and went out cut",
    "register-unreadable": "the managed account register cannot be read; accounts not in memory get no ACK",
    "old-key-in-use": "a panel uses its old key, which ends soon or has ended",
    "on-test-began": "an account, or a part of it, was put on test",
    "on-test-ended": "an account is no longer on test",
    "paths-lost": "many paths were lost at once; the count stands for them",
    "paths-lost-cleared": "a storm of lost paths is over; what is still lost was told path by path",
    "paths-restored": "paths lost at once were heard again before they were told singly; the count stands for them",
    "listener-silent": "all supervised paths of a listener are lost",
    "listener-silent-cleared": "a listener whose supervised paths were all lost hears one again",
    "path-lost-cleared": "a path told as lost is not supervised any more",
    "never-seen": "a supervised account was never heard, or many at once, which the count says",
    "never-seen-cleared": "a supervised account told as never seen was heard, or is awaited no more; without an account: "
    "all told as one were",
}
BEGINNINGS = {
    "automation-lost": "automation-lost", "automation-restored": "automation-lost",
    "listener-silent": "listener-silent", "listener-silent-cleared": "listener-silent",
    "never-seen": "never-seen", "never-seen-cleared": "never-seen",
    "path-lost-cleared": "path-lost-cleared",  # of a path's own event
    "paths-lost": "paths-lost", "paths-restored": "paths-lost", "paths-lost-cleared": "paths-lost",
}  # fmt: skip
"""Beginnings and ends that are told in the order in which they happen, each with its beginning."""
WINDOW_SECONDS = 60
WINDOWS_SECONDS = {
    "second-address": 3600,  # panels with two ways in, and addresses that providers change
    "downgraded": 3600,
    "block-account-differs": 86400,  # the normal state of some makes
}
"""How long the like of a trouble is counted before it is told again, where that is not a minute."""
SINGLY_A_MINUTE = 20
"""Troubles of one reason that are told one by one; what one person can read in a minute, and then it is a storm."""
_STORM_US = 60 * SECOND_US
_MAX_KINDS = 10_000  # of one reason, about 600 bytes each; of those above only the sum is known
_ENDED_AT_ONCE = 1000  # windows closed in one look, 1.5 ms; the rest a second later


@dataclass(frozen=True, slots=True)
class Trouble:
    """One trouble; ``count`` is how many happenings it stands for, since ``since_us``."""

    reason: str
    text: str
    since_us: int
    count: int = 1
    account: str | None = None
    listener: str | None = None
    peer: str | None = None
    raw: str | None = None
    output: str | None = None
    accounts: tuple[str, ...] | None = None
    role: str | None = None


Kind = tuple[str | None, str | None]
"""Account, and listener or output: what makes two troubles of one reason alike."""


class _Window:
    """The time in which the like of a told trouble is counted; ``held`` is the latest of them with their count."""

    __slots__ = ("held", "singly", "until_us")

    def __init__(self, until_us: int, singly: bool) -> None:
        self.until_us = until_us
        self.singly = singly  # its first was told singly; else it is one of a storm, and little is kept of it
        self.held: Trouble | None = None

    def hold(self, trouble: Trouble) -> None:
        """Count a trouble in."""
        held = self.held
        count = trouble.count if held is None else held.count + trouble.count
        since_us = trouble.since_us if held is None else held.since_us
        if self.singly:
            raw = None if trouble.reason in WINDOWS_SECONDS else trouble.raw  # up to 8 KB, too much to keep for a day
            self.held = replace(trouble, count=count, since_us=since_us, raw=raw)
        else:
            self.held = replace(trouble, count=count, since_us=since_us, raw=None, text=REASONS.get(trouble.reason, ""))


class _Minute:
    """What one reason brings in one minute: how many were told singly, and the sum of the others."""

    __slots__ = ("accounts", "count", "hosts", "last", "listeners", "since_us", "singly", "stormy", "until_us")

    def __init__(self, until_us: int, stormy: bool) -> None:
        self.until_us = until_us
        self.stormy = stormy  # the minute before was a storm already
        self.singly = self.count = self.since_us = 0
        self.accounts: set[str] = set()
        self.hosts: set[str] = set()
        self.listeners: set[str | None] = set()
        self.last: Trouble | None = None

    def add(self, trouble: Trouble) -> None:
        """Count a trouble into the sum."""
        self.since_us = min(self.since_us, trouble.since_us) if self.count else trouble.since_us
        self.count += trouble.count
        if trouble.account is not None and len(self.accounts) < _MAX_KINDS:
            self.accounts.add(trouble.account)
        if len(self.hosts) < 2:
            self.hosts.add(host_of(trouble.peer or ""))
        self.listeners.add(trouble.listener)
        self.last = trouble

    def sum(self) -> Trouble:
        """Return the one trouble that stands for the others."""
        last = self.last
        assert last is not None
        if len(self.accounts) <= 1 and len(self.listeners) == 1:
            return replace(last, count=self.count, since_us=self.since_us)
        one_host = len(self.hosts) == 1
        most = "or more " if len(self.accounts) == _MAX_KINDS else ""
        source = ", from several addresses"
        if one_host:
            source = f", all from {host_of(last.peer)}" if last.peer else ""  # what is not of a message has no sender
        text = (
            f"a storm, {self.count} more within a minute, of {len(self.accounts)} {most}accounts{source}: "
            f"{REASONS.get(last.reason, last.reason)}"
        )
        return Trouble(
            last.reason, text, self.since_us, self.count,
            listener=last.listener if len(self.listeners) == 1 else None, peer=last.peer if one_host else None,
        )  # fmt: skip


class _Pair:
    """The time in which the likes of a beginning and of its end are counted: the first of each goes out at once."""

    __slots__ = ("held", "last", "told", "until_us")

    def __init__(self, until_us: int) -> None:
        self.until_us = until_us
        self.told: set[tuple[str, str | None]] = set()
        self.held: dict[str, Trouble] = {}  # by reason, what happened last at the end
        self.last = ""

    def add(self, trouble: Trouble, now_us: int) -> Trouble | None:
        """Return the trouble when it is to go out now; what would overtake others brings them out in the next look."""
        like = trouble.reason, trouble.listener
        if like not in self.told:
            if not self.held:
                self.told.add(like)
                self.last = trouble.reason
                return trouble
            self.until_us = now_us
        if (held := self.held.pop(trouble.reason, None)) is not None:
            trouble = replace(trouble, count=held.count + trouble.count, since_us=held.since_us)
        self.held[trouble.reason] = trouble
        return None

    def end(self, until_us: int) -> list[Trouble]:
        """Return what was counted, in order, and begin again. An end that was told and has a beginning since is no news."""
        held, self.held, self.until_us = list(self.held.values()), {}, until_us
        if len(held) > 1 and held[0].reason == self.last != BEGINNINGS[self.last]:
            del held[0]
        self.told = {(trouble.reason, trouble.listener) for trouble in held}
        if held:
            self.last = held[-1].reason
        return held


class Troubles:
    """Counts like troubles together, and storms into one. ``now_us`` must only run forward."""

    def __init__(self) -> None:
        self.happened: Counter[str] = Counter()  # by reason, each one, told or counted
        self._open: dict[str, dict[Kind, _Window]] = {}  # by reason, those that end first in front
        self._minutes: dict[str, _Minute] = {}
        self._pairs: dict[tuple[str | None, ...], _Pair] = {}

    def add(self, trouble: Trouble, now_us: int) -> Trouble | None:
        """Return the trouble when it is to go out now, None when it was counted."""
        reason = trouble.reason
        self.happened[reason] += trouble.count
        if reason in BEGINNINGS:
            return self._pair(trouble, now_us).add(trouble, now_us)
        kind = (trouble.account, trouble.listener or trouble.output)
        windows = self._open.setdefault(reason, {})
        window = windows.get(kind)
        if window is not None:
            window.hold(trouble)
            return None
        minute = self._minute(reason, now_us)
        singly = minute.singly < SINGLY_A_MINUTE
        if len(windows) < _MAX_KINDS:
            windows[kind] = _Window(now_us + _window_us(reason), singly)
        if singly:
            minute.singly += 1
            return trouble
        minute.add(trouble)
        return None

    def _pair(self, trouble: Trouble, now_us: int) -> _Pair:
        where = trouble.listener or trouble.output
        begun = BEGINNINGS[trouble.reason]
        kind = begun, trouble.account, trouble.role, None if begun == "paths-lost" else where  # a storm ends everywhere
        pair = self._pairs.get(kind)
        if pair is None or (pair.until_us <= now_us and not pair.held):
            pair = self._pairs[kind] = _Pair(now_us + WINDOW_SECONDS * SECOND_US)
        return pair

    def due(self, now_us: int) -> list[Trouble]:
        """Return what was counted in windows and minutes that have ended."""
        told = []
        for kind, pair in list(self._pairs.items()):
            if pair.until_us <= now_us:
                told += pair.end(now_us + WINDOW_SECONDS * SECOND_US)
                if not pair.told:
                    del self._pairs[kind]
        for reason, minute in list(self._minutes.items()):
            if minute.until_us <= now_us:
                del self._minutes[reason]
                if minute.count:
                    told.append(minute.sum())
                    self._minutes[reason] = _Minute(now_us + _STORM_US, stormy=True)
        for reason, windows in self._open.items():
            told += self._end_windows(reason, windows, now_us)
        return told

    def rest(self) -> list[Trouble]:
        """Return all that was counted and not told, at most one trouble a reason and pair: the receiver stops."""
        told = [trouble for pair in self._pairs.values() for trouble in pair.end(0)]
        for reason, windows in self._open.items():
            for window in windows.values():
                if window.held is not None:
                    self._minute(reason, 0).add(window.held)
        told += [minute.sum() for minute in self._minutes.values() if minute.count]
        self._pairs.clear()
        self._open.clear()
        self._minutes.clear()
        return told

    def _end_windows(self, reason: str, windows: dict[Kind, _Window], now_us: int) -> list[Trouble]:
        """Close the windows that have ended; one in which something was counted begins again."""
        ended: list[tuple[Kind, Trouble | None]] = []
        for kind, window in windows.items():
            if window.until_us > now_us or len(ended) == _ENDED_AT_ONCE:
                break
            ended.append((kind, window.held))
        told = []
        for kind, held in ended:
            del windows[kind]
            if held is None:
                continue
            minute = self._minute(reason, now_us)
            singly = minute.singly < SINGLY_A_MINUTE and not minute.stormy
            windows[kind] = _Window(now_us + _window_us(reason), singly)
            if singly:
                minute.singly += 1
                told.append(held)
            else:
                minute.add(held)
        return told

    def _minute(self, reason: str, now_us: int) -> _Minute:
        minute = self._minutes.get(reason)
        if minute is None or (minute.until_us <= now_us and not minute.count):
            minute = self._minutes[reason] = _Minute(now_us + _STORM_US, stormy=False)
        return minute


class Singly:
    """Which troubles of a reason are told one by one, for whoever has to know: no more than `Troubles` tells so."""

    def __init__(self) -> None:
        self._raised_us: deque[int] = deque(maxlen=SINGLY_A_MINUTE)

    def room(self, now_us: int) -> int:
        """Return how many raised now would each be told singly."""
        while self._raised_us and self._raised_us[0] <= now_us - _STORM_US:
            self._raised_us.popleft()
        return SINGLY_A_MINUTE - len(self._raised_us)

    def raised(self, now_us: int) -> None:
        """Note that one is raised."""
        self._raised_us.append(now_us)


def _window_us(reason: str) -> int:
    return WINDOWS_SECONDS.get(reason, WINDOW_SECONDS) * SECOND_US


def host_of(peer: str) -> str:
    """Return the address in ``192.0.2.1:4000`` or ``[2001:db8::1]:4000``, without its port."""
    return peer.rpartition(":")[0] or peer
