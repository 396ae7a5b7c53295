"""``amqp``: publishes to a durable topic exchange of RabbitMQ, persistent, mandatory, and waits for the broker's confirms.

A confirm says that every queue that takes the event has it, on disk where the queue is durable. AMQP does not know an event
again: one that was confirmed just when the connection broke comes twice, with the same ``message_id``.
"""

import asyncio
from collections.abc import Coroutine, Iterator, Sequence

import aio_pika
from aio_pika.abc import AbstractConnection, AbstractExchange
from aio_pika.exceptions import AMQPError
from aio_pika.exceptions import DeliveryError as NotConfirmed

from receiver.config import AmqpSettings
from receiver.errors import DeliveryError, EventRefused, FailedAtEvent
from receiver.events import OutEvent
from receiver.outputs import causes, templates, tls
from receiver.outputs.closing import put_away
from receiver.outputs.contract import Surroundings

_JSON = "application/cloudevents+json"
_PUBLISHED_AT_ONCE = 4  # the library needs 60 µs for each


class AmqpOutput:
    """Publishes to one exchange."""

    batch_limit = 500

    def __init__(self, settings: AmqpSettings, _surroundings: Surroundings) -> None:
        self._settings = settings
        self._tls = tls.context(settings)
        self._connection: AbstractConnection | None = None
        self._exchange: AbstractExchange | None = None

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Publish the events, all in flight together, and wait for every confirm.

        Raises:
            DeliveryError: the broker cannot be had, or a confirm is missing.
            FailedAtEvent: connection or channel ended meanwhile; so they do where a message is larger than the broker takes.
            EventRefused: no queue takes an event, and ``unroutable`` says that this is a refusal.
        """
        errors: dict[int, str] = {}
        unroutable, rejected = set[int](), set[int]()

        async def publish(exchange: AbstractExchange, number: int, event: OutEvent) -> None:
            try:
                await exchange.publish(_message(event), templates.fill(self._settings.routing_key, event), mandatory=True)
            except NotConfirmed as error:
                (unroutable if error.frame else rejected).add(number)
                errors[number] = f"no queue of exchange {self._settings.exchange} takes it" if error.frame else str(error)
            except (AMQPError, OSError, RuntimeError, asyncio.CancelledError) as error:
                errors[number] = str(error) or type(error).__name__
                if isinstance(error, asyncio.CancelledError):
                    raise

        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                exchange = await self._connected()
                async with asyncio.TaskGroup() as sending:
                    await _begin(sending, (publish(exchange, number, event) for number, event in enumerate(events)))
        except TimeoutError:
            await self.close()
            raise DeliveryError(f"amqp: not confirmed in {self._settings.timeout_seconds:g} s") from None
        except (AMQPError, OSError) as error:
            await self.close()
            raise DeliveryError(f"amqp: {causes.describe(error, [self._settings.url.text])}") from None
        if errors:
            first = min(errors)
            await self._fail(
                errors, unroutable, rejected, {number for number in range(first, len(events)) if number not in errors}
            )

    async def _fail(self, errors: dict[int, str], unroutable: set[int], rejected: set[int], also: set[int]) -> None:
        """Raise what the first of the errors is: an event that no queue takes, an outage, or the end of the channel."""
        first = min(errors)
        if first in unroutable and self._settings.unroutable == "refuse":
            raise EventRefused(errors[first], first, also=also)
        if first not in unroutable:
            await self.close()
        ended = first not in unroutable and first not in rejected
        raise (FailedAtEvent if ended else DeliveryError)(f"amqp: {errors[first]}", first, also)

    async def _connected(self) -> AbstractExchange:
        if self._exchange is None or self._connection is None or self._connection.is_closed:
            await self.close()
            self._connection = await aio_pika.connect(
                self._settings.url.text, ssl_context=self._tls, timeout=self._settings.timeout_seconds,
                client_properties={"connection_name": f"dc09-receiver {self._settings.name}"},
            )  # fmt: skip
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            self._exchange = await channel.declare_exchange(
                self._settings.exchange, aio_pika.ExchangeType.TOPIC, durable=True
            )
        return self._exchange

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection, self._exchange = self._connection, None, None
        if connection is not None:
            await put_away(connection.close())


async def _begin(sending: asyncio.TaskGroup, publishing: Iterator[Coroutine[None, None, None]]) -> None:
    """Begin with a few at a time, so that the loop may answer a panel in between."""
    for number, one in enumerate(publishing, 1):
        sending.create_task(one)
        if number % _PUBLISHED_AT_ONCE == 0:
            await asyncio.sleep(0)


def _message(event: OutEvent) -> aio_pika.Message:
    return aio_pika.Message(
        event.to_json(), content_type=_JSON, message_id=event.event_id, delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        type=str(event.cloud_event["type"]), priority=9 - event.stored.row.priority if event.stored.row.priority < 9 else 0,
    )  # fmt: skip
