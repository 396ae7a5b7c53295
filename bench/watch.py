"""What generator and server did between two moments, and how an answer is looked into."""

import os
import time

from bench import usage

PATIENCE_SECONDS = 5.0
"""How long an answer is waited for before it counts as lost."""


class Stopwatch:
    """What generator and server did from the first message to the last."""

    def __init__(self, server: int) -> None:
        self._server = server
        self._at_first = self._now()

    def _now(self) -> tuple[float, ...]:
        own, server = os.getpid(), self._server
        spent, waits = (usage.cpu_seconds(server), *os.times()[:2]), (usage.waited_seconds(p) for p in (server, own))
        return time.perf_counter(), *spent, *waits

    def told(self) -> dict[str, float]:
        """Return the time, the server's CPU time, and the generator's share of a core; and how long both waited for one."""
        wall, server, user, kernel, *waits = (now - then for now, then in zip(self._now(), self._at_first, strict=True))
        return {
            "seconds": wall, "server_cpu_seconds": server, "generator_cpu": (user + kernel) / wall,
            "generator_user_seconds": user,
            "server_waited": waits[0] / wall, "generator_waited": waits[1] / wall,
        }  # fmt: skip


def is_ack(reply: bytes) -> bool:
    """Tell whether a reply is an ACK, in clear or encrypted."""
    return b'ACK"' in reply[9:16]
