"""``mqtt``: publishes with MQTT 5 at QoS 1 and waits for the broker's acknowledgements: at least once to the broker.

Whoever subscribes at QoS 0, or was away without a session, has nothing of that promise. With ``state_topic`` the last signal
of each account stays at the broker, retained.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from receiver.config import MqttSettings
from receiver.errors import DeliveryError, FailedAtEvent
from receiver.events import OutEvent
from receiver.journal import Kind
from receiver.outputs import causes, templates, tls
from receiver.outputs.closing import put_away
from receiver.outputs.contract import Surroundings

_PROPERTIES = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
_PROPERTIES.ContentType = "application/cloudevents+json"
_NO_ROOM = frozenset((0x93, 0x97))  # receive maximum exceeded, quota exceeded
_QUIET = logging.Logger("mqtt")  # noqa: LOG001 - the library warns of every message in flight
_QUIET.disabled = True


class MqttOutput:
    """Publishes to one broker."""

    batch_limit = 500  # a broker that does not set TCP_NODELAY makes each end of a batch wait for 40 ms

    def __init__(self, settings: MqttSettings, _surroundings: Surroundings) -> None:
        self._settings = settings
        self._tls = tls.context(settings)
        self._client: aiomqtt.Client | None = None
        self._ended = asyncio.Future[str]()
        self._refusals: list[tuple[int, str]] = []  # codes of acknowledgements that say no

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Publish the events in order, many in flight, and wait for every acknowledgement.

        Raises:
            DeliveryError: the broker cannot be had, does not acknowledge, or has no room.
            FailedAtEvent: it refused to take one, or the connection ended meanwhile; some do so where an event is too large.
        """
        client = await self._connected()  # with the library's own time-out: it must not be cancelled half way
        self._refusals.clear()
        publishing = asyncio.ensure_future(self._publish_all(client, events))
        try:
            settled: set[asyncio.Future[Any]] = {publishing, self._ended}
            await asyncio.wait(settled, timeout=self._settings.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
            if publishing.done():
                publishing.result()
            elif not self._refusals:
                await self._give_up()
        except (aiomqtt.MqttError, OSError, ValueError, ExceptionGroup) as error:
            await self.close()
            raise FailedAtEvent(f"{self._place}: {causes.describe(error, [self._settings.password.text])}") from None
        finally:
            publishing.cancel()
        if self._refusals:
            code, text = self._refusals[0]
            kind = DeliveryError if code in _NO_ROOM else FailedAtEvent
            raise kind(f"{self._place} did not take it: {causes.describe(text)}")

    async def _give_up(self) -> None:
        """Raise why not everything was acknowledged."""
        ended = self._ended.result() if self._ended.done() else ""
        await self.close()
        if ended:
            raise FailedAtEvent(f"{self._place} ended the connection: {ended}")
        raise DeliveryError(f"{self._place} did not acknowledge in {self._settings.timeout_seconds:g} s")

    async def _publish_all(self, client: aiomqtt.Client, events: Sequence[OutEvent]) -> None:
        async with asyncio.TaskGroup() as sending:
            for event in events:
                self._publish(client, event, sending)

    def _publish(self, client: aiomqtt.Client, event: OutEvent, sending: asyncio.TaskGroup) -> None:
        """Begin to publish an event, and the last state of its account where that is wanted."""
        settings, body = self._settings, event.to_json()
        topic = templates.fill(settings.topic, event)
        sending.create_task(client.publish(topic, body, 1, properties=_PROPERTIES))
        if settings.state_topic and event.stored.row.kind == Kind.SIGNAL:
            topic = templates.fill(settings.state_topic, event)
            sending.create_task(client.publish(topic, body, 1, retain=True, properties=_PROPERTIES))

    def _refusal(self, error: aiomqtt.MqttError) -> str:
        """Say how connecting failed; the library knows of a broker that hangs up on us only that time is over."""
        if str(error) != "Operation timed out":
            return f": {causes.describe(error, [self._settings.password.text])}"
        why = "; so it does where the certificate it asks us for is missing or unknown to it" if self._tls else ""
        return f" did not take our connection in {self._settings.timeout_seconds:g} s{why}"

    @property
    def _place(self) -> str:
        return f"{self._settings.host} port {self._settings.port}"

    async def _connected(self) -> aiomqtt.Client:
        if self._client is not None and self._ended.done():
            await self.close()
        if self._client is None:
            settings = self._settings
            client = aiomqtt.Client(
                settings.host, settings.port, username=settings.user or None, password=settings.password.text or None,
                identifier=settings.client_id or f"dc09-receiver-{settings.name}", protocol=aiomqtt.ProtocolVersion.V5,
                timeout=settings.timeout_seconds, keepalive=15, tls_context=self._tls, clean_start=True, logger=_QUIET,
            )  # fmt: skip
            try:
                await client.__aenter__()
            except aiomqtt.MqttError as error:
                client._client.disconnect()  # the library does so only once connected, and the socket would stay for ever
                raise DeliveryError(f"{self._place}{self._refusal(error)}") from None
            self._client = client
            self._listen(client)
        return self._client

    def _listen(self, client: aiomqtt.Client) -> None:
        """Hear what the library passes over: an acknowledgement may say no, and a publication waits on a dead connection."""
        paho: Any = client._client
        self._ended = ended = asyncio.get_running_loop().create_future()
        hears_ack, hears_end = paho.on_publish, paho.on_disconnect

        def on_publish(client: Any, data: Any, number: int, reason: Any, properties: Any) -> None:
            if reason.is_failure:
                self._refusals.append((int(reason.value), str(reason)))
            hears_ack(client, data, number, reason, properties)

        def on_disconnect(client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
            if not ended.done():
                ended.set_result(str(reason))
            hears_end(client, data, flags, reason, properties)

        paho.on_publish, paho.on_disconnect = on_publish, on_disconnect

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await put_away(client.__aexit__(None, None, None))
