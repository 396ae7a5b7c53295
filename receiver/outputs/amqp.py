"""``amqp``: publishes to a durable topic exchange of RabbitMQ, persistent, mandatory, and waits for the broker's confirms.

A confirm says that every queue that takes the event has it, on disk where the queue is durable. AMQP does not know an event
again: one that was confirmed just when the connection broke comes twice, with the same ``message_id``.
"""

import asyncio
from collections.abc import Sequence
from functools import partial

import aio_pika
import aiormq
from aio_pika.abc import AbstractConnection
from aiormq.abc import ChannelFrame
from aiormq.exceptions import AMQPError, PublishError
from aiormq.exceptions import DeliveryError as NotConfirmed
from pamqp.body import ContentBody
from pamqp.frame import marshal
from pamqp.header import ContentHeader

from receiver.config import AmqpSettings
from receiver.errors import DeliveryError, EventRefused, FailedAtEvent
from receiver.events import OutEvent
from receiver.outputs import causes, templates, tls
from receiver.outputs.closing import put_away
from receiver.outputs.contract import Surroundings

_JSON = "application/cloudevents+json"
_PERSISTENT = 2
_PUBLISHED_AT_ONCE = 5  # 15 µs each


class AmqpOutput:
    """Publishes to one exchange."""

    batch_limit = 500

    def __init__(self, settings: AmqpSettings, _surroundings: Surroundings) -> None:
        self._settings = settings
        self._tls = tls.context(settings)
        self._connection: AbstractConnection | None = None
        self._channel: aiormq.Channel | None = None

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Publish the events, all in flight together, and wait for every confirm.

        Raises:
            DeliveryError: the broker cannot be had, or a confirm is missing.
            FailedAtEvent: connection or channel ended meanwhile; so they do where a message is larger than the broker takes.
            EventRefused: no queue takes an event, and ``unroutable`` says that this is a refusal.
        """
        confirms: list[asyncio.Future[object]] = []
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                channel = await self._connected()
                await self._publish(channel, events, confirms)
                if confirms:
                    await asyncio.wait(confirms)
        except TimeoutError:
            await self.close()
            raise DeliveryError(f"amqp: not confirmed in {self._settings.timeout_seconds:g} s") from None
        except (AMQPError, OSError) as error:
            await self.close()
            raise DeliveryError(f"amqp: {causes.describe(error, [self._settings.url.text])}") from None
        finally:
            for confirm in confirms:
                confirm.cancel()  # nobody waits for it any more
        await self._judge(confirms, len(events))

    async def _publish(
        self, channel: aiormq.Channel, events: Sequence[OutEvent], confirms: "list[asyncio.Future[object]]"
    ) -> None:
        """Write the events out, a few at a time, so that the loop may answer a panel in between; note who confirms each.

        ``basic_publish`` of the library makes a task, a lock and a drain for each: five times as much work.
        """
        for first in range(0, len(events), _PUBLISHED_AT_ONCE):
            some = events[first : first + _PUBLISHED_AT_ONCE]
            payload = b"".join([self._frames(channel, event) for event in some])
            if channel.is_closed:
                return
            for event in some:
                channel.delivery_tag += 1  # the broker counts along
                confirm = channel.create_future()
                confirm.add_done_callback(partial(_forget, channel, event.event_id))
                channel.confirmations[channel.delivery_tag] = confirm
                channel.message_id_delivery_tag[event.event_id] = channel.delivery_tag  # by which a returned one is known
                confirms.append(confirm)
            await channel.write_queue.put(ChannelFrame(payload, should_close=False))
            await asyncio.sleep(0)

    def _frames(self, channel: aiormq.Channel, event: OutEvent) -> bytes:
        body, most = event.to_json(), channel.max_content_size
        key = templates.fill(self._settings.routing_key, event)
        publish = aiormq.spec.Basic.Publish(exchange=self._settings.exchange, routing_key=key, mandatory=True)
        frames = [marshal(publish, channel.number)]
        frames.append(marshal(ContentHeader(body_size=len(body), properties=_properties(event)), channel.number))
        frames += [marshal(ContentBody(body[at : at + most]), channel.number) for at in range(0, len(body), most)]
        return b"".join(frames)

    async def _judge(self, confirms: "Sequence[asyncio.Future[object]]", count: int) -> None:
        """Raise what came of it, unless all ``count`` events were confirmed."""
        errors = dict.fromkeys(range(len(confirms), count), "the channel was closed")
        unroutable, rejected = set[int](), set[int]()
        for number, confirm in enumerate(confirms):
            error = None if confirm.cancelled() else confirm.exception()
            if isinstance(error, PublishError):
                unroutable.add(number)
                errors[number] = f"no queue of exchange {self._settings.exchange} takes it"
            elif isinstance(error, NotConfirmed):
                rejected.add(number)
                errors[number] = str(error)
            elif error is not None or confirm.cancelled():
                errors[number] = str(error or "") or type(error).__name__
        if errors:
            also = {number for number in range(min(errors), count) if number not in errors}
            await self._fail(errors, unroutable, rejected, also)

    async def _fail(self, errors: dict[int, str], unroutable: set[int], rejected: set[int], also: set[int]) -> None:
        """Raise what the first of the errors is: an event that no queue takes, an outage, or the end of the channel."""
        first = min(errors)
        if first in unroutable and self._settings.unroutable == "refuse":
            raise EventRefused(errors[first], first, also=also)
        if first not in unroutable:
            await self.close()
        ended = first not in unroutable and first not in rejected
        raise (FailedAtEvent if ended else DeliveryError)(f"amqp: {errors[first]}", first, also)

    async def _connected(self) -> aiormq.Channel:
        if self._channel is None or self._channel.is_closed or self._connection is None or self._connection.is_closed:
            await self.close()
            self._connection = await aio_pika.connect(
                self._settings.url.text, ssl_context=self._tls, timeout=self._settings.timeout_seconds,
                client_properties={"connection_name": f"dc09-receiver {self._settings.name}"},
            )  # fmt: skip
            channel = await self._connection.channel(publisher_confirms=True, on_return_raises=True)
            await channel.declare_exchange(self._settings.exchange, aio_pika.ExchangeType.TOPIC, durable=True)
            found = await channel.get_underlay_channel()
            assert isinstance(found, aiormq.Channel)
            self._channel = found
        return self._channel

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is not None:
            await put_away(connection.close())


def _forget(channel: aiormq.Channel, event_id: str, _confirm: object) -> None:
    channel.message_id_delivery_tag.pop(event_id, None)


def _properties(event: OutEvent) -> aiormq.spec.Basic.Properties:
    return aiormq.spec.Basic.Properties(
        content_type=_JSON, message_id=event.event_id, delivery_mode=_PERSISTENT,
        message_type=str(event.cloud_event["type"]), priority=max(0, 9 - event.stored.row.priority),
    )  # fmt: skip
