"""What a receiver is made of behind its listeners, and how the parts are joined; the service starts and stops them.

Built once the journal is open, put away before it is closed. A part knows its neighbours by what is handed to it here alone.
"""

import asyncio
import contextlib
import resource
from collections.abc import Callable, Coroutine
from typing import Any

from receiver import clock, config, outputs
from receiver.account_desk import AccountDesk
from receiver.accounts import Accounts
from receiver.clockwatch import ClockWatch
from receiver.config import ListenerSettings, Settings
from receiver.errors import RegisterUnavailable
from receiver.gauges import add_account_gauges, add_clock_gauges, add_output_gauges
from receiver.journal import Journal, Origin, Reader, Row, Stored
from receiver.journal_watch import JournalWatch
from receiver.outputs import Forwarder, Surroundings
from receiver.path_recall import told_since
from receiver.path_watch import PathWatch
from receiver.pipeline import Pipeline
from receiver.telemetry import Labelled, Telemetry
from receiver.troubles import REASONS, Trouble

_TIDY_SECONDS = 10.0
_CLOSE_OUTPUTS_SECONDS = 1.0
_FORGOTTEN, _REST_SECONDS = 100, 0.001  # senders at once, 0.2 ms, and the rest after them


def make_journal(settings: Settings, telemetry: Telemetry) -> Journal:
    """Open the journal that the settings name.

    Raises:
        ConfigError: it cannot be used, or another receiver has it.
    """
    origins = [
        Origin(settings.receiver.number, listener.line, listener.name, transport)
        for listener in settings.listeners
        for transport in ("tcp", "udp")
    ]
    journal = Journal(settings.receiver.data_dir, settings.journal, origins)
    journal.on_sync = telemetry.stored
    return journal


