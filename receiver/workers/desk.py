"""In worker 0: takes what the other workers tell, to the parts that only worker 0 has.

Whatever process heard a message, its account's sender and path are looked after here, in the order in which the messages
came together; so are repeats, by the journal, and what is on test.

Each process reads a managed register for itself, so for a second one may know of a change and another not. Nothing here
refuses what a worker let through.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from protocols import dc09
from receiver import clock, payloads
from receiver.accounts import Account
from receiver.arrivals import Route
from receiver.errors import JournalUnavailable, RegisterUnavailable
from receiver.journal import Entry, Journal, Origin, Receipt, Refusal
from receiver.pipeline import Pipeline
from receiver.senders import ORDINARY, Heard, Notice
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble
from receiver.workers.link import Link, Message

_UNREADABLE_KEY = "undecryptable"
_OPENED = 10  # in an item
_RAW = Entry._fields.index("raw")
_ROUTES_KEPT = 50_000  # of connections that are open or were; 300 bytes each
_new: Any = tuple.__new__


class Desk:
    """Where the batches of all workers are taken."""

    def __init__(
        self, pipeline: Pipeline, journal: Journal, telemetry: Telemetry, tasks: asyncio.TaskGroup,
        refresh: Callable[[int], None],
    ) -> None:  # fmt: skip
        """Take the parts, and the group in which batches wait for the disk; ``refresh`` reads the register's changes."""
        self._pipeline = pipeline
        self._journal = journal
        self._telemetry = telemetry
        self._tasks = tasks
        self._refresh = refresh
        self._origins: dict[int, Origin] = {number: origin for origin, number in journal.origins.items()}
        self._routes: dict[tuple[int, str], Route] = {}

    def take(self, link: Link, message: Message) -> None:
        """Take a batch of a worker; the receipts go back over its link."""
        _, number, items, refusals, troubles, stale = message
        now_us, steady_us = clock.now_us(), self._pipeline.steady()
        entries: list[Entry] = []
        owed: list[tuple[Notice, dc09.Message, Route] | None] = []
        for item in items:
            entry = item[-1]
            heard, opened, route = self._hear(item, now_us, steady_us)
            if entry is not None:
                entry = _new(Entry, entry)
                if heard is not ORDINARY:
                    entry = _marked(entry, heard)
                if self._pipeline.on_test.tickets:
                    entry = self._mark_tests(entry, opened, route, now_us, steady_us)
                entries.append(entry)
                owed.append(None if heard.if_new is None else (heard.if_new, opened, route))
        for refusal in refusals:
            if not self._journal.refuse(Refusal(*refusal)):
                self._telemetry.refusals_dropped += 1
        for trouble, origin in troubles:
            self._pipeline.raise_trouble(self._reworded(Trouble(*trouble)), origin, now_us)
        for item in stale:
            self._judge_stale(item, now_us, steady_us)
        if entries:
            self._tasks.create_task(self._store(link, number, entries, owed))

    def _hear(self, item: Sequence[Any], now_us: int, steady_us: int) -> tuple[Heard, dc09.Message, Route]:
        """Note a valid message: its sender, and its path where that is supervised."""
        pipeline, message, route = self._pipeline, _message(item), self._route(item[8], item[9])
        account = self._find(item[4], route, now_us)
        if account is None:
            return ORDINARY, message, route
        key, opened = pipeline.accounts.key_for(account), item[_OPENED]
        if opened and (key is None or key.check != opened):
            account, key = self._find_key(account, opened, item[4], route, now_us)
        heard = pipeline.senders.heard(message, account, key, route, steady_us)
        for notice in heard.notices:
            self._notice(notice, message, route, now_us)
        if account.supervision_seconds is not None and heard.fresh:
            change = pipeline.paths.seen(account.account, route.listener, account.supervision_seconds, steady_us)
            if change is not None:
                pipeline.tell_path(change, route.origin, now_us)
        return heard, message, route

    def _find(self, name: str, route: Route, now_us: int) -> Account | None:
        """Return the account, None when the register cannot be read now; what a worker let through is stored anyhow."""
        try:
            return self._pipeline.accounts.find(name)
        except RegisterUnavailable as error:
            self._pipeline.raise_trouble(Trouble("register-unreadable", str(error), now_us), route.origin, now_us)
            return None

    def _find_key(
        self, account: Account, opened: bytes, name: str, route: Route, now_us: int
    ) -> tuple[Account, dc09.Key | None]:
        """Return the account, and which key opened a message that the one in our register does not."""
        if account.old_key is not None and account.old_key.key.check == opened:
            return account, account.old_key.key
        self._refresh(now_us)  # the worker may have read a change that we have not
        account = self._find(name, route, now_us) or account
        old = account.old_key
        for key in (self._pipeline.accounts.key_for(account), None if old is None else old.key):
            if key is not None and key.check == opened:
                return account, key
        return account, self._pipeline.senders.key_of(account.account)  # the worker has not read ours: nothing new

    def _mark_tests(self, entry: Entry, message: dc09.Message, route: Route, now_us: int, steady_us: int) -> Entry:
        """Flag what is on test; what either process takes for a duress is one, whichever has the panel's newest dialect."""
        on_test, name = self._pipeline.on_test, message.envelope.address.account
        if name.upper() not in on_test.tickets:
            return entry
        account = self._find(name, route, now_us)
        events = [
            event._replace(duress=event.duress or bool(duress))
            for event, (_, _, duress) in zip(
                payloads.decode(message, account.dialect if account else ""), entry.events, strict=True
            )
        ]
        return entry._replace(flags=on_test.flags(entry.flags, events, name, now_us, steady_us))

    async def _store(
        self, link: Link, number: int, entries: list[Entry], owed: list[tuple[Notice, dc09.Message, Route] | None]
    ) -> None:
        """Store, then send the outcomes; only then tell what is to be told of messages that are no repeats."""
        outcomes = await self._journal.append(entries)
        link.send(("receipts", number, [_told(outcome) for outcome in outcomes]))
        for outcome, due in zip(outcomes, owed, strict=True):
            if due is not None and isinstance(outcome, Receipt) and not outcome.repeat:
                self._notice(*due, clock.now_us())

    def _judge_stale(self, item: Sequence[Any], now_us: int, steady_us: int) -> None:
        *told, identity, wall_us = item
        pipeline, message, route = self._pipeline, _message(told), self._route(told[8], told[9])
        account = self._find(told[4], route, now_us)
        if account is None:
            return
        notice = pipeline.senders.refused_as_stale(
            message, account, told[0], route, self._journal.knows(identity), wall_us, steady_us
        )
        if notice is not None:
            self._notice(notice, message, route, now_us)

    def _notice(self, notice: Notice, message: dc09.Message, route: Route, now_us: int) -> None:
        raw = notice.raw or message.envelope.frame.raw
        trouble = Trouble(
            notice.reason, notice.text, now_us, 1, message.envelope.address.account, route.listener,
            notice.peer or route.peer, dc09.mask_keys(raw).hex().upper(),
        )  # fmt: skip
        self._pipeline.raise_trouble(trouble, route.origin, now_us)

    def _reworded(self, trouble: Trouble) -> Trouble:
        """Say more of a message that no key opens, where the account's key is known to have opened others."""
        if trouble.reason != _UNREADABLE_KEY or trouble.account is None:
            return trouble
        accounts = self._pipeline.accounts
        try:
            account = accounts.find(trouble.account)
        except RegisterUnavailable:
            return trouble
        words = self._pipeline.senders.why_unopened(trouble.account, account, accounts.key_for(account))
        return trouble if words is None else replace(trouble, text=words)

    def _route(self, number: int, peer: str) -> Route:
        route = self._routes.get((number, peer))
        if route is None:
            if len(self._routes) >= _ROUTES_KEPT:
                self._routes.clear()
            origin = self._origins[number]
            route = self._routes[number, peer] = Route(origin.listener, origin.transport, peer, number)
        return route


def _message(item: Sequence[Any]) -> dc09.Message:
    """Make of an item as much of its message as senders are judged by: 0.6 µs, twice that by the classes' own ways."""
    raw, token, encrypted, sequence, account, content, data, panel_time = item[:8]
    if not raw and item[-1] is not None:
        raw = item[-1][_RAW]  # a signal's frame comes once, with what is stored
    frame = _new(dc09.Frame, (raw, b"", False))
    address = _new(dc09.Address, (None, None, account))
    envelope = _new(dc09.Envelope, (frame, token, encrypted, sequence, address, b"", content))
    message: dc09.Message = _new(dc09.Message, (envelope, b"", data, (), b"", panel_time))
    return message


def _marked(entry: Entry, heard: Heard) -> Entry:
    """Flag a signal that came in clear though its account's came encrypted before."""
    if not heard.downgraded or "plaintext" in entry.flags:
        return entry
    return entry._replace(flags=f"{entry.flags} plaintext".lstrip())


def _told(outcome: Receipt | JournalUnavailable) -> int | str:
    if isinstance(outcome, JournalUnavailable):
        return str(outcome)
    return -outcome.position if outcome.repeat else outcome.position
