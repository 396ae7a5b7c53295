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
from collections import deque
from collections.abc import Callable
from pathlib import Path

from protocols.dc09 import Key
from protocols.errors import KeyFormatError
from receiver import __version__, accounts, clock, config, outputs
from receiver.accounts import Accounts
from receiver.config import ListenerSettings, Settings
from receiver.errors import ConfigError, JournalUnavailable
from receiver.journal import Journal, Lane, Origin, Reader
from receiver.listeners import RESERVED_FILES, Monitor, TcpListener, UdpListener, bind_tcp, bind_udp, files_for_connections
from receiver.outputs import Forwarder
from receiver.paths import STORM_COUNT, STORM_US
from receiver.pipeline import Pipeline
from receiver.telemetry import Labelled, Telemetry
from receiver.troubles import Trouble

_DRAIN_SECONDS = 6.0
_TIDY_SECONDS = 10.0
_CLOSE_OUTPUTS_SECONDS = 1.0
_SWITCH_SECONDS = (
    0.001  # the journal's thread waits so long for the interpreter, several times a commit, while a flood is on
)


def load_accounts(settings: Settings) -> Accounts:
    """Read the account register that the settings name.

    Raises:
        ConfigError: with every mistake found.
    """
    default_key = None
    if settings.accounts.default_key:
        try:
            default_key = Key.parse(settings.accounts.default_key.text)
        except KeyFormatError as error:
            raise ConfigError(f"[accounts] default_key: {error}") from None
    return accounts.load(settings.accounts.file, default_key, settings.accounts.unknown)


LaneReading = Callable[[Forwarder, Lane], float]


