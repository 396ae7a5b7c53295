"""What all commands share: the configuration option, clear failures, and the parts a command reads."""

import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from protocols.dc09 import Key
from receiver import accounts, config, register
from receiver.errors import ConfigError, JournalDamaged
from receiver.journal import Reader

CONFIG = click.option("--config", "config_file", type=click.Path(path_type=Path), help="TOML file; without it the defaults.")
_LENGTH = re.compile(r"(?:([0-9]{1,3})d)?(?:([0-9]{1,4})h)?(?:([0-9]{1,5})m)?")
_UNPRINTABLE = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def fail(*mistakes: str) -> NoReturn:
    """Tell every mistake and exit 2."""
    for mistake in mistakes:
        click.echo(f"dc09-receiver: {mistake}", err=True)
    sys.exit(2)


@contextmanager
def printing() -> Iterator[None]:
    """Print, and end the command when standard output takes no more."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        end_of_output(error)
        raise


def end_of_output(error: OSError) -> None:
    """Exit 1 if standard output takes no more: without a word where a pipe was closed, as by ``head``."""
    if error.errno not in _UNPRINTABLE or error.filename is not None:
        return
    if error.errno != errno.EPIPE:
        click.echo(f"dc09-receiver: standard output cannot be written: {error.strerror}", err=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left in the buffer goes nowhere
    sys.exit(1)


def in_words(error: BaseException) -> str:
    """Return the system's words for an error, without the number and the address that Python adds."""
    number = getattr(error, "errno", None)
    return os.strerror(number) if number and number > 0 else getattr(error, "strerror", None) or str(error)


def load(config_file: Path | None) -> config.Settings:
    """Read the settings, or exit 2 with every mistake."""
    try:
        return config.load(config_file)
    except ConfigError as error:
        fail(*error.mistakes)


def parse_key(text: str | None) -> Key | None:
    """Read a key given on the command line; as ``${NAME}`` it stays out of the list of processes and the shell's history.

    Raises:
        KeyFormatError: the text is no key.
        ConfigError: the variable is not set.
    """
    return Key.parse(config.resolve_secret(text).text) if text else None


def reader(config_file: Path | None, verify: bool = False) -> tuple[config.Settings, Reader]:
    """Open the journal that the settings name until the command ends, or exit 2.

    To ``verify`` it, damage is what was asked for and exits 1.
    """
    settings = load(config_file)
    try:
        found = Reader(settings.receiver.data_dir)
    except JournalDamaged as error:
        click.echo(str(error), err=not verify)
        sys.exit(1 if verify else 2)
    except ConfigError as error:
        fail(*error.mistakes)
    click.get_current_context().call_on_close(found.close)
    return settings, found


def accounts_of(settings: config.Settings) -> accounts.Accounts:
    """Read the account register that the settings name, until the command ends, or exit 2."""
    try:
        return read_register(settings)
    except ConfigError as error:
        fail(*error.mistakes)


def read_register(settings: config.Settings) -> accounts.Accounts:
    """Read the account register that the settings name; it is closed when the command ends.

    Raises:
        ConfigError: with every mistake.
    """
    from receiver.managed import load_accounts

    found = load_accounts(settings)
    click.get_current_context().call_on_close(found.close)
    return found


def store_of(settings: config.Settings) -> register.Store:
    """Return the register that commands change, or exit 2."""
    from receiver.managed import ManagedStore, find_vault

    if settings.accounts.store == "managed":
        try:
            return ManagedStore(settings.receiver.data_dir, find_vault(settings))
        except ConfigError as error:
            fail(*error.mistakes)
    if settings.accounts.file is None:
        fail('no account register is configured: set [accounts] file, or store = "managed"')
    return register.CsvStore(settings.accounts.file)


def length_seconds(text: str) -> int | None:
    """Read a length of time such as ``7d``, ``24h``, ``90m`` or ``1h30m`` into seconds; None when it is none."""
    match = _LENGTH.fullmatch(text.strip())
    if match is None or not any(match.groups()):
        return None
    days, hours, minutes = (int(part or 0) for part in match.groups())
    return days * 86400 + hours * 3600 + minutes * 60
