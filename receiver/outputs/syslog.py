"""``syslog``: one RFC 5424 message an event over TCP or TLS, framed by octet counting (RFC 5425, RFC 6587).

Syslog has no acknowledgement. An event counts as taken when the server's TCP has acknowledged its last byte; what lies
unread in the server's buffers when it dies is lost without a trace. For the centre's log, not for its alarms.
"""

import asyncio
import fcntl
import re
import socket
import struct
import termios
from collections.abc import Sequence

from receiver.config import SyslogSettings
from receiver.errors import DeliveryError, FailedAtEvent
from receiver.events import OutEvent
from receiver.journal import Kind
from receiver.outputs import causes, tls
from receiver.outputs.contract import Surroundings

_MARK = "\ufeff"  # RFC 5424: what follows is UTF-8
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_LOOK_SECONDS = 0.001
_WRITTEN_AT_ONCE = 4  # then the loop may answer a panel
_END_BYTES = 32
"""What is sent last, by itself. Linux acknowledges a segment as long as those before it after 40 ms, a short one when it is
read; a duress that comes meanwhile waits for that.
"""
_SEVERITIES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 5, 7: 6, 8: 6, 9: 6}  # priority: alert, critical, error … informational


class SyslogOutput:
    """Writes to one server."""

    batch_limit = 500

    def __init__(self, settings: SyslogSettings, _surroundings: Surroundings) -> None:
        self._settings = settings
        self._tls = tls.context(settings)
        self._hostname = _UNPRINTABLE.sub("", settings.hostname or socket.gethostname())[:255] or "-"
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Write the events and wait until the other side's TCP has every byte.

        Raises:
            DeliveryError: the server cannot be had, or does not take the bytes.
            FailedAtEvent: the connection ended meanwhile.
        """
        reached = False
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                reader, writer = await self._connected()
                reached = True
                for at in range(0, len(events), _WRITTEN_AT_ONCE):
                    frames = b"".join([self._frame(event) for event in events[at : at + _WRITTEN_AT_ONCE]])
                    await _write(writer, frames if at + _WRITTEN_AT_ONCE < len(events) else frames[:-_END_BYTES])
                await _write(writer, frames[-_END_BYTES:])
                sock: socket.socket = writer.get_extra_info("socket")
                while writer.transport.get_write_buffer_size() or _unacknowledged(sock):
                    if reader.at_eof() or writer.is_closing():
                        raise ConnectionResetError("the connection was closed")
                    await asyncio.sleep(_LOOK_SECONDS)
                if reader.at_eof() or writer.is_closing():
                    raise ConnectionResetError("the connection was closed")
        except (OSError, TimeoutError) as error:
            await self.close()
            place = f"{self._settings.host} port {self._settings.port}"
            broke = reached and not isinstance(error, TimeoutError)
            raise (FailedAtEvent if broke else DeliveryError)(f"{place}: {causes.describe(error)}") from None

    def _frame(self, event: OutEvent) -> bytes:
        row, told = event.stored.row, event.cloud_event
        severity = _SEVERITIES[row.priority] if row.kind == Kind.SIGNAL else 4
        kind = Kind(row.kind).name.lower()
        head = f"<{self._settings.facility * 8 + severity}>1 {told['time']} {self._hostname} dc09-receiver - {kind} "
        message = f"{head}- {_MARK}".encode() + event.to_json()
        return b"%d %b" % (len(message), message)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is not None and not (self._streams[0].at_eof() or self._streams[1].is_closing()):
            return self._streams
        await self.close()
        self._streams = await asyncio.open_connection(self._settings.host, self._settings.port, ssl=self._tls)
        return self._streams

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close the connection."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()


async def _write(writer: asyncio.StreamWriter, part: bytes) -> None:
    """Write a segment of its own, and give the loop a turn."""
    writer.write(part)
    await writer.drain()
    await asyncio.sleep(0)


def _unacknowledged(sock: socket.socket) -> int:
    """Return how many bytes the other side's TCP has not acknowledged (Linux: SIOCOUTQ)."""
    answer = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4)
    return int(struct.unpack("i", answer)[0])
