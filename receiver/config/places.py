"""Addresses and ports that two parts of one configuration would both bind: found before a start fails at the second."""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from receiver.config.automation import LinkSettings
from receiver.config.settings import HttpSettings, ListenerSettings, OutputSettings

_ALL_IPV4, _ALL = "0.0.0.0", "::"  # noqa: S104 - only compared


class _Place(NamedTuple):
    owner: str
    protocol: str
    host: str
    port: int

    def overlaps(self, other: "_Place") -> bool:
        """Tell whether the system would refuse the second of the two."""
        if not self.port or (self.protocol, self.port) != (other.protocol, other.port):
            return False
        hosts = {self.host, other.host}
        return len(hosts) == 1 or _ALL in hosts or (_ALL_IPV4 in hosts and not any(":" in host for host in hosts))


def ports_taken_twice(
    listeners: Sequence[ListenerSettings], outputs: Sequence[OutputSettings], http: HttpSettings
) -> list[str]:
    """Return a sentence for each two parts that want one port."""
    return [
        f"{one.owner} and {other.owner} both want {one.protocol} port {one.port} of {one.host}; give one of them another"
        for one, other in combinations(_places(listeners, outputs, http), 2)
        if one.overlaps(other)
    ]


def _places(
    listeners: Sequence[ListenerSettings], outputs: Sequence[OutputSettings], http: HttpSettings
) -> Iterator[_Place]:
    for listener in listeners:
        for protocol in ("TCP", "UDP") if listener.transport == "both" else (listener.transport.upper(),):
            yield _Place(f"[[listeners]] {listener.name}", protocol, listener.host, listener.port)
    yield _Place("[http]", "TCP", http.host, http.port)
    for output in outputs:
        if isinstance(output, LinkSettings) and output.mode == "server":
            yield _Place(f"[[outputs]] {output.name}", "TCP", output.host, output.port)
