"""The command line: a few lines around a call; the names are the contract's."""

import asyncio
import csv
import json
import os
import statistics
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from protocols import dc09
from protocols.errors import KeyFormatError, ProtocolError
from receiver import __version__, accounts, clock, config, panel
from receiver.errors import ConfigError
from receiver.events import render
from receiver.explain import explain
from receiver.journal import Kind, Reader

_CONFIG = click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="TOML file; without it the defaults."
)


def _fail(*mistakes: str) -> NoReturn:
    for mistake in mistakes:
        click.echo(f"dc09-receiver: {mistake}", err=True)
    sys.exit(2)


def _load(config_file: Path | None) -> config.Settings:
    try:
        return config.load(config_file)
    except ConfigError as error:
        _fail(*error.mistakes)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="dc09-receiver")
def main() -> None:
    """Receive alarm signals over ANSI/SIA DC-09, put them on disk, acknowledge them, hand them on."""


@main.command()
@_CONFIG
def serve(config_file: Path | None) -> None:
    """Run the receiver until SIGTERM or SIGINT; SIGHUP reads accounts and settings again."""
    from receiver.service import Service  # the only command that needs the network parts
    from receiver.telemetry import start_logging

    settings = _load(config_file)
    start_logging(settings.log)

    async def run() -> None:
        await Service(settings, config_file).run()

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run())
    except ConfigError as error:
        _fail(*error.mistakes)
    sys.stderr.flush()
    os._exit(0)  # an output's thread may still wait for somebody to read standard output


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path))
def check_config(file: Path) -> None:
    """Check a configuration and its account register; exit 2 and every mistake, or 0 and a summary."""
    from receiver.service import load_accounts

    settings = _load(file)
    try:
        found = load_accounts(settings)
    except ConfigError as error:
        _fail(*error.mistakes)
    supervised = len(found.supervised())
    keyed = sum(account.key is not None for account in found)
    click.echo(f"{file}: valid")
    click.echo(f"  receiver   number {settings.receiver.number}, data in {settings.receiver.data_dir}")
    for listener in settings.listeners:
        click.echo(
            f"  listener   {listener.name}: {listener.transport} on {listener.host} port {listener.port}, "
            f"line {listener.line}"
        )
    strangers = "accepted" if found.accept_unknown else "refused"
    click.echo(f"  accounts   {len(found)}, {keyed} with a key, {supervised} supervised; unknown ones are {strangers}")
    for output in settings.outputs:
        click.echo(f"  output     {output.name}: {output.type}")
    if not settings.outputs:
        click.echo("  output     none: signals are stored and handed to nobody")
    click.echo(f"  http       {settings.http.host} port {settings.http.port}")


@main.command()
@_CONFIG
def health(config_file: Path | None) -> None:
    """Ask a running receiver on this machine how it is; exit 0 when alive and ready, else 1 and why."""
    http = _load(config_file).http
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(http.host, http.host)  # noqa: S104 - only compared
    for page in ("healthz", "readyz"):
        try:
            with urllib.request.urlopen(f"http://{host}:{http.port}/{page}", timeout=3) as answer:
                click.echo(f"{page}: {answer.read().decode().strip()}")
        except urllib.error.HTTPError as error:
            click.echo(f"{page}: {error.read().decode().strip()}")
            sys.exit(1)
        except OSError as error:
            click.echo(f"{page}: no answer from {host} port {http.port}: {error}")
            sys.exit(1)


