"""In worker 0: starts the other workers, looks after them, and ends them.

A worker that ends by itself, or is not heard for too long, is started again on the same sockets: worker 0 holds them too,
so that callers and datagrams wait in the kernel meanwhile. What it had in hand has no ACK, and panels repeat it.
"""

import asyncio
import contextlib
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from os import getpid
from typing import Any

from receiver import clock
from receiver.config import Settings
from receiver.journal import Journal
from receiver.listeners import Port
from receiver.pipeline import Pipeline
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble
from receiver.workers import counts, orders
from receiver.workers.desk import Desk
from receiver.workers.link import Link, Message
from receiver.workers.orders import Opening, Orders

_START_SECONDS = 120.0  # a register of a million accounts is read within this
_PAUSE_SECONDS = 1.0  # before a worker that did not live long is started again
_ANSWER_SECONDS = 0.5
_LEAVE_SECONDS = 2.0


class Member:
    """One worker's process, as worker 0 knows it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: subprocess.Popen[bytes] | None = None
        self.link: Link | None = None
        self.sock: socket.socket | None = None
        self.ready = self.drained = False
        self.heard = self.hired = clock.monotonic()
        self.quiet_until = 0.0
        self.connections = self.drops = self.resident_bytes = 0
        self.told = asyncio.Event()
        self.gone = asyncio.Event()

    @property
    def silent_seconds(self) -> float:
        """How long ago it said something."""
        return clock.monotonic() - max(self.heard, self.quiet_until)

    def hire(self, settings: Settings) -> None:
        """Start the process and let it read the register."""
        ours, theirs = socket.socketpair()
        with theirs:
            handle = theirs.fileno()
            command = [sys.executable, "-m", "receiver.workers", str(handle), str(getpid())]
            self.process = subprocess.Popen(  # noqa: S603 - our own program
                command, pass_fds=[handle], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
            )
        self.sock = ours
        self.ready = self.drained = False
        self.heard = self.hired = clock.monotonic()
        self.connections = 0
        self.gone.clear()
        orders.send(ours, Orders(self.number, settings), [])

    def kill(self) -> None:
        """End the process at once; its link tells when it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()

    async def fetch(self) -> None:
        """Wait for the end of a process that has closed its link."""
        if self.process is not None:
            try:
                await asyncio.to_thread(self.process.wait, _LEAVE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                await asyncio.to_thread(self.process.wait)


class Crew:
    """All workers but this one."""

    def __init__(self, settings: Settings, telemetry: Telemetry) -> None:
        """Take what they are told; ``tell`` is called with each trouble."""
        self._settings = settings
        self._telemetry = telemetry
        self.members = [Member(number) for number in range(1, settings.receiver.workers)]
        self.restarts = 0
        self.tell: Callable[[Trouble], None] = lambda _trouble: None
        self._stopping = False
        self._desk: Desk | None = None
        self._ports: dict[int, list[Port]] = {}
        self._opening = Opening({}, 0, 0, 0, [])

    def hire(self) -> None:
        """Start every worker, early, so that all read the register at the same time."""
        for member in self.members:
            member.hire(self._settings)

    def prepare(self, journal: Journal, home: int, ports: Sequence[Port]) -> None:
        """Take what workers are told before they open their sockets; worker 0 goes on holding them."""
        for port in ports:
            self._ports.setdefault(port.worker, []).append(port)
        self._opening = Opening(journal.origins, home, journal.newest_us, journal.newest_stamp_us, [])

    async def tend(self, pipeline: Pipeline, journal: Journal, refresh: Callable[[int], None]) -> None:
        """Talk to every worker and start it again when it has ended, for ever; ``refresh`` reads the register's changes."""
        async with asyncio.TaskGroup() as tasks:
            self._desk = Desk(pipeline, journal, self._telemetry, tasks, refresh)
            for member in self.members:
                tasks.create_task(self._keep(member))

    async def _keep(self, member: Member) -> None:
        while True:
            with contextlib.suppress(OSError):  # it has ended already: its link tells
                await self._open(member)
            await member.gone.wait()
            await member.fetch()
            if self._stopping:
                return
            self._miss(member)
            if clock.monotonic() - member.hired < 10 * _PAUSE_SECONDS:
                await asyncio.sleep(_PAUSE_SECONDS)
            with contextlib.suppress(OSError):
                member.hire(self._settings)

    async def _open(self, member: Member) -> None:
        """Give a worker its sockets, and begin to talk to it."""
        sock, ports = member.sock, self._ports.get(member.number, [])
        assert sock is not None
        listeners = self._settings.listeners
        told = [(listeners.index(port.settings), port.transport) for port in ports]
        link = member.link = Link(lambda message: self._heard(member, message), lambda: self._gone(member))
        try:
            orders.send(sock, self._opening._replace(ports=told), [port.sock.fileno() for port in ports])
        finally:
            sock.setblocking(False)
            await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=sock)

    def _miss(self, member: Member) -> None:
        """Tell of a worker that ended by itself."""
        assert member.process is not None
        code = member.process.returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        self.restarts += 1
        self._telemetry.warned("a worker has ended and is started again", number=member.number, code=code)
        text = (
            f"worker {member.number} {how} and is started again; what it had in hand has no ACK and panels repeat it; "
            "look for its last lines in the log, and at the machine's memory"
        )
        self.tell(Trouble("worker-lost", text, clock.now_us()))

    # -- what they say ----------------------------------------------------------------------------------------------

    def _heard(self, member: Member, message: Message) -> None:
        member.heard = clock.monotonic()
        match message[0]:
            case "batch":
                assert self._desk is not None
                assert member.link is not None
                self._desk.take(member.link, message)
            case "told" | "drained":
                _, counted, member.connections, member.drops, member.resident_bytes = message
                counts.add(self._telemetry, counted)
                member.drained = message[0] == "drained"
                member.told.set()
            case "ready":
                member.ready = True
                member.told.set()
            case "reloaded":
                for mistake in message[1]:
                    self._telemetry.reload_failed(f"worker {member.number}: {mistake}")

    def _gone(self, member: Member) -> None:
        member.gone.set()
        member.told.set()

    async def ready(self) -> None:
        """Wait until every worker takes panels, or for as long as a start may take."""
        await self._all(lambda member: member.ready or self._stopping, _START_SECONDS)

    async def refresh(self) -> None:
        """Have the newest counts of every worker, or of those that answer."""
        for member in self.members:
            member.told.clear()
            self._say(member, ("tell",))
        await self._all(lambda member: member.told.is_set() or not member.ready, _ANSWER_SECONDS)

    async def _all(self, done: Callable[[Member], bool], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for member in self.members:
                    while not done(member):
                        member.told.clear()
                        await member.told.wait()

    def _say(self, member: Member, message: tuple[Any, ...]) -> None:
        if member.link is not None:
            member.link.send(message)

    # -- looking after them -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Once a second: end a worker that hangs; it is started again."""
        hung = self._settings.receiver.worker_hung_seconds
        for member in self.members:
            limit = hung if member.ready else _START_SECONDS
            if member.silent_seconds > limit and not member.gone.is_set():
                self._telemetry.warned("a worker hangs and is ended", number=member.number, silent_seconds=round(limit))
                member.heard = clock.monotonic()
                member.kill()

    def wrong(self) -> list[str]:
        """Return what is wrong with workers, in sentences."""
        hung = self._settings.receiver.worker_hung_seconds
        return [
            f"worker {member.number} has said nothing for {member.silent_seconds:.0f} s; it is started again after "
            f"{hung:g} s"
            for member in self.members
            if member.silent_seconds > hung / 3 + 1.0
        ]

    @property
    def serving(self) -> int:
        """How many workers take panels, this one among them."""
        return 1 + sum(member.ready and not member.gone.is_set() for member in self.members)

    @property
    def connections(self) -> int:
        """Connections the other workers had open when they told last."""
        return sum(member.connections for member in self.members)

    @property
    def drops(self) -> int:
        """Datagrams the kernel dropped at the other workers' sockets."""
        return sum(member.drops for member in self.members)

    @property
    def resident_bytes(self) -> int:
        """Memory of the other workers."""
        return sum(member.resident_bytes for member in self.members)

    def reload(self, settings: Settings) -> None:
        """Let every worker read the register again; one that starts later is told these settings too."""
        self._settings = replace(self._settings, accounts=settings.accounts, clock=settings.clock)
        content = orders.pack(settings)
        for member in self.members:
            member.quiet_until = clock.monotonic() + _START_SECONDS / 2  # a large register takes its time
            self._say(member, ("reload", content))

    def stop(self) -> None:
        """Start nobody again, and wait for nobody to start."""
        self._stopping = True
        for member in self.members:
            member.told.set()

    async def drain(self, seconds: float) -> None:
        """Let every worker answer what it has in hand and read no more; then its sockets can be closed."""
        for member in self.members:
            self._say(member, ("drain", seconds))
        await self._all(
            lambda member: member.drained or member.gone.is_set() or member.link is None, seconds + _ANSWER_SECONDS
        )

    async def end(self) -> None:
        """Wait for every worker to end, and end those that do not; once they were drained, or never opened."""
        self.stop()
        for member in self.members:
            if member.link is None and member.sock is not None:
                member.sock.close()  # it has not begun
            elif not member.drained:
                member.kill()
        async with asyncio.TaskGroup() as ending:
            for member in self.members:
                ending.create_task(member.fetch())
