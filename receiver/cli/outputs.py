"""``outputs test · dead list · dead export · dead replay``: looking after the outputs."""

import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click

from protocols.errors import EnvelopeError
from receiver import clock, config
from receiver.cli.options import CONFIG, accounts_of, fail, load, reader
from receiver.errors import ConfigError
from receiver.events import OutEvent, render_or_tell
from receiver.journal import DEAD, TAKEN, WANTED, Letter, Stored

_STATES = {DEAD: "dead", WANTED: "goes out again", TAKEN: "taken since"}


@click.group("outputs")
def outputs_group() -> None:
    """Test an output; look after its dead letters."""


def _output(settings: config.Settings, name: str) -> config.OutputSettings:
    chosen = next((output for output in settings.outputs if output.name == name), None)
    if chosen is None:
        names = ", ".join(output.name for output in settings.outputs) or "none"
        fail(f"there is no output {name}; the configuration has {names}")
    return chosen


@outputs_group.command("test")
@CONFIG
@click.option("--account", default="0000", show_default=True, help="Account that the test event bears.")
@click.argument("name")
def outputs_test(config_file: Path | None, account: str, name: str) -> None:
    """Send one marked test event to the output NAME and say what happened; exit 1 when it was not taken."""
    from receiver import outputs
    from receiver.outputs import trial
    from receiver.telemetry import Telemetry
    from receiver.troubles import Trouble

    settings = load(config_file)
    chosen = _output(settings, name)

    def told(trouble: Trouble) -> None:
        click.echo(f"trouble {trouble.reason}: {trouble.text}", err=True)

    try:
        event = trial.make_event(account, settings.receiver.number, accounts_of(settings))
    except EnvelopeError:
        fail(f"--account is {account!r}; an account has 1 to 16 letters and digits")

    async def run(folder: str) -> tuple[bool, str]:
        around = outputs.Surroundings(settings.receiver.number, Path(folder), Telemetry(), told, told)
        return await trial.attempt(outputs.build(chosen, around), event)

    try:
        with tempfile.TemporaryDirectory() as folder:  # what an output keeps in the data folder is the receiver's own
            taken, words = asyncio.run(run(folder))
    except ConfigError as error:
        fail(*error.mistakes)
    click.echo(f"output {name} ({chosen.type}), test event {event.cloud_event['id']}: {words}", err=True)
    if taken:
        click.echo(f"what that promises stands in docs/outputs/{chosen.type}.md", err=True)
    sys.exit(0 if taken else 1)


@outputs_group.group("dead")
def dead() -> None:
    """Dead letters: events that the other side of an output refused for good."""


def _letters(config_file: Path | None, name: str) -> tuple[config.Settings, list[tuple[Letter, Stored]]]:
    settings, journal = reader(config_file)
    _output(settings, name)
    return settings, [(letter, stored) for letter, stored in journal.letters(name) if letter.state != TAKEN]


def _told(config_file: Path | None, name: str) -> Iterator[tuple[Letter, OutEvent]]:
    """Yield the dead letters of an output, each with its event written out."""
    settings, letters = _letters(config_file, name)
    register = accounts_of(settings)
    for letter, stored in letters:
        yield letter, render_or_tell(stored, register)


@dead.command("list")
@CONFIG
@click.argument("name")
def dead_list(config_file: Path | None, name: str) -> None:
    """List the dead letters of the output NAME: position, when, why, and what the event is."""
    letters = list(_told(config_file, name))
    for letter, event in letters:
        stored, data = event.stored, event.cloud_event["data"]
        what = data.get("event") or data.get("text") or data.get("state") or ""
        mark = "DURESS" if stored.row.duress else f"prio {stored.row.priority}"
        line = (
            f"{stored.position:>8}  {clock.to_text(letter.refused_us)}  {mark:<6}  {event.account or '-':<8} {what}  "
            f"{_STATES[letter.state]} after {letter.tries} tries: {letter.text}"
        )
        click.echo(line if line.isprintable() else ascii(line)[1:-1])
    click.echo(f"{len(letters)} dead letters at output {name}", err=True)


@dead.command("export")
@CONFIG
@click.argument("name")
def dead_export(config_file: Path | None, name: str) -> None:
    """Print the dead letters of the output NAME as CloudEvents JSON, one a line."""
    for _, event in _told(config_file, name):
        sys.stdout.buffer.write(event.to_json() + b"\n")


@dead.command("replay")
@CONFIG
@click.option("--position", "positions", type=int, multiple=True, help="Only the event at this position; may be repeated.")
@click.argument("name")
def dead_replay(config_file: Path | None, positions: tuple[int, ...], name: str) -> None:
    """Let the dead letters of the output NAME go out again, by the running receiver or at its next start."""
    from receiver.outputs import orders

    settings, letters = _letters(config_file, name)
    lying = {stored.position for letter, stored in letters if letter.state == DEAD}
    absent = sorted(set(positions) - lying)
    if absent:
        fail(f"no dead letter lies at position {', '.join(map(str, absent))} of output {name}")
    chosen = sorted(positions or lying)
    if not chosen:
        fail(f"output {name} has no dead letters")
    try:
        orders.ask(settings.receiver.data_dir, name, chosen)
    except OSError as error:
        fail(f"the order cannot be written into {settings.receiver.data_dir}: {error.strerror}")
    click.echo(f"{len(chosen)} dead letters of output {name} go out again once the receiver sees this; it looks each second")
