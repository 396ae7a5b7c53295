"""The settings of every type of output; what is common to all stands in ``settings.OutputSettings``."""

import re
import string
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from receiver.config.automation import AUTOMATION_TYPES
from receiver.config.settings import JsonlSettings, OutputSettings, Secret, setting

_ADDRESS = re.compile(r"https?://[^\s/]+\S*")
_TABLE = re.compile(r"[a-z_][a-z0-9_]{0,62}(\.[a-z_][a-z0-9_]{0,62})?")
TEMPLATE_FIELDS = ("lane", "account", "kind", "priority")
_SECURED = {"redis": "rediss", "unix": "rediss", "amqp": "amqps"}
_TEMPLATE_HELP = "fields are `{lane}`, `{account}`, `{kind}` (signal, path, trouble) and `{priority}`"


_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*"), "words between single dots, without spaces, * and >"
_KAFKA_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}"), "letters, digits, . _ and -"
_MQTT_TOPIC = re.compile(r"[^+#\0]+"), "a text without + and #"
_ANY = re.compile(r".+", re.DOTALL), "a text"


def _template_mistakes(name: str, template: str, rule: tuple[re.Pattern[str], str] = _ANY) -> list[str]:
    """Return what is wrong with a template of subjects, topics or streams; ``rule`` is what the server takes."""
    try:
        fields = [found[1:] for found in string.Formatter().parse(template) if found[1] is not None]
    except ValueError as error:
        return [f"{name} is {template!r}: {error}"]
    unknown = [field for field, spec, conversion in fields if field not in TEMPLATE_FIELDS or spec or conversion]
    if unknown or not template:
        return [f"{name} is {template!r}; its fields can be {', '.join(TEMPLATE_FIELDS)}"]
    if rule[0].fullmatch(template.format(**dict.fromkeys(TEMPLATE_FIELDS, "x"))) is None:
        return [f"{name} is {template!r}; beside its fields it must be {rule[1]}"]
    return []


def _port_mistakes(url: str) -> list[str]:
    """Return whether an address has a port that no connection can be made to; the address is not shown."""
    try:
        port = urlsplit(url).port
    except ValueError:
        port = 0
    return ["url has no port that can be, 1 to 65535"] if port == 0 else []


@dataclass(frozen=True, slots=True)
class WebhookSettings(OutputSettings):
    """An output of type ``webhook``: HTTP POST of CloudEvents."""

    url: Secret = setting(Secret(), "where to post; http or https; may hold a password or a token, so it is never shown")
    secret: Secret = setting(Secret(), "key of the HMAC-SHA256 in the header X-DC09-Signature; empty sends none")
    batch: int = setting(1, "events a request; above 1 the body is a CloudEvents JSON batch", "positive")
    timeout_seconds: float = setting(10.0, "a request without an answer for so long has failed", "seconds")

    def mistakes(self) -> list[str]:
        """Return what is wrong with the address."""
        if _ADDRESS.fullmatch(self.url.text):
            return _port_mistakes(self.url.text)
        return ["url is missing or is no address; a webhook needs an http or https address"]


@dataclass(frozen=True, slots=True)
class BusSettings(OutputSettings):
    """What the outputs that speak to a server have in common."""

    timeout_seconds: float = setting(
        10.0, "a server that does not take a batch, or a connection, in so long has failed", "seconds"
    )
    tls: bool = setting(False, "whether to speak TLS, with the server's certificate and name checked")
    ca_file: Path | None = setting(None, "certificates to trust in place of the system's")
    cert_file: Path | None = setting(None, "our own certificate, where the server asks for one")
    key_file: Path | None = setting(None, "the key of our certificate")

    def address(self) -> str:
        """Return where to connect where that says whether to speak TLS, else nothing."""
        return ""

    def is_secured(self) -> bool:
        """Tell whether connections are made over TLS: ``tls`` says so, or an address that begins so."""
        return self.tls or self.address().startswith(("rediss://", "amqps://"))

    def mistakes(self) -> list[str]:
        """Return what is wrong about TLS: it would be thought to be there, and is not."""
        wrong, (scheme, has_scheme, _) = [], self.address().partition("://")
        if self.tls and has_scheme and scheme in _SECURED:
            wrong.append(f"tls is true and url begins with {scheme}://, which is in clear; TLS is {_SECURED[scheme]}://")
        files = [name for name in ("ca_file", "cert_file", "key_file") if getattr(self, name) is not None]
        if files and not self.is_secured():
            wrong.append(f"{files[0]} is set without TLS, and nothing would be checked; set tls = true")
        if (self.cert_file is None) != (self.key_file is None):
            wrong.append("cert_file and key_file belong together; give both, or none")
        return wrong


