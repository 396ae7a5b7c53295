"""What is known of each account's sender, so that an impostor is noticed: pure state, with time passed in.

Nothing here refuses a message. What the contract acknowledges stays acknowledged; an operator is told beside it
(``docs/decisions/0007-impostors.md``). Kept for each account: the key that opened its messages and until when, the
sequence of its last signal, and for each listener that hears it the address, when it was heard there, and the newest time
stamp of an encrypted message. An account at one listener is a path; stamps are compared within a path, because two paths of
one panel may be seconds apart.

Stamps are compared as the panel writes them, in seconds. ``now_us`` must only run forward; ``wall_us`` is the time of day.
"""

from ipaddress import ip_network
from typing import NamedTuple, Protocol

from msgspec import Struct

from protocols import dc09
from receiver import dialects
from receiver.accounts import Account
from receiver.clock import SECOND_US, seconds_to_text
from receiver.config import ClockSettings
from receiver.tables import Table
from receiver.troubles import host_of

STRANGERS_KEPT = 100_000
"""Unregistered accounts remembered, where they are accepted; above, the one met first goes."""
_NO_SEQUENCE, _FIRST_SEQUENCE = "0000", "0001"
_REUSE_US = 60 * SECOND_US
_MOVES = 3  # times the sequence was seen to change before an account counts as one that numbers its messages
_OTHERS_KEPT = 3
_STALE_TESTS, _STALE_TESTS_US = 3, 30 * SECOND_US  # longer than a panel repeats what was not answered
_TESTS_KEPT = 8
_RETRY_US = 60 * SECOND_US  # the longest pause before a panel sends a refused message again (2007 C.1.3.15)


class Notice(NamedTuple):
    """What an operator is to be told: the trouble's reason and words; peer and bytes where not the message's own."""

    reason: str
    text: str
    peer: str | None = None
    raw: bytes | None = None


class Heard(Struct, frozen=True, gc=False):
    """What a valid message says of its sender. ``fresh``: it proves that the path lives, so the path's timer restarts.

    ``if_new`` is to be told only when the message turns out to be no repeat.
    """

    fresh: bool = True
    downgraded: bool = False
    notices: tuple[Notice, ...] = ()
    if_new: Notice | None = None


ORDINARY = Heard()
"""A message like those before it. Nearly all are, and nothing is made for them."""
STALE = Heard(fresh=False)
"""Nothing wrong, and no news of the path either: several messages of one second, or a link test sent again."""


class Way(Protocol):
    """How a message came, as far as it matters here: the listener's name, and the peer's address and port."""

    @property
    def listener(self) -> str:
        """The listener's name."""

    @property
    def peer(self) -> str:
        """Address and port."""


class _Place(Struct, eq=False, gc=False):
    """An account as one listener hears it. Like ``_Sender`` it is nothing that the collector would have to walk through."""

    way: Way
    host: str
    heard_us: int
    stamp_us: int
    stale_after_us: int
    stamp: int = -1  # the newest of an encrypted message; ``stamp_us``: when it came
    stale: int = 0  # link tests whose stamp was not newer, after the one that came at ``stale_after_us``
    others: dict[str, int] | None = None  # further addresses, and when each was heard last

    def move(self, way: Way, alive_us: int, now_us: int) -> str | None:
        """Note another peer; return the address that is alive while this one is new, None when all is well."""
        host, before = host_of(way.peer), self.host
        self.way, self.host = way, host
        if host == before or not alive_us or _network(host) == _network(before):
            return None
        others = {other: at for other, at in (self.others or {}).items() if now_us - at < alive_us}
        known = others.pop(host, None) is not None
        if now_us - self.heard_us < alive_us:
            others[before] = self.heard_us
        while len(others) > _OTHERS_KEPT:
            del others[next(iter(others))]
        self.others = others or None
        return None if known or not others else next(reversed(others))


def _place(way: Way, now_us: int) -> _Place:
    """Begin a place."""
    return _Place(way, host_of(way.peer), now_us, now_us, now_us)


