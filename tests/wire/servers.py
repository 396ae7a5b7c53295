"""The real servers behind the outputs, each a process of its own on loopback, on a folder it keeps over kills."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.wire.running import free_port, wait_until


class Server:
    """A server's process; ``events`` reads what it holds, in its order."""

    kind: ClassVar[str]
    program: ClassVar[str]
    once: ClassVar[bool] = True
    """Whether the target itself drops an event that comes twice."""
    holds: ClassVar[int] = 1_000_000
    """How many events it can be filled with."""
    sure: ClassVar[bool] = True
    """Whether what the target has taken outlives its being killed."""
    ending = signal.SIGKILL
    options: ClassVar[str] = ""
    places: ClassVar[Sequence[str]] = ()
    """Where its program may lie beside the usual places, best first."""

    def __init__(self, folder: Path) -> None:
        found = shutil.which(self.program, path=":".join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin", *self.places]))
        if found is None:
            pytest.skip(f"{self.program} is not installed here")
        self.path, self.folder, self.port = found, folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    def command(self) -> list[str]:
        """Return the command that starts it."""
        raise NotImplementedError

    def settings(self) -> str:
        """Return the output's settings beyond name and type."""
        raise NotImplementedError

    def events(self) -> list[dict[str, Any]]:
        """Return the events it holds, oldest first."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether it takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, start_new_session=True,
                env={**os.environ, **self.environment()}, user=self.user,
            )  # fmt: skip
        wait_until(self._up, 60)
        self.prepare()

    user: str | None = None

    def environment(self) -> dict[str, str]:
        """Return what it wants in its environment."""
        return {}

    def prepare(self) -> None:
        """Do what is needed once it runs, such as a queue that keeps what is published."""

    def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text("utf-8", "replace")
        return self.ready()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, self.ending)
            self.process.wait(15)

    def end(self) -> None:
        """End it for good and leave nothing behind."""
        self.ending = signal.SIGKILL
        self.kill()

    def toml(self, more: str = "") -> str:
        """Return the whole [[outputs]] table."""
        return f'[[outputs]]\nname = "bus"\ntype = "{self.kind}"\n{self.settings()}{self.options}{more}\n'


class Nats(Server):
    """nats-server with JetStream, syncing always where the version can."""

    kind, program = "nats", "nats-server"

    def command(self) -> list[str]:
        config = self.folder / "nats.conf"
        config.write_text(f'listen: 127.0.0.1:{self.port}\njetstream {{ store_dir: "{self.folder}/js" }}\n', "utf-8")
        return [self.path, "-c", str(config)]

    def settings(self) -> str:
        return f'servers = ["nats://127.0.0.1:{self.port}"]\n'

    def events(self) -> list[dict[str, Any]]:
        import nats
        import nats.errors
        import nats.js.errors

        async def read() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            client = await nats.connect(f"nats://127.0.0.1:{self.port}", allow_reconnect=False)
            try:
                stream = client.jetstream()
                info = await stream.stream_info("SIGNALS")
                for number in range(max(1, info.state.first_seq), info.state.last_seq + 1):
                    message = await stream.get_msg("SIGNALS", number)
                    found.append(json.loads(message.data or b""))
            except nats.js.errors.NotFoundError:
                return []
            finally:
                await client.close()
            return found

        return asyncio.run(read())


class Redis(Server):
    """redis-server with an append-only file, synced always."""

    kind, program = "redis", "redis-server"

    def command(self) -> list[str]:
        return [
            self.path, "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "",
            "--appendonly", "yes", "--appendfsync", "always",
        ]  # fmt: skip

    def settings(self) -> str:
        return f'url = "redis://127.0.0.1:{self.port}/0"\n'

    def ready(self) -> bool:
        import redis

        try:
            with redis.Redis(port=self.port) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def events(self) -> list[dict[str, Any]]:
        import redis

        with redis.Redis(port=self.port) as client:
            return [json.loads(fields[b"event"]) for _, fields in client.xrange("signals")]


class Postgresql(Server):
    """PostgreSQL on a cluster of its own; it refuses to run as root."""

    kind, program = "postgresql", "postgres"
    places = tuple(str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.bin, self.data = Path(self.path).resolve().parent, Path(tempfile.mkdtemp(prefix="dc09-postgres-"))
        if os.getuid() == 0:
            self.user = "postgres"
            shutil.chown(self.data, "postgres")
        initdb = [str(self.bin / "initdb"), "--no-sync", "--auth=trust", "-U", "dc09", "-D", str(self.data / "cluster")]
        subprocess.run(initdb, check=True, capture_output=True, user=self.user, cwd=self.data)

    def command(self) -> list[str]:
        cluster = str(self.data / "cluster")
        return [str(self.bin / "postgres"), "-D", cluster, "-p", str(self.port), "-k", str(self.data), "-h", "127.0.0.1"]

    def start(self) -> None:
        for _ in range(20):  # after a kill its children let go of the shared memory one by one
            with contextlib.suppress(AssertionError):
                return super().start()
            time.sleep(0.2)
        return super().start()

    def settings(self) -> str:
        return f'dsn = "postgresql://dc09@127.0.0.1:{self.port}/postgres"\n'

    def address(self) -> str:
        """Return where statements of the tests go."""
        return f"postgresql://dc09@127.0.0.1:{self.port}/postgres"

    def query(self, text: str) -> list[Any]:
        """Run a statement and return its rows."""
        import asyncpg

        async def ask() -> list[Any]:
            connection = await asyncpg.connect(self.address(), timeout=3)
            try:
                return list(await connection.fetch(text))
            finally:
                await connection.close()

        return asyncio.run(ask())

    def ready(self) -> bool:
        import asyncpg

        try:
            return bool(self.query("SELECT 1"))
        except (asyncpg.PostgresError, OSError):
            return False

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(row["event"]) for row in self.query("SELECT event FROM signals ORDER BY number")]

    def end(self) -> None:
        super().end()
        shutil.rmtree(self.data, ignore_errors=True)


class Mosquitto(Server):
    """mosquitto; it writes its store when it ends in order, so it is ended so. A session keeps what is published.

    The session is there before anyone knows the port: whoever published first would else publish to nobody.
    """

    kind, program, once = "mqtt", "mosquitto", False
    more = ""  # lines of its configuration
    ending = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        known, self.port = self.port, free_port()
        self.start()
        self.events()
        self.kill()
        self.port = known

    def command(self) -> list[str]:
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\npersistence true\n"
            f"max_queued_messages 0\npersistence_location {self.folder}/\nuser root\n{self.more}", "utf-8",
        )  # fmt: skip
        return [self.path, "-c", str(config)]

    def settings(self) -> str:
        return f"port = {self.port}\n"

    def _read(self, level: str, clean: bool) -> list[dict[str, Any]]:
        """Read all that waits: a mark of our own, published now, comes last."""
        import aiomqtt
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        found: list[dict[str, Any]] = []
        mark = f"{level}/mark"

        async def read() -> None:
            keep = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
            keep.SessionExpiryInterval = 0 if clean else 100_000
            client = aiomqtt.Client(
                "127.0.0.1", self.port, identifier="clean" if clean else "tester", properties=keep, clean_start=clean,
                protocol=aiomqtt.ProtocolVersion.V5, timeout=60,
            )  # fmt: skip
            async with client, asyncio.timeout(120):
                await client.subscribe(f"{level}/#", 1)
                await client.publish(mark, b"", 1)
                async for message in client.messages:
                    if message.topic.value == mark:
                        return
                    found.append(json.loads(bytes(message.payload)))

        asyncio.run(read())
        return found

    def events(self) -> list[dict[str, Any]]:
        return self._read("signals", False)

    def states(self) -> list[dict[str, Any]]:
        """Return the retained last states."""
        return self._read("states", True)


class Rabbit(Server):
    """RabbitMQ on a node of its own, with a quorum of one: a durable queue bound to everything."""

    kind, program, once = "amqp", "rabbitmq-server", False
    more = ""  # lines of its configuration

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        if Path("/usr/lib/rabbitmq/bin/rabbitmq-server").exists():
            self.path = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one on the path changes the user
        self.other_port = free_port()
        self.binding = "#"

    def prepare(self) -> None:
        self._work(False)

    def command(self) -> list[str]:
        return [self.path]

    def environment(self) -> dict[str, str]:
        (self.folder / "plugins").write_text("[].\n", "utf-8")
        (self.folder / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n{self.more}", "utf-8")
        return {
            "HOME": str(self.folder), "RABBITMQ_NODENAME": f"dc09-{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_DIST_PORT": str(self.other_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"), "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"), "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.folder / "pid"), "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
        }  # fmt: skip

    def settings(self) -> str:
        return f'url = "amqp://guest:guest@127.0.0.1:{self.port}/"\n'

    def _work(self, read: bool) -> list[dict[str, Any]]:
        import aio_pika

        async def work() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            async with await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{self.port}/", timeout=3) as connection:
                channel = await connection.channel()
                exchange = await channel.declare_exchange("signals", aio_pika.ExchangeType.TOPIC, durable=True)
                queue = await channel.declare_queue("all", durable=True)
                await queue.bind(exchange, self.binding)
                while read and (message := await queue.get(no_ack=True, fail=False)) is not None:
                    found.append(json.loads(message.body))
            return found

        return asyncio.run(work())

    def ready(self) -> bool:
        import aio_pika.exceptions

        if not super().ready():
            return False
        try:
            self._work(False)
        except (aio_pika.exceptions.AMQPError, OSError, TimeoutError):
            return False
        return True

    def events(self) -> list[dict[str, Any]]:
        return self._work(True)


class Syslog(Server):
    """A syslog server of our own, for want of one that writes octet-counted frames as they come."""

    kind, program, once, sure = "syslog", "python3", False, False

    def command(self) -> list[str]:
        return [
            sys.executable,
            str(Path(__file__).with_name("syslog_server.py")),
            str(self.port),
            str(self.folder / "lines"),
        ]

    def settings(self) -> str:
        return f"port = {self.port}\n"

    def events(self) -> list[dict[str, Any]]:
        file = self.folder / "lines"
        lines = file.read_text("utf-8").splitlines() if file.exists() else []
        return [json.loads(line.split("\ufeff", 1)[1]) for line in lines]


class Kafka(Server):
    """The mock broker inside the client library: it keeps nothing over its end, so it is stopped and goes on."""

    kind, program, once, holds = "kafka", "python3", False, 4000
    options = "timeout_seconds = 1\n"
    _MOCK = (
        "import sys, time\nfrom confluent_kafka import Producer\n"
        "brokers = Producer({'test.mock.num.brokers': 1}).list_topics(timeout=10).brokers\n"
        "producer = Producer({'test.mock.num.brokers': 1})\n"
        "print(next(iter(producer.list_topics(timeout=10).brokers.values())), flush=True)\ntime.sleep(600)\n"
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.address = folder / "address"
        with self.address.open("wb") as file:
            self.process = subprocess.Popen([sys.executable, "-c", self._MOCK], stdout=file, start_new_session=True)
        told = wait_until(lambda: (text := self.address.read_text("ascii")).endswith("\n") and text, 20)
        self.port = int(str(told).split(":")[1].split("/")[0])
        self.kill()

    def start(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGSTOP)

    def end(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(15)

    def settings(self) -> str:
        return f'servers = ["127.0.0.1:{self.port}"]\n'

    def events(self) -> list[dict[str, Any]]:
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": f"127.0.0.1:{self.port}", "group.id": "tester"})
        topic = "dc09.signals"
        places = [
            TopicPartition(topic, n, OFFSET_BEGINNING) for n in consumer.list_topics(topic, 10).topics[topic].partitions
        ]
        wanted = sum(high - low for low, high in (consumer.get_watermark_offsets(place, 10) for place in places))
        consumer.assign(places)
        found: list[tuple[int, dict[str, Any]]] = []
        while len(found) < wanted:
            message = consumer.poll(10)
            assert message is not None, f"{len(found)} of {wanted} came"
            assert message.error() is None, message.error()
            told: Any = message.headers() or []
            headers = {name: value.decode() for name, value in told}
            event = {name.removeprefix("ce_"): value for name, value in headers.items() if name.startswith("ce_")}
            event |= {"datacontenttype": headers["content-type"], "data": json.loads(message.value() or b"")}
            found.append((message.timestamp()[1], event))
        consumer.close()
        return [event for _, event in sorted(found, key=lambda told: told[0])]  # the partitions' order is the consumer's


SERVERS: list[type[Server]] = [Nats, Kafka, Mosquitto, Redis, Rabbit, Postgresql, Syslog]
