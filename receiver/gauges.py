"""Values that are read when somebody scrapes, of parts that know nothing of metrics."""

import resource
from collections.abc import Callable, Sequence

from receiver import clock
from receiver.clockwatch import ClockWatch
from receiver.journal import Lane
from receiver.on_test import OnTest
from receiver.outputs import Forwarder
from receiver.rotation import Rotation
from receiver.telemetry import Labelled, Telemetry
from receiver.workers import Crew


def add_clock_gauges(telemetry: Telemetry, watch: ClockWatch) -> None:
    """Tell telemetry how our clock stands."""

    def offset() -> Labelled:
        return [] if watch.panels_offset_us is None else [((), watch.panels_offset_us / clock.SECOND_US)]

    gauge = telemetry.gauge
    gauge("receiver_clock_steps_total", "Jumps of our clock by more than 2 s", (), lambda: [((), watch.steps)])
    gauge(
        "receiver_clock_synchronised", "The kernel's word on our clock: 1 kept right, 0 not, -1 unknown", (),
        lambda: [((), -1 if watch.synchronised is None else int(watch.synchronised))],
    )  # fmt: skip
    gauge("receiver_clock_suspect", "1 while there is evidence that our clock is wrong", (), lambda: [((), watch.suspect)])
    gauge("receiver_clock_panels_offset_seconds", "Median of panels' clocks minus ours", (), offset)


def add_output_gauges(telemetry: Telemetry, forwarders: Sequence[tuple[str, Forwarder]]) -> None:
    """Tell telemetry how far each output has come."""

    def by_lane(read: Callable[[Forwarder, Lane], float]) -> Callable[[], Labelled]:
        return lambda: [((name, lane.word), read(forwarder, lane)) for name, forwarder in forwarders for lane in Lane]

    def dead() -> Labelled:
        return [((name,), forwarder.dead_letters.count) for name, forwarder in forwarders]

    gauge, lanes = telemetry.gauge, ("output", "lane")
    waiting = by_lane(lambda forwarder, lane: forwarder.cursors[lane].waiting)
    oldest = by_lane(lambda forwarder, lane: forwarder.oldest_seconds(lane))
    gauge("receiver_output_backlog", "Events not handed over", lanes, waiting)
    gauge("receiver_output_oldest_seconds", "Age of the oldest event not handed over", lanes, oldest)
    gauge("receiver_output_dead_letters", "Events refused for good and not taken since", ("output",), dead)


def add_worker_gauges(telemetry: Telemetry, crew: Crew) -> None:
    """Tell telemetry how the processes at the ports are."""

    def resident_bytes() -> float:
        return crew.resident_bytes + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    gauge = telemetry.gauge
    gauge("receiver_resident_bytes", "Largest resident memory so far", (), lambda: [((), resident_bytes())])
    gauge("receiver_workers", "Processes at the ports that take panels", (), lambda: [((), crew.serving)])
    gauge("receiver_worker_restarts_total", "Workers that ended and were started again", (), lambda: [((), crew.restarts)])


def add_account_gauges(telemetry: Telemetry, registered: Callable[[], int], on_test: OnTest, rotation: Rotation) -> None:
    """Tell telemetry what to read of the register at a scrape."""
    gauge = telemetry.gauge
    gauge("receiver_accounts", "Registered accounts", (), lambda: [((), registered())])
    gauge("receiver_accounts_on_test", "Accounts on test", (), lambda: [((), len(on_test))])
    gauge(
        "receiver_accounts_on_old_key", "Accounts that use an old key while it still works", (),
        lambda: [((), rotation.on_old(clock.now_us()))],
    )  # fmt: skip
