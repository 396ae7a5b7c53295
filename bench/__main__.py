"""``make bench``: measure, print one table, write ``bench.json``.

The server runs on one core, the generator on another. A work's ratio is its rate against the echo's in the round right
before it; the table shows medians over the rounds. One round in five may be disturbed on a shared machine: medians bear it.
"""

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

KEY_128 = "000102030405060708090A0B0C0D0E0F"
KEY_256 = KEY_128 * 2


class Work(NamedTuple):
    """One row of the table."""

    name: str
    mode: str
    token: str
    key: str
    target: float
    output: bool = False


WORKS = [
    Work("plain signals, TCP, 50 connections, durable", "tcp", "ADM-CID", "", 0.25),
    Work("AES-128 signals, TCP, 50 connections, durable", "tcp", "ADM-CID", KEY_128, 0.15),
    Work("AES-256 signals, TCP, 50 connections, durable", "tcp", "ADM-CID", KEY_256, 0.0),
    Work("encrypted link tests (*NULL), TCP, 50 connections", "tcp", "NULL", KEY_128, 0.0),
    Work("plain signals, UDP, 50 panels, durable", "udp", "ADM-CID", "", 0.0),
    Work("one connection a message, plain, durable", "one-shot", "ADM-CID", "", 0.0),
    Work("plain signals, TCP, with a jsonl output that keeps up", "tcp", "ADM-CID", "", 0.0, output=True),
]
LATENCY_RATE = 1000
LATENCY_TARGET_MS = 10.0


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _pin(core: int) -> None:
    if (os.cpu_count() or 1) > 1 and not os.environ.get("BENCH_CORES"):
        os.sched_setaffinity(0, {core})


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process so far."""
    columns = Path(f"/proc/{pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return (int(columns[11]) + int(columns[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _process(command: list[str], ready: Any) -> Iterator[int]:
    with subprocess.Popen(command, preexec_fn=lambda: _pin(0), stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 20
            while not ready():
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(command)} did not start")
                time.sleep(0.02)
            yield process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(15)


@contextmanager
def echo() -> Iterator[tuple[int, int]]:
    """Run the echo; give its port and process id."""
    port = _free_port()

    def ready() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with _process([sys.executable, "-m", "bench.echo", str(port)], ready) as pid:
        yield port, pid


@contextmanager
def receiver(key: str, output: bool, workers: int = 1) -> Iterator[tuple[int, int]]:
    """Run the receiver on a fresh journal; give its port and process id."""
    with tempfile.TemporaryDirectory(prefix="dc09-bench-", dir=os.environ.get("BENCH_DIR")) as name:
        folder, port, http = Path(name), _free_port(), _free_port()
        rows = "".join(f"{0xA000 + n:04X},panel {n},{key}\n" for n in range(2000))
        (folder / "accounts.csv").write_text("account,name,key\n" + rows, "utf-8")
        outputs = f'[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "{folder}/events.jsonl"\n' if output else ""
        (folder / "receiver.toml").write_text(
            f'[receiver]\ndata_dir = "data"\nworkers = {workers}\n'
            f'[[listeners]]\nhost = "127.0.0.1"\nport = {port}\n[log]\nlevel = "error"\n'
            f'[accounts]\nfile = "accounts.csv"\n[clock]\nbehind_seconds = 600\n[http]\nport = {http}\n{outputs}', "utf-8",
        )  # fmt: skip

        def ready() -> bool:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=1):
                    return True
            except OSError:
                return False

        command = [sys.executable, "-m", "receiver", "serve", "--config", str(folder / "receiver.toml")]
        with _process(command, ready) as pid:
            yield port, pid


def generate(port: int, pid: int, **order: Any) -> dict[str, Any]:
    """Run the generator against a server and add the server's CPU time for each message."""
    before = cpu_seconds(pid)
    order = {"port": port, "connections": 50, "seconds": 2.0, "frames": 6000, "key": "", "echo": False, **order}
    done = subprocess.run(
        [sys.executable, "-m", "bench.generator"], input=json.dumps(order), capture_output=True, text=True, check=True,
        preexec_fn=lambda: _pin(1), timeout=120,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout)
    if told.get("wrong"):
        raise RuntimeError(f"{told['wrong']} replies were no ACK")
    told["rate"] = told["done"] / told["seconds"]
    told["cpu_us"] = (cpu_seconds(pid) - before) / max(1, told["done"]) * 1e6
    return told


