"""``webhook``: HTTP POST of CloudEvents, structured JSON mode, one event or a batch a request.

The other side has taken an event when it answers 2xx; 400, 413, 415 and 422 refuse it, and after ``max_tries`` it is a dead
letter. A connection that ends at it, and 500, may be its fault, which ``poison`` finds out; anything else is an outage and
tried again for as long as it takes, with the same ids. With a ``secret`` each request bears ``X-DC09-Signature:
sha256=<hex>``, the HMAC-SHA256 of the body as sent.
"""

import hashlib
import hmac
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp

from receiver import __version__
from receiver.config import WebhookSettings
from receiver.errors import DeliveryError, EventRefused, FailedAtEvent
from receiver.events import OutEvent
from receiver.outputs.contract import Surroundings

_ONE = "application/cloudevents+json"
_REFUSED = frozenset((400, 413, 415, 422))
"""Answers about what the request holds; any other concerns the server, our access or our address: an outage."""
_STUMBLED = 500
"""The server's own mistake, perhaps about this one event; 502 to 504 are those of who stands before it."""
_BATCH = "application/cloudevents-batch+json"


class WebhookOutput:
    """Posts events to one address."""

    def __init__(self, settings: WebhookSettings, _surroundings: Surroundings) -> None:
        self.batch_limit = settings.batch
        self._settings = settings
        self._place = place(settings.url.text)
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Nothing stands beside the deliveries."""

    async def deliver(self, events: Sequence[OutEvent]) -> None:
        """Post the events in one request; when that is refused, one by one to find which.

        Raises:
            DeliveryError: no answer, or one that is not 2xx.
            FailedAtEvent: the connection ended before the answer, or it was 500.
            EventRefused: the answer says that the event itself cannot be taken.
        """
        try:
            await self._post(events)
        except EventRefused:
            if len(events) == 1:
                raise
            for taken, event in enumerate(events):
                try:
                    await self._post([event])
                except DeliveryError as error:
                    error.taken = taken
                    raise

    async def _post(self, events: Sequence[OutEvent]) -> None:
        if self._settings.batch == 1:
            body, kind = events[0].to_json(), _ONE
        else:
            body, kind = b"[" + b",".join(event.to_json() for event in events) + b"]", _BATCH
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
            self._session = aiohttp.ClientSession(timeout=timeout)
        try:
            async with self._session.post(
                self._settings.url.text, data=body, headers=self._headers(body, kind), allow_redirects=False
            ) as answer:
                self._judge(answer.status)
        except TimeoutError:
            raise DeliveryError(f"{self._place} did not answer in {self._settings.timeout_seconds:g} s") from None
        except aiohttp.ClientError as error:
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            why = error.strerror if isinstance(error, aiohttp.ClientOSError) and error.strerror else type(error).__name__
            raise (FailedAtEvent if reached else DeliveryError)(
                f"{self._place}: {why}"
            ) from None  # the library's own text may hold the whole address

    def _judge(self, status: int) -> None:
        if status in _REFUSED:
            raise EventRefused(f"{self._place} answered {status}")
        if status == _STUMBLED:
            raise FailedAtEvent(f"{self._place} answered {status}")
        if not 200 <= status < 300:
            raise DeliveryError(f"{self._place} answered {status}")

    def _headers(self, body: bytes, kind: str) -> dict[str, str]:
        headers = {"Content-Type": f"{kind}; charset=utf-8", "User-Agent": f"dc09-receiver/{__version__}"}
        if self._settings.secret:
            digest = hmac.new(self._settings.secret.text.encode(), body, hashlib.sha256).hexdigest()
            headers["X-DC09-Signature"] = f"sha256={digest}"
        return headers

    def reopen(self) -> None:
        """Nothing to do: connections are made anew when they break."""

    async def close(self) -> None:
        """Close what connections there are."""
        if self._session is not None:
            await self._session.close()


def place(url: str) -> str:
    """Return what may be shown of an address: scheme, host and port, never user, password, path or query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
