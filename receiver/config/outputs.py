"""The settings of every type of output; what is common to all stands in ``settings.OutputSettings``."""

import re
from dataclasses import dataclass

from receiver.config.automation import AUTOMATION_TYPES
from receiver.config.settings import JsonlSettings, OutputSettings, Secret, setting

_ADDRESS = re.compile(r"https?://[^\s/]+\S*")


@dataclass(frozen=True, slots=True)
class WebhookSettings(OutputSettings):
    """An output of type ``webhook``: HTTP POST of CloudEvents."""

    url: Secret = setting(Secret(), "where to post; http or https; may hold a password or a token, so it is never shown")
    secret: Secret = setting(Secret(), "key of the HMAC-SHA256 in the header X-DC09-Signature; empty sends none")
    batch: int = setting(1, "events a request; above 1 the body is a CloudEvents JSON batch", "positive")
    timeout_seconds: float = setting(10.0, "a request without an answer for so long has failed", "seconds")

    def mistakes(self) -> list[str]:
        """Return what is wrong with the address."""
        if _ADDRESS.fullmatch(self.url.text):
            return []
        return ["url is missing or is no address; a webhook needs an http or https address"]


OUTPUT_TYPES: dict[str, type[OutputSettings]] = {"jsonl": JsonlSettings, "webhook": WebhookSettings} | AUTOMATION_TYPES
