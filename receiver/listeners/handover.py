"""Listening sockets that live longer than one process: handed over by the receiver that runs, or held by systemd.

The sockets themselves are passed on, not their ports. What the kernel has queued on them, connections and datagrams, waits
there for whoever reads next, so between two processes nobody is refused; ``docs/decisions/0010`` has the reasons.

Two processes talk over a Unix socket in the data folder, the *hatch*::

    new → old   "take over\\n"
    old → new   "<pid>\\n" with the sockets (SCM_RIGHTS)
    new → old   "go\\n"        until this, nothing has happened: the old one serves on, whatever becomes of the new one
    old         stops reading, answers what is in hand, lets go of the journal, exits
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import NamedTuple

from receiver.config import ListenerSettings
from receiver.errors import ConfigError
from receiver.listeners.sockets import BACKLOG, bind_tcp, bind_udp, grow_buffer, share, shown

HATCH = "take-over"
_ASK, _GO = b"take over\n", b"go\n"
_PATIENCE_SECONDS = 5.0
_MOST_SOCKETS = 200  # the kernel passes 253 at most
_LONGEST_ADDRESS = 100  # bytes; the kernel takes 107
_FIRST_SYSTEMD_FD = 3


class Port(NamedTuple):
    """One socket of a listener, ready to be read by one worker; ``inherited`` tells that another process bound it."""

    settings: ListenerSettings
    transport: str
    sock: socket.socket
    inherited: bool
    worker: int = 0


class Ports:
    """The sockets of all listeners, one for each worker: inherited where one fits, else bound."""

    def __init__(
        self, listeners: Sequence[ListenerSettings], inherited: Sequence[socket.socket] = (), workers: int = 1
    ) -> None:
        self._listeners = listeners
        self._workers = workers
        self._inherited = list(inherited)
        self.claimed: list[Port] = []

    def inherit(self, sockets: Sequence[socket.socket]) -> None:
        """Take sockets that another process handed over."""
        self._inherited += sockets

    def claim(self) -> list[str]:
        """Have every socket, once; return the addresses of inherited ones that no listener wants. They are closed.

        Raises:
            ConfigError: an address is not ours or in use. Nothing is kept then.
        """
        if self.claimed:
            return []
        try:
            for settings in self._listeners:
                port = settings.port
                for transport in ("tcp", "udp") if settings.transport == "both" else (settings.transport,):
                    port = self._claim(settings, transport, port)
        except ConfigError:
            self.close()
            raise
        left = [f"{_transport(sock) or 'other'} {shown(sock.getsockname() or None)}" for sock in self._inherited]
        for sock in self._inherited:
            sock.close()
        self._inherited.clear()
        return left

    def _claim(self, settings: ListenerSettings, transport: str, port: int) -> int:
        """Have a socket of one listener for each worker, or more where more were inherited; return the port."""
        fitting = [sock for sock in self._inherited if _transport(sock) == transport and _fits(sock, settings.host, port)]
        for number, sock in enumerate(fitting):
            self._inherited.remove(sock)
            sock.setblocking(False)
            if transport == "tcp":
                sock.listen(BACKLOG)
            else:
                grow_buffer(sock, settings.receive_buffer_bytes)
            self.claimed.append(Port(settings, transport, sock, inherited=True, worker=number % self._workers))
        if not fitting:
            bound = bind_tcp(settings) if transport == "tcp" else bind_udp(settings, port)
            self.claimed.append(Port(settings, transport, bound, inherited=False))
        first = self.claimed[-1].sock if not fitting else fitting[0]
        port = int(first.getsockname()[1])
        for number in range(max(1, len(fitting)), self._workers):
            self.claimed.append(self._one_more(settings, transport, port, first, bool(fitting))._replace(worker=number))
        return port

    def _one_more(
        self, settings: ListenerSettings, transport: str, port: int, first: socket.socket, inherited: bool
    ) -> Port:
        """Bind one more socket on a port; where the first is another user's, as systemd's may be, both read that one."""
        share(first)
        bind = bind_tcp if transport == "tcp" else bind_udp
        try:
            return Port(settings, transport, bind(settings, port, True), inherited=False)
        except ConfigError:
            if not inherited:
                raise
            return Port(settings, transport, first.dup(), inherited=True)

    def let_go(self) -> None:
        """Close the sockets of other workers, which have stopped reading them."""
        for port in self.claimed:
            if port.worker:
                port.sock.close()

    def close(self) -> None:
        """Let go of all of them."""
        for sock in (*self._inherited, *[port.sock for port in self.claimed]):
            sock.close()
        self.claimed, self._inherited = [], []


def _transport(sock: socket.socket) -> str | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    if sock.type == socket.SOCK_DGRAM:
        return "udp"
    return "tcp" if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else None


def _fits(sock: socket.socket, host: str, port: int) -> bool:
    bound_host, bound_port = sock.getsockname()[:2]
    try:
        found = socket.getaddrinfo(host, port, family=sock.family, type=sock.type)
    except OSError:
        return False
    return port in (0, bound_port) and bound_host in {address[4][0] for address in found}


def from_systemd(environment: MutableMapping[str, str] = os.environ) -> list[socket.socket]:
    """Take the sockets that systemd bound for this very process (``LISTEN_FDS``); none when there are none."""
    meant, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if meant != str(os.getpid()) or not count.isdecimal():
        return []
    found = []
    for handle in range(_FIRST_SYSTEMD_FD, _FIRST_SYSTEMD_FD + min(int(count), _MOST_SOCKETS)):
        with contextlib.suppress(OSError):
            sock = socket.socket(fileno=handle)
            sock.set_inheritable(False)
            found.append(sock)
    return found


@contextlib.contextmanager
def _address(data_dir: Path) -> Iterator[str]:
    """Give a name of the hatch that is short enough for the kernel, however long the folder's is."""
    path = data_dir / HATCH
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{HATCH}"
    finally:
        os.close(folder)


