"""``python -m bench --only outputs``: how fast each output empties a backlog, and what it costs the ACKs.

The receiver has one core, the output's server and the generator the other, where the generator goes first. The backlog is
made while the server is away; the rate is that of the metrics between the server's return and the last event confirmed.
ACK latencies are taken by turns of two receivers, without and with the output; medians, the first turn not counted: it has
connections to make. The server's files are in memory then, where there is such a folder: it would have a disk of its own,
and here there is one for all. ``outputs nats`` measures one type.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from receiver.telemetry import DELIVERY_BUCKETS as _DELIVERY_BUCKETS
from tests.wire.automation import Automation
from tests.wire.running import Running, free_port
from tests.wire.servers import SERVERS, Server

WANTED = {"nats": 10_000, "surgard": 0}
WANTED_ELSE = 5_000
_RECEIVER, _OTHERS = {0}, {1}
_TURNS = 6
_MEMORY = Path("/dev/shm")  # noqa: S108 - that it is in memory is what it is wanted for
_ACCOUNTS = "account,name\n" + "".join(f"{0xA000 + n:04X},panel {n}\n" for n in range(2000))


class Centre(Server):
    """Automation software that acknowledges each event at once."""

    kind = "surgard"

    def __init__(self, _folder: Path) -> None:
        self.port, self.process = free_port(), None
        self._automation = Automation(self.port)

    def toml(self, more: str = "") -> str:
        return f'[[outputs]]\nname = "bus"\ntype = "surgard"\nport = {self.port}\n{more}\n'

    def start(self) -> None:
        self._automation.start()

    def end(self) -> None:
        self._automation.stop()


def _pin(pid: int, cores: set[int], children: bool = True) -> None:
    """Keep a process, its threads and its children on cores: RabbitMQ is a child of the script that starts it."""
    if (os.cpu_count() or 1) == 1:
        return
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):  # it has just ended
            os.sched_setaffinity(int(task.name), cores)
            for child in (task / "children").read_text("ascii").split() if children else ():
                _pin(int(child), cores)


def _keep_off(server: Server) -> None:
    """Keep a server off the receiver's core: its process, or the threads of ours that are the server."""
    if server.process is None:
        _pin(os.getpid(), _OTHERS, children=False)  # the receiver is one of them
    else:
        _pin(server.process.pid, _OTHERS)


def _as_the_meter() -> None:
    """Go before the output's server on the core that both have: else its turns, of milliseconds, count as ours."""
    os.sched_setaffinity(0, _OTHERS)
    if (os.cpu_count() or 1) > 1:
        with suppress(PermissionError):  # then the latencies hold the generator's own waiting too
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def _generate(port: int, **order: Any) -> dict[str, Any]:
    order = {
        "port": port,
        "pid": os.getpid(),
        "connections": 50,
        "seconds": 30.0,
        "key": "",
        "transport": "tcp",
        "echo": False,
        "token": "ADM-CID",
        "round": 0,
        **order,
    }
    done = subprocess.run(
        [sys.executable, "-m", "bench.generator"], input=json.dumps(order) + "\n", capture_output=True, text=True,
        check=True, preexec_fn=_as_the_meter, timeout=120,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout)
    return told


@contextmanager
def _running(folder: Path, outputs: str) -> Iterator[Running]:
    more = '[log]\nlevel = "error"\n[clock]\nbehind_seconds = 600\n'
    with Running(folder, more=more, accounts=_ACCOUNTS, outputs=outputs) as running:
        assert running.process is not None
        _pin(running.process.pid, _RECEIVER)
        yield running


def _cpu_seconds(pid: int) -> float:
    columns = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")


