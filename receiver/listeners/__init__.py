"""Sockets to frames and replies to sockets, with limits and time-outs; nothing here knows what a frame says."""

from receiver.listeners.door import RESERVED_FILES, TcpListener, files_for_connections
from receiver.listeners.handover import Hatch, Port, Ports, from_systemd
from receiver.listeners.monitor import Monitor
from receiver.listeners.opening import open_port
from receiver.listeners.udp import UdpListener

__all__ = [
    "RESERVED_FILES",
    "Hatch",
    "Monitor",
    "Port",
    "Ports",
    "TcpListener",
    "UdpListener",
    "files_for_connections",
    "from_systemd",
    "open_port",
]
