"""Sockets to frames and replies to sockets, with limits and time-outs; nothing here knows what a frame says."""

from receiver.listeners.door import RESERVED_FILES, TcpListener, files_for_connections
from receiver.listeners.monitor import Monitor
from receiver.listeners.sockets import bind_tcp, bind_udp
from receiver.listeners.udp import UdpListener

__all__ = ["RESERVED_FILES", "Monitor", "TcpListener", "UdpListener", "bind_tcp", "bind_udp", "files_for_connections"]
