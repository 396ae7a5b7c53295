"""``python -m bench.workers``: what a message costs with 1, 2 and more workers, over all processes.

The receivers run by turns, one round each, on the same machine and in the same minutes; the figure is CPU time (user and
system) of the receiver and its workers for each message acknowledged. Beside a generator two cores leave no room for
twice the rate, so the cost is what is compared; the rate is shown for what it is worth.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.__main__ import KEY_128, cpu_seconds, receiver


def _family(pid: int) -> list[int]:
    """Return a process and its children, the workers."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    return [pid, *map(int, children)]


def _round(port: int, pid: int, order: dict[str, Any]) -> tuple[float, float, list[float]]:
    """Return CPU microseconds a message, messages a second, and the microseconds of each process."""
    family = _family(pid)
    before = [cpu_seconds(member) for member in family]
    done = subprocess.run(
        [sys.executable, "-m", "bench.generator"], input=json.dumps({"port": port, **order}), capture_output=True, text=True,
        check=True, timeout=120, preexec_fn=lambda: os.sched_setaffinity(0, {(os.cpu_count() or 1) - 1}),
    )  # fmt: skip
    told = json.loads(done.stdout)
    spent = [(cpu_seconds(member) - past) / told["done"] * 1e6 for member, past in zip(family, before, strict=True)]
    return sum(spent), told["done"] / told["seconds"], spent


def main() -> None:
    """Measure and print one line for each number of workers and of connections."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--connections", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--mode", default="tcp", choices=["tcp", "udp"])
    parser.add_argument("--token", default="ADM-CID")
    parser.add_argument("--keyed", action="store_true")
    parser.add_argument("--free", action="store_true", help="the receiver may use both cores; else the first")
    args = parser.parse_args()
    os.environ["BENCH_CORES"] = "all" if args.free else ""
    key = KEY_128 if args.keyed else ""
    with ExitStack() as stack, tempfile.TemporaryDirectory():
        running = {count: stack.enter_context(receiver(key, False, workers=count)) for count in args.workers}
        number = 0
        for connections in args.connections:
            found: dict[int, list[tuple[float, float, list[float]]]] = {count: [] for count in args.workers}
            for _ in range(args.rounds):
                number += 1
                order = {
                    "mode": args.mode, "token": args.token, "key": key, "round": number, "echo": False,
                    "connections": connections, "seconds": args.seconds, "frames": 6000,
                }  # fmt: skip
                for count in args.workers:
                    found[count].append(_round(*running[count], order))
            alone = statistics.median([cost for cost, _, _ in found[args.workers[0]]])
            for count in args.workers:
                cost = statistics.median([cost for cost, _, _ in found[count]])
                paired = [own[0] / first[0] for own, first in zip(found[count], found[args.workers[0]], strict=True)]
                rate = statistics.median([rate for _, rate, _ in found[count]])
                each = [statistics.median(parts) for parts in zip(*[parts for _, _, parts in found[count]], strict=True)]
                print(
                    f"{connections:>5} connections  {count} workers  {cost:6.1f} µs  {cost / alone - 1:+7.1%}  paired "
                    f"{statistics.median(paired) - 1:+7.1%}  {rate:>8.0f}/s  " + " + ".join(f"{part:.1f}" for part in each),
                    flush=True,
                )


if __name__ == "__main__":
    main()
