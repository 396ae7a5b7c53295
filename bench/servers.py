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

SERVER_CORE, GENERATOR_CORE = 0, (os.cpu_count() or 1) - 1
START_SECONDS = 60.0
OPEN_FILES = 65_536
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


def free_port() -> int:
    """Return a port that is free for TCP now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


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


def _family(pid: int) -> list[int]:
    """Return a process and all processes under it."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, task.read_text("ascii").split())
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a server so far."""
    ticks = 0
    for member in _family(pid):
        columns = Path(f"/proc/{member}/stat").read_text("ascii").rsplit(")", 1)[1].split()
        ticks += int(columns[11]) + int(columns[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def waited_seconds(pid: int) -> float:
    """Return how long a process' first thread was ready to run and had no core (Linux; 0 where that is not told)."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1]) / 1e9
    except (OSError, IndexError):
        return 0.0


def resident_bytes(pid: int) -> int:
    """Return the memory that a server holds."""
    total = 0
    for member in _family(pid):
        status = Path(f"/proc/{member}/status").read_text("ascii")
        total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024
    return total


@contextmanager
def _process(command: list[str], ready: Callable[[], bool], cores: set[int]) -> Iterator[int]:
    with subprocess.Popen(command, preexec_fn=_prepare(cores), stdout=subprocess.DEVNULL) as process:
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
def _on_port(command: list[str]) -> Iterator[Server]:
    """Run a server that takes its port as the first argument."""
    port = free_port()

    def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with _process([*command[:3], str(port), *command[3:]], ready, {SERVER_CORE}) as pid:
        yield Server(port, pid)


@contextmanager
def echo() -> Iterator[Server]:
    """Run the echo."""
    with _on_port([sys.executable, "-m", "bench.echo"]) as server:
        yield server


@contextmanager
def rival(key: str) -> Iterator[Server]:
    """Run pysiaalarm."""
    with _on_port([str(RIVAL_PYTHON), "-I", str(Path(__file__).parent / "rival.py"), key]) as server:
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
    return json.dumps(usual | {"echo": False, "round": 0, "mode": mode, "port": server.port} | order) + "\n"


def generate(server: Server, mode: str, **order: Any) -> dict[str, Any]:
    """Run the generator against a server; add the rate, the server's CPU time for each message, and the generator's.

    Raises:
        RuntimeError: it failed, or an answer was no ACK.
    """
    before, waited = cpu_seconds(server.pid), waited_seconds(server.pid)
    done = subprocess.run(
        [sys.executable, "-m", "bench.generator"], input=_command(mode, server, order), capture_output=True, text=True,
        preexec_fn=_prepare({GENERATOR_CORE}), timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"the generator failed: {done.stderr[-2000:]}")
    told: dict[str, Any] = json.loads(done.stdout)
    if told.get("wrong"):
        raise RuntimeError(f"{told['wrong']} replies were no ACK")
    told["rate"] = told["done"] / told["seconds"]
    told["server_waited"] = (waited_seconds(server.pid) - waited) / told["seconds"]
    told["cpu_us"] = (cpu_seconds(server.pid) - before) / max(1, told["done"]) * 1e6
    return told


@contextmanager
def holding(server: Server, **order: Any) -> Iterator[int]:
    """Hold connections that are idle after one acknowledged message; give how many there are."""
    command = [sys.executable, "-m", "bench.generator"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=_prepare({GENERATOR_CORE})
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(_command("idle", server, order))
        process.stdin.flush()
        yield int(json.loads(process.stdout.readline())["done"])
        process.stdin.write("\n")
        process.stdin.close()
        process.wait(30)