def drain(folder: Path, server: Server, count: int) -> dict[str, Any]:
    """Return the rate at which a backlog of about ``count`` events goes into a server that comes back."""
    with _running(folder, server.toml()) as running:
        assert running.process is not None
        _generate(running.port, mode="closed", frames=max(1, count // 50))
        server.start()
        _keep_off(server)
        pid = running.process.pid
        while not (first := running.metric("receiver_output_delivered_total")):
            time.sleep(0.005)
        began, cpu = time.monotonic(), _cpu_seconds(pid)
        while running.metric("receiver_output_backlog"):
            time.sleep(0.05)
        seconds, spent = time.monotonic() - began, _cpu_seconds(pid) - cpu
        events = running.metric("receiver_output_delivered_total") - first
    return {"events": events, "seconds": seconds, "rate": events / seconds, "cpu_us": spent / max(1.0, events) * 1e6}


def _within(running: Running, share: float) -> float:
    """Return the bucket, in seconds, within which this share of the urgent events was delivered."""
    labels = ('output="bus"', 'lane="urgent"')
    count = running.metric("receiver_output_delivery_seconds_count", *labels)
    for bound in _DELIVERY_BUCKETS:
        if running.metric("receiver_output_delivery_seconds_bucket", *labels, f'le="{bound}"') >= share * count:
            return bound
    return float("inf")


def latency(running: Running, seconds: float, turn: int) -> dict[str, float]:
    """Return the ACK latency at 1,000 signals a second while an output keeps up."""
    assert running.process is not None
    cpu = _cpu_seconds(running.process.pid)
    told = _generate(running.port, mode="open", rate=1000, seconds=seconds, urgent_each=20, round=turn)
    found: list[float] = told["latencies"]
    cpu = _cpu_seconds(running.process.pid) - cpu
    return {"p50_ms": _share(found, 0.5) * 1000, "p99_ms": _share(found, 0.99) * 1000, "signal_us": cpu / len(found) * 1e6}


def _share(latencies: list[float], share: float) -> float:
    """Return within how long this share was answered."""
    return sorted(latencies)[int(len(latencies) * share)]


def beside(folder: Path, outputs: str, seconds: float) -> dict[str, Any]:
    """Return the ACK latencies with an output, under ``none`` those without, and how late the duress was delivered."""
    with _running(folder / "without", "") as without, _running(folder / "with", outputs) as having:
        found: dict[Running, list[dict[str, float]]] = {without: [], having: []}
        for turn in range(_TURNS):
            for running in (without, having) if turn % 2 else (having, without):
                found[running].append(latency(running, seconds, turn))
        time.sleep(0.5)
        duress = _within(having, 0.99)
    none, row = _medians(found[without][1:]), _medians(found[having][1:])
    return row | {"none": none, "times": row["p99_ms"] / none["p99_ms"], "duress_p99_s": duress}


@contextmanager
def _in_memory(folder: Path) -> Iterator[Path]:
    """Give a folder whose files no disk is waited for, else an ordinary one."""
    if not os.access(_MEMORY, os.W_OK):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="dc09-bench-", dir=_MEMORY) as name:
        Path(name).chmod(0o755)  # PostgreSQL has a user of its own
        yield Path(name) / folder.name


def _drained(made: type[Server], folder: Path, count: int) -> dict[str, Any]:
    server = made(folder / "server")
    try:
        return drain(folder / "drain", server, count)
    finally:
        server.end()


def _beside(made: type[Server], folder: Path, seconds: float) -> dict[str, Any]:
    with _in_memory(folder / "in memory") as place:
        server = made(place)
        try:
            server.start()
            _keep_off(server)
            return beside(folder / "latency", server.toml(), seconds)
        finally:
            server.end()


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _in_words(row: dict[str, Any]) -> str:
    return f"{row['p50_ms']:.2f}, {row['p99_ms']:.2f} ms, {row['signal_us']:.0f} µs"


def measure(only: str, count: int, seconds: float) -> list[dict[str, Any]]:
    """Measure every type whose name is in ``only``, or all, and print a line each."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="dc09-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        latencies = (
            "at 1,000 signals/s: ACK p50, p99, CPU of a signal; without an output; p99 in times of that; 99 % of the duress"
        )
        print(f"\n{'output':<12} {'events/s':>9} {'wanted':>7} {'CPU µs':>7}   {latencies}")
        makes: tuple[type[Server], ...] = (*SERVERS, Centre)
        for made in makes:
            if only and made.kind not in only:
                continue
            folder = Path(name) / made.kind
            row = _drained(made, folder, count) | _beside(made, folder, seconds)
            row |= {"output": made.kind, "wanted": WANTED.get(made.kind, WANTED_ELSE)}
            rows.append(row)
            drained = f"{made.kind:<12} {row['rate']:>9.0f} {row['wanted']:>7} {row['cpu_us']:>7.1f}"
            latencies = f"{_in_words(row)}; {_in_words(row['none'])}; {row['times']:.2f}"
            print(f"{drained}   {latencies}; within {row['duress_p99_s']:g} s", flush=True)
    return rows
