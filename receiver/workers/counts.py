"""What a worker counted, on its way to worker 0: differences since it told last, so that the sums outlive the worker."""

from typing import Any

from receiver.telemetry import Telemetry

_BY_LABEL = ("_acknowledged", "_refused", "_signals", "over_budget", "connections_refused")
_PLAIN = (
    "duplicates", "link_tests", "udp_overflow", "refusals_dropped", "accept_failures", "replies_withheld",
)  # fmt: skip

Counts = tuple[Any, ...]


def take(telemetry: Telemetry) -> Counts:
    """Return what was counted since the last call, and begin anew."""
    labelled = []
    for name in _BY_LABEL:
        counter = getattr(telemetry, name)
        labelled.append([(labels, count) for labels, count in counter.items() if count])
        for labels in counter:
            counter[labels] = 0  # not cleared: some count without looking whether there is a place
    plain = []
    for name in _PLAIN:
        plain.append(getattr(telemetry, name))
        setattr(telemetry, name, 0)
    return labelled, plain, telemetry.ack_seconds.take()


def add(telemetry: Telemetry, counts: Counts) -> None:
    """Count in what a worker told."""
    labelled, plain, ack_seconds = counts
    for name, items in zip(_BY_LABEL, labelled, strict=True):
        counter = getattr(telemetry, name)
        for labels, count in items:
            counter[labels] = counter.get(labels, 0) + count
    for name, count in zip(_PLAIN, plain, strict=True):
        setattr(telemetry, name, getattr(telemetry, name) + count)
    telemetry.ack_seconds.add(*ack_seconds)
