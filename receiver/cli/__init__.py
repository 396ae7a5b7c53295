"""The command line: a few lines around a call; the names are the contract's."""

import asyncio
import contextlib
import gc
import json
import os
import signal
import statistics
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from protocols import dc09
from protocols.errors import KeyFormatError, ProtocolError
from receiver import __version__, clock, config, panel, process
from receiver.accounts import Accounts
from receiver.cli.accounts import accounts_group
from receiver.cli.journal import journal
from receiver.cli.on_test import accounts_test
from receiver.cli.options import CONFIG, end_of_output, fail, in_words, load, parse_key, read_register
from receiver.cli.outputs import outputs_group
from receiver.cli.watch import watch
from receiver.errors import ConfigError, RegisterUnavailable
from receiver.explain import explain

_NAME_THE_REGISTER = (
    "[accounts] must", "[accounts] file", "[accounts] store", "[accounts] master_key", "[accounts] default_key",
    "[receiver] must", "[receiver] data_dir",
)  # fmt: skip


class _Commands(click.Group):
    """All commands. What one meets on its way, and a person can act on, is told in a sentence as at its beginning.

    What they print may go into a pipe or onto a full disk; events that ``serve`` prints are tried again.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run one command, or tell every mistake and exit 2."""
        try:
            done = super().invoke(ctx)
            sys.stdout.flush()
            return done
        except ConfigError as error:
            fail(*error.mistakes)
        except OSError as error:
            if ctx.invoked_subcommand != "serve":
                end_of_output(error)
            raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="dc09-receiver")
def main() -> None:
    """Receive alarm signals over ANSI/SIA DC-09, put them on disk, acknowledge them, hand them on."""