class _Sender(Struct, eq=False, gc=False):
    """One account."""

    place: _Place  # where it was heard last
    several: tuple[_Place, ...] = ()  # all places, where there is more than one
    key: dc09.Key | None = None  # it opened the latest encrypted message
    first_stamp: int | None = None
    tests_sealed: bool = False  # its link tests came encrypted
    tests: tuple[int, ...] = ()  # the latest of them, hashed; kept only where there are several listeners
    sequence: str = _NO_SEQUENCE  # of the latest signal that has one, with its data and its moment
    data: bytes = b""
    sent_us: int = 0
    moves: int = 0
    suspect: tuple[bytes, int, Notice] | None = None  # refused with a used stamp: its data, when, what to tell

    @property
    def places(self) -> tuple[_Place, ...]:
        """Every place where it was heard."""
        return self.several or (self.place,)

    def turn(self, way: Way, now_us: int) -> _Place:
        """Take the place where another listener hears the account."""
        for place in self.places:
            if place.way.listener == way.listener:
                self.place = place
                return place
        before, self.place = self.places, _place(way, now_us)
        self.several = (*before, self.place)
        return self.place

    def until(self, account: Account) -> str:
        """Say when its latest encrypted message was made."""
        return seconds_to_text(account.to_utc(max(place.stamp for place in self.places)))[:16].replace("T", " ") + " UTC"

    def convict(self, message: dc09.Message, now_us: int) -> Notice | None:
        """Judge the suspect by a message with a good stamp: a panel whose clock was wrong sends the refused one again."""
        assert self.suspect is not None
        data, since_us, notice = self.suspect
        if message.envelope.token == dc09.LINK_TEST and now_us - since_us < _RETRY_US:
            return None
        self.suspect = None
        return None if message.data == data else notice