def measure(work: Work, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure one work and the echo by turns."""
    pairs = []
    with echo() as base, receiver(work.key, work.output) as ours:
        for number in range(rounds):
            order: dict[str, Any] = {
                "mode": work.mode,
                "token": work.token,
                "key": work.key,
                "seconds": seconds,
                "round": number,
            }
            order["frames"] = 12000 if work.mode == "one-shot" else 6000
            reference = generate(*base, **order, echo=True)
            pairs.append((reference, generate(*ours, **order)))
    ratios = [own["rate"] / reference["rate"] for reference, own in pairs]
    return {
        "work": work.name, "target": work.target, "ratio": statistics.median(ratios), "ratios": ratios,
        "echo_rate": statistics.median(reference["rate"] for reference, _ in pairs),
        "rate": statistics.median(own["rate"] for _, own in pairs),
        "cpu_us": statistics.median(own["cpu_us"] for _, own in pairs),
        "echo_cpu_us": statistics.median(reference["cpu_us"] for reference, _ in pairs),
        "generator_cpu": max(own["generator_cpu"] for _, own in pairs),
        "echo_generator_cpu": max(reference["generator_cpu"] for reference, _ in pairs),
    }  # fmt: skip


def measure_latency(key: str, rate: int, seconds: float) -> dict[str, Any]:
    """Measure ACK latency at a fixed rate, open loop, from the due time."""
    with receiver(key, output=True) as ours:
        told = generate(*ours, mode="open-loop", token="ADM-CID", key=key, rate=rate, seconds=seconds, round=0)
    found = sorted(told["latencies"])

    def at(share: float) -> float:
        return float(found[min(len(found) - 1, int(len(found) * share))] * 1000)

    return {
        "rate": rate, "sent": told["sent"], "acknowledged": len(found), "encrypted": bool(key),
        "p50_ms": at(0.5), "p99_ms": at(0.99), "p999_ms": at(0.999), "longest_ms": found[-1] * 1000,
    }  # fmt: skip


def main() -> None:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one round")
    parser.add_argument("--only", default="", help="part of a work's name")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    args = parser.parse_args()
    print(f"{'work':<54} {'echo/s':>8} {'ACK/s':>8} {'ratio':>6} {'wanted':>7} {'CPU µs':>7} {'echo':>5} {'generator':>9}")
    rows = []
    for work in WORKS:
        if args.only not in work.name:
            continue
        row = measure(work, args.rounds, args.seconds)
        rows.append(row)
        rates = f"{row['echo_rate']:>8.0f} {row['rate']:>8.0f} {row['ratio']:>6.3f}"
        wanted = f"{work.target:.2f}" if work.target else "-"
        print(
            f"{work.name:<54} {rates} {wanted:>7} {row['cpu_us']:>7.1f} "
            f"{row['echo_cpu_us']:>5.1f} {row['generator_cpu']:>8.0%}", flush=True,
        )  # fmt: skip
    latencies = []
    if args.only in "latency":
        print(
            f"\nACK latency at {LATENCY_RATE} signals/s, open loop, durable, with a jsonl output "
            f"(wanted: p99 below {LATENCY_TARGET_MS:.0f} ms)"
        )
        for key in ("", KEY_128):
            told = measure_latency(key, LATENCY_RATE, args.seconds * 5)
            latencies.append(told)
            print(
                f"  {'AES-128' if key else 'plain  '}  p50 {told['p50_ms']:.2f} ms  p99 {told['p99_ms']:.2f} ms  "
                f"p99.9 {told['p999_ms']:.2f} ms  longest {told['longest_ms']:.2f} ms  "
                f"({told['acknowledged']} of {told['sent']} acknowledged)", flush=True,
            )  # fmt: skip
    delivered = []
    if args.only in "outputs" or args.only.startswith("outputs"):
        from bench import outputs  # needs the libraries of every output

        delivered = outputs.measure(args.only.removeprefix("outputs").strip(), 20_000, args.seconds * 2)
    args.json.write_text(json.dumps({"works": rows, "latency": latencies, "outputs": delivered}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
