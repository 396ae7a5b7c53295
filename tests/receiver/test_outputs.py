"""Outputs without their servers: templates, settings, choosing a type, the forwarder with a target that fails at will."""

import asyncio
import builtins
import os
import socket
import sqlite3
import sys
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from protocols import dc09
from receiver import config, events, outputs
from receiver.accounts import Accounts
from receiver.cli import main
from receiver.config import JournalSettings, JsonlSettings, OutputSettings
from receiver.errors import ConfigError, DeliveryError, EventRefused
from receiver.events import OutEvent, render
from receiver.journal import Entry, Journal, Lane, Origin, Reader, Row, Stored
from receiver.outputs import Forwarder, Surroundings, causes, forwarder, orders, templates
from receiver.outputs.jsonl import JsonlOutput
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble

ORIGIN = Origin("1", "1", "main", "tcp")


def row(number: int, urgent: bool = False, account: str = "1234") -> Row:
    return entry(number, urgent, account).rows()[0]


def entry(number: int, urgent: bool = False, account: str = "1234") -> Entry:
    raw = dc09.encode("ADM-CID", f"{number:04d}", dc09.Address(None, "0", account), b"#1234|1130 01 001")
    lane, priority = (0, 1) if urgent else (1, 3)
    identity = f"{number:016d}".encode()
    return Entry(0, identity, 1_790_000_000_000_000, None, 1, "", "", raw, None, ((lane, priority, int(urgent)),))


class Target:
    """Takes events, unless ``fails`` says what happens to a batch."""

    batch_limit = 50

    def __init__(self) -> None:
        self.taken: list[OutEvent] = []
        self.sizes: list[int] = []
        self.fails: Callable[[Sequence[OutEvent]], DeliveryError | None] = lambda _events: None

    async def run(self) -> None:
        """Nothing stands beside."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        self.sizes.append(len(events))
        error = self.fails(events)
        self.taken += events if error is None else events[: error.taken]
        if error is not None:
            raise error

    def reopen(self) -> None:
        """Nothing to reopen."""

    async def close(self) -> None:
        """Nothing to close."""

    def numbers(self) -> list[int]:
        return [event.cloud_event["data"]["position"] for event in self.taken]


class Stage:
    """A journal and a forwarder to a target, in one loop."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder, self.target, self.troubles = folder, Target(), list[Trouble]()
        self.settings = OutputSettings(name="bus", **settings)
        self.telemetry = Telemetry()

    def play(self, story: Callable[["Stage"], Any]) -> None:
        async def run() -> None:
            self.journal = Journal(self.folder, JournalSettings(), [ORIGIN])
            around = Surroundings("1", self.folder, self.telemetry, self.troubles.append, self.troubles.append)
            self.reader = Reader(self.folder)
            self.forwarder = Forwarder(self.settings, self.target, self.journal, Reader(self.folder), around)
            try:
                await story(self)
            finally:
                await self.forwarder.close()
                self.reader.close()
                await self.journal.close()

        asyncio.run(run())

    async def forward(self, done: Callable[[], bool], register: Accounts | None = None) -> None:
        """Let the forwarder run until something is so."""
        async with asyncio.timeout(20):
            running = asyncio.ensure_future(self.forwarder.run(Accounts({}) if register is None else register))
            while not done():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            running.cancel()
            await asyncio.wait([running])

    async def store(self, count: int, urgent: bool = False) -> None:
        first = self.journal.cursor("other", Lane.NORMAL).waiting + self.journal.cursor("other", Lane.URGENT).waiting
        for number in range(count):
            await self.journal.append([entry(first * 7919 + number + 1, urgent)])


