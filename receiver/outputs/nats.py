"""``nats``: publishes to JetStream, many messages in flight, and waits for the server's acknowledgement of each.

The event's id is the message id: the server stores an event that comes again within the stream's duplicate window once. The
body is the CloudEvents object as JSON. The library never reconnects: what it had buffered would go out before a duress that
came meanwhile.
"""

import asyncio
import json
import urllib.request
from collections.abc import Sequence
from typing import Any

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StorageType, StreamConfig, StreamInfo

from receiver.config import NatsSettings
from receiver.errors import DeliveryError, EventRefused, FailedAtEvent
from receiver.events import OutEvent
from receiver.outputs import causes, templates, tls
from receiver.outputs.closing import put_away
from receiver.outputs.contract import Surroundings

_HEADER_BYTES = 256  # more than our headers take
_TOO_LARGE = 10054  # JetStream's error code for a message above the stream's limit


class _Acks:
    """The acknowledgements of one batch."""

    def __init__(self, count: int) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.errors: dict[int, tuple[int, str]] = {}
        self._open = bytearray(b"\1" * count)
        self._left = count

    def add(self, number: int, data: bytes) -> None:
        """Note the answer to one message."""
        if number >= len(self._open) or not self._open[number]:
            return
        self._open[number] = 0
        self._left -= 1
        if not data:
            self.errors[number] = (503, "no stream takes this subject")
        elif b'"error"' in data:
            told = json.loads(data).get("error", {})
            self.errors[number] = (int(told.get("err_code", 0)), str(told.get("description", "refused")))
        if not self._left and not self.done.done():
            self.done.set_result(None)

    def fail(self, text: str) -> None:
        """Give up: the connection is gone."""
        if not self.done.done():
            self.done.set_exception(DeliveryError(text))

    def taken_after(self, number: int) -> list[int]:
        """Return the later messages that were taken."""
        return [n for n in range(number + 1, len(self._open)) if not self._open[n] and n not in self.errors]

    def taken(self) -> int:
        """Return how many messages from the first on were taken without a gap."""
        first_open = self._open.find(1)
        return min([len(self._open) if first_open < 0 else first_open, *self.errors])


