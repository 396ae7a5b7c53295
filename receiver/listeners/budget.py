"""What refused frames may cost us: a budget for each address they come from. Pure state, with time passed in.

A refused frame costs a log line, a row of the refusals log, perhaps a trouble event and a NAK. Within the budget that is
spent, so that a technician sees why; above it the frame is counted and nothing else. Frames that would be accepted never
come here: a budget decides what a refusal may cost, not what is refused (``docs/decisions/0006``).
"""

import socket
from collections import OrderedDict

_SHARED = ""  # the budget of all addresses for which there was no room
_LOOKED_AT = 2  # old budgets looked at for each new one, so that the work is bounded and the table still shrinks


class Budgets:
    """A token bucket for each source, kept as the one moment at which it will be full again.

    A bucket that is full is the same as none and is forgotten. There is room for ``sources`` of them: further sources,
    which on UDP may all be forged, share one.
    """

    def __init__(self, burst: int, per_second: float, sources: int) -> None:
        """Take how many refusals may come at once, how many a second for ever, and how many sources are told apart."""
        self._step = 1.0 / per_second
        self._depth = burst * self._step + 1e-6  # rounding must not eat the last token
        self._sources = sources
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, source: str, now: float) -> bool:
        """Take one token of a source at ``now`` (monotonic seconds); tell whether there was one."""
        full_at = self._full_at.pop(source, None)
        if full_at is None:
            self._forget(now)
            if len(self._full_at) >= self._sources:
                source = _SHARED
            full_at = self._full_at.pop(source, now)
        after = max(full_at, now) + self._step
        within = after - now <= self._depth
        self._full_at[source] = after if within else full_at
        return within

    def _forget(self, now: float) -> None:
        """Let go of buckets that are full again, the least recently used first."""
        for _ in range(min(_LOOKED_AT, len(self._full_at))):
            source, full_at = self._full_at.popitem(last=False)
            if full_at > now:
                self._full_at[source] = full_at


def source_of(host: str) -> str:
    """Return what stands for one sender: an IPv4 address, or the /64 an IPv6 address lies in, which one site has whole."""
    host = host.removeprefix("::ffff:")
    if ":" not in host:
        return host
    packed = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)) + "/64"


def source_of_peer(peer: str) -> str:
    """Return the source of a peer as routes write it, ``192.0.2.7:40112`` or ``[2001:db8::7]:40112``."""
    return source_of(peer.rpartition(":")[0].strip("[]"))
