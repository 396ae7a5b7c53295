"""Closing a library's connection, which may be half open, half made or answered by nobody."""

import asyncio
import contextlib
from collections.abc import Awaitable

_SECONDS = 1.0


async def put_away(closing: Awaitable[object]) -> None:
    """Wait a moment until it is closed; what the library thinks of it concerns nobody any more."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_SECONDS):
            await closing
