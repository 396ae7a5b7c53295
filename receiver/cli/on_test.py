"""``accounts test``: put an account on test, end that, or list what is on test; safe while the receiver runs."""

import re
import time
from pathlib import Path

import click

from receiver import clock, on_test
from receiver.cli.options import CONFIG, accounts_of, fail, length_seconds, load
from receiver.config import Settings

_WAIT_SECONDS = 5.0  # the receiver looks each second
_DEFAULT = "2h"
_MOST_TEXT = 200


@click.command("test")
@CONFIG
@click.argument("account", required=False)
@click.option("--zones", help="Only these zones: 1,2/15,user:5 (2/15 is zone 15 of partition 2); all is the whole account.")
@click.option("--points", help="Hold-up points ticked one by one; a duress from any other is never treated as a test.")
@click.option("--reason", default="", help="Why; needed to begin.")
@click.option("--by", default="", help="Who answers for it; needed.")
@click.option("--for", "length", help=f"How long, such as 90m or 1h30m; {_DEFAULT} without it, 24h at most.")
@click.option("--until", help="Until when, ISO 8601, in place of --for.")
@click.option("--end", is_flag=True, help="End the account's test now.")
@click.option("--list", "listed", is_flag=True, help="List what is on test.")
def accounts_test(
    config_file: Path | None, account: str | None, zones: str | None, points: str | None, reason: str, by: str,
    length: str | None, until: str | None, end: bool, listed: bool,
) -> None:  # fmt: skip
    """Put ACCOUNT on test: its signals are stored, acknowledged and flagged on-test, until a time. Safe at any time.

    Without --zones and --points it is the whole account but its hold-up points; --zones all --points 15 is both.
    """
    settings = load(config_file)
    data_dir = settings.receiver.data_dir
    if listed:
        _list(data_dir)
        return
    if account is None or re.fullmatch("[0-9A-Za-z]{1,16}", account) is None:
        fail("accounts test needs an ACCOUNT of 1 to 16 letters and digits, or --list")
    by, reason = _told("--by", by, "who answers for the test"), reason and _told("--reason", reason, "why")
    if end:
        in_force = {ticket.account for ticket in _in_force(data_dir)}
        account = account if account.upper() in in_force else accounts_of(settings).find(account).account or account
        if account.upper() not in in_force:
            fail(f"account {account} is not on test")
        order = _lay(data_dir, account, None, by, reason)
        _confirm(data_dir, order, account, None)
        return
    register = accounts_of(settings)
    found = register.find(account)
    if not found.registered and not register.accept_unknown:
        fail(f"there is no account {account} in the register: look at the number again")
    account = found.account or account  # as the register writes it, not as the panel may send it
    ticket = _ticket(account, zones, points, _told("--reason", reason, "why"), by, length, until)
    _tell_before(settings, ticket)
    _confirm(data_dir, _lay(data_dir, account, ticket, by, reason), account, ticket)


def _told(option: str, text: str, what: str) -> str:
    text = text.strip()
    if not text or len(text) > _MOST_TEXT or not text.isprintable():
        fail(f"{option} is needed, a line of at most {_MOST_TEXT} characters: it says {what} in the operator's record")
    return text


def _ticket(
    account: str, zones: str | None, points: str | None, reason: str, by: str, length: str | None, until: str | None
) -> on_test.Ticket:
    """Read the options into a ticket, or exit 2."""
    now_us = clock.now_us()
    until_us = _until(now_us, length, until)
    whole = (zones or "").strip().lower() == "all" or (zones is None and points is None)
    try:
        return on_test.Ticket(
            account.upper(), whole, () if whole or zones is None else on_test.read_names(zones),
            () if points is None else on_test.read_names(points), reason, by, now_us, until_us,
        )  # fmt: skip
    except ValueError as error:
        fail(f"--zones or --points: {error}")


def _until(now_us: int, length: str | None, until: str | None) -> int:
    if length is not None and until is not None:
        fail("--for and --until are both given; leave one out")
    if until is not None:
        try:
            until_us = clock.from_text(until)
        except (ValueError, OverflowError):
            fail(
                f"--until is {until!r}; it must be ISO 8601, for example 2026-11-23T14:00:00Z (UTC unless it says otherwise)"
            )
    else:
        seconds = length_seconds(length or _DEFAULT)
        if seconds is None:
            fail(f"--for is {length!r}; write 2h, 90m or 1h30m")
        until_us = now_us + seconds * clock.SECOND_US
    if not 0 < until_us - now_us <= on_test.LONGEST_US:
        fail("a test ends at a time to come, and after 24 hours at most")
    return until_us


def _lay(data_dir: Path, account: str, ticket: on_test.Ticket | None, by: str, reason: str) -> Path:
    try:
        return on_test.ask_end(data_dir, account, by, reason) if ticket is None else on_test.ask_begin(data_dir, ticket)
    except OSError as error:
        fail(f"the order cannot be written into {data_dir}: {error.strerror}")


def _in_force(data_dir: Path) -> list[on_test.Ticket]:
    try:
        return on_test.in_force(data_dir)
    except (OSError, ValueError) as error:
        fail(f"what is on test cannot be read: {error}")


def _tell_before(settings: Settings, ticket: on_test.Ticket) -> None:
    """Say what stands before the ticket: another test of the account, or hold-up points that nobody ticked."""
    for before in _in_force(settings.receiver.data_dir):
        if before.account == ticket.account:
            click.echo(f"this takes the place of a test by {before.by}: {before.scope()}", err=True)
    if not ticket.points:
        click.echo("no hold-up point is ticked: a duress from this account is a real one", err=True)


def _confirm(data_dir: Path, order: Path, account: str, begun: on_test.Ticket | None) -> None:
    """Wait until the receiver has carried the order out and say how it stands; exit 2 when it does not stand as wanted."""
    until = clock.monotonic() + _WAIT_SECONDS
    while not on_test.taken(order) and clock.monotonic() < until:
        time.sleep(0.05)
    if not on_test.taken(order):
        fail(
            f"the receiver has not taken the order in {_WAIT_SECONDS:.0f} s: is it running on {data_dir}? Account {account} "
            f"is {'still on test' if begun is None else 'not on test as asked yet'}; the order waits there for it"
        )
    found = [ticket for ticket in _in_force(data_dir) if ticket.account == account.upper()]
    if begun is not None and not found:
        fail(f"account {account} is not on test: too many accounts are, or the receiver's clock is past the time")
    for ticket in found:
        click.echo(_line(ticket))
    if begun is None and not found:
        click.echo(f"account {account} is no longer on test")
    elif found != [begun]:
        fail(f"somebody else changed the test of account {account} at the same moment, and this is how it stands: ask them")


def _list(data_dir: Path) -> None:
    now_us, count = clock.now_us(), 0
    for ticket in sorted(_in_force(data_dir)):
        if ticket.until_us > now_us:
            count += 1
            click.echo(_line(ticket))
    click.echo(f"{count} accounts on test", err=True)


def _line(ticket: on_test.Ticket) -> str:
    end = f"{clock.to_text(ticket.until_us)[:19]}Z"
    return f"{ticket.account:<16}  until {end}  {ticket.scope()}  reason: {ticket.reason}  by {ticket.by}"
