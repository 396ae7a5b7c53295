"""``redis``: adds events to streams, a batch a call, each id once.

A script on the server keeps the last ids of each stream beside it and adds only what is new, so that an event that comes
again after a crash is not added twice. Streams are trimmed to about ``max_length``. Stream and ids belong to one hash slot.
"""

import ssl
from collections.abc import Sequence
from typing import Any

import redis.asyncio
import redis.exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from receiver.config import RedisSettings
from receiver.errors import DeliveryError, FailedAtEvent
from receiver.events import OutEvent
from receiver.outputs import causes, templates
from receiver.outputs.closing import put_away
from receiver.outputs.contract import Surroundings

_ADD = """
local last = redis.call('ZREVRANGE', KEYS[2], 0, 0, 'WITHSCORES')
local score = last[2] and tonumber(last[2]) or 0
local longest, remembered = tonumber(ARGV[1]), tonumber(ARGV[2])
for i = 3, #ARGV, 3 do
    score = score + 1
    if remembered == 0 or redis.call('ZADD', KEYS[2], 'NX', score, ARGV[i]) == 1 then
        redis.call('XADD', KEYS[1], '*', 'id', ARGV[i], 'type', ARGV[i + 1], 'event', ARGV[i + 2])
    end
end
if longest > 0 then
    redis.call('XTRIM', KEYS[1], 'MAXLEN', '~', longest)
end
redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -remembered - 1)
"""


class RedisOutput:
    """Adds to the streams of one server."""

    batch_limit = 500

    def __init__(self, settings: RedisSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        self._telemetry = surroundings.telemetry
        self._client: redis.asyncio.Redis | None = None
        self._script = ""
        self._warned = False

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Add the events; all streams of the batch in one round trip.

        Raises:
            DeliveryError: the server cannot be had, or refuses.
            FailedAtEvent: the connection ended meanwhile.
        """
        streams: dict[str, list[bytes | str]] = {}
        for event in events:
            stream = templates.fill(self._settings.stream, event)
            streams.setdefault(stream, []).extend((event.event_id, str(event.cloud_event["type"]), event.to_json()))
        reached = False
        try:
            client = await self._connected()
            reached = True
            async with client.pipeline(transaction=False) as calls:
                for stream, values in streams.items():
                    limits = (self._settings.max_length, self._settings.remembered)
                    calls.evalsha(self._script, 2, stream, f"{{{stream}}}:ids", *limits, *values)
                await calls.execute()
        except (redis.exceptions.RedisError, OSError) as error:
            broke = reached and isinstance(error, redis.exceptions.ConnectionError | ConnectionError)
            await self.close()
            raise (FailedAtEvent if broke else DeliveryError)(
                f"redis: {causes.describe(error, [self._settings.url.text])}"
            ) from None

    async def _connected(self) -> redis.asyncio.Redis:
        if self._client is None:
            settings = self._settings
            options: dict[str, Any] = {}
            if settings.is_secured():
                files = {
                    "ssl_ca_certs": settings.ca_file,
                    "ssl_certfile": settings.cert_file,
                    "ssl_keyfile": settings.key_file,
                }
                options = {name: str(file) for name, file in files.items() if file is not None}
                options["ssl_min_version"] = ssl.TLSVersion.TLSv1_2
            self._client = redis.asyncio.Redis.from_url(
                settings.url.text, single_connection_client=True, socket_timeout=settings.timeout_seconds,
                socket_connect_timeout=settings.timeout_seconds, retry=Retry(NoBackoff(), 0), **options,
            )  # fmt: skip
            self._script = await self._client.script_load(_ADD)
            await self._look_at_server(self._client)
        return self._client

    async def _look_at_server(self, client: redis.asyncio.Redis) -> None:
        """Once, say when the server forgets what it has acknowledged."""
        if self._warned:
            return
        try:
            told = await client.info("persistence")
            synced = (await client.config_get("appendfsync")).get("appendfsync") if told.get("aof_enabled") else None
        except redis.exceptions.ResponseError:
            return  # we may not ask
        self._warned = True
        if not told.get("aof_enabled"):
            self._telemetry.warned("the server has no append-only file: a restart loses events", output=self._settings.name)
        elif synced != "always":
            self._telemetry.warned(
                "the server syncs after it acknowledges (appendfsync): a power failure loses the last second",
                output=self._settings.name,
            )

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            await put_away(client.aclose())