class Predecessor:
    """The receiver that runs and has handed its sockets over; it serves on until it is told to go."""

    def __init__(self, link: socket.socket, pid: int, sockets: list[socket.socket]) -> None:
        self._link = link
        self.pid = pid
        self.sockets = sockets

    def send_off(self) -> None:
        """Tell it to go; from now on there is no way back.

        Raises:
            ConfigError: it is gone, or hears nothing.
        """
        try:
            self._link.sendall(_GO)
        except OSError as error:
            raise ConfigError(
                f"the receiver that ran (process {self.pid}) has gone before it was told to: {error}"
            ) from None

    def close(self) -> None:
        """End the talk; before ``send_off`` it serves on."""
        self._link.close()


def knock(data_dir: Path) -> Predecessor | None:
    """Ask the receiver that runs on this data folder for its sockets; None when nobody is there.

    Raises:
        ConfigError: somebody is there and does not hand anything over; he serves on.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(_PATIENCE_SECONDS)
    try:
        with _address(data_dir) as address:
            link.connect(address)
    except OSError:
        link.close()
        return None
    try:
        link.sendall(_ASK)
        told, handles, _, _ = socket.recv_fds(link, 64, _MOST_SOCKETS)
        if not told.strip().isdigit():
            raise OSError("it closed the connection without an answer")
        return Predecessor(link, int(told), [socket.socket(fileno=handle) for handle in handles])
    except OSError as error:
        link.close()
        raise ConfigError(
            f"the receiver that runs on {data_dir} did not hand over its sockets and serves on: {error or 'no answer'}"
        ) from None


class Hatch:
    """Where the next process asks for our sockets. Only our own user and root are let in."""

    def __init__(self, data_dir: Path, sockets: Callable[[], Sequence[int]], go: Callable[[], None]) -> None:
        """``sockets`` gives the handles to pass on; ``go`` is called when the next process is ready to take over."""
        self._data_dir = data_dir
        self._sockets = sockets
        self._go = go
        self._sock: socket.socket | None = None

    def open(self) -> None:
        """Begin to listen; a hatch that a killed process left behind is replaced. The journal's lock must be ours.

        Raises:
            OSError: the folder takes no such socket.
        """
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _address(self._data_dir) as address:
                (self._data_dir / HATCH).unlink(missing_ok=True)
                sock.bind(address)
            (self._data_dir / HATCH).chmod(0o600)
            sock.listen(2)
            sock.setblocking(False)
        except OSError:
            sock.close()
            raise
        self._sock = sock

    async def tend(self) -> None:
        """Answer those who knock, one after the other, for ever."""
        loop = asyncio.get_running_loop()
        while self._sock is not None:
            try:
                link, _ = await loop.sock_accept(self._sock)
            except OSError:
                await asyncio.sleep(1.0)
                continue
            with link, contextlib.suppress(OSError, TimeoutError):
                link.setblocking(False)
                async with asyncio.timeout(_PATIENCE_SECONDS):
                    await self._answer(loop, link)

    async def _answer(self, loop: asyncio.AbstractEventLoop, link: socket.socket) -> None:
        _, user, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
        if user not in (0, os.geteuid()) or await loop.sock_recv(link, 64) != _ASK:
            return
        socket.send_fds(link, [b"%d\n" % os.getpid()], list(self._sockets())[:_MOST_SOCKETS])
        if await loop.sock_recv(link, 64) == _GO:
            self._go()

    def close(self) -> None:
        """Take the hatch away; to be done before the journal's lock is let go, or it may be the next one's hatch."""
        if self._sock is not None:
            sock, self._sock = self._sock, None
            with contextlib.suppress(OSError):
                (self._data_dir / HATCH).unlink(missing_ok=True)
            sock.close()
