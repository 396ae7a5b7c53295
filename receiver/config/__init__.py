"""Settings: one TOML file, read once into frozen dataclasses with every default visible.

Unknown keys are errors, every mistake is collected before anything is reported, relative paths are relative to the file.
Each setting can also be given as an environment variable: ``[http] port`` is ``DC09_HTTP_PORT``, the port of the first
listener is ``DC09_LISTENERS_0_PORT``. A secret may be written as ``${NAME}``, or as ``…_file = "path"``.
"""

from receiver.config.outputs import (
    OUTPUT_TYPES,
    TEMPLATE_FIELDS,
    AmqpSettings,
    BusSettings,
    KafkaSettings,
    MqttSettings,
    NatsSettings,
    PostgresqlSettings,
    RedisSettings,
    SyslogSettings,
    WebhookSettings,
)
from receiver.config.reader import load, read, resolve_secret
from receiver.config.settings import (
    RULES,
    SECTIONS,
    AccountsSettings,
    ClockSettings,
    HttpSettings,
    JournalSettings,
    JsonlSettings,
    ListenerSettings,
    LogSettings,
    OutputSettings,
    ReceiverSettings,
    Secret,
    Settings,
    SupervisionSettings,
)

__all__ = [
    "OUTPUT_TYPES",
    "RULES",
    "SECTIONS",
    "TEMPLATE_FIELDS",
    "AccountsSettings",
    "AmqpSettings",
    "BusSettings",
    "ClockSettings",
    "HttpSettings",
    "JournalSettings",
    "JsonlSettings",
    "KafkaSettings",
    "ListenerSettings",
    "LogSettings",
    "MqttSettings",
    "NatsSettings",
    "OutputSettings",
    "PostgresqlSettings",
    "ReceiverSettings",
    "RedisSettings",
    "Secret",
    "Settings",
    "SupervisionSettings",
    "SyslogSettings",
    "WebhookSettings",
    "load",
    "read",
    "resolve_secret",
]
