"""Beginning to read a port, and the open files that takes."""

import resource
from collections.abc import Sequence

from receiver.config import ListenerSettings
from receiver.listeners.door import RESERVED_FILES, TcpListener, files_for_connections
from receiver.listeners.handover import Port
from receiver.listeners.udp import UdpListener
from receiver.pipeline import Pipeline
from receiver.telemetry import Telemetry


async def open_port(port: Port, origin: int, pipeline: Pipeline, telemetry: Telemetry) -> TcpListener | UdpListener:
    """Take what comes in on a port from now on, and say so."""
    settings, (host, number) = port.settings, port.sock.getsockname()[:2]
    told = {"name": settings.name, "transport": port.transport, "host": host, "port": number}
    told["inherited"] = port.inherited
    if port.transport == "tcp":
        tcp = TcpListener(settings, origin, pipeline, telemetry)
        await tcp.open(port.sock)
        telemetry.listening(**told)
        return tcp
    udp = UdpListener(settings, origin, pipeline, telemetry)
    granted = await udp.open(port.sock)
    telemetry.listening(**told, receive_buffer_bytes=granted)
    if granted < settings.receive_buffer_bytes:
        telemetry.warned(
            "the kernel grants a smaller UDP buffer than asked for; raise net.core.rmem_max",
            asked_bytes=settings.receive_buffer_bytes, granted_bytes=granted,
        )  # fmt: skip
    return udp


def allow_connections(listeners: Sequence[ListenerSettings], telemetry: Telemetry) -> None:
    """Ask the system for as many open files as the listeners may need connections; what it grants binds them."""
    wanted = sum(listener.max_connections for listener in listeners if listener.transport != "udp") + RESERVED_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < granted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    if granted < wanted:
        telemetry.warned(
            "the system allows fewer open files than max_connections needs; raise its limit (ulimit -n)",
            wanted=wanted, granted=granted, connections=files_for_connections(),
        )  # fmt: skip