@dataclass(frozen=True, slots=True)
class NatsSettings(BusSettings):
    """An output of type ``nats``: JetStream."""

    servers: tuple[str, ...] = setting(
        ("nats://127.0.0.1:4222",), "the servers of one cluster; the first that answers is taken"
    )
    stream: str = setting("SIGNALS", "the stream, made if it is not there")
    subject: str = setting("signals.{lane}", f"template of the subject; {_TEMPLATE_HELP}")
    user: str = setting("", "user name, where the server wants one")
    password: Secret = setting(Secret(), "password of the user, or alone the token")
    credentials: Path | None = setting(None, "credentials file, with JWT and seed, where the server wants one")
    replicas: int = setting(1, "copies that a stream we make has; 3 in a cluster", "positive")
    duplicate_window_seconds: float = setting(
        600.0, "how long a stream we make knows ids again; an event sent twice within it is stored once", "seconds"
    )
    monitor: str = setting("", "host:port of the server's monitoring page, asked whether it syncs always; empty asks nobody")

    def mistakes(self) -> list[str]:
        """Return what is wrong with stream and subject."""
        wrong = BusSettings.mistakes(self) + _template_mistakes("subject", self.subject, _SUBJECT)
        wrong += [] if self.servers else ["servers is empty"]
        if re.search(r"[.*>/\\\s]", self.stream) or not self.stream:
            wrong.append(f"stream is {self.stream!r}; a stream's name is not empty and has none of . * > / \\ and spaces")
        return wrong


@dataclass(frozen=True, slots=True)
class RedisSettings(BusSettings):
    """An output of type ``redis``: streams."""

    url: Secret = setting(Secret("redis://127.0.0.1:6379/0"), "the server; may hold a password, so it is never shown")
    stream: str = setting("signals", f"template of the stream's key; {_TEMPLATE_HELP}")
    max_length: int = setting(1000000, "entries kept in a stream, about; the oldest are trimmed; 0 keeps all", "count")
    remembered: int = setting(
        100000, "ids known again in each stream; an event sent twice is added once; 0 remembers none", "count"
    )

    def address(self) -> str:
        """Return the address, password and all."""
        return self.url.text

    def mistakes(self) -> list[str]:
        """Return what is wrong with address and stream."""
        wrong = BusSettings.mistakes(self) + _template_mistakes("stream", self.stream)
        if not re.fullmatch(r"(rediss?|unix)://\S+", self.url.text):
            wrong.append("url is no address; it begins with redis://, rediss:// or unix://")
        else:
            wrong += _port_mistakes(self.url.text)
        if re.search(r"[?&]ssl_(cert_reqs|check_hostname)=", self.url.text):
            wrong.append("url says how certificates are checked; they are, and their names: leave ssl_… out")
        return wrong


@dataclass(frozen=True, slots=True)
class AmqpSettings(BusSettings):
    """An output of type ``amqp``: a topic exchange of RabbitMQ."""

    url: Secret = setting(
        Secret("amqp://guest:guest@127.0.0.1:5672/"), "the server; may hold a password, so it is never shown"
    )
    exchange: str = setting("signals", "the topic exchange, made if it is not there; durable")
    routing_key: str = setting("{lane}.{account}", f"template of the routing key; {_TEMPLATE_HELP}")
    unroutable: str = setting(
        "wait", "an event that no queue takes: `wait` as for an outage, `refuse` makes it a dead letter after max_tries",
        choices=("wait", "refuse"),
    )  # fmt: skip

    def address(self) -> str:
        """Return the address, password and all."""
        return self.url.text

    def mistakes(self) -> list[str]:
        """Return what is wrong with address and routing key."""
        wrong = BusSettings.mistakes(self) + _template_mistakes("routing_key", self.routing_key)
        if not re.fullmatch(r"amqps?://\S+", self.url.text):
            wrong.append("url is no address; it begins with amqp:// or amqps://")
        else:
            wrong += _port_mistakes(self.url.text)
        return wrong