class Senders:
    """Every account that sent something valid."""

    def __init__(self, clock: ClockSettings, alive_seconds: int = 300) -> None:
        """``alive_seconds``: how long an address of an unsupervised account counts as alive; 0 to take no notice of any."""
        self.clock = clock
        self.alive_seconds = alive_seconds
        self.stale_tests = 0
        self.registered: Table[_Sender] = Table()
        self._strangers: dict[str, _Sender] = {}
        self._listeners: set[str] = set()

    def __len__(self) -> int:
        return len(self.registered) + len(self._strangers)

    def heard(self, message: dc09.Message, account: Account, key: dc09.Key | None, way: Way, now_us: int) -> Heard:
        """Note a message that policy lets through, and say what is odd about its sender. On the way of every message."""
        sender = self.registered.get(account.account) or self._meet(message, account, way, now_us)
        place, envelope = sender.place, message.envelope
        if (
            (place.way is not way and place.way != way) or envelope.token == dc09.LINK_TEST or sender.suspect is not None
            or (account.dialect and dialects.has_polls(account.dialect))
        ):  # fmt: skip
            return self._look(sender, message, account, key, way, now_us)
        place.heard_us = now_us
        odd = envelope.sequence == sender.sequence
        if not odd:
            sender.sequence, sender.data, sender.sent_us = envelope.sequence, message.data, now_us
            if sender.moves < _MOVES:
                sender.moves += 1
        if not envelope.encrypted:
            return self._look(sender, message, account, key, way, now_us) if odd or sender.key is not None else ORDINARY
        stamp, newest = message.panel_time or 0, place.stamp
        if odd or not (stamp > newest >= 0 or stamp == newest) or sender.key is not key:
            return self._look(sender, message, account, key, way, now_us)
        if stamp == newest:
            return STALE
        place.stamp, place.stamp_us = stamp, now_us
        return ORDINARY

    def _meet(self, message: dc09.Message, account: Account, way: Way, now_us: int) -> _Sender:
        """Return the sender of a stranger, or of an account not heard before."""
        if account.registered:
            sender = _Sender(_place(way, now_us))
            self.registered.put(account.account, sender)
        else:
            name = message.envelope.address.account.upper()
            known = self._strangers.get(name)
            if known is not None:
                return known
            if len(self._strangers) >= STRANGERS_KEPT:
                del self._strangers[next(iter(self._strangers))]
            sender = self._strangers[name] = _Sender(_place(way, now_us))
        self._listeners.add(way.listener)
        return sender

    def _look(
        self, sender: _Sender, message: dc09.Message, account: Account, key: dc09.Key | None, way: Way, now_us: int
    ) -> Heard:
        """Look closer at a message that is not like those before it."""
        notices = self._moved(sender, message, account, way, now_us)
        sender.place.heard_us = now_us
        if_new = None if message.envelope.token == dc09.LINK_TEST else _reused(sender, message, now_us)
        fresh, downgraded = True, False
        if message.envelope.encrypted:
            fresh = self._sealed(sender, message, account, notices, now_us)
            sender.key = key
        elif downgrade := _in_clear(sender, message, account, key):
            downgraded = True
            notices.append(downgrade)
        if downgraded or notices or if_new is not None:
            return Heard(fresh, downgraded, tuple(notices), if_new)
        return ORDINARY if fresh else STALE

    def _moved(self, sender: _Sender, message: dc09.Message, account: Account, way: Way, now_us: int) -> list[Notice]:
        """Note where a message came from."""
        place = sender.place
        if place.way is way or place.way == way:
            return []
        if place.way.listener != way.listener:
            place = sender.turn(way, now_us)
            self._listeners.add(way.listener)
        alive_seconds = (account.supervision_seconds or self.alive_seconds) if self.alive_seconds else 0
        first = place.move(way, alive_seconds * SECOND_US, now_us)
        if first is None:
            return []
        ago, name = (now_us - place.heard_us) // SECOND_US, message.envelope.address.account
        return [Notice("second-address", f"account {name} reports from {place.host} and was heard from {first} {ago} s ago")]

    def _sealed(self, sender: _Sender, message: dc09.Message, account: Account, notices: list[Notice], now_us: int) -> bool:
        """Look closer at an encrypted message; return whether it proves that its path lives.

        Where test codes are the panel's heartbeat, they are looked at as link tests are.
        """
        place, stamp = sender.place, message.panel_time or 0
        window_us = (self.clock.behind_seconds + self.clock.ahead_seconds + 1) * SECOND_US
        fresh = stamp > place.stamp or now_us - place.stamp_us > window_us
        is_test = message.envelope.token == dc09.LINK_TEST
        sender.tests_sealed |= is_test
        if is_test or dialects.has_polls(account.dialect):
            fresh = fresh and (len(self._listeners) < 2 or _is_first(sender, message.envelope.content))
            if not fresh and (replayed := self._stale_test(place, message, now_us)):
                notices.append(replayed)
        if fresh:
            place.stamp, place.stamp_us = stamp, now_us
            if sender.first_stamp is None:
                sender.first_stamp = stamp
            if sender.suspect is not None and (convicted := sender.convict(message, now_us)):
                notices.append(convicted)
        return fresh

    def _stale_test(self, place: _Place, message: dc09.Message, now_us: int) -> Notice | None:
        """Count a link test whose stamp proves nothing; return a notice when nothing else has come for a while."""
        self.stale_tests += 1
        if place.stale_after_us != place.stamp_us:
            place.stale_after_us, place.stale = place.stamp_us, 0
        place.stale += 1
        if place.stale < _STALE_TESTS or now_us - place.stamp_us < _STALE_TESTS_US:
            return None
        seconds = (now_us - place.stamp_us) // SECOND_US
        return Notice(
            "replayed",
            f"account {message.envelope.address.account}: for {seconds} s only link tests with used time stamps came "
            f"({place.stale}); they do not keep the path alive: recordings played back, or the panel's clock was set back",
        )

    def refused_as_stale(
        self, message: dc09.Message, account: Account, raw: bytes, peer: str, known: bool, wall_us: int, now_us: int
    ) -> Notice | None:
        """Tell a recording from a wrong clock where that can be told now; else keep it in mind until the next good stamp.

        ``known``: the journal remembers that this very message was stored.
        """
        stamp, name = message.panel_time or 0, message.envelope.address.account
        late = wall_us // SECOND_US - account.to_utc(stamp)
        sender = self.find(message, account)
        if late <= 0 or (sender is not None and stamp > max(place.stamp for place in sender.places)):
            return None  # no message with such a stamp was accepted yet: the panel made it, and a clock is wrong
        if known:
            return Notice(
                "replayed",
                f"account {name}: sequence {message.envelope.sequence} was stored before and came again with a time stamp "
                f"{late} s old: a recording played back, or a panel that repeats without a new stamp",
            )
        if sender is None or sender.suspect is not None or message.envelope.token == dc09.LINK_TEST:
            return None
        if sender.first_stamp is not None and stamp >= sender.first_stamp:
            text = (
                f"account {name}: sequence {message.envelope.sequence} came with a time stamp {late} s old, while the "
                "account's clock is right: a recording played back, or a message the panel has given up"
            )
            sender.suspect = (message.data, now_us, Notice("replayed", text, peer, raw))
        return None

    def why_unopened(self, name: str, account: Account, key: dc09.Key | None) -> str | None:
        """Say more about a message that no key opens, when a key opened this account's messages before."""
        sender = self.registered.get(account.account) or self._strangers.get(name.upper())
        if sender is None or sender.key is None:
            return None
        until = sender.until(account)
        if sender.key != key:
            return (
                f"the register's key of account {name} was changed after its last good message ({until}): "
                "the panel does not have the new one yet, or it is somebody else"
            )
        return (
            f"the key that opened account {name}'s messages until {until} no longer does: "
            "panel replaced or re-keyed, or somebody else"
        )

    def find(self, message: dc09.Message, account: Account) -> _Sender | None:
        """Return what is known of a message's sender."""
        if account.registered:
            return self.registered.get(account.account)
        return self._strangers.get(message.envelope.address.account.upper())

    def last_heard(self, name: str) -> tuple[int, str, str] | None:
        """Return when (steady time), at which listener and from which peer an account, as registered, was heard last."""
        sender = self.registered.get(name) or self._strangers.get(name.upper())
        if sender is None:
            return None
        return sender.place.heard_us, sender.place.way.listener, sender.place.way.peer

    def key_of(self, account: str) -> dc09.Key | None:
        """Return the key that opened a registered account's latest encrypted message, None when there was none."""
        sender = self.registered.get(account)
        return None if sender is None else sender.key

    def forget(self, names: list[str]) -> None:
        """Forget accounts that are no longer registered (the register was read again)."""
        for name in names:
            self.registered.take(name)


