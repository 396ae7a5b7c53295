"""Builds everything, starts it, stops it; the only module that knows all parts.

Parts nest in the order they stop: the journal outermost, the outputs inside it, the listeners innermost. Going down, new
connections are refused, frames in hand are answered, cursors are saved, the journal is closed.
"""

import asyncio
import contextlib
import gc
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from receiver import __version__, clock, config, outputs
from receiver.account_desk import AccountDesk
from receiver.accounts import Accounts
from receiver.clockwatch import ClockWatch
from receiver.config import ListenerSettings, Settings
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.gauges import add_account_gauges, add_clock_gauges, add_output_gauges
from receiver.journal import Journal, Origin, Reader, Row, Stored
from receiver.journal_watch import JournalWatch
from receiver.listeners import (
    RESERVED_FILES,
    Monitor,
    Port,
    Ports,
    TcpListener,
    UdpListener,
    files_for_connections,
    from_systemd,
    open_port,
)
from receiver.managed import load_accounts
from receiver.outputs import Forwarder, Surroundings
from receiver.path_watch import PathWatch
from receiver.pipeline import Pipeline
from receiver.succession import Succession
from receiver.telemetry import Labelled, Telemetry
from receiver.troubles import REASONS, Trouble

_DRAIN_SECONDS = 6.0
_TIDY_SECONDS = 10.0
_CLOSE_OUTPUTS_SECONDS = 1.0
_PART_SECONDS = 1.0
LAST_SECONDS = 9.0
"""From being asked to stop to the end, whatever hangs: everything acknowledged is on disk, and 10 s are promised."""
_SWITCH_SECONDS = 0.001  # the journal's thread waits so long for the interpreter, several times a commit, in a flood


