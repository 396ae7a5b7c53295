"""HTTP for machines: ``/metrics``, ``/healthz``, ``/readyz`` and nothing else."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from receiver.config import HttpSettings
from receiver.errors import ConfigError

Check = Callable[[], list[str]]
"""Returns what is wrong, in sentences; nothing when all is well."""


class Monitor:
    """The HTTP port of one receiver."""

    def __init__(
        self, settings: HttpSettings, scrape: Callable[[], Awaitable[bytes]], health: Check, readiness: Check
    ) -> None:
        self._settings = settings
        self._scrape = scrape
        self._health = health
        self._readiness = readiness
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)

    async def open(self) -> int:
        """Begin to answer; return the port.

        Raises:
            ConfigError: the address is not ours or in use.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"[http] cannot listen on {self._settings.host} port {self._settings.port}: {error.strerror or error}"
            ) from None
        return int(self._runner.addresses[0][1])

    async def close(self) -> None:
        """Stop answering."""
        await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=await self._scrape(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _healthz(self, _: web.Request) -> web.Response:
        return _tell(self._health(), "alive")

    async def _readyz(self, _: web.Request) -> web.Response:
        return _tell(self._readiness(), "ready")


def _tell(wrong: list[str], well: str) -> web.Response:
    return web.Response(status=503 if wrong else 200, text="\n".join(wrong or [well]) + "\n")
