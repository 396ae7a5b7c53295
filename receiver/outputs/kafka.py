"""``kafka``: an idempotent producer, ``acks=all``, the account as key, CloudEvents in binary mode (attributes as headers).

The library works in threads of its own; one thread of ours hands it a batch and waits for every report. A producer that
failed is thrown away with what it held: nothing goes out behind the back of a more urgent event.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import orjson
from confluent_kafka import KafkaError, KafkaException, Producer

from receiver import clock
from receiver.config import KafkaSettings
from receiver.errors import DeliveryError, EventRefused
from receiver.events import OutEvent
from receiver.outputs import causes, templates
from receiver.outputs.contract import Surroundings

_POLL_SECONDS = 0.1
_PURGE_SECONDS = 1.0
_REFUSED = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG_SIZE, KafkaError.INVALID_RECORD)


class KafkaOutput:
    """Produces to the topics of one cluster."""

    batch_limit = 500

    def __init__(self, settings: KafkaSettings, _surroundings: Surroundings) -> None:
        self._settings = settings
        self._thread = ThreadPoolExecutor(1, f"output-{settings.name}")
        self._producer: Producer | None = None
        self._problem = ""  # what the library said last of its connections: a report says only that time is over

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Produce the events and wait for the report of every one.

        Raises:
            DeliveryError: the cluster cannot be had, or does not acknowledge.
            EventRefused: an event is too large.
        """
        records = [_record(self._settings.topic, event) for event in events]
        await asyncio.get_running_loop().run_in_executor(self._thread, self._produce, records)

    def _produce(self, records: list[dict[str, Any]]) -> None:
        """In the thread: hand the batch over and wait."""
        if self._producer is None:
            self._producer = self._connected()
        producer, errors, open_reports = self._producer, dict[int, KafkaError](), set(range(len(records)))

        def report(number: int, error: KafkaError | None, _message: object) -> None:
            open_reports.discard(number)
            if error is not None:
                errors[number] = error

        for number, record in enumerate(records):
            try:
                producer.produce(**record, on_delivery=partial(report, number))
            except (KafkaException, BufferError) as error:
                kept = error.args[0] if isinstance(error, KafkaException) else KafkaError(KafkaError._QUEUE_FULL)
                report(number, kept, None)
        until = clock.monotonic() + self._settings.timeout_seconds
        while open_reports and clock.monotonic() < until:
            producer.poll(_POLL_SECONDS)
        if open_reports or errors:
            taken = {number for number in range(len(records)) if number not in errors and number not in open_reports}
            self._fail(errors, min(open_reports, default=len(records)), taken)

    def _fail(self, errors: dict[int, KafkaError], first_open: int, taken: set[int]) -> None:
        """Raise what the first missing report or error is."""
        first_error = min(errors, default=first_open)
        also = {number for number in taken if number > min(first_error, first_open)}
        if first_error < first_open and errors[first_error].code() in _REFUSED:
            raise EventRefused(f"kafka: {errors[first_error].str()}", first_error, also=also)
        self._throw_away()
        if first_error < first_open:
            raise DeliveryError(f"kafka: {self._described(errors[first_error].str())}", first_error, also)
        late = f"not acknowledged in {self._settings.timeout_seconds:g} s"
        raise DeliveryError(f"kafka: {self._described(late)}", first_open, also)

    def _connected(self) -> Producer:
        self._problem = ""
        try:
            return Producer(_options(self._settings) | {"error_cb": self._told})
        except KafkaException as error:
            raise DeliveryError(f"kafka: {self._described(str(error))}") from None

    def _told(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:  # the one before it says why
            self._problem = error.str()

    def _described(self, text: str) -> str:
        return causes.describe(self._problem or text, [self._settings.password.text])

    def _throw_away(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(_PURGE_SECONDS)

    def reopen(self) -> None:
        """Nothing to do: the library keeps its connections."""

    async def close(self) -> None:
        """Let go of the producer."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._throw_away)
        self._thread.shutdown(wait=False)


def _options(settings: KafkaSettings) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap.servers": ",".join(settings.servers), "client.id": f"dc09-receiver-{settings.name}",
        "enable.idempotence": True, "acks": "all", "linger.ms": 1,
        "message.timeout.ms": round(settings.timeout_seconds * 1000), "log_level": 0,
    }  # fmt: skip
    options["security.protocol"] = ("SASL_" if settings.user else "") + ("SSL" if settings.tls else "PLAINTEXT")
    if settings.user:
        options |= {"sasl.mechanism": settings.sasl, "sasl.username": settings.user, "sasl.password": settings.password.text}
    files = {
        "ssl.ca.location": settings.ca_file,
        "ssl.certificate.location": settings.cert_file,
        "ssl.key.location": settings.key_file,
    }
    return options | {name: str(file) for name, file in files.items() if file is not None}


def _record(topic: str, event: OutEvent) -> dict[str, Any]:
    """Return a CloudEvent in Kafka's binary mode: the data as value, the attributes as headers."""
    told = event.cloud_event
    headers = {f"ce_{name}": str(value) for name, value in told.items() if name not in ("data", "datacontenttype")}
    return {
        "topic": templates.fill(topic, event), "key": (event.account or templates.NO_ACCOUNT).encode(),
        "value": orjson.dumps(told["data"]), "headers": headers | {"content-type": "application/json"},
    }  # fmt: skip
