"""``accounts list · add · remove · import · export · rotate-key · rotate-master``: the account register."""

import codecs
import csv
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from protocols.errors import KeyFormatError
from receiver import accounts, clock, config, register, rotation
from receiver.accounts import Account
from receiver.cli import path_list
from receiver.cli.options import CONFIG, accounts_of, fail, length_seconds, load, printing, store_of
from receiver.errors import ConfigError, PathsUnreadable, RegisterUnavailable
from receiver.rotation import Used

if TYPE_CHECKING:
    from receiver.managed import ManagedStore

_LONGEST_OVERLAP = 400 * 86400
_MASTER_BITS = 256


@click.group("accounts")
def accounts_group() -> None:
    """Manage the account register; safe while the receiver runs."""


@contextmanager
def _told(store: register.Store) -> Iterator[register.Store]:
    """Turn what can go wrong with the register into sentences and exit 2."""
    try:
        yield store
    except ConfigError as error:
        fail(*error.mistakes)
    except KeyFormatError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{store.where} cannot be written: {error.strerror}")
    finally:
        store.close()


@accounts_group.command("list")
@CONFIG
@click.option("--old-keys", is_flag=True, help="Only accounts whose key is being rotated, and which key each panel uses.")
@click.option("--paths", is_flag=True, help="How each account's paths stand: alive, lost, never seen, unsupervised.")
def accounts_list(config_file: Path | None, old_keys: bool, paths: bool) -> None:
    """List the accounts; keys are never shown, only their kind."""
    settings, as_of = load(config_file), ""
    told: Callable[[Account], str] = _line
    if old_keys and paths:
        fail("--old-keys and --paths are both given; leave one out")
    try:
        found = sorted(accounts_of(settings), key=lambda account: account.account)
        if paths:
            told, as_of = path_list.read(settings)
    except (RegisterUnavailable, PathsUnreadable) as error:
        fail(str(error))
    if old_keys:
        found = [account for account in found if account.old_key is not None]
        uses = rotation.read(settings.receiver.data_dir)

        def told(account: Account) -> str:
            return _rotation_line(account, uses.get(account.account))

    for account in found:
        line = told(account)
        click.echo(line if line.isprintable() else ascii(line)[1:-1])
    click.echo(f"{len(found)} accounts{as_of and ', '}{as_of}", err=True)


def _line(account: Account) -> str:
    key = f"AES-{account.key.bits}" if account.key else "no key"
    watched = account.supervision.in_words() if account.supervision else "unsupervised"
    return f"{account.account:<16}  {key:<7}  {watched:<15}  {account.name or ''}"


def _rotation_line(account: Account, use: rotation.Use | None) -> str:
    """Say which key an account uses, as far as the receiver has seen."""
    assert account.old_key is not None
    until = account.old_key.until
    over = until * clock.SECOND_US <= clock.now_us()
    used = Used.NONE if use is None or use.until != until else use.used
    since = "" if use is None else f" since {clock.to_text(use.since_us)[:19]}Z"
    words = {Used.NEW: f"NEW key{since}", Used.OLD: f"OLD key{since}", Used.NONE: "nothing heard since the rotation"}
    end = f"{'ended' if over else 'ends'} {clock.seconds_to_text(until)}"
    return f"{account.account:<16}  old key {end}  {words[used]:<36}  {account.name or ''}"