class Service:
    """One receiver. ``run`` returns when it was asked to stop and has put everything away."""

    def __init__(self, settings: Settings, config_file: Path | None) -> None:
        """Take the settings; ``config_file`` is read again on SIGHUP.

        Raises:
            ConfigError: the account register has mistakes.
        """
        self._settings = settings
        self._config_file = config_file
        self._accounts = load_accounts(settings)
        self._telemetry = Telemetry()
        self._stop = asyncio.Event()
        self._tcp: list[TcpListener] = []
        self._udp: list[UdpListener] = []
        self._monitor = Monitor(settings.http, self._telemetry.scrape, self._unhealthy, self._unready)
        self._ready = False
        self._beat = 0.0
        self._losses: deque[int] = deque()
        self._storm_told_us = 0

    @property
    def ready(self) -> bool:
        """Whether the sockets are bound and panels may come."""
        return self._ready

    def scrape(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self._telemetry.scrape()

    def stop(self) -> None:
        """Ask the service to stop."""
        self._stop.set()

    async def run(self) -> None:
        """Run until asked to stop.

        Raises:
            ConfigError: a port or the journal cannot be had.
        """
        settings, telemetry = self._settings, self._telemetry
        origins = [
            Origin(settings.receiver.number, listener.line, listener.name, transport)
            for listener in settings.listeners
            for transport in ("tcp", "udp")
        ]
        self._journal = Journal(settings.receiver.data_dir, settings.journal, origins)
        self._journal.on_sync = telemetry.stored
        try:
            self._pipeline = Pipeline(self._accounts, settings.clock, self._journal, telemetry, clock.now_us)
            self._forwarders = [self._forwarder(output) for output in settings.outputs]
            self._handle_signals()
            self._allow_connections()
            self._add_gauges()
            try:
                for listener in settings.listeners:
                    await self._open(listener)
                http_port = await self._monitor.open()
                await self._serve(http_port)
            finally:
                await self._monitor.close()
                for forwarder in self._forwarders:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(forwarder.close(), _CLOSE_OUTPUTS_SECONDS)
        finally:
            await self._journal.close()
        telemetry.stopped()

    async def _serve(self, http_port: int) -> None:
        """Serve until asked to stop; then answer what is in hand, and only then end the outputs."""
        async with asyncio.TaskGroup() as standing:
            tasks = [standing.create_task(forwarder.run(self._accounts)) for forwarder in self._forwarders]
            tasks += [standing.create_task(listener.sweep()) for listener in self._tcp]
            tasks += [standing.create_task(self._watch())]
            self._announce(http_port)
            await self._stop.wait()
            self._telemetry.stopping()
            self._ready = False
            async with asyncio.TaskGroup() as draining:
                for tcp in self._tcp:
                    draining.create_task(tcp.drain(_DRAIN_SECONDS))
                for udp in self._udp:
                    draining.create_task(udp.drain(_DRAIN_SECONDS))
            for task in tasks:
                task.cancel()

    def _forwarder(self, settings: config.OutputSettings) -> Forwarder:
        reader = Reader(self._settings.receiver.data_dir)
        return Forwarder(settings, outputs.build(settings), self._journal, reader, self._telemetry)

    async def _open(self, settings: ListenerSettings) -> None:
        port = settings.port
        if settings.transport in ("tcp", "both"):
            sock = bind_tcp(settings)
            port = int(sock.getsockname()[1])
            tcp = TcpListener(settings, self._origin(settings, "tcp"), self._pipeline, self._telemetry)
            await tcp.open(sock)
            self._tcp.append(tcp)
            self._telemetry.listening(name=settings.name, transport="tcp", host=settings.host, port=port)
        if settings.transport in ("udp", "both"):
            udp = UdpListener(settings, self._origin(settings, "udp"), self._pipeline, self._telemetry)
            granted = await udp.open(bind_udp(settings, port))
            self._udp.append(udp)
            self._telemetry.listening(
                name=settings.name, transport="udp", host=settings.host, port=port, receive_buffer_bytes=granted
            )
            if granted < settings.receive_buffer_bytes:
                self._telemetry.warned(
                    "the kernel grants a smaller UDP buffer than asked for; raise net.core.rmem_max",
                    asked_bytes=settings.receive_buffer_bytes, granted_bytes=granted,
                )  # fmt: skip

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
        if self._accounts.accept_unknown:
            self._telemetry.warned("unknown accounts are accepted: register accounts to refuse strangers")
        gc.collect()
        gc.freeze()  # what was built so far lives as long as we do
        gc.set_threshold(20_000, 20, 50)  # frames are freed by counting; the collector finds nothing in them
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
        loop.add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Read accounts and settings again; on a mistake the old ones stay. Ports, outputs and journal need a restart."""
        try:
            settings = config.load(self._config_file)
            found = load_accounts(settings)
        except ConfigError as error:
            for mistake in error.mistakes:
                self._telemetry.reload_failed(mistake)
            return
        self._accounts = self._pipeline.accounts = found
        self._pipeline.clock_settings = settings.clock
        self._pipeline.paths.keep({account.account for account in found.supervised()})
        for forwarder in self._forwarders:
            forwarder.accounts = found
            forwarder.reopen()
        for name in ("receiver", "listeners", "journal", "http", "log", "outputs"):
            if getattr(settings, name) != getattr(self._settings, name):
                self._telemetry.warned("a changed section takes effect at the next start", section=name)
        self._telemetry.reloaded(accounts=len(found), unknown_accounts="accepted" if found.accept_unknown else "refused")

    # -- once a second --------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Look after what happens by itself: lost paths, counted troubles, the refusals log, retention, the disk."""
        tidied, failed = clock.monotonic(), False
        while True:
            await asyncio.sleep(1.0)
            self._beat = clock.monotonic()
            now_us = clock.now_us()
            self._check_paths(now_us)
            for trouble in self._pipeline.troubles.due(now_us):
                self._pipeline.tell_trouble(trouble, self._home(), now_us)
            self._journal.flush()
            if self._beat - tidied > _TIDY_SECONDS:
                self._journal.tidy()
                tidied = self._beat
            failed = self._tell_journal(failed)
            self._telemetry.tick()

    def _home(self) -> int:
        """Return the origin that stands for the receiver itself: its first listener."""
        first = self._settings.listeners[0]
        return self._origin(first, "udp" if first.transport == "udp" else "tcp")

    def _check_paths(self, now_us: int) -> None:
        lost = self._pipeline.paths.check(now_us)
        self._losses.extend(now_us for _ in lost)
        while self._losses and self._losses[0] < now_us - STORM_US:
            self._losses.popleft()
        if lost and len(self._losses) >= STORM_COUNT and now_us - self._storm_told_us > STORM_US:
            text = f"{len(self._losses)} paths were lost within {STORM_US // clock.SECOND_US} s; look at our own line first"
            trouble = Trouble("paths-lost", text, self._losses[0], len(self._losses))
            self._pipeline.tell_trouble(trouble, self._home(), now_us)
            self._storm_told_us = now_us
        for change in lost:
            self._pipeline.tell_path(change, self._home(), now_us)

    def _tell_journal(self, failed_before: bool) -> bool:
        failed = self._journal.failure is not None
        if failed and not failed_before:
            self._telemetry.journal_failed(str(self._journal.failure))
        elif failed_before and not failed:
            self._telemetry.journal_recovered()
        return failed

    # -- health and metrics ---------------------------------------------------------------------------------------

    def _unhealthy(self) -> list[str]:
        return [] if self._journal.alive else ["the journal's thread has ended"]

    def _unready(self) -> list[str]:
        wrong = self._unhealthy()
        if not self._ready:
            wrong.append("starting or stopping")
        if self._journal.failure is not None:
            wrong.append(f"the journal cannot be written: {self._journal.failure}")
        try:
            self._journal.check_room()
        except JournalUnavailable as error:
            wrong.append(str(error))
        return wrong

    def _add_gauges(self) -> None:
        """Tell telemetry what to read at a scrape."""

        def by_lane(read: LaneReading) -> Labelled:
            return [((name, lane.word), read(f, lane)) for name, f in self._by_name() for lane in Lane]

        def connections() -> Labelled:
            return [(("tcp",), sum(len(listener.crowd.all) for listener in self._tcp))]

        def paths() -> Labelled:
            return [((state,), count) for state, count in self._pipeline.paths.count().items()]

        def waiting() -> Labelled:
            return by_lane(lambda forwarder, lane: forwarder.cursors[lane].waiting)

        def oldest() -> Labelled:
            return by_lane(lambda forwarder, lane: forwarder.oldest_seconds(lane))

        def one(read: Callable[[], float]) -> Callable[[], Labelled]:
            return lambda: [((), read())]

        gauge, lanes = self._telemetry.gauge, ("output", "lane")
        gauge("receiver_journal_backlog", "Events the slowest output has before it", (), one(self._journal.backlog))
        gauge("receiver_output_backlog", "Events not handed over", lanes, waiting)
        gauge("receiver_output_oldest_seconds", "Age of the oldest event not handed over", lanes, oldest)
        gauge("receiver_connections", "Open connections", ("transport",), connections)
        gauge("receiver_paths", "Supervised paths that were heard, by state", ("state",), paths)
        gauge("receiver_accounts", "Registered accounts", (), one(lambda: len(self._accounts)))
        gauge("receiver_remembered_messages", "Messages remembered for repeats", (), one(lambda: self._journal.remembered))
        gauge("receiver_udp_dropped_total", "Datagrams dropped by the kernel or by us", (), one(self._udp_dropped))
        gauge("receiver_resident_bytes", "Largest resident memory so far", (), one(_resident_bytes))

    def _udp_dropped(self) -> float:
        return self._telemetry.udp_overflow + sum(listener.kernel_drops() for listener in self._udp)

    def _by_name(self) -> list[tuple[str, Forwarder]]:
        return [(s.name, f) for s, f in zip(self._settings.outputs, self._forwarders, strict=True)]


def _resident_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
