"""``journal show · export · verify``: reading the journal, also of a stopped receiver."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from protocols.errors import ProtocolError
from receiver import accounts, clock, config
from receiver.cli.options import CONFIG, accounts_of, reader
from receiver.events import render, render_or_tell, reopen
from receiver.journal import TAKEN, WANTED, Kind, Letter, Reader, Stored
from receiver.outputs.filters import Filter
from receiver.pipeline import never_repeats, repeat_identity


@click.group()
def journal() -> None:
    """Read the journal, also of a stopped receiver."""


@journal.command("show")
@CONFIG
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--refused", is_flag=True, help="The refusals log: refused frames with reason and raw bytes.")
def journal_show(config_file: Path | None, last: int, refused: bool) -> None:
    """Show the newest events, oldest first, with what became of each at the outputs; or refused frames."""
    settings, stored_events = reader(config_file)
    if refused:
        for refusal in stored_events.refusals(last):
            click.echo(
                f"{clock.to_text(refusal.received_us)}  {refusal.reason:<17} {refusal.account or '-':<8} "
                f"{refusal.transport} {refusal.peer:<21} {refusal.text}\n    {_printable(refusal.raw)}"
            )
        return
    register = accounts_of(settings)
    for stored in stored_events.last(last):
        event = render_or_tell(stored, register).cloud_event
        line = _one_line(stored.position, dict(event))
        click.echo(line if line.isprintable() else ascii(line)[1:-1])
        for told in _at_outputs(settings, stored_events, register, stored):
            click.echo(told if told.isprintable() else ascii(told)[1:-1])
    for (output, lane), position in sorted(stored_events.cursors().items()):
        click.echo(f"output {output}, {lane.word} lane: handed over up to position {position}")


def _at_outputs(settings: config.Settings, journal: Reader, register: accounts.Accounts, stored: Stored) -> Iterator[str]:
    """Tell what became of an event at each configured output."""
    cursors = journal.cursors()
    for output in settings.outputs:
        wanted = Filter(output)
        if not (wanted.takes_row(stored) and wanted.takes(render_or_tell(stored, register))):
            yield f"{'':>10}{output.name}: left out by its filter"
            continue
        letters = journal.letters(output.name, stored.position)
        if letters:
            yield f"{'':>10}{output.name}: {_fate(letters[0][0])}"
            continue
        span = journal.span(output.name, stored)
        if span is not None:
            sent_us = max(span.sent_us, stored.row.received_us)  # one span is of all that went out in about a second
            times = f"sent {clock.to_text(sent_us)}, confirmed {clock.to_text(span.confirmed_us)}"
            yield f"{'':>10}{output.name}: {times}"
        elif cursors.get((output.name, stored.lane), stored.position - 1) < stored.position:
            yield f"{'':>10}{output.name}: waits"
        else:
            yield f"{'':>10}{output.name}: before its time, or too long ago to tell"


def _fate(letter: Letter) -> str:
    """Tell in words what became of a dead letter."""
    if letter.state == TAKEN:
        return f"refused at first, confirmed {clock.to_text(letter.taken_us or 0)}: {letter.text}"
    waits = ", goes out again" if letter.state == WANTED else ""
    return f"REFUSED {clock.to_text(letter.refused_us)} after {letter.tries} tries{waits}: {letter.text}"


def _printable(raw: bytes) -> str:
    """Show wire bytes as one harmless line."""
    return ascii(raw.decode("latin-1"))[1:-1]


def _one_line(position: int, event: dict[str, Any]) -> str:
    data, kind = event["data"], event["type"].split(".")[1]
    if kind == "signal":
        meaning = data["event"] or _printable((data["text"] or "").encode())
        what = f"{data['event_code'] or '---':<4} {data['qualifier'] or '-':<8} {meaning}"
        number = f" partition {data['partition']}" if data["partition"] else ""
        number += f" zone {data['zone']}" if data["zone"] else ""
        number += f" user {data['user']}" if data["user"] else ""
        mark = "DURESS" if data["duress"] else f"prio {data['priority']}"
        flags = f" [{' '.join(data['flags'])}]" if data["flags"] else ""
        return f"{position:>8}  {event['time']}  {mark:<6}  {data['account']:<8} {what}{number}{flags}"
    told = data.get("text") or _path_line(data)
    return f"{position:>8}  {event['time']}  {kind:<7} {data.get('account') or '-':<8} {told}"


def _path_line(data: dict[str, Any]) -> str:
    role = f" ({data['role']})" if data.get("role") else ""
    return (
        f"path {data.get('state')} at listener {data.get('listener')}{role}, last heard {data.get('last_seen') or 'never'}"
    )


@journal.command("export")
@CONFIG
def journal_export(config_file: Path | None) -> None:
    """Print every stored event as one line of CloudEvents JSON, in order."""
    settings, stored_events = reader(config_file)
    register = accounts_of(settings)
    for stored in stored_events.all():
        sys.stdout.buffer.write(render_or_tell(stored, register).to_json() + b"\n")


@journal.command("verify")
@CONFIG
def journal_verify(config_file: Path | None) -> None:
    """Check the journal's file and every stored signal; exit 1 and what is wrong if any is damaged."""
    settings, stored_events = reader(config_file, verify=True)
    register, count = accounts.Accounts({}), 0
    wrong = stored_events.damage()
    if not wrong:
        for stored in stored_events.all():
            count += 1
            try:
                render(stored, register)
                if not _as_it_came(stored):
                    wrong.append(f"position {stored.position}: its content is not what was acknowledged; it was altered")
            except (ProtocolError, ValueError, IndexError) as error:
                wrong.append(f"position {stored.position}: {error}")
    for mistake in wrong:
        click.echo(mistake)
    click.echo(f"{settings.receiver.data_dir}: " + (f"{len(wrong)} damaged" if wrong else f"{count} events, none damaged"))
    sys.exit(1 if wrong else 0)


def _as_it_came(stored: Stored) -> bool:
    """Tell whether a signal's content still gives the identity it was stored under, where that can be told.

    It cannot where the identity is random, nor where a key was masked before it was stored; its checksum is all then.
    """
    if stored.row.kind != Kind.SIGNAL:
        return True
    message = reopen(stored)
    masked = any(letter == "K" for letter, _ in message.extended)
    return never_repeats(message) or masked or repeat_identity(message) == stored.row.identity
