"""Small parts: paths, troubles, telemetry, clock, frames in hand."""

import io
import json
import logging
from typing import Any

import pytest

from receiver import clock
from receiver.config import LogSettings
from receiver.listeners.sockets import shown
from receiver.paths import Paths
from receiver.telemetry import Histogram, Telemetry, start_logging
from receiver.troubles import REASONS

S = clock.SECOND_US


def test_a_path_is_lost_after_its_interval_and_told_once() -> None:
    paths = Paths()
    assert paths.seen("1", "main", 60, 0) is None
    paths.seen("1", "main", 60, 30 * S)
    assert paths.check(89 * S) == []
    assert [change.state for change in paths.check(91 * S)] == ["lost"]
    assert paths.check(1000 * S) == []
    assert paths.count() == {"alive": 0, "lost": 1}
    restored = paths.seen("1", "main", 60, 1000 * S)
    assert restored is not None
    assert (restored.state, restored.last_seen_us) == ("restored", 30 * S)
    assert [change.state for change in paths.check(1061 * S)] == ["lost"]


def test_paths_of_one_account_are_told_apart_by_listener() -> None:
    paths = Paths()
    paths.seen("1", "main", 60, 0)
    paths.seen("1", "backup", 600, 0)
    assert [change.listener for change in paths.check(100 * S)] == ["main"]


def test_a_path_no_longer_supervised_is_forgotten() -> None:
    paths = Paths()
    paths.seen("1", "main", 60, 0)
    paths.keep(set())
    assert paths.check(100 * S) == []
    paths.seen("1", "main", 60, 100 * S)
    assert len(paths.check(200 * S)) == 1


def test_every_reason_is_explained() -> None:
    assert all(REASONS.values())


@pytest.fixture
def lines() -> Any:
    kept = logging.getLogger().handlers[:], logging.getLogger().level, logging.getLogger("receiver").level
    stream = io.StringIO()

    def begin(log_format: str, level: str = "info") -> io.StringIO:
        start_logging(LogSettings(log_format, level), stream)
        return stream

    yield begin
    logging.getLogger().handlers[:] = kept[0]
    logging.getLogger().setLevel(kept[1])
    logging.getLogger("receiver").setLevel(kept[2])


HOSTILE = "x\n2026-01-01T00:00:00Z INFO forged line\r\x1b[31m\u2028\x00"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_bytes_of_the_wire_cannot_forge_a_line(lines: Any, log_format: str) -> None:
    stream = lines(log_format)
    Telemetry().refused("tcp", "silence", "bad-crc", peer="127.0.0.1:1", error=HOSTILE, account=HOSTILE)
    told = stream.getvalue()
    assert told.count("\n") == 1
    assert told.endswith("\n")
    assert told[:-1].isprintable()
    assert told.isascii()
    if log_format == "json":
        assert json.loads(told)["error"] == HOSTILE
        assert json.loads(told)["level"] == "warning"


def test_a_flood_of_one_kind_is_summed_up(lines: Any) -> None:
    stream = lines("text")
    telemetry = Telemetry()
    for _ in range(1000):
        telemetry.refused("udp", "silence", "not-dc09")
    telemetry.tick()
    told = stream.getvalue().splitlines()
    assert len(told) == 21
    assert "count=980" in told[-1]
    assert telemetry.frames["udp", "silence", "not-dc09"] == 1000


def test_only_urgent_signals_have_a_line_unless_debugging(lines: Any) -> None:
    lines("text")
    assert Telemetry().accepted("tcp", "contact-id", 5, 1) is False
    assert Telemetry().accepted("tcp", "contact-id", 1, 1) is True
    lines("text", "debug")
    assert Telemetry().accepted("tcp", "contact-id", 5, 1) is True


def test_an_unexpected_error_is_told_with_its_traceback(lines: Any) -> None:
    stream = lines("json")
    try:
        raise ValueError("oops")
    except ValueError as error:
        Telemetry().crashed("here", error)
    assert "ValueError: oops" in json.loads(stream.getvalue())["traceback"]


def test_a_scrape_holds_counters_and_gauges() -> None:
    telemetry = Telemetry()
    telemetry.accepted("tcp", "contact-id", 1, 2)
    telemetry.gauge("receiver_paths", "help", ("state",), lambda: [(("lost",), 3.0)])
    telemetry.gauge("receiver_udp_dropped_total", "help", (), lambda: [((), 4.0)])
    told = telemetry.scrape().decode()
    for line in (
        'receiver_frames_total{answer="ack",reason="",transport="tcp"} 1.0',
        'receiver_signals_total{priority="1",protocol="contact-id"} 2.0',
        'receiver_paths{state="lost"} 3.0', "receiver_udp_dropped_total 4.0", "receiver_ack_seconds_count 0.0",
    ):  # fmt: skip
        assert line in told.splitlines(), told


def test_a_histogram_counts_up_to_each_bound() -> None:
    histogram = Histogram((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        histogram.observe(seconds)
    samples = {
        sample.labels.get("le"): sample.value for sample in histogram.metric("m", "h").samples if sample.name == "m_bucket"
    }
    assert samples == {"0.1": 2, "1.0": 3, "+Inf": 4}


def test_moments_are_written_and_read() -> None:
    assert clock.to_text(1_790_000_000_123_456) == "2026-09-21T14:13:20.123456Z"
    assert clock.seconds_to_text(1_790_000_000) == "2026-09-21T14:13:20Z"
    assert clock.seconds_to_text(-62_135_596_800) == "0001-01-01T00:00:00Z"
    assert clock.from_text("2026-09-21T14:13:20Z") == clock.from_text("2026-09-21T16:13:20+02:00") == 1_790_000_000 * S
    assert clock.from_text("2026-09-21T14:13:20") == 1_790_000_000 * S
    with pytest.raises(ValueError, match="yesterday"):
        clock.from_text("yesterday")


@pytest.mark.parametrize(
    ("address", "text"),
    [(("::ffff:10.0.0.1", 5), "10.0.0.1:5"), (("::1", 5), "[::1]:5"), (("1.2.3.4", 5), "1.2.3.4:5"), (None, "?")],
)
def test_addresses_are_shown_as_people_write_them(address: tuple[object, ...] | None, text: str) -> None:
    assert shown(address) == text
