"""Sockets to frames and replies to sockets, with limits and time-outs; nothing here knows what a frame says."""

from receiver.listeners.door import TcpListener
from receiver.listeners.handover import Hatch, Port, Ports, from_systemd
from receiver.listeners.monitor import Monitor
from receiver.listeners.opening import allow_connections, open_port
from receiver.listeners.udp import UdpListener

__all__ = [
    "Hatch",
    "Monitor",
    "Port",
    "Ports",
    "TcpListener",
    "UdpListener",
    "allow_connections",
    "from_systemd",
    "open_port",
]