class NatsOutput:
    """Publishes to one stream."""

    batch_limit = 500

    def __init__(self, settings: NatsSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._telemetry = surroundings.telemetry
        self._tls = tls.context(settings)
        self._client: Client | None = None
        self._inbox = ""
        self._acks: _Acks | None = None
        self._problems: dict[str, None] = {}  # what the library told of this connection, in its order
        self._warned = False

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Publish the events and wait until the server has acknowledged every one.

        Raises:
            DeliveryError: the server cannot be had, or does not acknowledge in time.
            FailedAtEvent: the connection ended meanwhile.
            EventRefused: an event is too large.
        """
        client = await self._connected()
        bodies = [event.to_json() for event in events]
        limit = client.max_payload - _HEADER_BYTES
        small = next((number for number, body in enumerate(bodies) if len(body) > limit), len(bodies))
        self._acks = acks = _Acks(small)
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                for number in range(small):
                    subject, event_id = templates.fill(self._settings.subject, events[number]), events[number].event_id
                    await client.publish(
                        subject, bodies[number], f"{self._inbox}.{number}", headers={"Nats-Msg-Id": event_id}
                    )
                if small:
                    await acks.done
        except TimeoutError:
            await self._let_go()
            raise DeliveryError(
                f"{self._place} did not acknowledge in {self._settings.timeout_seconds:g} s", acks.taken()
            ) from None
        except (nats.errors.Error, DeliveryError, OSError) as error:
            await self._let_go()
            raise FailedAtEvent(
                f"{self._place}: {causes.describe('; '.join(self._problems) or error, self._secrets())}", acks.taken()
            ) from None
        self._judge(acks)
        if small < len(bodies):
            raise EventRefused(f"{self._place} takes no message above {client.max_payload} bytes", small)

    def _judge(self, acks: _Acks) -> None:
        """Tell a refusal of one event from an outage."""
        if not acks.errors:
            return
        number = min(acks.errors)
        code, text = acks.errors[number]
        also = acks.taken_after(number)
        if code == _TOO_LARGE:
            raise EventRefused(f"{self._place}: {text}", number, also=also)
        raise DeliveryError(f"{self._place}: {text}", number, also)

    @property
    def _place(self) -> str:
        return f"stream {self._settings.stream}"

    # -- the connection -------------------------------------------------------------------------------------------

    async def _connected(self) -> Client:
        """Return a connection that stands, with the stream looked at.

        Raises:
            DeliveryError: no server can be had, or the stream cannot be made.
        """
        if self._client is not None and self._client.is_connected:
            return self._client
        await self._let_go()
        self._problems.clear()
        self._client = client = Client()
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await client.connect(**self._options())
                self._inbox = client.new_inbox()
                await client.subscribe(f"{self._inbox}.*", cb=self._answered)
                await self._look_at_stream(client)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await self._let_go()
            why = causes.describe("; ".join(self._problems) or error, self._secrets())
            raise DeliveryError(f"none of {len(self._settings.servers)} servers can be used: {why}") from None
        return client

    def _options(self) -> dict[str, Any]:
        settings = self._settings
        options: dict[str, Any] = {
            "servers": list(settings.servers), "allow_reconnect": False, "name": f"dc09-receiver {settings.name}",
            "connect_timeout": min(2.0, settings.timeout_seconds), "error_cb": self._told, "closed_cb": self._closed,
            "disconnected_cb": self._closed, "ping_interval": 10, "max_outstanding_pings": 2,
            "max_reconnect_attempts": 1, "reconnect_time_wait": 0.05,  # rounds through the servers before it gives up
        }  # fmt: skip
        if self._tls is not None:
            options["tls"] = self._tls
        if settings.credentials is not None:
            options["user_credentials"] = str(settings.credentials)
        if settings.user:
            options |= {"user": settings.user, "password": settings.password.text}
        elif settings.password:
            options["token"] = settings.password.text
        return options

    def _secrets(self) -> list[str]:
        return [self._settings.password.text, *[server for server in self._settings.servers if "@" in server]]

    async def _answered(self, message: Msg) -> None:
        if self._acks is not None:
            self._acks.add(int(message.subject.rpartition(".")[2]), message.data)

    async def _told(self, error: Exception) -> None:
        self._problems[str(error) or type(error).__name__] = None

    async def _closed(self) -> None:
        if self._acks is not None:
            self._acks.fail("the connection was lost")

    async def _look_at_stream(self, client: Client) -> None:
        """Make the stream if it is not there; once, say what of it weakens what we promise."""
        settings, stream = self._settings, client.jetstream(timeout=self._settings.timeout_seconds)
        wanted = templates.pattern(settings.subject, "*")
        try:
            found = await stream.stream_info(settings.stream)
        except nats.js.errors.NotFoundError:
            found = await stream.add_stream(
                StreamConfig(
                    name=settings.stream, subjects=[wanted], storage=StorageType.FILE, num_replicas=settings.replicas,
                    duplicate_window=settings.duplicate_window_seconds,
                )
            )  # fmt: skip
        if not self._warned:
            self._warned = True
            weak = _weaknesses(found, settings)
            sync = await asyncio.to_thread(_sync_doubt, settings.monitor)
            for sentence in (*weak, *((sync,) if sync else ())):
                self._telemetry.warned(sentence, output=settings.name, stream=settings.stream)

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def _let_go(self) -> None:
        client, self._client, self._acks = self._client, None, None
        if client is not None:
            await put_away(client.close())

    async def close(self) -> None:
        """Close the connection."""
        await self._let_go()


def _weaknesses(found: StreamInfo, settings: NatsSettings) -> list[str]:
    """Return, in sentences, what of a stream that somebody else made weakens what we promise."""
    weak = []
    if found.config.storage != StorageType.FILE:
        weak.append("the stream is kept in memory: it is lost with its server")
    if (found.config.duplicate_window or 0) < settings.duplicate_window_seconds:
        weak.append("the stream's duplicate window is shorter than duplicate_window_seconds: an event may be stored twice")
    if found.config.no_ack:
        weak.append("the stream does not acknowledge (no_ack): nothing will count as taken")
    return weak


def _sync_doubt(monitor: str) -> str:
    """Ask the server's monitoring page whether it syncs before it acknowledges; return a sentence when that is in doubt."""
    advice = "set sync_interval: always in the server's jetstream section"
    if not monitor:
        return f"whether the server syncs before it acknowledges is not known without `monitor`; {advice}"
    try:
        with urllib.request.urlopen(f"http://{monitor}/jsz?config=true", timeout=3) as answer:
            config = json.load(answer).get("config") or {}
    except (OSError, ValueError) as error:
        return f"the monitoring page {monitor} does not tell whether the server syncs before it acknowledges: {error}"
    if config.get("sync_always"):
        return ""
    return f"the server acknowledges before it syncs, or is too old to tell; {advice}"