@accounts_group.command("add")
@CONFIG
@click.argument("account")
@click.option("--name", help="Name for operators.")
@click.option(
    "--key-stdin", is_flag=True, help="Read the key from standard input, so that it stays out of the shell's history."
)
@click.option("--no-key", is_flag=True, help="Take the account's key away: it reports in clear from now on.")
@click.option("--plaintext", type=click.Choice(["refuse", "accept"]))
@click.option(
    "--supervision-seconds", help="Seconds or a category, with a margin if it has one of its own: 90, SP4, DP3+15."
)
@click.option("--time-zone")
@click.option("--dialect")
@click.option("--site")
@click.option("--instructions")
def accounts_add(config_file: Path | None, account: str, key_stdin: bool, no_key: bool, **cells: Any) -> None:
    """Add ACCOUNT, or change the columns given of one that is there."""
    row = {name: str(value) for name, value in cells.items() if value is not None}
    if key_stdin and no_key:
        fail("--key-stdin and --no-key are both given; leave one out")
    if key_stdin:
        row["key"] = _key_from_stdin()

    def change(before: register.Row | None) -> register.Row:
        after = (before or {"account": account}) | row
        return after | {name: "" for name in register.SECRET_COLUMNS if no_key and name in after}

    with _told(store_of(load(config_file))) as store:
        store.change(account, change)
        click.echo(f"{account} is in {store.where}; {store.after}")


@accounts_group.command("remove")
@CONFIG
@click.argument("account")
def accounts_remove(config_file: Path | None, account: str) -> None:
    """Remove ACCOUNT."""
    with _told(store_of(load(config_file))) as store:

        def change(row: register.Row | None) -> None:
            if row is None:
                raise ConfigError(f"there is no account {account} in {store.where}")

        store.change(account, change)
        click.echo(f"{account} is out of {store.where}; {store.after}")


@accounts_group.command("import")
@CONFIG
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def accounts_import(config_file: Path | None, file: Path) -> None:
    """Add or change every account of another CSV file; all of it or, with any mistake, nothing."""
    with _told(store_of(load(config_file))) as store:
        accounts.read_csv(file)
        count = store.put(register.read_rows(file), file.parent)
        click.echo(f"{count} accounts of {file} are in {store.where}; {store.after}")


@accounts_group.command("export")
@CONFIG
@click.option("--with-keys", type=click.Path(path_type=Path), help="Write to this new file, keys and all, readable by you.")
def accounts_export(config_file: Path | None, with_keys: Path | None) -> None:
    """Print the register as CSV, without keys; with --with-keys FILE, write it with them, and nothing on the screen."""
    with _told(store_of(load(config_file))) as store:
        if with_keys is None:
            with printing():  # what goes wrong with it is not the register's
                utf_8 = codecs.getwriter("utf-8")(sys.stdout.buffer)  # as accounts import wants it, whatever the terminal
                _export(store, utf_8, with_keys=False)
            return
        with _new_file(with_keys) as out:
            _export(store, out, with_keys=True)
    click.echo(f"the register is in {with_keys}, with its keys in clear: keep it as you would keep them", err=True)


def _export(store: register.Store, out: TextIO | codecs.StreamWriter, with_keys: bool) -> None:
    columns = [name for name in register.EXPORTED if with_keys or name not in register.SECRET_COLUMNS]
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(store.rows(with_keys))


