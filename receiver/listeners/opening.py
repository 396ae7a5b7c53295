"""Beginning to read a port."""

from receiver.listeners.door import TcpListener
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