def test_the_register_of_the_start_goes_when_another_takes_its_place(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        first = [Accounts({})]
        running, gone = asyncio.ensure_future(stage.forwarder.run(first[0])), weakref.ref(first.pop())
        await asyncio.sleep(0.02)
        assert gone() is stage.forwarder.accounts
        stage.forwarder.accounts = Accounts({})
        assert gone() is None
        running.cancel()
        await asyncio.wait([running])

    Stage(tmp_path).play(story)


def test_what_was_taken_before_a_failure_does_not_come_again(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        failures = iter([DeliveryError("away", 7), DeliveryError("away"), EventRefused("not this one", 3)])
        stage.target.fails = lambda _events: next(failures, None)
        await stage.store(30)
        await stage.forward(lambda: len(stage.target.taken) == 30)
        assert stage.target.numbers() == list(range(1, 31))

    Stage(tmp_path).play(story)


def test_after_a_failure_batches_are_small_and_what_is_urgent_goes_first(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.store(40)

        def fail_once(_events: Sequence[OutEvent]) -> DeliveryError | None:
            return DeliveryError("away") if len(stage.target.sizes) <= 2 else None

        stage.target.fails = fail_once
        running = asyncio.ensure_future(stage.forward(lambda: len(stage.target.taken) == 41))
        while len(stage.target.sizes) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        await stage.journal.append([entry(9999, urgent=True)])
        await running
        assert stage.target.sizes[:2] == [40, 20]
        assert stage.target.numbers()[0] == 41
        assert stage.target.numbers()[1:] == list(range(1, 41))

    Stage(tmp_path).play(story)


def pauses(caplog: pytest.LogCaptureFixture) -> list[float]:
    """Return the pauses that were logged."""
    return [vars(record)["fields"]["retry_seconds"] for record in caplog.records if record.msg == "delivery failed"]


@pytest.mark.parametrize("urgent", [False, True])
def test_the_pause_that_is_logged_is_the_one_that_is_made(
    tmp_path: Path, urgent: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(forwarder, "_URGENT_RETRY_SECONDS", 0.1)
    monkeypatch.setattr(forwarder, "_LONGEST_RETRY_SECONDS", 0.8)

    async def story(stage: Stage) -> None:
        tries: list[float] = []

        def fail_once(_events: Sequence[OutEvent]) -> DeliveryError | None:
            tries.append(asyncio.get_running_loop().time())
            return DeliveryError("away") if len(tries) == 1 else None

        stage.target.fails = fail_once
        stage.forwarder._failures = 10  # as after a long outage: 0.4 to 0.8 s
        await stage.store(1, urgent)
        await stage.forward(lambda: len(tries) == 2)
        (logged,) = pauses(caplog)
        waited = tries[1] - tries[0]
        assert (logged < 0.2) is urgent
        assert logged - 0.06 < waited < logged + 5  # it may wait for the processor too

    Stage(tmp_path).play(story)


def test_a_call_that_came_before_the_pause_is_logged_as_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(stage: Stage) -> None:
        stage.forwarder._called.set()
        await stage.forwarder._wait_after(DeliveryError("away"))
        assert pauses(caplog) == [0.0]

    Stage(tmp_path).play(story)


def test_what_was_taken_behind_a_failure_does_not_come_again(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        errors = iter([EventRefused("not this one", 2, also=[3, 5]), DeliveryError("away", 0, [1])])

        def fail(events: Sequence[OutEvent]) -> DeliveryError | None:
            error = next(errors, None)
            if error is not None:
                stage.target.taken += [events[number] for number in sorted(error.also)]
            return error

        stage.target.fails = fail
        await stage.store(8)
        await stage.forward(lambda: len(stage.target.taken) == 8)
        assert stage.target.numbers() == [4, 6, 1, 2, 5, 3, 7, 8]

    Stage(tmp_path).play(story)


def test_a_refusal_for_ever_is_not_tried_again_and_is_told(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        def refuse(events: Sequence[OutEvent]) -> DeliveryError | None:
            bad = next((n for n, e in enumerate(events) if e.stored.position == 2), None)
            return None if bad is None else EventRefused("does not fit", bad, for_ever=True)

        stage.target.fails = refuse
        await stage.store(3)
        await stage.forward(lambda: len(stage.target.taken) == 2)
        assert stage.target.numbers() == [1, 3]
        ((letter, stored),) = stage.reader.letters("bus")
        assert (stored.position, letter.tries, letter.text) == (2, 1, "does not fit")
        assert [trouble.reason for trouble in stage.troubles] == ["dead-letter"]

    Stage(tmp_path).play(story)


def test_what_a_library_did_not_foresee_is_an_outage_and_does_not_end_the_receiver(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        failures = iter([ValueError("secret"), asyncio.CancelledError(), KeyError("x")])

        def fail(_events: Sequence[OutEvent]) -> DeliveryError | None:
            error = next(failures, None)
            if error is not None:
                raise error
            return None

        stage.target.fails = fail
        await stage.store(3)
        await stage.forward(lambda: len(stage.target.taken) == 3)
        assert stage.target.numbers() == [1, 2, 3]
        assert stage.telemetry.delivery_failures["bus"] == 3

    Stage(tmp_path).play(story)


def test_what_stands_beside_the_deliveries_is_begun_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarder, "_STAND_AGAIN_SECONDS", 0.0)

    async def story(stage: Stage) -> None:
        failures = [DeliveryError("the port is taken"), ValueError("ours")]
        begun: list[int] = []

        async def run() -> None:
            begun.append(1)
            if failures:
                raise failures.pop()

        stage.target.run = run  # type: ignore[method-assign]
        await stage.store(1)
        await stage.forward(lambda: len(begun) == 3 and len(stage.target.taken) == 1)

    Stage(tmp_path).play(story)


def test_spans_say_when_each_event_was_sent_and_confirmed(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        await stage.store(5)
        await stage.store(2, urgent=True)
        await stage.forward(lambda: len(stage.target.taken) == 7)
        await stage.journal.append([entry(5000)])  # with it the last cursors reach the disk
        for stored in stage.reader.last(8)[:-1]:
            span = stage.reader.span("bus", stored)
            assert span is not None
            assert span.first <= stored.position <= span.last
            assert span.sent_us <= span.confirmed_us
        assert stage.reader.span("bus", stage.reader.last(1)[0]) is None

    Stage(tmp_path).play(story)


def test_an_order_that_cannot_be_read_goes_and_others_stay_until_done(tmp_path: Path) -> None:
    orders.ask(tmp_path, "bus", [4, 2])
    orders.ask(tmp_path, "other", None)
    (tmp_path / "orders" / "bus.zz.replay").write_text("no json", "utf-8")
    ((file, positions),) = orders.waiting(tmp_path, "bus")
    assert positions == [4, 2]
    assert file.stat().st_mode & 0o777 == 0o600
    assert [positions for _, positions in orders.waiting(tmp_path, "other")] == [None]
    assert len(list((tmp_path / "orders").iterdir())) == 2


def event(account: str) -> OutEvent:
    told = render(Stored(1, row(1), ORIGIN), Accounts({}))
    return told._replace(account=account)


@pytest.mark.parametrize(
    ("account", "safe"),
    [
        ("12AB", "12AB"), ("a.b", "a_b"), ("*", "_"), (">", "_"), ("a/b+#", "a_b__"), ("a b\n\0", "a_b__"), ("ä{x}", "__x_"),
        ("9" * 100, "9" * 64), ("", "none"),
    ],
)  # fmt: skip
def test_an_account_cannot_add_a_level_or_a_wildcard(account: str, safe: str) -> None:
    assert templates.fill("s.{lane}.{account}.{kind}.{priority}", event(account)) == f"s.normal.{safe}.signal.3"


def test_a_stream_takes_whatever_the_template_can_become() -> None:
    assert templates.pattern("signals.{lane}.{account}", "*") == "signals.*.*"


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ('type = "nats"\nsubject = "s.{zone}"', "subject is 's.{zone}'; its fields can be lane, account, kind, priority"),
        ('type = "mqtt"\ntopic = "s/{"', "topic is 's/{'"),
        ('type = "nats"\nstream = "a.b"', "stream is 'a.b'"),
        ('type = "postgresql"', "dsn is missing"),
        ('type = "postgresql"\ndsn = "postgresql://h/d"\ntable = "a; drop"', "table is 'a; drop'"),
        ('type = "redis"\nurl = "h:1"', "url is no address; it begins with redis://"),
        ('type = "amqp"\nurl = "h:1"', "url is no address; it begins with amqp://"),
        ('type = "syslog"\nfacility = 24', "it must be a facility, 0 to 23"),
        ('type = "pigeon"', "type is 'pigeon'; it can be jsonl, webhook, nats"),
        ('type = "mqtt"\ncategories = ["panic"]', "categories holds 'panic', which no code has; there are "),
        # what could never work, or lets nothing through
        ('type = "nats"\nsubject = "a {lane}"', "subject is 'a {lane}'; beside its fields it must be words between"),
        ('type = "nats"\nsubject = "s.{lane}.>"', "it must be words between single dots"),
        ('type = "nats"\nservers = []', "servers is empty"),
        ('type = "mqtt"\ntopic = "signals/#"', "topic is 'signals/#'; beside its fields it must be a text without + and #"),
        ('type = "mqtt"\nstate_topic = "+/{account}"', "state_topic is '+/{account}'; beside its fields"),
        ('type = "kafka"\ntopic = "a b"', "topic is 'a b'; beside its fields it must be letters, digits"),
        ('type = "redis"\nstream = "{priority:s}"', "stream is '{priority:s}'; its fields can be lane"),
        ('type = "webhook"\nurl = "http://h:99999/"', "url has no port that can be"),
        ('type = "amqp"\nurl = "amqp://u:p@h:x/"', "url has no port that can be"),
        ('type = "redis"\nurl = "redis://h:0/0"', "url has no port that can be"),
        ('accounts = ["1234 "]', "accounts holds '1234 ', which no panel can have"),
        ('lanes = []\ntroubles = false', "lanes is empty and troubles is false, so nothing would be handed over"),
        # TLS that would only seem to be there
        ('type = "redis"\nurl = "redis://h:1/0"\ntls = true', "begins with redis://, which is in clear; TLS is rediss://"),
        ('type = "amqp"\nurl = "amqp://h:1/"\ntls = true', "begins with amqp://, which is in clear; TLS is amqps://"),
        ('type = "mqtt"\nca_file = "ca.pem"', "ca_file is set without TLS, and nothing would be checked; set tls = true"),
        ('type = "redis"\nurl = "rediss://h:1/0"\ncert_file = "c.pem"', "cert_file and key_file belong together"),
        ('type = "redis"\nurl = "rediss://h:1/0?ssl_cert_reqs=none"', "url says how certificates are checked; they are"),
    ],
)  # fmt: skip
def test_mistakes_in_the_settings_of_outputs_are_told(tmp_path: Path, settings: str, mistake: str) -> None:
    file = tmp_path / "receiver.toml"
    file.write_text(f"[[listeners]]\n[[outputs]]\n{settings}\n", "utf-8")
    done = CliRunner().invoke(main, ["check-config", str(file)])
    assert done.exit_code == 2
    assert "[[outputs]] 1" in done.output
    assert mistake in done.output


@pytest.mark.parametrize("kind", ["nats", "kafka", "mqtt", "redis", "amqp", "syslog"])
def test_a_file_of_certificates_that_cannot_be_used_is_told_before_a_start(tmp_path: Path, kind: str) -> None:
    file, authority = tmp_path / "receiver.toml", tmp_path / "ca.pem"
    secured = {"redis": 'url = "rediss://h:1/0"', "amqp": 'url = "amqps://h:1/"'}.get(kind, "tls = true")
    file.write_text(f'[[outputs]]\nname = "bus"\ntype = "{kind}"\n{secured}\nca_file = "ca.pem"\n', "utf-8")
    for words in (
        f"ca_file cannot be read: No such file or directory: {authority}",
        "ca_file, cert_file or key_file cannot",
    ):
        for command in (["check-config", str(file)], ["outputs", "test", "bus", "--config", str(file)]):
            done = CliRunner().invoke(main, command)
            assert done.exit_code == 2
            assert f"output bus: {words}" in done.output
        authority.write_text("no certificate", "utf-8")


def test_every_type_has_its_class() -> None:
    assert set(outputs.CLASSES) == set(config.OUTPUT_TYPES)
    for kind, cls in config.OUTPUT_TYPES.items():
        assert outputs.check(cls(type=kind)).__name__ == outputs.CLASSES[kind]


@pytest.mark.parametrize(
    ("kind", "package", "extra"),
    [
        ("nats", "nats-py", "nats"), ("kafka", "confluent-kafka", "kafka"), ("mqtt", "aiomqtt", "mqtt"),
        ("redis", "redis", "redis"), ("amqp", "aio-pika", "amqp"), ("postgresql", "asyncpg", "postgresql"),
    ],
)  # fmt: skip
def test_a_library_that_is_not_there_is_asked_for_by_name(
    kind: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"nats": "nats", "kafka": "confluent_kafka", "amqp": "aio_pika", "postgresql": "asyncpg"}.get(kind, kind)
    missing = "aiomqtt" if kind == "mqtt" else own
    real = builtins.__import__

    def refuse(name: str, *args: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args)

    monkeypatch.delitem(sys.modules, f"receiver.outputs.{kind}", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError) as caught:
        outputs.check(config.OUTPUT_TYPES[kind](name="bus", type=kind))
    assert str(caught.value) == f"output bus needs the package {package}: pip install 'dc09-receiver[{extra}]'"


PASSWORD = "correct-horse-battery"


@pytest.mark.parametrize(
    "settings",
    [
        f'type = "nats"\nservers = ["nats://127.0.0.1:9"]\nuser = "u"\npassword = "{PASSWORD}"',
        f'type = "nats"\nservers = ["nats://u:{PASSWORD}@127.0.0.1:9"]',
        f'type = "kafka"\nservers = ["127.0.0.1:9"]\nuser = "u"\npassword = "{PASSWORD}"',
        f'type = "mqtt"\nport = 9\nuser = "u"\npassword = "{PASSWORD}"',
        f'type = "redis"\nurl = "redis://:{PASSWORD}@127.0.0.1:9/0"',
        f'type = "amqp"\nurl = "amqp://u:{PASSWORD}@127.0.0.1:9/"',
        f'type = "postgresql"\ndsn = "postgresql://u:{PASSWORD}@127.0.0.1:9/d"',
        f'type = "webhook"\nurl = "http://u:{PASSWORD}@127.0.0.1:9/"',
        'type = "syslog"\nport = 9',
    ],
)
def test_a_server_that_is_away_is_told_in_words_and_without_secrets(tmp_path: Path, settings: str) -> None:
    file = tmp_path / "receiver.toml"
    more = "" if "webhook" in settings else "timeout_seconds = 1"
    file.write_text(f'[[listeners]]\n[[outputs]]\nname = "bus"\n{settings}\n{more}\n', "utf-8")
    done = CliRunner().invoke(main, ["outputs", "test", "bus", "--config", str(file)])
    assert done.exit_code == 1, done.output
    assert "the event could not be handed over: " in done.output
    assert PASSWORD not in done.output


def test_the_settings_of_an_output_do_not_print_their_secrets() -> None:
    for cls in (*config.OUTPUT_TYPES.values(), JsonlSettings):
        secrets = {name: config.Secret(PASSWORD) for name in ("url", "dsn", "secret", "password") if hasattr(cls(), name)}
        assert PASSWORD not in repr(cls(**secrets))


def test_the_frame_of_many_events_is_read_once() -> None:
    raw = dc09.encode("SIA-DCS", "0001", dc09.Address(None, "0", "1234"), b"#1234|N" + b"BA1" * 1300)
    message = Entry(0, b"i" * 16, 1_790_000_000_000_000, None, 1, "", "", raw, None, ((1, 3, 0),) * 1300)
    before = events._read.cache_info().misses
    told = [render(Stored(1 + n, event, ORIGIN), Accounts({})) for n, event in enumerate(message.rows())]
    assert [event.cloud_event["data"]["position"] for event in told] == list(range(1, 1301))
    assert {event.cloud_event["data"]["event_code"] for event in told} == {"BA"}
    assert events._read.cache_info().misses == before + 1


def test_events_that_cannot_be_read_are_told_once_and_the_output_goes_on_behind_them(tmp_path: Path) -> None:
    async def store(stage: Stage) -> None:
        await stage.journal.append([entry(n, urgent=n == 20) for n in range(1, 41)])

    async def story(stage: Stage) -> None:  # after a restart: an output that keeps up never reads the file
        cursors = [stage.forwarder.cursors[lane] for lane in Lane]
        with closing(sqlite3.connect(tmp_path / "journal.sqlite")) as db, db:
            content = db.execute("SELECT content FROM groups").fetchone()[0]
            db.execute("UPDATE groups SET content = ?", (content.replace(b"%016d" % 18, b"%016d" % 81),))
        await stage.forward(lambda: not any(cursor.waiting for cursor in cursors))
        told = [event.cloud_event["data"] for event in stage.target.taken if event.stored.lost]
        assert [(data["reason"], data["count"]) for data in told] == [("journal-damaged", 1), ("journal-damaged", 15)]
        assert all("positions 17 to 32 cannot be read" in data["text"] for data in told)
        assert len({event.event_id for event in stage.target.taken}) == 25, "one id for what was told in both lanes"
        assert [e.stored.position for e in stage.target.taken if not e.stored.lost] == [*range(1, 17), *range(33, 41)]
        assert [cursor.position for cursor in cursors] == [32, 40]

    Stage(tmp_path).play(store)
    Stage(tmp_path).play(story)


def test_a_broker_that_takes_connections_and_answers_none_costs_no_descriptors(tmp_path: Path) -> None:
    from receiver.outputs.mqtt import MqttOutput

    around = Surroundings("1", tmp_path, Telemetry(), lambda _: None, lambda _: None)

    async def story(port: int) -> list[int]:
        output, open_files = MqttOutput(config.MqttSettings(name="bus", port=port, timeout_seconds=0.1), around), list[int]()
        for _ in range(4):
            with pytest.raises(DeliveryError, match="did not take our connection"):
                await output.deliver([])
            for _ in range(100):
                await asyncio.sleep(0)
            open_files.append(len(os.listdir("/proc/self/fd")))
        await output.close()
        return open_files

    with socket.create_server(("127.0.0.1", 0)) as hanging:
        first, *others = asyncio.run(story(hanging.getsockname()[1]))
    assert all(count <= first for count in others)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nats: 'Authorization Violation'", "refuses our login"),
        ("[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)", "does not speak TLS"),
        ("[Errno 111] Connect call failed ('127.0.0.1', 9)", "nobody listens there"),
        ("certificate has expired", "renew it there"),
    ],
)
def test_a_cause_that_is_known_is_told_in_words_with_the_librarys_behind_it(text: str, words: str) -> None:
    told = causes.describe(OSError(text))
    assert words in told
    assert told.endswith(f"({text})")


def test_what_is_not_known_is_told_as_it_is_and_no_secret_however_it_is_written() -> None:
    assert causes.describe("the table is full") == "the table is full"
    url = "redis://u:p%40ss@host:1/0"
    assert causes.describe(f"cannot reach {url} as u with p@ss or p%40ss", [url]) == "cannot reach *** as u with *** or ***"
    assert len(causes.describe("x" * 10_000)) < 400
    assert causes.describe(ExceptionGroup("two", [TimeoutError(), OSError()])) == "TimeoutError"


@pytest.mark.parametrize(
    ("dsn", "warns"),
    [
        ("postgresql://u:p@db.example/d", True),
        ("postgresql://u:p@db.example/d?sslmode=require", True),
        ("postgresql://u:p@db.example/d?sslmode=verify-full&sslrootcert=ca.pem", False),
        ("postgresql://u:p@127.0.0.1:5432/d", False),
        ("postgresql://u:p@/d?host=/run/postgresql", False),
    ],
)
def test_a_database_elsewhere_whose_certificate_is_not_checked_is_warned_of(
    dsn: str, warns: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from receiver.outputs.postgresql import PostgresqlOutput

    around = Surroundings("1", tmp_path, Telemetry(), lambda _: None, lambda _: None)
    PostgresqlOutput(config.PostgresqlSettings(name="bus", dsn=config.Secret(dsn)), around)
    assert ("whoever answers" in caplog.text) is warns


def test_a_letter_asked_for_while_the_letters_are_read_is_not_forgotten(tmp_path: Path) -> None:
    async def story(stage: Stage) -> None:
        refused = EventRefused("not this one", 0, for_ever=True)
        stage.target.fails = lambda events: refused if events[0].stored.position == 1 else None
        await stage.store(2)
        await stage.forward(lambda: stage.target.numbers() == [2])
        stage.target.fails = lambda _events: None
        read, loop = stage.forwarder._reader.wanted_letters, asyncio.get_running_loop()

        def slowly(output: str, limit: int) -> list[Any]:
            found = read(output, limit)
            stage.forwarder._reader.wanted_letters = read  # type: ignore[method-assign]
            asyncio.run_coroutine_threadsafe(stage.forwarder.dead_letters.recall(None), loop).result(10)
            loop.call_soon_threadsafe(stage.forwarder._stored.set)  # as for a command
            return found

        stage.forwarder._reader.wanted_letters = slowly  # type: ignore[method-assign]
        stage.forwarder.dead_letters.wanted = True
        await stage.forward(lambda: stage.target.numbers() == [2, 1])

    Stage(tmp_path).play(story)


def test_standard_output_that_takes_nothing_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def deliver() -> None:
        output = JsonlOutput(JsonlSettings(), Surroundings("1", tmp_path, Telemetry(), lambda _: None, lambda _: None))
        with pytest.raises(DeliveryError, match="standard output: No space left"):
            await output.deliver([render(Stored(1, row(1), ORIGIN), Accounts({}))])
        await output.close()

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        asyncio.run(deliver())
        monkeypatch.undo()
