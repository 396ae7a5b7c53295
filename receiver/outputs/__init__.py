"""The buses behind us: each output follows the journal with cursors of its own, at least once, urgent lane first.

A type's module is imported when a configuration names it: the libraries of the others need not be there.
"""

from importlib import import_module
from typing import Any, cast

from receiver.config import BusSettings, OutputSettings
from receiver.errors import ConfigError
from receiver.outputs import tls
from receiver.outputs.contract import Output, Surroundings
from receiver.outputs.forwarder import Forwarder

__all__ = ["CLASSES", "Forwarder", "Output", "Surroundings", "build", "check"]

CLASSES = {
    "jsonl": "JsonlOutput",
    "webhook": "WebhookOutput",
    "surgard": "build",
    "ademco685": "build",
    "dc07": "build",
    "dc09": "Dc09Output",
    "nats": "NatsOutput",
    "kafka": "KafkaOutput",
    "mqtt": "MqttOutput",
    "redis": "RedisOutput",
    "amqp": "AmqpOutput",
    "postgresql": "PostgresqlOutput",
    "syslog": "SyslogOutput",
}
"""What makes each type's output, a class or a function; it stands in the module ``receiver.outputs.<type>``."""
_EXTRAS = {"nats": "nats", "confluent_kafka": "kafka", "aiomqtt": "mqtt", "paho": "mqtt", "redis": "redis"}
_EXTRAS |= {"aio_pika": "amqp", "aiormq": "amqp", "pamqp": "amqp", "asyncpg": "postgresql"}
_PACKAGES = {"nats": "nats-py", "kafka": "confluent-kafka", "mqtt": "aiomqtt", "amqp": "aio-pika", "postgresql": "asyncpg"}


def check(settings: OutputSettings) -> Any:
    """Return the class of the output's type, once its library and its files of certificates are found to be there.

    Raises:
        ConfigError: its type is unknown, its library is not installed, or a file cannot be used.
    """
    if settings.type not in CLASSES:
        raise ConfigError(f"output {settings.name} has the unknown type {settings.type!r}")
    try:
        module = import_module(f"receiver.outputs.{settings.type}")
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        package = _PACKAGES.get(extra, extra)
        raise ConfigError(
            f"output {settings.name} needs the package {package}: pip install 'dc09-receiver[{extra}]'"
        ) from None
    if isinstance(settings, BusSettings):
        tls.context(settings)
    return getattr(module, CLASSES[settings.type])


def build(settings: OutputSettings, surroundings: Surroundings) -> Output:
    """Return the output that the settings ask for.

    Raises:
        ConfigError: as ``check``, or what it needs at once cannot be had.
    """
    return cast(Output, check(settings)(settings, surroundings))