class Parts:
    """The pipeline, the outputs, and the watches over clock, journal, paths and accounts."""

    def __init__(self, settings: Settings, accounts: Accounts, journal: Journal, telemetry: Telemetry) -> None:
        """Build them; nothing runs yet.

        Raises:
            ConfigError: an output cannot be built.
        """
        self._settings = settings
        self.accounts = accounts
        self._journal = journal
        self._telemetry = telemetry
        found = journal.newest_us, journal.newest_stamp_us
        self._clock_watch = ClockWatch(settings.clock, *clock.both_us(), *found)
        self.pipeline = Pipeline(
            accounts, settings.clock, journal, telemetry, clock.now_us, clock.steady_us, self._clock_watch
        )
        self.pipeline.senders.alive_seconds = settings.accounts.address_alive_seconds
        self._around = self._surroundings()
        self._forwarders = [self._forwarder(output) for output in settings.outputs]
        self._stand_watch()

    def _stand_watch(self) -> None:
        settings, pipeline = self._settings, self.pipeline
        data_dir = settings.receiver.data_dir
        self.journal_watch = JournalWatch(self._journal, settings.journal, data_dir, self._telemetry, self._tell_own)
        pipeline.own_event = self._tell_directly
        self._path_watch = PathWatch(
            pipeline.paths, settings.supervision, settings.listeners, data_dir, self._telemetry,
            lambda change, now_us: pipeline.tell_path(change, self._home(), now_us), self._raise,
        )  # fmt: skip
        self._path_watch.position = self._journal.newest_position
        with contextlib.closing(Reader(data_dir)) as reader:
            self._path_watch.begin(self.accounts, *clock.both_us(), lambda position: told_since(reader, position))
        self._desk = AccountDesk(data_dir, pipeline, lambda: self.accounts, self._tell_own, self._around.raise_trouble)

    def _forwarder(self, settings: config.OutputSettings) -> Forwarder:
        reader = Reader(self._settings.receiver.data_dir)
        return Forwarder(settings, outputs.build(settings, self._around), self._journal, reader, self._around)

    def _surroundings(self) -> Surroundings:
        """Return what outputs may use of us."""
        return Surroundings(
            self._settings.receiver.number,
            self._settings.receiver.data_dir,
            self._telemetry,
            lambda trouble: self._raise(trouble, clock.now_us()),
            lambda trouble: self.pipeline.tell_trouble(trouble, self._home(), clock.now_us()),
        )

    def origin(self, settings: ListenerSettings, transport: str) -> int:
        """Return the journal's number of what comes in at a listener over one transport."""
        return self._journal.origins[Origin(self._settings.receiver.number, settings.line, settings.name, transport)]

    def _home(self) -> int:
        """Return the origin that stands for the receiver itself: its first listener."""
        first = self._settings.listeners[0]
        return self.origin(first, "udp" if first.transport == "udp" else "tcp")

    # -- telling of ourselves -------------------------------------------------------------------------------------

    def _raise(self, trouble: Trouble, now_us: int) -> None:
        self.pipeline.raise_trouble(trouble, self._home(), now_us)

    def _tell_own(self, trouble: Trouble) -> None:
        self.pipeline.troubles.happened[trouble.reason] += trouble.count
        self.pipeline.tell_trouble(trouble, self._home(), clock.now_us())

    def _tell_directly(self, row: Row) -> None:
        """Hand an event of our own to the outputs past the journal while that cannot store it."""
        if self.journal_watch.withheld:
            origin = next(origin for origin, number in self._journal.origins.items() if number == row.origin)
            for forwarder in self._forwarders:
                forwarder.tell_directly(Stored(0, row, origin))

    # -- as long as we run ----------------------------------------------------------------------------------------

    def standing(self) -> list[Coroutine[Any, Any, None]]:
        """Return what is to run from the first panel to the last."""
        runs = (self._watch, *self._path_watch.parts, *self._desk.parts)
        return [*(forwarder.run(self.accounts) for forwarder in self._forwarders), *(run() for run in runs)]

    async def _watch(self) -> None:
        """Look once a second after what happens by itself: paths, counted troubles, refusals, retention, the disk."""
        tidied = clock.monotonic()
        self.journal_watch.begin()
        while True:
            await asyncio.sleep(1.0)
            beat = clock.monotonic()
            now_us, steady_us = clock.both_us()
            for finding in self._clock_watch.look(now_us, steady_us, clock.synchronised()):
                self._raise(Trouble(*finding, now_us), now_us)
            self._refresh_accounts(now_us)
            self._path_watch.look(now_us, steady_us)
            for trouble in self.pipeline.troubles.due(steady_us):
                self.pipeline.tell_trouble(trouble, self._home(), now_us)
            self._journal.flush()
            if beat - tidied > _TIDY_SECONDS:
                self._journal.tidy(keep_old=self._clock_watch.holds_retention(steady_us))
                tidied = beat
            self.journal_watch.look(beat, now_us)
            self._telemetry.tick()

    def _refresh_accounts(self, now_us: int) -> None:
        """Take what commands have changed in the managed register; a path of an account that is gone is none."""
        try:
            changed = self.accounts.refresh()
            if changed is None:
                self._path_watch.take(self.accounts)
            elif changed:
                self._path_watch.changed(changed)
        except RegisterUnavailable as error:
            self._raise(Trouble("register-unreadable", str(error), now_us), now_us)

    def take_settings(self, settings: Settings) -> None:
        """Take those that can change while we run."""
        self.pipeline.clock_settings = self._clock_watch.settings = settings.clock
        self.pipeline.senders.clock = settings.clock
        self.pipeline.senders.alive_seconds = settings.accounts.address_alive_seconds

    async def take_accounts(self, found: Accounts, gone: list[str]) -> None:
        """Put another register in the place of the one we had; ``gone`` were heard and are not in it any more."""
        self.accounts = self.pipeline.accounts = found
        self._path_watch.take(found)
        for forwarder in self._forwarders:
            forwarder.accounts = found
        for first in range(0, len(gone), _FORGOTTEN):
            self.pipeline.senders.forget(gone[first : first + _FORGOTTEN])
            await asyncio.sleep(_REST_SECONDS)

    def reopen_files(self) -> None:
        """Let outputs write to their paths anew: files may have been rotated."""
        for forwarder in self._forwarders:
            forwarder.reopen()

    def tell_rest(self) -> None:
        """Tell the troubles that were counted so far: nothing more comes."""
        for trouble in self.pipeline.troubles.rest():
            self.pipeline.tell_trouble(trouble, self._home(), clock.now_us())

    async def close(self) -> None:
        """Put the outputs and the state of paths away."""
        async with asyncio.TaskGroup() as closing:
            for forwarder in self._forwarders:
                closing.create_task(_close(forwarder))
            closing.create_task(self._path_watch.close(*clock.both_us()))

    # -- metrics --------------------------------------------------------------------------------------------------

    def add_gauges(self) -> None:
        """Tell telemetry what to read at a scrape."""

        def paths() -> Labelled:
            return [((state,), count) for state, count in self.pipeline.paths.count().items()]

        def troubles() -> Labelled:
            return [((reason,), self.pipeline.troubles.happened[reason]) for reason in REASONS]

        def stale_tests() -> float:
            return self.pipeline.senders.stale_tests

        by_name = [(s.name, f) for s, f in zip(self._settings.outputs, self._forwarders, strict=True)]
        add_clock_gauges(self._telemetry, self._clock_watch)
        add_output_gauges(self._telemetry, by_name)
        add_account_gauges(self._telemetry, lambda: len(self.accounts), self.pipeline.on_test, self._desk.keys.rotation)
        gauge = self._telemetry.gauge
        self.journal_watch.add_gauges()
        gauge("receiver_paths", "Supervised paths, by state", ("state",), paths)
        gauge(
            "receiver_accounts_unsupervised", "Accounts without supervision", (), one(lambda: self._path_watch.unsupervised)
        )
        gauge("receiver_remembered_messages", "Messages remembered for repeats", (), one(lambda: self._journal.remembered))
        gauge("receiver_troubles_total", "Troubles by reason, each one, told or counted", ("reason",), troubles)
        gauge("receiver_link_tests_stale_total", "Link tests acknowledged that proved nothing new", (), one(stale_tests))
        gauge("receiver_senders", "Accounts whose sender is remembered", (), one(lambda: len(self.pipeline.senders)))
        gauge("receiver_resident_bytes", "Largest resident memory so far", (), one(_resident_bytes))


def one(read: Callable[[], float]) -> Callable[[], Labelled]:
    """Return a reading without labels."""
    return lambda: [((), read())]


async def _close(forwarder: Forwarder) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(forwarder.close(), _CLOSE_OUTPUTS_SECONDS)


def _resident_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