@main.command()
@click.option("--key", help="The account's key, as in the account register.")
@click.option("--now", help="Our time when the frame came, ISO 8601; the present without it.")
@click.option(
    "--batch", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="File of JSON lines {frame, key, now}."
)
@click.argument("frame", required=False)
def decode(key: str | None, now: str | None, batch: Path | None, frame: str | None) -> None:
    """Explain one FRAME, given as hex, or - for raw bytes on standard input. Exit 0 for ACK, 1 for any other verdict."""
    if batch is not None:
        with batch.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    click.echo(json.dumps(_explain_line(line, f"{batch} line {number}"), ensure_ascii=False))
        return
    if frame is None:
        _fail("decode needs a FRAME (hex, or - for standard input) or --batch FILE")
    told = _explain(sys.stdin.buffer.read() if frame == "-" else frame, key, now, "decode")
    click.echo(json.dumps(told, indent=1, ensure_ascii=False))
    sys.exit(0 if told["verdict"] == "ack" else 1)


def _explain_line(line: str, where: str) -> dict[str, Any]:
    try:
        given = json.loads(line)
        return _explain(str(given["frame"]), given.get("key"), given.get("now"), where)
    except (ValueError, KeyError, TypeError, AttributeError):
        _fail(f'{where}: expected {{"frame": "<hex>", "key": …, "now": …}}')


def _explain(frame: str | bytes, key: str | None, now: str | None, where: str) -> dict[str, Any]:
    try:
        raw = bytes.fromhex(frame) if isinstance(frame, str) else frame
    except ValueError:
        _fail(f"{where}: the frame is not hexadecimal; pipe raw bytes to `decode -`")
    try:
        moment = clock.now_us() if now is None else clock.from_text(now)
    except ValueError:
        _fail(f"{where}: now is {now!r}; it must be ISO 8601, for example 2026-11-23T10:01:02Z")
    try:
        return explain(raw, None if not key else dc09.Key.parse(key), moment)
    except KeyFormatError as error:
        _fail(f"{where}: {error}")


@main.command()
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option("--account", default="1234", show_default=True)
@click.option(
    "--event", default=None, help='Payload, "1121 01 001" or "Nri1/HA001"; the default is a duress in the token\'s form.'
)
@click.option("--token", default=None, help="Default: SIA-DCS when the event begins with N or O, else ADM-CID.")
@click.option("--key", default=None, help="Encrypt with this key: 32, 48 or 64 hex digits, or 16, 24 or 32 characters.")
@click.option("--udp", is_flag=True, help="UDP in place of TCP.")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1), help="How many messages.")
@click.option("--rate", default=0.0, type=click.FloatRange(0), help="Messages a second; 0 is as fast as they are answered.")
@click.option("--connections", default=1, show_default=True, type=click.IntRange(1, 10000))
@click.option("--line", default="0", show_default=True, help="L field; empty sends L alone, none leaves it out.")
@click.option("--receiver-number", default=None, help="R field; left out without it.")
@click.option("--null", is_flag=True, help="Send link tests (NULL) in place of events.")
@click.option(
    "--retry", default=0, show_default=True, type=click.IntRange(0), help="Tries after one without an answer (5 s each)."
)
@click.option("--sequence", default=1, show_default=True, type=click.IntRange(1, 9999), help="First sequence number.")
def simulate(
    host: str, port: int, account: str, event: str | None, token: str | None, key: str | None, line: str, null: bool,
    sequence: int, **more: Any,
) -> None:  # fmt: skip
    """Be a panel: send messages to HOST PORT, print what was answered and how fast. Exit 1 if any was not ACKed."""
    token = dc09.LINK_TEST if null else token or ("SIA-DCS" if (event or "")[:1] in ("N", "O") and event else "ADM-CID")
    if event is None:
        event = "Nri1/HA001" if token == "SIA-DCS" else "1121 01 001"
    try:
        secret = dc09.Key.parse(key) if key else None
    except KeyFormatError as error:
        _fail(f"--key: {error}")
    data = "" if null else f"#{account}|{event}"
    line_sent = None if line == "none" else line
    orders = panel.Orders(host, port, account, token, data, secret, line=line_sent, first_sequence=sequence, **more)
    answers: list[panel.Answer] = []
    try:
        asyncio.run(_simulate(orders, answers))
    except* OSError as group:
        _fail(f"cannot reach {host} port {port}: {group.exceptions[0]}")
    _summarise(answers)
    sys.exit(0 if all(answer.verdict == "ACK" for answer in answers) else 1)


