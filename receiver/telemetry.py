"""What is told to the outside while running: one method per happening, each writes one log line and moves one metric.

Hot counters are plain integers, read when somebody scrapes. Log lines are past tense with ``key=value`` fields; whatever
came off the wire goes through ``repr``, so that no byte of it can forge a line. Keys are never passed in.
"""

import json
import logging
import re
import sys
import traceback
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TextIO, TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from receiver import clock
from receiver.config import LogSettings

_LOG = logging.getLogger("receiver")
_PLAIN = re.compile(r"[A-Za-z0-9_.:/@+*#%-]{1,200}")
_LINES_A_SECOND = 20
_TALKATIVE = ("aio_pika", "aiormq", "nats", "mqtt", "paho")  # what they log, the outputs raise and we tell in our own way
_ACK_BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 4.0)
DELIVERY_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 3600.0)
_SYNC_BUCKETS = (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)

Labelled = Iterable[tuple[tuple[str, ...], float]]
Family = TypeVar("Family", CounterMetricFamily, GaugeMetricFamily)


class _Format(logging.Formatter):
    """One line a record, as text or as a JSON object."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        moment = clock.to_text(round(record.created * 1_000_000))
        text = record.getMessage()
        if record.exc_info:
            fields = {**fields, "traceback": self.formatException(record.exc_info)}
        if self._as_json:
            return json.dumps({"time": moment, "level": record.levelname.lower(), "event": text, **fields}, default=str)
        pairs = " ".join(f"{key}={_shown(value)}" for key, value in fields.items())
        return f"{moment} {record.levelname:<7} {text if text.isprintable() else ascii(text)} {pairs}".rstrip()


def _shown(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else ascii(text)


def start_logging(settings: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Write log lines to ``stream`` in the wanted format."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Format(settings.format == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _LOG.setLevel(settings.level.upper())
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)


class Histogram:
    """Counts observations in buckets; an addition and a bisection each."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def metric(self, name: str, help_text: str) -> HistogramMetricFamily:
        """Return what was counted, in Prometheus' cumulative form."""
        family = HistogramMetricFamily(name, help_text)
        self.add_to(family, ())
        return family

    def add_to(self, family: HistogramMetricFamily, labels: tuple[str, ...]) -> None:
        """Add what was counted to a family, under labels."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(list(labels), buckets, self._sum)


class Telemetry(Collector):
    """Counts and logs of one receiver."""

    def __init__(self) -> None:
        self._acknowledged = dict.fromkeys(("tcp", "udp"), 0)
        self._refused: Counter[tuple[str, str, str]] = Counter()
        self._signals: dict[tuple[str, int], int] = {}
        self.duplicates = 0
        self.link_tests = 0
        self.delivered: Counter[str] = Counter()
        self.delivery_failures: Counter[str] = Counter()
        self.delivery_seconds: dict[tuple[str, str], Histogram] = {}
        self.converted: Counter[str] = Counter()
        self.udp_overflow = 0
        self.refusals_dropped = 0
        self.over_budget: Counter[str] = Counter()
        self.accept_failures = 0
        self.replies_withheld = 0
        self.connections_refused: Counter[str] = Counter()
        self.ack_seconds = Histogram(_ACK_BUCKETS)
        self.sync_seconds = Histogram(_SYNC_BUCKETS)
        self.gauges: list[tuple[str, str, tuple[str, ...], Callable[[], Labelled]]] = []
        self._lines: Counter[str] = Counter()
        self._debug = _LOG.isEnabledFor(logging.DEBUG)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    # -- happenings ------------------------------------------------------------------------------------------------

    def started(self, **fields: object) -> None:
        """The receiver took a step of its start."""
        _tell(logging.INFO, "receiver started", fields)

    def ready(self, **fields: object) -> None:
        """All sockets are bound and the journal takes signals."""
        _tell(logging.INFO, "receiver ready", fields)

    def listening(self, **fields: object) -> None:
        """A socket was bound."""
        _tell(logging.INFO, "listener opened", fields)

    def taking_over(self, **fields: object) -> None:
        """The receiver that ran has handed over its sockets and was told to go."""
        _tell(logging.INFO, "taking over", fields)

    def stopping(self, **fields: object) -> None:
        """The receiver was asked to stop."""
        _tell(logging.INFO, "receiver stopping", fields)

    def stopped(self, **fields: object) -> None:
        """Everything was put away."""
        _tell(logging.INFO, "receiver stopped", fields)

    def warned(self, text: str, **fields: object) -> None:
        """Something at start or reload deserves a person's attention."""
        _tell(logging.WARNING, text, fields)

    def reloaded(self, **fields: object) -> None:
        """Accounts and settings were read again."""
        _tell(logging.INFO, "settings reloaded", fields)

    def reload_failed(self, mistake: str) -> None:
        """Accounts or settings could not be read again; the old ones stay."""
        _tell(logging.ERROR, "reload failed, the old settings stay", {"mistake": mistake})

    def accepted(self, transport: str, protocol: str, priority: int, count: int) -> bool:
        """A message's signals are on disk; return whether ``stored_signal`` is to be told of it."""
        self._acknowledged[transport] += 1
        kind, signals = (protocol, priority), self._signals
        signals[kind] = signals.get(kind, 0) + count
        return priority == 1 or self._debug

    def stored_signal(self, **fields: object) -> None:
        """A signal that deserves a line was stored: the urgent ones, all of them at level ``debug``."""
        urgent = fields.get("priority") == 1
        self._tell_bounded(logging.INFO if urgent else logging.DEBUG, "signal stored", fields)

    def repeated(self, transport: str) -> None:
        """A message that is on disk already came again."""
        self._acknowledged[transport] += 1
        self.duplicates += 1

    def link_tested(self, transport: str) -> None:
        """A link test was acknowledged."""
        self._acknowledged[transport] += 1
        self.link_tests += 1

    def refused(self, transport: str, answer: str, reason: str, **fields: object) -> None:
        """A frame was refused."""
        self._refused[transport, answer, reason] += 1
        self._tell_bounded(
            logging.WARNING, "frame refused", {"reason": reason, "answer": answer, "transport": transport, **fields}
        )

    def refused_over_budget(self, transport: str, reason: str) -> None:
        """A frame was refused whose sender has used up its budget: it is counted and nothing else."""
        self._refused[transport, "silence", reason] += 1
        self.over_budget[transport] += 1

    def trouble(self, **fields: object) -> None:
        """A trouble event was raised."""
        self._tell_bounded(logging.WARNING, "trouble raised", fields)

    def path_changed(self, **fields: object) -> None:
        """A supervised path was lost or restored."""
        self._tell_bounded(logging.WARNING, "path changed", fields)

    def connection_refused(self, reason: str, **fields: object) -> None:
        """A connection was closed because of a limit or a time-out."""
        self.connections_refused[reason] += 1
        self._tell_bounded(logging.WARNING, "connection closed", {"reason": reason, **fields})

    def accept_failed(self, tell: bool, **fields: object) -> None:
        """The system has no descriptor or no memory for a caller, who waits; ``tell`` when this begins."""
        self.accept_failures += 1
        if tell:
            _tell(logging.ERROR, "connections cannot be taken; close files or raise the limit (ulimit -n)", fields)

    def accepting_again(self, **fields: object) -> None:
        """There is a descriptor again, and callers are taken."""
        _tell(logging.INFO, "connections are taken again", fields)

    def reply_withheld(self) -> None:
        """A reply would have been longer than the datagram's frame; who forged its address gets nothing to multiply."""
        self.replies_withheld += 1

    def datagram_dropped(self) -> None:
        """Too many datagrams were in hand."""
        self.udp_overflow += 1

    def stored(self, seconds: float, rows: int) -> None:
        """A group is on disk."""
        if rows:
            self.sync_seconds.observe(seconds)

    def journal_failed(self, text: str) -> None:
        """The journal could not be written; ACKs are withheld until it can."""
        _tell(logging.ERROR, "journal failed, ACKs are withheld", {"error": text})

    def journal_recovered(self) -> None:
        """The journal takes signals again."""
        _tell(logging.INFO, "journal recovered", {})

    def handed_over(self, output: str, lane: str, seconds: Sequence[float]) -> None:
        """An output took events, each so long after it was received."""
        self.delivered[output] += len(seconds)
        histogram = self.delivery_seconds.get((output, lane))
        if histogram is None:
            histogram = self.delivery_seconds[output, lane] = Histogram(DELIVERY_BUCKETS)
        for waited in seconds:
            histogram.observe(waited)

    def delivery_failed(self, output: str, error: str, retry_seconds: float) -> None:
        """An output could not take events; it tries again after these seconds, or sooner when something urgent comes."""
        self.delivery_failures[output] += 1
        self._tell_bounded(
            logging.WARNING, "delivery failed", {"output": output, "error": error, "retry_seconds": round(retry_seconds, 1)}
        )

    def output_broke(self, output: str, error: BaseException) -> None:
        """An output met what it did not foresee; told by kind and place: its text may hold a password."""
        frames = traceback.extract_tb(error.__traceback__)
        where = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames[-4:]))
        self._tell_bounded(logging.ERROR, "output broke", {"output": output, "error": type(error).__name__, "where": where})

    def event_refused(self, output: str, error: str, tries: int, **fields: object) -> None:
        """The other side of an output refused one event; it comes again."""
        self.delivery_failures[output] += 1
        self._tell_bounded(logging.WARNING, "event refused", {"output": output, "error": error, "tries": tries, **fields})

    def buried(self, output: str, error: str, duress: bool, **fields: object) -> None:
        """An event became a dead letter; a duress never does so quietly."""
        fields = {"output": output, "error": error, **fields}
        if duress:
            _tell(logging.ERROR, "duress is a dead letter", fields)
        else:
            self._tell_bounded(logging.ERROR, "event is a dead letter", fields)

    def output_link(self, output: str, what: str, place: str) -> None:
        """A link to automation software changed: listening, connected or disconnected."""
        self._tell_bounded(logging.INFO, "output link changed", {"output": output, "state": what, "place": place})

    def report_converted(self, output: str, **fields: object) -> None:
        """An event went out in another format than it came in, because the other side does not take the original."""
        self.converted[output] += 1
        self._tell_bounded(logging.INFO, "event converted", {"output": output, **fields})

    def crashed(self, where: str, error: BaseException) -> None:
        """Our own bug showed; the frame stays unanswered."""
        self._tell_bounded(logging.ERROR, "unexpected error", {"where": where}, error)

    def _tell_bounded(self, level: int, text: str, fields: dict[str, object], error: BaseException | None = None) -> None:
        """Write a line unless this second has had its share of this kind; what was left out is told by ``tick``."""
        self._lines[text] += 1
        if self._lines[text] <= _LINES_A_SECOND:
            _tell(level, text, fields, error)

    def tick(self) -> None:
        """Once a second: say how many lines were left out, and begin to count anew."""
        for text, count in self._lines.items():
            if count > _LINES_A_SECOND:
                _tell(logging.WARNING, "log lines left out", {"line": text, "count": count - _LINES_A_SECOND})
        self._lines.clear()

    # -- scraping --------------------------------------------------------------------------------------------------

    def gauge(self, name: str, help_text: str, labels: tuple[str, ...], read: Callable[[], Labelled]) -> None:
        """Add a value that some part knows and that is read at every scrape."""
        self.gauges.append((name, help_text, labels, read))

    @property
    def frames(self) -> Counter[tuple[str, str, str]]:
        """Frames by transport, answer and reason."""
        acknowledged = {(transport, "ack", ""): count for transport, count in self._acknowledged.items() if count}
        return self._refused + Counter(acknowledged)

    def collect(self) -> Iterator[Metric]:
        """Return every metric; prometheus-client calls this at a scrape."""
        frames = CounterMetricFamily(
            "receiver_frames", "Frames by transport, answer and reason", labels=["transport", "answer", "reason"]
        )
        yield _filled(frames, self.frames.items())
        signals = CounterMetricFamily(
            "receiver_signals", "Signals stored, by protocol and priority", labels=["protocol", "priority"]
        )
        yield _filled(signals, (((protocol, str(priority)), n) for (protocol, priority), n in self._signals.items()))
        yield CounterMetricFamily(
            "receiver_duplicates", "Repeats acknowledged again without a second signal", self.duplicates
        )
        yield CounterMetricFamily("receiver_link_tests", "NULL messages acknowledged", self.link_tests)
        yield from self._collect_outputs()
        closed = CounterMetricFamily(
            "receiver_connections_closed", "Connections closed by a limit or time-out", labels=["reason"]
        )
        yield _filled(closed, (((reason,), count) for reason, count in self.connections_refused.items()))
        yield CounterMetricFamily(
            "receiver_refusals_dropped", "Refused frames too many for the refusals log", self.refusals_dropped
        )
        over = CounterMetricFamily(
            "receiver_refused_over_budget", "Refused frames that were only counted", labels=["transport"]
        )
        yield _filled(over, (((transport,), count) for transport, count in self.over_budget.items()))
        yield CounterMetricFamily("receiver_accept_failures", "Times no connection could be taken", self.accept_failures)
        yield CounterMetricFamily(
            "receiver_udp_replies_withheld", "Replies longer than the frame, not sent", self.replies_withheld
        )
        yield self.ack_seconds.metric("receiver_ack_seconds", "From the last byte of a frame to its ACK written")
        yield self.sync_seconds.metric("receiver_journal_sync_seconds", "Commit and sync of one group")
        for name, help_text, labels, read in self.gauges:
            if name.endswith("_total"):
                yield _filled(CounterMetricFamily(name.removesuffix("_total"), help_text, labels=labels), read())
            else:
                yield _filled(GaugeMetricFamily(name, help_text, labels=labels), read())

    def _collect_outputs(self) -> Iterator[Metric]:
        delivered = CounterMetricFamily("receiver_output_delivered", "Events handed over, by output", labels=["output"])
        yield _filled(delivered, (((name,), count) for name, count in self.delivered.items()))
        failures = CounterMetricFamily("receiver_output_failures", "Attempts to hand over that failed", labels=["output"])
        yield _filled(failures, (((name,), count) for name, count in self.delivery_failures.items()))
        converted = CounterMetricFamily(
            "receiver_output_converted", "Events handed over in another format than they came in", labels=["output"]
        )
        yield _filled(converted, (((name,), count) for name, count in self.converted.items()))
        waited = HistogramMetricFamily(
            "receiver_output_delivery_seconds", "From received to confirmed by the output", labels=["output", "lane"]
        )
        for (name, lane), histogram in self.delivery_seconds.items():
            histogram.add_to(waited, (name, lane))
        yield waited

    def scrape(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def warn(sentence: str) -> None:
    """Write a warning before there is a receiver that could."""
    _tell(logging.WARNING, sentence, {})


def _filled(family: Family, values: Labelled) -> Family:
    for labels, value in values:
        family.add_metric(list(labels), value)
    return family


def _tell(level: int, text: str, fields: dict[str, object], error: BaseException | None = None) -> None:
    _LOG.log(level, text, extra={"fields": fields}, exc_info=error)
