"""Messages between worker 0 and another worker: msgpack arrays, one after the other, over a pair of Unix sockets.

What a worker says, in arrays that begin with the name::

    batch     number, items, refusals, troubles, stale     messages that arrived together; answered by ``receipts`` when one
                                                            of the items is to be stored
    told      counts, connections, drops, resident bytes    once a second, and when asked; see ``counts``
    ready     connections are taken from now on
    reloaded  mistakes                                      none: the new register is in use
    drained   counts, …                                     as ``told``; every frame in hand is answered

What worker 0 says::

    receipts  number, outcomes     for each item to be stored: its position, minus its position for a repeat, or why not
    tell                           answered by ``told``
    reload    pickled settings
    drain     seconds
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import msgpack

_UNSENT_BYTES = 1 << 22  # held for a process that does not read; some thousand frames, whose senders repeat them
_LONGEST_BYTES = 1 << 28

Message = list[Any] | tuple[Any, ...]


class Link(asyncio.Protocol):
    """One end of the pair; ``full`` while the other process does not take what we send."""

    def __init__(self, heard: Callable[[Message], None], lost: Callable[[], None]) -> None:
        """Take who hears each message, and who is told that the other process has gone."""
        self._heard = heard
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=_LONGEST_BYTES, unicode_errors="surrogatepass")
        self._pack = msgpack.Packer(unicode_errors="surrogatepass").pack
        self.full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_UNSENT_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that the other process has gone."""
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        """Hand on every message that is whole."""
        self._unpacker.feed(data)
        for message in self._unpacker:
            self._heard(message)

    def pause_writing(self) -> None:
        """The other process does not read."""
        self.full = True

    def resume_writing(self) -> None:
        """It reads again."""
        self.full = False

    def send(self, message: Message) -> None:
        """Send a message; nothing when the other process has gone."""
        if self._transport is not None:
            self._transport.write(self._pack(message))

    def close(self) -> None:
        """End the talk once everything is sent."""
        if self._transport is not None:
            self._transport.close()
