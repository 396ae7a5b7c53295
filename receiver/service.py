"""Starts a receiver, reloads it, stops it; what it is made of stands in ``parts``.

Parts nest in the order they stop: the journal outermost, the outputs inside it, the listeners innermost. Going down, new
connections are refused, frames in hand are answered, cursors are saved, the journal is closed.
"""

import asyncio
import gc
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from receiver import __version__, config
from receiver.accounts import Accounts
from receiver.config import Settings
from receiver.errors import ConfigError, RegisterUnavailable
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
from receiver.parts import Parts, make_journal, one
from receiver.succession import Succession
from receiver.telemetry import Labelled, Telemetry
from receiver.threads import in_thread

_DRAIN_SECONDS = 6.0
_PART_SECONDS = 1.0
LAST_SECONDS = 9.0
"""From being asked to stop to the end, whatever hangs: everything acknowledged is on disk, and 10 s are promised."""
_SWITCH_SECONDS = 0.0002
"""How long one waits for the interpreter: the journal's thread in a flood, the loop while another thread computes."""
_AT_THE_NEXT_START = ("receiver", "listeners", "supervision", "journal", "http", "log", "outputs")


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
        self._hangup = asyncio.Event()
        self.when_stopping: Callable[[], None] = lambda: None
        self._ports = Ports(settings.listeners, from_systemd())
        self._succession = Succession(settings.receiver.data_dir, self._ports, self._telemetry, take_over)
        self._tcp: list[TcpListener] = []
        self._udp: list[UdpListener] = []
        self._monitor = Monitor(settings.http, self._telemetry.scrape, self._unhealthy, self._unready)
        self._ready = False

    @property
    def ready(self) -> bool:
        """Whether the sockets are bound and panels may come."""
        return self._ready

    def scrape(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return self._telemetry.scrape()

    # -- from the start to the end --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until asked to stop.

        Raises:
            ConfigError: a port or the journal cannot be had.
        """
        settings, telemetry = self._settings, self._telemetry
        self._handle_signals(signal.SIGTERM, signal.SIGINT, then=self.stop)
        self._succession.begin()
        self._journal = await self._succession.open_journal(lambda: make_journal(settings, telemetry), self._stop)
        try:
            self._parts = Parts(settings, self._accounts, self._journal, telemetry)
            del self._accounts  # from here on it is the parts' own, and goes once another was read
            self._handle_signals(signal.SIGHUP, then=self._hangup.set)
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
                await self._parts.close()
        finally:
            await self._journal.close()  # from here on the next process may have it
            async with asyncio.TaskGroup() as parting:
                for tcp in self._tcp:
                    parting.create_task(tcp.part(_PART_SECONDS))
        telemetry.stopped()

    async def _serve(self, http_port: int) -> None:
        """Serve until asked to stop; then answer what is in hand, and only then end the outputs."""
        async with asyncio.TaskGroup() as standing:
            hatch = self._succession.open_hatch(self.stop)
            runs = [
                *self._parts.standing(),
                *(listener.sweep() for listener in self._tcp),
                self._tend_reloads(),
                hatch.tend(),
            ]
            tasks = [standing.create_task(run) for run in runs]
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
            self._parts.tell_rest()
            for task in tasks:
                task.cancel()

    async def _open(self, port: Port) -> None:
        origin = self._parts.origin(port.settings, port.transport)
        opened = await open_port(port, origin, self._parts.pipeline, self._telemetry)
        if isinstance(opened, TcpListener):
            self._tcp.append(opened)
        else:
            self._udp.append(opened)

    def _announce(self, http_port: int) -> None:
        """Say how we stand; from here on panels may come."""
        accounts = self._parts.accounts
        self._telemetry.started(
            version=__version__, data_dir=self._settings.receiver.data_dir, accounts=len(accounts),
            unknown_accounts=_policy(accounts), outputs=",".join(output.name for output in self._settings.outputs) or "none",
            http=f"{self._settings.http.host}:{http_port}",
        )  # fmt: skip
        if not self._settings.outputs:
            self._telemetry.warned("no outputs are configured: signals are stored and handed to nobody")
        if remark := accounts.remark():
            self._telemetry.warned(remark)
        if accounts.accept_unknown:
            self._telemetry.warned("unknown accounts are accepted: register accounts to refuse strangers")
        gc.freeze()  # what was built so far lives as long as we do; to look for the little that does not costs 0.1 s
        gc.enable()
        gc.set_threshold(2_000, 2, 5_000)  # frames are freed by counting; 6,000 others at once, 1 µs each: all are cold
        sys.setswitchinterval(_SWITCH_SECONDS)
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

    @staticmethod
    def _handle_signals(*numbers: signal.Signals, then: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        for number in numbers:
            loop.add_signal_handler(number, then)

    def stop(self) -> None:
        """Ask the service to stop; asked again, it goes on stopping."""
        if not self._stop.is_set():
            self._stop.set()
            self.when_stopping()

    def overdue(self) -> None:
        """Say that something kept the service from putting everything away in time."""
        self._telemetry.warned("stopped before everything was put away: the disk or an output hangs", seconds=LAST_SECONDS)

    # -- reloading ------------------------------------------------------------------------------------------------

    async def _tend_reloads(self) -> None:
        """Reload when SIGHUP asks for it, one time after another; several that come meanwhile are one."""
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            self._parts.reopen_files()  # whatever else is wrong: a rotated file may be packed or deleted next
            try:
                await self._reload()
            except ConfigError as error:
                for mistake in error.mistakes:
                    self._telemetry.reload_failed(mistake)
            except (RegisterUnavailable, OSError) as error:
                self._telemetry.reload_failed(str(error))

    async def _reload(self) -> None:
        """Read accounts and settings again, in a thread: panels are answered meanwhile. With a mistake the old ones stay.

        Raises:
            ConfigError: with every mistake.
            RegisterUnavailable: the register was opened and cannot be read.
        """
        before, heard = self._parts.accounts, self._parts.pipeline.senders.registered
        settings, found, gone = await in_thread(lambda: _read_anew(self._config_file, before, heard))
        if found is not before:
            await self._parts.take_accounts(found, gone)
            await asyncio.to_thread(before.close)
        self._parts.take_settings(settings)
        for name in _AT_THE_NEXT_START:
            if getattr(settings, name) != getattr(self._settings, name):
                self._telemetry.warned("a changed section takes effect at the next start", section=name)
        self._telemetry.reloaded(accounts=len(found), unknown_accounts=_policy(found))

    # -- health and metrics ---------------------------------------------------------------------------------------

    def _unhealthy(self) -> list[str]:
        return [] if self._journal.alive else ["the journal's thread has ended"]

    def _unready(self) -> list[str]:
        wrong = self._unhealthy()
        if not self._ready:
            wrong.append("starting or stopping")
        return wrong + self._parts.journal_watch.wrong()

    def _add_gauges(self) -> None:
        """Tell telemetry what to read at a scrape."""

        def connections() -> Labelled:
            return [(("tcp",), sum(len(listener.crowd.all) for listener in self._tcp))]

        self._parts.add_gauges()
        gauge = self._telemetry.gauge
        gauge("receiver_connections", "Open connections", ("transport",), connections)
        gauge("receiver_udp_dropped_total", "Datagrams dropped by the kernel or by us", (), one(self._udp_dropped))

    def _udp_dropped(self) -> float:
        return self._telemetry.udp_overflow + sum(listener.kernel_drops() for listener in self._udp)


def _policy(accounts: Accounts) -> str:
    return "accepted" if accounts.accept_unknown else "refused"


def _read_anew(config_file: Path | None, before: Accounts, heard: Iterable[str]) -> tuple[Settings, Accounts, list[str]]:
    """Read settings and register, and find those of the accounts heard that are not in it, if it is not the one before.

    Raises:
        ConfigError: with every mistake.
        RegisterUnavailable: the register was opened and cannot be read.
    """
    settings = config.load(config_file)
    found = load_accounts(settings, before)
    if found.continues(before):
        return settings, found, []
    try:
        return settings, found, found.missing(heard)
    except RegisterUnavailable:
        found.close()
        raise