class Service:
    """One receiver. ``run`` returns when it was asked to stop and has put everything away."""

    def __init__(self, settings: Settings, config_file: Path | None, take_over: bool = False) -> None:
        """Take the settings; ``config_file`` is read again on SIGHUP; ``take_over`` from the receiver that runs, if any.

        Raises:
            ConfigError: the account register has mistakes.
        """
        self._settings = settings
        self._config_file = config_file
        self._accounts = load_accounts(settings)
        self._telemetry = Telemetry()
        self._stop = asyncio.Event()
        self.when_stopping: Callable[[], None] = lambda: None
        self._ports = Ports(settings.listeners, from_systemd())
        self._succession = Succession(settings.receiver.data_dir, self._ports, self._telemetry, take_over)
        self._tcp: list[TcpListener] = []
        self._udp: list[UdpListener] = []
        self._monitor = Monitor(settings.http, self._telemetry.scrape, self._unhealthy, self._unready)
        self._ready = False
        self._beat = 0.0

    @property
    def ready(self) -> bool:
        """Whether the sockets are bound and panels may come."""
        return self._ready

    def scrape(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self._telemetry.scrape()

    def stop(self) -> None:
        """Ask the service to stop; asked again, it goes on stopping."""
        if not self._stop.is_set():
            self._stop.set()
            self.when_stopping()

    def overdue(self) -> None:
        """Say that something kept the service from putting everything away in time."""
        self._telemetry.warned("stopped before everything was put away: the disk or an output hangs", seconds=LAST_SECONDS)

    async def run(self) -> None:
        """Run until asked to stop.

        Raises:
            ConfigError: a port or the journal cannot be had.
        """
        settings, telemetry = self._settings, self._telemetry
        self._handle_signals()
        self._succession.begin()
        self._journal = await self._succession.open_journal(self._make_journal, self._stop)
        try:
            found = self._journal.newest_us, self._journal.newest_stamp_us
            self._clock_watch = ClockWatch(settings.clock, *clock.both_us(), *found)
            self._pipeline = Pipeline(
                self._accounts, settings.clock, self._journal, telemetry, clock.now_us, clock.steady_us, self._clock_watch
            )
            self._pipeline.senders.alive_seconds = settings.accounts.address_alive_seconds
            self._forwarders = [self._forwarder(output) for output in settings.outputs]
            self._stand_watch()
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
            self._allow_connections()
            self._add_gauges()
            try:
                self._succession.claim()
                for port in self._ports.claimed:
                    await self._open(port)
                http_port = await self._monitor.open()
                await self._serve(http_port)
            finally:
                await self._monitor.close()
                async with asyncio.TaskGroup() as closing:
                    for forwarder in self._forwarders:
                        closing.create_task(_close(forwarder))
                    closing.create_task(self._path_watch.close(*clock.both_us()))
        finally:
            await self._journal.close()  # from here on the next process may have it
            async with asyncio.TaskGroup() as parting:
                for tcp in self._tcp:
                    parting.create_task(tcp.part(_PART_SECONDS))
        telemetry.stopped()

    def _stand_watch(self) -> None:
        settings, pipeline = self._settings, self._pipeline
        self._journal_watch = JournalWatch(
            self._journal, settings.journal, settings.receiver.data_dir, self._telemetry, self._tell_own
        )
        pipeline.own_event = self._tell_directly
        self._path_watch = PathWatch(
            pipeline.paths, settings.supervision, settings.listeners, settings.receiver.data_dir, self._telemetry,
            lambda change, now_us: pipeline.tell_path(change, self._home(), now_us),
            lambda trouble, now_us: pipeline.raise_trouble(trouble, self._home(), now_us),
        )  # fmt: skip
        self._path_watch.begin(self._accounts, *clock.both_us())
        self._desk = AccountDesk(
            settings.receiver.data_dir,
            pipeline,
            lambda: self._accounts,
            self._tell_own,
            self._surroundings().raise_trouble,
        )

    def _make_journal(self) -> Journal:
        settings = self._settings
        origins = [
            Origin(settings.receiver.number, listener.line, listener.name, transport)
            for listener in settings.listeners
            for transport in ("tcp", "udp")
        ]
        journal = Journal(settings.receiver.data_dir, settings.journal, origins)
        journal.on_sync = self._telemetry.stored
        return journal

    async def _serve(self, http_port: int) -> None:
        """Serve until asked to stop; then answer what is in hand, and only then end the outputs."""
        async with asyncio.TaskGroup() as standing:
            tasks = [standing.create_task(forwarder.run(self._accounts)) for forwarder in self._forwarders]
            tasks += [standing.create_task(listener.sweep()) for listener in self._tcp]
            tasks += [standing.create_task(run()) for run in (self._watch, *self._path_watch.parts, *self._desk.parts)]
            hatch = self._succession.open_hatch(self.stop)
            tasks += [standing.create_task(hatch.tend())]
            self._announce(http_port)
            await self._stop.wait()
            self._telemetry.stopping()
            self._ready = False
            hatch.close()
            async with asyncio.TaskGroup() as draining:
                for tcp in self._tcp:
                    draining.create_task(tcp.drain(_DRAIN_SECONDS))
                for udp in self._udp:
                    draining.create_task(udp.drain(_DRAIN_SECONDS))
            for trouble in self._pipeline.troubles.rest():
                self._pipeline.tell_trouble(trouble, self._home(), clock.now_us())
            for task in tasks:
                task.cancel()

    def _forwarder(self, settings: config.OutputSettings) -> Forwarder:
        reader = Reader(self._settings.receiver.data_dir)
        around = self._surroundings()
        return Forwarder(settings, outputs.build(settings, around), self._journal, reader, around)

    def _surroundings(self) -> Surroundings:
        """Return what outputs may use of us."""
        pipeline, home = self._pipeline, self._home()
        return Surroundings(
            self._settings.receiver.number,
            self._settings.receiver.data_dir,
            self._telemetry,
            lambda trouble: pipeline.raise_trouble(trouble, home, clock.now_us()),
            lambda trouble: pipeline.tell_trouble(trouble, home, clock.now_us()),
        )

    async def _open(self, port: Port) -> None:
        origin = self._origin(port.settings, port.transport)
        opened = await open_port(port, origin, self._pipeline, self._telemetry)
        if isinstance(opened, TcpListener):
            self._tcp.append(opened)
        else:
            self._udp.append(opened)

    def _origin(self, settings: ListenerSettings, transport: str) -> int:
        return self._journal.origins[Origin(self._settings.receiver.number, settings.line, settings.name, transport)]

    def _announce(self, http_port: int) -> None:
        """Say how we stand; from here on panels may come."""
        policy = "accepted" if self._accounts.accept_unknown else "refused"
        self._telemetry.started(
            version=__version__, data_dir=self._settings.receiver.data_dir, accounts=len(self._accounts),
            unknown_accounts=policy, outputs=",".join(output.name for output in self._settings.outputs) or "none",
            http=f"{self._settings.http.host}:{http_port}",
        )  # fmt: skip
        if not self._settings.outputs:
            self._telemetry.warned("no outputs are configured: signals are stored and handed to nobody")
        if remark := self._accounts.remark():
            self._telemetry.warned(remark)
        if self._accounts.accept_unknown:
            self._telemetry.warned("unknown accounts are accepted: register accounts to refuse strangers")
        gc.freeze()  # what was built so far lives as long as we do; to look for the little that does not costs 0.1 s
        gc.enable()
        gc.set_threshold(
            2_000, 2, 5_000
        )  # frames are freed by counting; what is looked at is cold: 1 µs each, 6,000 at once
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._beat = clock.monotonic()
        self._ready = True
        self._telemetry.ready()

    def _allow_connections(self) -> None:
        """Ask the system for as many open files as the listeners may need connections; what it grants binds them."""
        taking = [listener for listener in self._settings.listeners if listener.transport != "udp"]
        wanted = sum(listener.max_connections for listener in taking) + RESERVED_FILES
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < granted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
        if granted < wanted:
            self._telemetry.warned(
                "the system allows fewer open files than max_connections needs; raise its limit (ulimit -n)",
                wanted=wanted, granted=granted, connections=files_for_connections(),
            )  # fmt: skip

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        loop.add_signal_handler(signal.SIGINT, self.stop)

    def reload(self) -> None:
        """Read accounts and settings again; on a mistake the old ones stay. Ports, outputs and journal need a restart."""
        try:
            settings = config.load(self._config_file)
            found = load_accounts(settings, self._accounts)
        except ConfigError as error:
            for mistake in error.mistakes:
                self._telemetry.reload_failed(mistake)
            return
        if found is not self._accounts:
            self._take_accounts(found)
        self._pipeline.clock_settings = self._clock_watch.settings = settings.clock
        self._pipeline.senders.clock = settings.clock
        self._pipeline.senders.alive_seconds = settings.accounts.address_alive_seconds
        for forwarder in self._forwarders:
            forwarder.reopen()
        for name in ("receiver", "listeners", "supervision", "journal", "http", "log", "outputs"):
            if getattr(settings, name) != getattr(self._settings, name):
                self._telemetry.warned("a changed section takes effect at the next start", section=name)
        self._telemetry.reloaded(accounts=len(found), unknown_accounts="accepted" if found.accept_unknown else "refused")

    def _take_accounts(self, found: Accounts) -> None:
        """Put another register in the place of the one we had."""
        names = found.names()
        before, self._accounts, self._pipeline.accounts = self._accounts, found, found
        self._path_watch.take(found)
        self._pipeline.senders.keep(names)
        for forwarder in self._forwarders:
            forwarder.accounts = found
        before.close()

    # -- once a second --------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Look after what happens by itself: lost paths, counted troubles, the refusals log, retention, the disk."""
        tidied = clock.monotonic()
        self._journal_watch.begin()
        while True:
            await asyncio.sleep(1.0)
            self._beat = clock.monotonic()
            now_us, steady_us = clock.both_us()
            for finding in self._clock_watch.look(now_us, steady_us, clock.synchronised()):
                self._pipeline.raise_trouble(Trouble(*finding, now_us), self._home(), now_us)
            self._refresh_accounts(now_us)
            self._path_watch.look(now_us, steady_us)
            for trouble in self._pipeline.troubles.due(steady_us):
                self._pipeline.tell_trouble(trouble, self._home(), now_us)
            self._journal.flush()
            if self._beat - tidied > _TIDY_SECONDS:
                self._journal.tidy(keep_old=self._clock_watch.holds_retention(steady_us))
                tidied = self._beat
            self._journal_watch.look(self._beat, now_us)
            self._telemetry.tick()

    def _refresh_accounts(self, now_us: int) -> None:
        """Take what commands have changed in the managed register; a path of an account that is gone is none."""
        try:
            changed = self._accounts.refresh()
            if changed is None:
                self._path_watch.take(self._accounts)
            elif changed:
                self._path_watch.changed(changed)
        except RegisterUnavailable as error:
            self._pipeline.raise_trouble(Trouble("register-unreadable", str(error), now_us), self._home(), now_us)

    def _home(self) -> int:
        """Return the origin that stands for the receiver itself: its first listener."""
        first = self._settings.listeners[0]
        return self._origin(first, "udp" if first.transport == "udp" else "tcp")

    def _tell_own(self, trouble: Trouble) -> None:
        self._pipeline.troubles.happened[trouble.reason] += trouble.count
        self._pipeline.tell_trouble(trouble, self._home(), clock.now_us())

    def _tell_directly(self, row: Row) -> None:
        """Hand an event of our own to the outputs past the journal while that cannot store it."""
        if self._journal_watch.withheld:
            origin = next(origin for origin, number in self._journal.origins.items() if number == row.origin)
            for forwarder in self._forwarders:
                forwarder.tell_directly(Stored(0, row, origin))

    # -- health and metrics ---------------------------------------------------------------------------------------

    def _unhealthy(self) -> list[str]:
        return [] if self._journal.alive else ["the journal's thread has ended"]

    def _unready(self) -> list[str]:
        wrong = self._unhealthy()
        if not self._ready:
            wrong.append("starting or stopping")
        return wrong + self._journal_watch.wrong()

    def _add_gauges(self) -> None:
        """Tell telemetry what to read at a scrape."""

        def connections() -> Labelled:
            return [(("tcp",), sum(len(listener.crowd.all) for listener in self._tcp))]

        def paths() -> Labelled:
            return [((state,), count) for state, count in self._pipeline.paths.count().items()]

        def troubles() -> Labelled:
            return [((reason,), self._pipeline.troubles.happened[reason]) for reason in REASONS]

        def stale_tests() -> float:
            return self._pipeline.senders.stale_tests

        def one(read: Callable[[], float]) -> Callable[[], Labelled]:
            return lambda: [((), read())]

        add_clock_gauges(self._telemetry, self._clock_watch)
        add_output_gauges(self._telemetry, self._by_name())
        add_account_gauges(self._telemetry, lambda: len(self._accounts), self._pipeline.on_test, self._desk.keys.rotation)
        gauge = self._telemetry.gauge
        self._journal_watch.add_gauges()
        gauge("receiver_connections", "Open connections", ("transport",), connections)
        gauge("receiver_paths", "Supervised paths, by state", ("state",), paths)
        gauge(
            "receiver_accounts_unsupervised", "Accounts without supervision", (), one(lambda: self._path_watch.unsupervised)
        )
        gauge("receiver_remembered_messages", "Messages remembered for repeats", (), one(lambda: self._journal.remembered))
        gauge("receiver_troubles_total", "Troubles by reason, each one, told or counted", ("reason",), troubles)
        gauge("receiver_link_tests_stale_total", "Link tests acknowledged that proved nothing new", (), one(stale_tests))
        gauge("receiver_senders", "Accounts whose sender is remembered", (), one(lambda: len(self._pipeline.senders)))
        gauge("receiver_udp_dropped_total", "Datagrams dropped by the kernel or by us", (), one(self._udp_dropped))
        gauge("receiver_resident_bytes", "Largest resident memory so far", (), one(_resident_bytes))

    def _udp_dropped(self) -> float:
        return self._telemetry.udp_overflow + sum(listener.kernel_drops() for listener in self._udp)

    def _by_name(self) -> list[tuple[str, Forwarder]]:
        return [(s.name, f) for s, f in zip(self._settings.outputs, self._forwarders, strict=True)]


async def _close(forwarder: Forwarder) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(forwarder.close(), _CLOSE_OUTPUTS_SECONDS)


def _resident_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
