"""The managed register: accounts in a database of their own, keys encrypted under a master key, changed by commands.

``accounts.sqlite`` in the data folder. Commands write it, one at a time, while a receiver runs; a receiver only reads, looks
each second whether something changed, and keeps what it needs in memory: an account is read when its panel first reports,
in a thread (``reading``), and again after it was changed. So a start costs the same with a thousand accounts and with a
million.

An account's cells stand as JSON under their CSV columns, without the keys, which are sealed (``vault``). ``changes`` names
what was changed, NULL for so much that everything is to be read again.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from protocols.dc09 import Key
from protocols.errors import KeyFormatError
from receiver import accounts
from receiver.accounts import Accounts
from receiver.config import Secret, Settings
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.managed.lookup import ManagedAccounts
from receiver.managed.store import CREDENTIAL, FILE_NAME, ManagedStore
from receiver.vault import Vault

__all__ = ["CREDENTIAL", "FILE_NAME", "ManagedAccounts", "ManagedStore", "find_vault", "load_accounts"]


def load_accounts(settings: Settings, before: Accounts | None = None) -> Accounts:
    """Read the account register that the settings name, the CSV file or the managed one.

    A managed register that was opened ``before`` with the same settings goes on: it has every change already.

    Raises:
        ConfigError: with every mistake found.
    """
    chosen, default_key = settings.accounts, None
    try:
        if chosen.default_key:
            default_key = Key.parse(chosen.default_key.text)
    except KeyFormatError as error:
        mistake = f"[accounts] default_key: {error}"
        raise ConfigError(mistake, *_mistakes_of_the_rest(settings)) from None
    if chosen.store == "csv":
        return accounts.load(chosen.file, default_key, chosen.unknown, before=before)
    if chosen.file is not None:
        raise ConfigError('[accounts] file and store = "managed" are both given: accounts import FILE, then leave file out')
    if isinstance(before, ManagedAccounts):
        if before.settings == chosen and before.current:
            return before
        before.check_successor()
    unknown = {"": None, "accept": True, "refuse": False}[chosen.unknown]
    store = ManagedStore(settings.receiver.data_dir, find_vault(settings))
    try:
        return ManagedAccounts(store, default_key, unknown, chosen.cached, chosen)
    except RegisterUnavailable as error:
        store.close()
        raise ConfigError(str(error)) from None


def _mistakes_of_the_rest(settings: Settings) -> tuple[str, ...]:
    """Return what is wrong with the register beside the default key."""
    without = replace(settings, accounts=replace(settings.accounts, default_key=Secret()))
    try:
        load_accounts(without).close()
    except ConfigError as error:
        return error.mistakes
    return ()


def find_vault(settings: Settings, environment: Mapping[str, str] = os.environ) -> Vault | None:
    """Return the vault of the master key: from the settings, or else from systemd's credentials; None without one.

    Raises:
        ConfigError: it cannot be read, or has another shape.
    """
    text = settings.accounts.master_key.text
    folder = environment.get("CREDENTIALS_DIRECTORY")
    if not text and folder and (Path(folder) / CREDENTIAL).exists():
        try:
            text = (Path(folder) / CREDENTIAL).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            raise ConfigError(f"the credential {CREDENTIAL} in {folder} cannot be read") from None
    return Vault(text) if text else None
