"""TLS as every output that speaks to a server does it: certificate and name are checked, TLS 1.2 or newer."""

import ssl
from pathlib import Path

from receiver.config import BusSettings
from receiver.errors import ConfigError


def context(settings: BusSettings) -> ssl.SSLContext | None:
    """Return what connections are made with, None when they are to be in clear.

    Raises:
        ConfigError: a certificate or a key cannot be read.
    """
    if not settings.is_secured():
        return None
    for name in ("ca_file", "cert_file", "key_file"):
        _look_into(settings, name)
    try:
        made = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.cert_file is not None:
            made.load_cert_chain(settings.cert_file, settings.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"output {settings.name}: ca_file, cert_file or key_file cannot be used: {error}") from None
    return made


def _look_into(settings: BusSettings, name: str) -> None:
    file: Path | None = getattr(settings, name)
    try:
        if file is not None:
            file.open("rb").close()
    except OSError as error:
        raise ConfigError(f"output {settings.name}: {name} cannot be read: {error.strerror}: {file}") from None
