"""``watch``: live, in words, why frames were taken or refused; for whoever has a technician on the phone."""

import contextlib
import re
import signal
import time
from ipaddress import ip_address
from pathlib import Path

import click

from receiver import clock
from receiver.cli.options import CONFIG, accounts_of, fail, length_seconds, reader
from receiver.errors import JournalUnavailable
from receiver.sightings import Order
from receiver.watch import Sought, Watch

_LOOK_SECONDS = 0.3


@click.command("watch")
@CONFIG
@click.option("--account", help="The account to watch.")
@click.option("--peer", help="Every frame from this address too, also those whose account cannot be read.")
@click.option("--raw", is_flag=True, help="The bytes of each frame, as text and as hex.")
@click.option(
    "--last", default=5, show_default=True, type=click.IntRange(0, 1000), help="Begin with so many that came before."
)
@click.option("--for", "length", default="1h", show_default=True, help="End after so long; Ctrl-C ends it before.")
def watch(config_file: Path | None, account: str | None, peer: str | None, raw: bool, last: int, length: str) -> None:
    """Say live why each frame of an account was taken or refused, and what to change at the panel."""
    sought = _sought(account, peer)
    seconds = length_seconds(length)
    if seconds is None:
        fail(f"--for is {length!r}; write 30m or 2h")
    settings, journal = reader(config_file)
    ended, order = _signals(), None
    if account is not None:
        with contextlib.suppress(OSError):  # then link tests are not shown
            order = Order(settings.receiver.data_dir, account)
    click.echo(f"watching {account or peer}, times in UTC; Ctrl-C ends", err=True)
    if order is None:
        click.echo("link tests and repeats are not shown", err=True)
    try:
        looker = Watch(journal, accounts_of(settings), sought, raw, clock.now_us())
        _print(looker.before(last))
        until = clock.monotonic() + seconds
        while clock.monotonic() < until and not ended:
            time.sleep(_LOOK_SECONDS)
            try:
                _print(looker.lines(clock.now_us(), order.heard() if order else None))
            except JournalUnavailable as error:
                click.echo(f"{error}; looking again", err=True)
    finally:
        if order is not None:
            order.close()
        journal.close()


def _signals() -> list[int]:
    """Return where Ctrl-C is noted: as an exception it would be lost where it strikes in a callback of a library."""
    seen: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: seen.append(number))
    return seen


def _sought(account: str | None, peer: str | None) -> Sought:
    if account is None and peer is None:
        fail("watch needs --account or --peer")
    if account is not None and re.fullmatch("[0-9A-Za-z]{1,16}", account) is None:
        fail("--account is 1 to 16 letters and digits")
    try:
        host = None if peer is None else str(ip_address(peer))
    except ValueError:
        fail(f"--peer is {peer!r}; it must be an address such as 192.0.2.7")
    return Sought(account and account.upper(), host)


def _print(lines: list[str]) -> None:
    for line in lines:
        click.echo(line)
