"""The processes that are measured, what they cost, and the order given to the generator.

The server has the first core, the generator the last one. CPU time and memory are those of a server and all its children.
"""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from bench.frames import SMALL_REGISTER, small
from tests.wire.running import free_port

SERVER_CORE, GENERATOR_CORE = 0, (os.cpu_count() or 1) - 1
START_SECONDS = 60.0
OPEN_FILES = 65_536
_FILES_ELSE = 300  # what a receiver keeps for other things
RIVAL_PYTHON = Path(os.environ.get("BENCH_RIVAL", ".venv/pysiaalarm/bin/python"))


class Server(NamedTuple):
    """A running server: where it listens, its process, and where its metrics are (0: nowhere)."""

    port: int
    pid: int
    http: int = 0


class Setup(NamedTuple):
    """How a receiver is set up for a measurement; ``register`` and ``data_dir`` are made beforehand, or None for our own."""

    key: str = ""
    output: bool = False
    listener: str = ""
    more: str = ""
    register: Path | None = None
    data_dir: Path | None = None
    every_core: bool = False
    receiver: str = ""


def _prepare(cores: set[int]) -> Callable[[], None]:
    """Return what a child does first: keep to its cores, and allow itself open files for 20,000 connections if it may."""

    def prepare() -> None:
        if (os.cpu_count() or 1) > 1:
            os.sched_setaffinity(0, cores)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < OPEN_FILES:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
            except (ValueError, PermissionError):
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    return prepare


def connections_allowed(wanted: int) -> int:
    """Return how many connections one process may hold here, ``wanted`` at most: the system bounds open files."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[1])"
    told = subprocess.run(
        [sys.executable, "-c", code], preexec_fn=_prepare({SERVER_CORE}), capture_output=True, text=True, check=True
    )
    return min(wanted, int(told.stdout or hard) - _FILES_ELSE)


@contextmanager
def _process(command: list[str], ready: Callable[[], bool], cores: set[int], quiet: bool = False) -> Iterator[int]:
    errors = subprocess.DEVNULL if quiet else None
    with subprocess.Popen(command, preexec_fn=_prepare(cores), stdout=subprocess.DEVNULL, stderr=errors) as process:
        try:
            until = time.monotonic() + START_SECONDS
            while not ready():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(command)} did not start")
                time.sleep(0.005)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(15)


@contextmanager
def _on_port(command: list[str], quiet: bool = False) -> Iterator[Server]:
    """Run a server that takes its port as the first argument; ``quiet``: its complaints when panels hang up are unread."""
    port = free_port()

    def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with _process([*command[:3], str(port), *command[3:]], ready, {SERVER_CORE}, quiet) as pid:
        yield Server(port, pid)


@contextmanager
def echo() -> Iterator[Server]:
    """Run the echo."""
    with _on_port([sys.executable, "-m", "bench.echo"]) as server:
        yield server


@contextmanager
def rival(key: str) -> Iterator[Server]:
    """Run pysiaalarm."""
    with _on_port([str(RIVAL_PYTHON), "-I", str(Path(__file__).parent / "rival.py"), key], quiet=True) as server:
        yield server


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for a while; ``BENCH_DIR`` says on which disk."""
    with tempfile.TemporaryDirectory(prefix="dc09-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        yield Path(name)


def write_settings(folder: Path, port: int, http: int, setup: Setup) -> Path:
    """Write a receiver's settings, and the small register if there is no other."""
    register = setup.register or folder / "accounts.csv"
    if setup.register is None:
        rows = "".join(f"{small(n)},panel {n},{setup.key}\n" for n in range(SMALL_REGISTER))
        register.write_text("account,name,key\n" + rows, "utf-8")
    outputs = f'[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "{folder}/events.jsonl"\n' if setup.output else ""
    config = folder / "receiver.toml"
    config.write_text(
        f'[receiver]\ndata_dir = "{setup.data_dir or folder / "data"}"\n{setup.receiver}[log]\nlevel = "error"\n'
        f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n{setup.listener}\n'
        f'[accounts]\nfile = "{register}"\n[clock]\nbehind_seconds = 600\n[http]\nport = {http}\n{setup.more}{outputs}',
        "utf-8",
    )  # fmt: skip
    return config


@contextmanager
def receiver(setup: Setup | None = None) -> Iterator[Server]:
    """Run the receiver on a fresh journal, unless the setup has one, until ready."""
    setup = setup or Setup()
    with ExitStack() as stack:
        folder, port, http = stack.enter_context(scratch()), free_port(), free_port()
        config = write_settings(folder, port, http, setup)

        def ready() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=1):
                    return True
            except OSError:
                return False

        command = [sys.executable, "-m", "receiver", "serve", "--config", str(config)]
        cores = {SERVER_CORE, GENERATOR_CORE} if setup.every_core else {SERVER_CORE}
        pid = stack.enter_context(_process(command, ready, cores))
        yield Server(port, pid, http)


def metric(server: Server, name: str) -> float:
    """Return the sum of a metric of the receiver over its labels."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.http}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def _command(mode: str, server: Server, order: dict[str, Any]) -> str:
    usual = {"transport": "tcp", "connections": 50, "seconds": 2.0, "frames": 3000, "key": "", "token": "ADM-CID"}
    return (
        json.dumps(usual | {"echo": False, "round": 0, "mode": mode, "port": server.port, "pid": server.pid} | order) + "\n"
    )


def generate(server: Server, mode: str, **order: Any) -> dict[str, Any]:
    """Run the generator against a server; add the rate, the server's CPU time for each message, and the generator's.

    Raises:
        RuntimeError: it failed, or an answer was no ACK.
    """
    done = subprocess.run(
        [sys.executable, "-m", "bench.generator"], input=_command(mode, server, order), capture_output=True, text=True,
        preexec_fn=_prepare({GENERATOR_CORE}), timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the generator failed: {done.stderr[-2000:]}")
    return _told(done.stdout)


def _told(line: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(line)
    if told.get("wrong"):
        raise RuntimeError(f"{told['wrong']} replies were no ACK")
    told["rate"] = told["done"] / told["seconds"]
    told["cpu_us"] = told["server_cpu_seconds"] / max(1, told["done"]) * 1e6
    return told


@contextmanager
def _begun(order: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Run a generator that waits in the middle of its order; give it, and the line in which it says how far it came."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.generator"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        preexec_fn=_prepare({GENERATOR_CORE}),
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(order)
        process.stdin.flush()
        yield process, process.stdout.readline()


@contextmanager
def prepared(server: Server, mode: str, **order: Any) -> Iterator[Callable[[], dict[str, Any]]]:
    """Have a generator make all its frames; give what lets it begin, and then returns what ``generate`` does."""
    with _begun(_command(mode, server, order | {"held": True})) as (process, line):
        if line != "ready\n":
            raise RuntimeError("the generator failed")
        yield lambda: _told(process.communicate("\n")[0])


@contextmanager
def holding(server: Server, **order: Any) -> Iterator[int]:
    """Hold connections that are idle after one acknowledged message; give how many there are."""
    with _begun(_command("idle", server, order)) as (process, line):
        yield int(json.loads(line)["done"])
        process.communicate("\n", 30)
