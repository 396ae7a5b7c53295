"""Several processes at one port: panels' frames are worked off by workers, and one process keeps what must be one.

The receiver itself is worker 0. It alone has the journal with its repeats, what is known of senders and paths, the troubles
and the outputs. Each further worker is a process with a listening socket of its own on the same port: it cuts frames,
opens, checks and answers them, and asks worker 0 for receipts, many at a time. ``docs/decisions/0017`` has the reasons.

Two processes talk over a pair of Unix sockets: first orders and sockets (``orders``), then messages (``link``).
"""

from receiver.workers.crew import Crew

__all__ = ["Crew"]
