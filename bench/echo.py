"""The baseline: a uvloop echo that sends back what it gets, over TCP and UDP. Nothing durable, nothing parsed."""

import asyncio
import sys
from typing import cast

import uvloop


class _Tcp(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class _Udp(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data, addr)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    await loop.create_server(_Tcp, "127.0.0.1", port)
    await loop.create_datagram_endpoint(_Udp, local_addr=("127.0.0.1", port))
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