def _reused(sender: _Sender, message: dc09.Message, now_us: int) -> Notice | None:
    """Note the sequence of a signal; return a notice when it was used for other data a moment ago.

    An account whose sequence never moves is none of this, nor is 0001: a panel that restarts begins there.
    """
    sequence, since_us = message.envelope.sequence, sender.sent_us
    if sequence == _NO_SEQUENCE:
        return None
    same, other = sequence == sender.sequence, message.data != sender.data
    if not same and sender.moves < _MOVES:
        sender.moves += 1
    sender.sequence, sender.data, sender.sent_us = sequence, message.data, now_us
    if not (same and other) or sender.moves < _MOVES or now_us - since_us >= _REUSE_US or sequence == _FIRST_SEQUENCE:
        return None
    return Notice(
        "sequence-reused",
        f"account {message.envelope.address.account} used sequence {sequence} for other data "
        f"{(now_us - since_us) // SECOND_US} s ago: two senders under one account, or a panel that counts wrongly; "
        "both signals are stored",
    )


def _in_clear(sender: _Sender, message: dc09.Message, account: Account, key: dc09.Key | None) -> Notice | None:
    """Look closer at a message in clear: return a notice when the account's came encrypted before, and still could."""
    is_test = message.envelope.token == dc09.LINK_TEST
    if sender.key is None or key is None or (is_test and not sender.tests_sealed):
        return None
    return Notice(
        "downgraded",
        f"account {message.envelope.address.account} reported encrypted until {sender.until(account)} and now reports in "
        "clear: panel replaced or reset, or somebody else",
    )


def _is_first(sender: _Sender, content: bytes) -> bool:
    """Tell whether an encrypted link test was not heard before: a recording of one path must not keep another alive."""
    digest = hash(content)
    if digest in sender.tests:
        return False
    sender.tests = (*sender.tests[1 - _TESTS_KEPT :], digest)
    return True


def _network(host: str) -> str:
    """Return what stands for one sender: an IPv4 address, or the 64 bits of an IPv6 address that stay when it changes."""
    if not host.startswith("["):
        return host
    try:
        return str(ip_network((host.strip("[]").partition("%")[0], 64), strict=False))
    except ValueError:
        return host