@main.command()
@CONFIG
@click.option("--take-over", is_flag=True, help="Take ports and journal over from the receiver that runs, if one does.")
def serve(config_file: Path | None, take_over: bool) -> None:
    """Run the receiver until SIGTERM or SIGINT; SIGHUP reads accounts and settings again."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))  # until the service takes them: nothing is open yet
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.disable()  # until ready: a large register is made of objects that stay
    from receiver.service import LAST_SECONDS, Service  # the only command that needs the network parts
    from receiver.telemetry import start_logging, warn

    undone = process.harden()  # before anything is opened
    settings = load(config_file)
    start_logging(settings.log)
    for sentence in undone:
        warn(sentence)

    async def run() -> None:
        service = Service(settings, config_file, take_over)

        def leave() -> None:
            service.overdue()
            os._exit(0)

        last = threading.Timer(LAST_SECONDS, leave)
        last.daemon = True
        service.when_stopping = last.start
        await service.run()

    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(run())
    except ConfigError as error:
        fail(*error.mistakes)
    with contextlib.suppress(OSError):  # the disk of the log may be full
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
    try:
        settings, mistakes = config.read(file)
        found = _read_register(settings, mistakes)
        _check_outputs(settings, mistakes)
        if mistakes or found is None:
            fail(*mistakes)
        supervised = len(found.supervised())
        keyed = sum(account.key is not None for account in found)
    except ConfigError as error:
        fail(*error.mistakes)
    except RegisterUnavailable as error:
        fail(str(error))
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


def _read_register(settings: config.Settings, mistakes: list[str]) -> Accounts | None:
    """Read the register that the settings name, if that much is right of them; add its mistakes."""
    if any(mistake.startswith(_NAME_THE_REGISTER) for mistake in mistakes):
        return None
    try:
        return read_register(settings)
    except ConfigError as error:
        mistakes += error.mistakes
        return None


def _check_outputs(settings: config.Settings, mistakes: list[str]) -> None:
    """Add what keeps the outputs from being built, if their settings are right."""
    from receiver import outputs

    if any(mistake.startswith("[[outputs]]") for mistake in mistakes):
        return
    for output in settings.outputs:
        try:
            outputs.check(output)
        except ConfigError as error:
            mistakes += error.mistakes


@main.command()
@CONFIG
def health(config_file: Path | None) -> None:
    """Ask a running receiver on this machine how it is; exit 0 when alive and ready, else 1 and why."""
    http = load(config_file).http
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(http.host, http.host)  # noqa: S104 - only compared
    for page in ("healthz", "readyz"):
        try:
            with urllib.request.urlopen(f"http://{host}:{http.port}/{page}", timeout=3) as answer:
                click.echo(f"{page}: {answer.read().decode().strip()}")
        except urllib.error.HTTPError as error:
            click.echo(f"{page}: {error.read().decode().strip()}")
            sys.exit(1)
        except urllib.error.URLError as error:
            why = in_words(error.reason) if isinstance(error.reason, OSError) else error.reason
            click.echo(f"{page}: no answer from {host} port {http.port}: {why}; does the receiver run?")
            sys.exit(1)
        except OSError as error:
            click.echo(f"{page}: no answer from {host} port {http.port}: {error}")
            sys.exit(1)


@main.command()
@click.option("--key", help="The account's key, as in the account register, or ${NAME} of an environment variable.")
@click.option("--now", help="Our time when the frame came, ISO 8601; the present without it.")
@click.option(
    "--batch", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="File of JSON lines {frame, key, now}."
)
@click.argument("frame", required=False)
def decode(key: str | None, now: str | None, batch: Path | None, frame: str | None) -> None:
    """Explain one FRAME, given as hex, or - for raw bytes on standard input. Exit 0 for ACK, 1 for any other verdict."""
    if batch is not None:
        with batch.open(encoding="utf-8-sig", errors="replace") as lines:  # what is no text is then no JSON
            for number, line in enumerate(lines, 1):
                if line.strip():
                    click.echo(json.dumps(_explain_line(line, f"{batch} line {number}"), ensure_ascii=False))
        return
    if frame is None:
        fail("decode needs a FRAME (hex, or - for standard input) or --batch FILE")
    told = _explain(sys.stdin.buffer.read() if frame == "-" else frame, key, now, "decode")
    click.echo(json.dumps(told, indent=1, ensure_ascii=False))
    sys.exit(0 if told["verdict"] == "ack" else 1)


def _explain_line(line: str, where: str) -> dict[str, Any]:
    try:
        given = json.loads(line)
        return _explain(str(given["frame"]), given.get("key"), given.get("now"), where)
    except (ValueError, KeyError, TypeError, AttributeError):
        fail(f'{where}: expected {{"frame": "<hex>", "key": …, "now": …}}')


def _explain(frame: str | bytes, key: str | None, now: str | None, where: str) -> dict[str, Any]:
    try:
        raw = bytes.fromhex(frame) if isinstance(frame, str) else frame
    except ValueError:
        fail(f"{where}: the frame is not hexadecimal; pipe raw bytes to `decode -`")
    try:
        moment = clock.now_us() if now is None else clock.from_text(now)
    except ValueError:
        fail(f"{where}: now is {now!r}; it must be ISO 8601, for example 2026-11-23T10:01:02Z")
    try:
        return explain(raw, parse_key(key), moment)
    except (KeyFormatError, ConfigError) as error:
        fail(f"{where}: {error}")


@main.command()
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535))
@click.option("--account", default="1234", show_default=True)
@click.option(
    "--event", default=None, help='Payload, "1121 01 001" or "Nri1/HA001"; the default is a duress in the token\'s form.'
)
@click.option("--token", default=None, help="Default: SIA-DCS when the event begins with N or O, else ADM-CID.")
@click.option(
    "--key",
    default=None,
    help="Encrypt with this key: 32, 48 or 64 hex digits, 16, 24 or 32 characters, or ${NAME} of a variable.",
)
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
        secret = parse_key(key)
    except (KeyFormatError, ConfigError) as error:
        fail(f"--key: {error}")
    data = "" if null else f"#{account}|{event}"
    line_sent = None if line == "none" else line
    orders = panel.Orders(host, port, account, token, data, secret, line=line_sent, first_sequence=sequence, **more)
    _check_frame(orders)
    answers: list[panel.Answer] = []
    unreachable: Exception | None = None
    unprinted: OSError | None = None
    try:
        asyncio.run(_simulate(orders, answers))
    except* OSError as group:
        unreachable = group.exceptions[0]
    except* _Unprinted as group:
        unprinted = group.exceptions[0].args[0]
    if unprinted is not None:
        raise unprinted
    if unreachable is not None:
        click.echo(f"dc09-receiver: cannot reach {host} port {port}: {in_words(unreachable)}", err=True)
        sys.exit(1)
    _summarise(answers)
    sys.exit(0 if all(answer.verdict == "ACK" for answer in answers) else 1)


def _check_frame(orders: panel.Orders) -> None:
    """Exit 2 when what was ordered can stand in no frame."""
    try:
        panel.frame(orders, "0001")
    except UnicodeError:
        fail("account, token, line and receiver number of a frame are ASCII, and its event is UTF-8")
    except ProtocolError as error:
        fail(f"this event makes no frame: {error}")


class _Unprinted(Exception):
    """An answer that could not be printed; its cause is the argument."""


async def _simulate(orders: panel.Orders, answers: list[panel.Answer]) -> None:
    def tell(answer: panel.Answer) -> None:
        answers.append(answer)
        if orders.count <= 20 or answer.verdict != "ACK":
            tries = f" after {answer.tries} tries" if answer.tries > 1 else ""
            try:
                click.echo(f"{answer.sequence}  {answer.verdict:<8} {answer.seconds * 1000:8.2f} ms{tries}")
            except OSError as error:  # of standard output, and not of the network
                raise _Unprinted(error) from None

    await panel.report(orders, tell)


def _summarise(answers: list[panel.Answer]) -> None:
    if len(answers) < 2:
        return
    times = sorted(answer.seconds * 1000 for answer in answers if answer.verdict == "ACK")
    click.echo(f"{len(answers)} messages, {len(times)} acknowledged", nl=not times)
    if times:
        worst = times[min(len(times) - 1, len(times) * 99 // 100)]
        click.echo(f": median {statistics.median(times):.2f} ms, p99 {worst:.2f} ms, longest {times[-1]:.2f} ms")


main.add_command(journal)
main.add_command(accounts_group)
accounts_group.add_command(accounts_test)
main.add_command(watch)
main.add_command(outputs_group)