@dataclass(frozen=True, slots=True)
class MqttSettings(BusSettings):
    """An output of type ``mqtt``: MQTT 5, QoS 1."""

    host: str = setting("127.0.0.1", "the broker")
    port: int = setting(1883, "its port; 8883 is usual with TLS", "port")
    user: str = setting("", "user name, where the broker wants one")
    password: Secret = setting(Secret(), "password of the user")
    client_id: str = setting("", "our client identifier; empty is dc09-receiver and the output's name")
    topic: str = setting("signals/{lane}/{account}", f"template of the topic; {_TEMPLATE_HELP}")
    state_topic: str = setting(
        "",
        "template of a topic that keeps the last signal of each account (retained), such as `states/{account}`; empty: none",
    )

    def mistakes(self) -> list[str]:
        """Return what is wrong with the topics."""
        wrong = BusSettings.mistakes(self) + _template_mistakes("topic", self.topic, _MQTT_TOPIC)
        return wrong + (_template_mistakes("state_topic", self.state_topic, _MQTT_TOPIC) if self.state_topic else [])


@dataclass(frozen=True, slots=True)
class PostgresqlSettings(OutputSettings):
    """An output of type ``postgresql``: a row an event."""

    dsn: Secret = setting(
        Secret(), "where to connect, postgresql://user:password@host:5432/database?sslmode=verify-full; never shown"
    )
    table: str = setting("signals", "the table, made if it is not there; may be schema.table")
    timeout_seconds: float = setting(
        10.0, "a server that does not take a batch, or a connection, in so long has failed", "seconds"
    )

    def mistakes(self) -> list[str]:
        """Return what is wrong with address and table."""
        wrong = []
        if not re.fullmatch(r"postgres(ql)?://\S+", self.dsn.text):
            wrong.append("dsn is missing or is no address; it begins with postgresql://")
        if not _TABLE.fullmatch(self.table):
            wrong.append(f"table is {self.table!r}; it can be a name, or schema.name, of small letters, digits and _")
        return wrong


@dataclass(frozen=True, slots=True)
class SyslogSettings(BusSettings):
    """An output of type ``syslog``: RFC 5424 over TCP or TLS."""

    host: str = setting("127.0.0.1", "the syslog server")
    port: int = setting(601, "its port; 601 is usual over TCP, 6514 with TLS", "port")
    facility: int = setting(13, "facility of the messages: 13 is log audit, 16 to 23 are local", "facility")
    hostname: str = setting("", "HOSTNAME in the messages; empty is this machine's name")


@dataclass(frozen=True, slots=True)
class KafkaSettings(BusSettings):
    """An output of type ``kafka``: an idempotent producer."""

    servers: tuple[str, ...] = setting(("127.0.0.1:9092",), "host:port of brokers to begin with")
    topic: str = setting("dc09.signals", f"template of the topic; {_TEMPLATE_HELP}")
    user: str = setting("", "SASL user name, where the brokers want one")
    password: Secret = setting(Secret(), "password of the user")
    sasl: str = setting("PLAIN", "SASL mechanism", choices=("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"))

    def mistakes(self) -> list[str]:
        """Return what is wrong with servers and topic."""
        wrong = BusSettings.mistakes(self) + _template_mistakes("topic", self.topic, _KAFKA_TOPIC)
        return wrong + ([] if self.servers else ["servers is empty"])


OUTPUT_TYPES: dict[str, type[OutputSettings]] = {
    "jsonl": JsonlSettings, "webhook": WebhookSettings, "nats": NatsSettings, "kafka": KafkaSettings, "mqtt": MqttSettings,
    "redis": RedisSettings, "amqp": AmqpSettings, "postgresql": PostgresqlSettings, "syslog": SyslogSettings,
    **AUTOMATION_TYPES,
}  # fmt: skip