async def _simulate(orders: panel.Orders, answers: list[panel.Answer]) -> None:
    def tell(answer: panel.Answer) -> None:
        answers.append(answer)
        if orders.count <= 20 or answer.verdict != "ACK":
            tries = f" after {answer.tries} tries" if answer.tries > 1 else ""
            click.echo(f"{answer.sequence}  {answer.verdict:<8} {answer.seconds * 1000:8.2f} ms{tries}")

    await panel.report(orders, tell)


def _summarise(answers: list[panel.Answer]) -> None:
    if len(answers) < 2:
        return
    times = sorted(answer.seconds * 1000 for answer in answers if answer.verdict == "ACK")
    click.echo(f"{len(answers)} messages, {len(times)} acknowledged", nl=not times)
    if times:
        worst = times[min(len(times) - 1, len(times) * 99 // 100)]
        click.echo(f": median {statistics.median(times):.2f} ms, p99 {worst:.2f} ms, longest {times[-1]:.2f} ms")


@main.group()
def journal() -> None:
    """Read the journal, also of a stopped receiver."""


def _reader(config_file: Path | None) -> tuple[config.Settings, Reader]:
    settings = _load(config_file)
    try:
        return settings, Reader(settings.receiver.data_dir)
    except ConfigError as error:
        _fail(*error.mistakes)


def _accounts_of(settings: config.Settings) -> accounts.Accounts:
    from receiver.service import load_accounts

    try:
        return load_accounts(settings)
    except ConfigError as error:
        _fail(*error.mistakes)


@journal.command("show")
@_CONFIG
@click.option("--last", default=20, show_default=True, type=click.IntRange(1), help="How many.")
@click.option("--refused", is_flag=True, help="The refusals log: refused frames with reason and raw bytes.")
def journal_show(config_file: Path | None, last: int, refused: bool) -> None:
    """Show the newest events, or refused frames, one a line, oldest first."""
    settings, reader = _reader(config_file)
    if refused:
        for refusal in reader.refusals(last):
            click.echo(
                f"{clock.to_text(refusal.received_us)}  {refusal.reason:<17} {refusal.account or '-':<8} "
                f"{refusal.transport} {refusal.peer:<21} {refusal.text}\n    {_printable(refusal.raw)}"
            )
        return
    register = _accounts_of(settings)
    for stored in reader.last(last):
        click.echo(_one_line(stored.position, dict(render(stored, register).cloud_event), stored.row.kind))
    for (output, lane), position in sorted(reader.cursors().items()):
        click.echo(f"output {output}, {lane.word} lane: handed over up to position {position}")


def _printable(raw: bytes) -> str:
    """Show wire bytes as one harmless line."""
    return ascii(raw.decode("latin-1"))[1:-1]


def _one_line(position: int, event: dict[str, Any], kind: int) -> str:
    data = event["data"]
    if kind == Kind.SIGNAL:
        meaning = data["event"] or _printable((data["text"] or "").encode())
        what = f"{data['event_code'] or '---':<4} {data['qualifier'] or '-':<8} {meaning}"
        number = f" partition {data['partition']}" if data["partition"] else ""
        number += f" zone {data['zone']}" if data["zone"] else ""
        number += f" user {data['user']}" if data["user"] else ""
        mark = "DURESS" if data["duress"] else f"prio {data['priority']}"
        flags = f" [{' '.join(data['flags'])}]" if data["flags"] else ""
        return f"{position:>8}  {event['time']}  {mark:<6}  {data['account']:<8} {what}{number}{flags}"
    told = data.get("text") or f"path {data.get('state')}"
    return f"{position:>8}  {event['time']}  {Kind(kind).name.lower():<7} {data.get('account') or '-':<8} {told}"


@journal.command("export")
@_CONFIG
def journal_export(config_file: Path | None) -> None:
    """Print every stored event as one line of CloudEvents JSON, in order."""
    settings, reader = _reader(config_file)
    register = _accounts_of(settings)
    for stored in reader.all():
        sys.stdout.buffer.write(render(stored, register).to_json() + b"\n")


@journal.command("verify")
@_CONFIG
def journal_verify(config_file: Path | None) -> None:
    """Check the journal's file and every stored signal; exit 1 and what is wrong if any is damaged."""
    settings, reader = _reader(config_file)
    register, count = accounts.Accounts({}), 0
    wrong = reader.damage()
    if not wrong:
        for stored in reader.all():
            count += 1
            try:
                render(stored, register)
            except (ProtocolError, ValueError, IndexError) as error:
                wrong.append(f"position {stored.position}: {error}")
    for mistake in wrong:
        click.echo(mistake)
    click.echo(f"{settings.receiver.data_dir}: " + (f"{len(wrong)} damaged" if wrong else f"{count} events, none damaged"))
    sys.exit(1 if wrong else 0)


@main.group("accounts")
def accounts_group() -> None:
    """Manage the account register, the CSV file that [accounts] file names."""


def _register(config_file: Path | None) -> Path:
    file = _load(config_file).accounts.file
    if file is None:
        _fail("no account register is configured: set [accounts] file")
    return file


def _rewrite(file: Path, change: dict[str, dict[str, str] | None]) -> None:
    try:
        accounts.rewrite(file, change)
    except ConfigError as error:
        _fail(*error.mistakes)
    except OSError as error:
        _fail(f"{file} cannot be written: {error.strerror}")


@accounts_group.command("list")
@_CONFIG
def accounts_list(config_file: Path | None) -> None:
    """List the accounts; keys are never shown, only their kind."""
    found = sorted(_accounts_of(_load(config_file)), key=lambda account: account.account)
    for account in found:
        key = f"AES-{account.key.bits}" if account.key else "no key"
        watched = f"every {account.supervision_seconds} s" if account.supervision_seconds else "unsupervised"
        click.echo(f"{account.account:<16}  {key:<7}  {watched:<15}  {account.name or ''}")
    click.echo(f"{len(found)} accounts", err=True)


@accounts_group.command("add")
@_CONFIG
@click.argument("account")
@click.option("--name", help="Name for operators.")
@click.option(
    "--key-stdin", is_flag=True, help="Read the key from standard input, so that it stays out of the shell's history."
)
@click.option("--plaintext", type=click.Choice(["refuse", "accept"]))
@click.option("--supervision-seconds", type=click.IntRange(1))
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
@_CONFIG
@click.argument("account")
def accounts_remove(config_file: Path | None, account: str) -> None:
    """Remove ACCOUNT. A running receiver takes it after SIGHUP."""
    file = _register(config_file)
    try:
        known = accounts.read_csv(file)
    except ConfigError as error:
        _fail(*error.mistakes)
    if account.upper() not in known:
        _fail(f"there is no account {account} in {file}")
    _rewrite(file, {account: None})
    click.echo(f"{account} is out of {file}; send SIGHUP to a running receiver")


@accounts_group.command("import")
@_CONFIG
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def accounts_import(config_file: Path | None, file: Path) -> None:
    """Add or replace every account of another CSV file; all of it or, with any mistake, nothing."""
    register = _register(config_file)
    try:
        accounts.read_csv(file)
    except ConfigError as error:
        _fail(*error.mistakes)
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = [{(k or "").strip(): (v or "").strip() for k, v in row.items()} for row in csv.DictReader(lines)]
    _rewrite(register, {row["account"]: row for row in rows})
    click.echo(f"{len(rows)} accounts are in {register}; send SIGHUP to a running receiver")
