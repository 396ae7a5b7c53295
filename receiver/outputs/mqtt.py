"""``mqtt``: publishes with MQTT 5 at QoS 1 and waits for the broker's acknowledgements: at least once to the broker.

Whoever subscribes at QoS 0, or was away without a session, has nothing of that promise. With ``state_topic`` the last signal
of each account stays at the broker, retained.
"""

import asyncio
import logging
from collections.abc import Sequence

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
_QUIET = logging.Logger("mqtt")  # noqa: LOG001 - the library warns of every message in flight
_QUIET.disabled = True


class MqttOutput:
    """Publishes to one broker."""

    batch_limit = 500  # a broker that does not set TCP_NODELAY makes each end of a batch wait for 40 ms

    def __init__(self, settings: MqttSettings, _surroundings: Surroundings) -> None:
        self._settings = settings
        self._tls = tls.context(settings)
        self._client: aiomqtt.Client | None = None

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Publish the events in order, many in flight, and wait for every acknowledgement.

        Raises:
            DeliveryError: the broker cannot be had, or does not acknowledge.
            FailedAtEvent: the connection ended meanwhile; so it does where a message is larger than the broker takes.
        """
        client = await self._connected()  # with the library's own time-out: it must not be cancelled half way
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                async with asyncio.TaskGroup() as sending:
                    for event in events:
                        self._publish(client, event, sending)
        except TimeoutError:
            await self.close()
            raise DeliveryError(f"{self._place} did not acknowledge in {self._settings.timeout_seconds:g} s") from None
        except (aiomqtt.MqttError, OSError, ValueError, ExceptionGroup) as error:
            await self.close()
            raise FailedAtEvent(f"{self._place}: {causes.describe(error, [self._settings.password.text])}") from None

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
        return self._client

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await put_away(client.__aexit__(None, None, None))
