"""Values that are read when somebody scrapes, of parts that know nothing of metrics."""

from receiver import clock
from receiver.clockwatch import ClockWatch
from receiver.telemetry import Labelled, Telemetry


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
