"""``accounts list · add · remove · import``: the account register, a CSV file."""

import csv
import sys
from pathlib import Path
from typing import Any

import click

from receiver import accounts
from receiver.cli.options import CONFIG, accounts_of, fail, load
from receiver.errors import ConfigError


@click.group("accounts")
def accounts_group() -> None:
    """Manage the account register, the CSV file that [accounts] file names."""


def _register(config_file: Path | None) -> Path:
    file = load(config_file).accounts.file
    if file is None:
        fail("no account register is configured: set [accounts] file")
    return file


def _rewrite(file: Path, change: dict[str, dict[str, str] | None]) -> None:
    try:
        accounts.rewrite(file, change)
    except ConfigError as error:
        fail(*error.mistakes)
    except OSError as error:
        fail(f"{file} cannot be written: {error.strerror}")


@accounts_group.command("list")
@CONFIG
def accounts_list(config_file: Path | None) -> None:
    """List the accounts; keys are never shown, only their kind."""
    found = sorted(accounts_of(load(config_file)), key=lambda account: account.account)
    for account in found:
        key = f"AES-{account.key.bits}" if account.key else "no key"
        watched = account.supervision.in_words() if account.supervision else "unsupervised"
        click.echo(f"{account.account:<16}  {key:<7}  {watched:<15}  {account.name or ''}")
    click.echo(f"{len(found)} accounts", err=True)


@accounts_group.command("add")
@CONFIG
@click.argument("account")
@click.option("--name", help="Name for operators.")
@click.option(
    "--key-stdin", is_flag=True, help="Read the key from standard input, so that it stays out of the shell's history."
)
@click.option("--plaintext", type=click.Choice(["refuse", "accept"]))
@click.option(
    "--supervision-seconds", help="Seconds or a category, with a margin if it has one of its own: 90, SP4, DP3+15."
)
@click.option("--time-zone")
@click.option("--dialect")
@click.option("--site")
@click.option("--instructions")
def accounts_add(config_file: Path | None, account: str, key_stdin: bool, **cells: Any) -> None:
    """Add ACCOUNT, or change the columns given of one that is there. A running receiver takes it after SIGHUP."""
    file = _register(config_file)
    row = {"account": account} | {name: str(value) for name, value in cells.items() if value is not None}
    if key_stdin:
        row["key"] = sys.stdin.readline().strip()
    _rewrite(file, {account: row})
    click.echo(f"{account} is in {file}; send SIGHUP to a running receiver")


@accounts_group.command("remove")
@CONFIG
@click.argument("account")
def accounts_remove(config_file: Path | None, account: str) -> None:
    """Remove ACCOUNT. A running receiver takes it after SIGHUP."""
    file = _register(config_file)
    try:
        known = accounts.read_csv(file)
    except ConfigError as error:
        fail(*error.mistakes)
    if account.upper() not in known:
        fail(f"there is no account {account} in {file}")
    _rewrite(file, {account: None})
    click.echo(f"{account} is out of {file}; send SIGHUP to a running receiver")


@accounts_group.command("import")
@CONFIG
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def accounts_import(config_file: Path | None, file: Path) -> None:
    """Add or replace every account of another CSV file; all of it or, with any mistake, nothing."""
    register = _register(config_file)
    try:
        accounts.read_csv(file)
    except ConfigError as error:
        fail(*error.mistakes)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = [{(k or "").strip(): (v or "").strip() for k, v in row.items()} for row in csv.DictReader(lines)]
    _rewrite(register, {row["account"]: row for row in rows})
    click.echo(f"{len(rows)} accounts are in {register}; send SIGHUP to a running receiver")
