"""Binding the ports panels report to."""

import socket

from receiver.config import ListenerSettings
from receiver.errors import ConfigError

BACKLOG = 4096
"""Connections the kernel holds for us until we take them."""
_SO_RCVBUFFORCE = 33  # Linux, with CAP_NET_ADMIN; the socket module does not name it


def _family(settings: ListenerSettings) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in settings.host else socket.AF_INET


def share(sock: socket.socket) -> None:
    """Let further sockets of ours have the same port; the kernel gives each a share of what comes (Linux).

    It is set after the first is bound, so that the port of another program is never shared by mistake.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _bind(settings: ListenerSettings, kind: socket.SocketKind, port: int, shared: bool) -> socket.socket:
    """Bind one socket; an IPv6 wildcard takes IPv4 as well.

    Raises:
        ConfigError: the address is not ours or in use.
    """
    name = "TCP" if kind == socket.SOCK_STREAM else "UDP"
    sock = socket.socket(_family(settings), kind)
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            share(sock)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((settings.host, port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"listener {settings.name} cannot listen on {settings.host} port {port} ({name}): {error.strerror or error}"
        ) from None
    return sock


def bind_tcp(settings: ListenerSettings, port: int | None = None, shared: bool = False) -> socket.socket:
    """Return a listening TCP socket; ``shared`` is one more on a port that has one already."""
    sock = _bind(settings, socket.SOCK_STREAM, settings.port if port is None else port, shared)
    sock.listen(BACKLOG)
    return sock


def bind_udp(settings: ListenerSettings, port: int, shared: bool = False) -> socket.socket:
    """Return a UDP socket with as large a buffer as the kernel grants, up to what the settings ask for."""
    sock = _bind(settings, socket.SOCK_DGRAM, port, shared)
    grow_buffer(sock, settings.receive_buffer_bytes)
    return sock


def grow_buffer(sock: socket.socket, size_bytes: int) -> None:
    """Ask for a receive buffer above the system's limit, which an administrator's process is given, or else up to it."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size_bytes)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size_bytes)


def shown(address: tuple[object, ...] | None) -> str:
    """Write a peer's address; IPv4 inside IPv6 as IPv4."""
    if not address:
        return "?"
    host, port = str(address[0]).removeprefix("::ffff:"), address[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
