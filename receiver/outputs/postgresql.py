"""``postgresql``: inserts a row an event, a batch a statement; a row whose id is there already changes nothing.

A statement is a transaction of its own: all of a batch is in the table, or nothing. The table is made if it is not there.
"""

from collections.abc import Sequence
from urllib.parse import parse_qs, urlsplit

import asyncpg

from receiver import clock
from receiver.config import PostgresqlSettings
from receiver.errors import DeliveryError, EventRefused, FailedAtEvent
from receiver.events import OutEvent
from receiver.journal import Kind
from receiver.outputs import causes
from receiver.outputs.contract import Surroundings

_COLUMNS = "id, type, account, lane, priority, duress, received_at, position, event"
_TABLE = """
CREATE TABLE IF NOT EXISTS {table} (
    id text PRIMARY KEY, type text NOT NULL, account text, lane text NOT NULL, priority smallint NOT NULL,
    duress boolean NOT NULL, received_at timestamptz NOT NULL, position bigint NOT NULL, event json NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT clock_timestamp(), number bigserial
)
"""
_INSERT = """
INSERT INTO {table} ({columns})
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::smallint[], $6::boolean[], $7::timestamptz[],
                     $8::bigint[], $9::json[])
ON CONFLICT (id) DO NOTHING
"""


class PostgresqlOutput:
    """Inserts into one table."""

    batch_limit = 500

    def __init__(self, settings: PostgresqlSettings, surroundings: Surroundings) -> None:
        self._settings = settings
        if _believes_anyone(settings.dsn.text):
            surroundings.telemetry.warned(
                "whoever answers under the server's address is believed: add sslmode=verify-full and sslrootcert to dsn",
                output=settings.name,
            )
        self._insert = _INSERT.format(table=settings.table, columns=_COLUMNS)
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Insert the events; when the server refuses what they hold, one by one to find which.

        Raises:
            DeliveryError: the server cannot be had, or cannot take rows now.
            FailedAtEvent: the connection ended in the statement.
            EventRefused: a value of an event does not fit the table.
        """
        try:
            await self._store(events)
        except EventRefused:
            if len(events) == 1:
                raise
            for taken, event in enumerate(events):
                try:
                    await self._store([event])
                except DeliveryError as error:
                    error.taken = taken
                    raise

    async def _store(self, events: Sequence[OutEvent]) -> None:
        values = zip(*map(_row, events), strict=True)
        try:
            connection = await self._connected()
            await connection.execute(self._insert, *map(list, values), timeout=self._settings.timeout_seconds)
        except (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
            raise EventRefused(f"table {self._settings.table}: {error}") from None
        except (asyncpg.PostgresConnectionError, ConnectionError) as error:
            reached = self._connection is not None
            await self.close()
            text = f"postgresql: {causes.describe(error, [self._settings.dsn.text])}"
            raise (FailedAtEvent if reached else DeliveryError)(text) from None
        except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError) as error:
            await self.close()
            raise DeliveryError(f"postgresql: {causes.describe(error, [self._settings.dsn.text])}") from None

    async def _connected(self) -> "asyncpg.Connection[asyncpg.Record]":
        if self._connection is None or self._connection.is_closed():
            seconds = self._settings.timeout_seconds
            connection = await asyncpg.connect(self._settings.dsn.text, timeout=seconds, command_timeout=seconds)
            self._connection = connection
            await connection.execute(_TABLE.format(table=self._settings.table))
            if await connection.fetchval("SHOW synchronous_commit") == "off":
                await connection.execute("SET synchronous_commit = on")  # a row that is confirmed is on disk
        return self._connection

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _believes_anyone(dsn: str) -> bool:
    """Tell whether a server on another machine need not show a certificate that we check."""
    parts = urlsplit(dsn)
    here = parts.hostname in (None, "localhost", "::1") or (parts.hostname or "").startswith("127.")
    return not here and parse_qs(parts.query).get("sslmode") != ["verify-full"]


def _row(event: OutEvent) -> tuple[object, ...]:
    row = event.stored.row
    return (
        event.event_id, event.cloud_event["type"], event.account, event.stored.lane.word, row.priority,
        bool(row.duress) and row.kind == Kind.SIGNAL, clock.to_datetime(row.received_us), event.stored.position,
        event.to_json().decode(),
    )  # fmt: skip
