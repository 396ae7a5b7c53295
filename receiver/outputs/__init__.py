"""The buses behind us: each output follows the journal with cursors of its own, at least once, urgent lane first."""

from receiver.config import JsonlSettings, OutputSettings, WebhookSettings
from receiver.errors import ConfigError
from receiver.outputs.contract import Output
from receiver.outputs.forwarder import Forwarder
from receiver.outputs.jsonl import JsonlOutput
from receiver.outputs.webhook import WebhookOutput

__all__ = ["Forwarder", "Output", "build"]


def build(settings: OutputSettings) -> Output:
    """Return the output that the settings ask for.

    Raises:
        ConfigError: its type is unknown.
    """
    if isinstance(settings, JsonlSettings):
        return JsonlOutput(settings)
    if isinstance(settings, WebhookSettings):
        return WebhookOutput(settings)
    raise ConfigError(f"output {settings.name} has the unknown type {settings.type!r}")
