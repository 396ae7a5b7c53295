"""pysiaalarm as its makers show it: 50 accounts, TCP, a handler that keeps nothing. Has an environment of its own."""

import asyncio
import sys

from pysiaalarm.aio import SIAAccount, SIAClient, SIAEvent


async def _handle(_event: SIAEvent) -> None:
    """Take an event."""


async def _serve(port: int, key: str | None) -> None:
    accounts = [SIAAccount(f"{0xA000 + number:04X}", key, (600, 600)) for number in range(50)]
    async with SIAClient("127.0.0.1", port, accounts, function=_handle):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), sys.argv[2] or None))