@accounts_group.command("rotate-key")
@CONFIG
@click.argument("account")
@click.option("--key-stdin", is_flag=True, help="Read the new key from standard input.")
@click.option("--generate", type=click.Path(path_type=Path), help="Make a new key and write it into this new file.")
@click.option("--overlap", default="24h", show_default=True, help="How long the old key works beside it; 0 ends it now.")
@click.option("--prolong", is_flag=True, help="No new key: the old one of the rotation works for --overlap from now on.")
@click.option("--replace", is_flag=True, help="Even while an earlier rotation is not over: the key before ends now.")
def accounts_rotate_key(
    config_file: Path | None, account: str, key_stdin: bool, generate: Path | None, overlap: str, prolong: bool,
    replace: bool,
) -> None:  # fmt: skip
    """Give ACCOUNT a new key; the old one works beside it for a while, until the panel has the new one."""
    if key_stdin + (generate is not None) + prolong != 1:
        fail("rotate-key needs one of --key-stdin, --generate FILE and --prolong")
    seconds = 0 if overlap == "0" else length_seconds(overlap)
    if seconds is None or seconds > _LONGEST_OVERLAP:
        fail(f"--overlap is {overlap!r}; write 24h, 90m, 7d or 0, at most 400d")
    settings, now_us = load(config_file), clock.now_us()
    key = "" if prolong else _new_key(settings, account, generate)

    def change(row: register.Row | None) -> register.Row:
        if prolong:
            return register.prolonged(row, account, seconds, now_us)
        return register.rotated(row, account, key, seconds, replace, now_us)

    try:
        with _told(store_of(settings)) as store:
            store.change(account, change)
    except SystemExit:
        if generate is not None:
            generate.unlink(missing_ok=True)  # a key that nothing has
        raise
    click.echo(f"{account} {'keeps its' if prolong else 'has a'} new key in {store.where}; {store.after}")
    end = clock.seconds_to_text(now_us // clock.SECOND_US + seconds)
    old = f"works until {end}; accounts list --old-keys tells who still uses one" if seconds else "works no longer"
    click.echo(f"the old key {old}", err=True)


@accounts_group.command("rotate-master")
@CONFIG
@click.option("--key-stdin", is_flag=True, help="Read the new master key from standard input: 64 hex digits.")
@click.option("--generate", type=click.Path(path_type=Path), help="Make a new master key and write it into this new file.")
@click.option("--finish", is_flag=True, help="The settings hold the new one: the old one opens nothing from now on.")
def accounts_rotate_master(config_file: Path | None, key_stdin: bool, generate: Path | None, finish: bool) -> None:
    """Encrypt every key of the managed register under a new master key, in one transaction, while the receiver runs."""
    if key_stdin + (generate is not None) + finish != 1:
        fail("rotate-master needs one of --key-stdin, --generate FILE and --finish")
    from receiver.managed import ManagedStore

    with _told(store_of(load(config_file))) as store:
        if not isinstance(store, ManagedStore):
            fail(f'{store.where} has no master key: that is for [accounts] store = "managed"')
        if finish:
            clean = store.finish()
            click.echo(f"the old master key opens nothing in {store.where} any more")
            if not clean:
                click.echo("what it opened still stands in the file's log until the next finish or restart", err=True)
            return
        count = _reseal(store, generate)
    click.echo(f"the keys of {count} accounts in {store.where} are encrypted under the new master key; {store.after}")
    click.echo(
        "the old one opens the register too until you put the new one into the settings, send SIGHUP, and end it with "
        "accounts rotate-master --finish", err=True,
    )  # fmt: skip


def _reseal(store: "ManagedStore", generate: Path | None) -> int:
    """Seal all keys under a new master key that is read, or made and written down before it is used."""
    if generate is None:
        return store.reseal(_key_from_stdin())
    key = register.make_key(_MASTER_BITS)
    with _new_file(generate) as out:
        out.write(key + "\n")
    try:
        return store.reseal(key)
    except ConfigError:
        generate.unlink(missing_ok=True)  # nothing is sealed with it; after anything else it may be needed
        raise


def _key_from_stdin() -> str:
    """Return the line on standard input, or exit 2: an empty one, of a script whose variable is not set, is no key."""
    try:
        key = sys.stdin.buffer.readline().decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        fail("standard input is no text: the key is read from there, one line")
    if not key:
        fail("standard input is empty: the key is read from there, one line")
    return key


def _new_key(settings: config.Settings, account: str, generate: Path | None) -> str:
    """Return the new key: from standard input, or made as long as the old one and written into a new file."""
    if generate is None:
        return _key_from_stdin()
    before = accounts_of(settings).find(account).key
    key = register.make_key(before.bits if before else 128)
    with _new_file(generate) as out:
        out.write(key + "\n")
    return key


@contextmanager
def _new_file(file: Path) -> Iterator[TextIO]:
    """Write a file that holds secrets, or exit 2; what fails half-way leaves none."""
    try:
        out = register.open_new(file)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}")
    try:
        with out:
            yield out
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        file.unlink(missing_ok=True)
        raise
