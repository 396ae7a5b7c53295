"""Sockets to frames and replies to sockets, with limits and time-outs; nothing here knows what a frame says."""

from receiver.listeners.handover import Door, Port, Ports, from_systemd
from receiver.listeners.monitor import Monitor
from receiver.listeners.sockets import bind_tcp, bind_udp
from receiver.listeners.tcp import TcpListener
from receiver.listeners.udp import UdpListener

__all__ = ["Door", "Monitor", "Port", "Ports", "TcpListener", "UdpListener", "bind_tcp", "bind_udp", "from_systemd"]
