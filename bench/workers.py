"""``python -m bench.workers``: what a message costs with 1, 2 and more workers, over all processes.

The receivers run by turns, one round each, in the same minutes; the figure is CPU time (user and system) of the receiver
and its workers for each message acknowledged. Beside a generator two cores leave no room for twice the rate, so the cost is
what is compared; the rate is shown for what it is worth.
"""

import argparse
import statistics
from contextlib import ExitStack

from bench.servers import Setup, generate, receiver
from bench.works import KEY_128


def main() -> None:
    """Measure and print one line for each number of connections and of workers."""
    parser = argparse.ArgumentParser(prog="python -m bench.workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="compared to the first")
    parser.add_argument("--connections", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--token", default="ADM-CID")
    parser.add_argument("--keyed", action="store_true", help="AES-128")
    parser.add_argument("--every-core", action="store_true", help="the receiver may use both cores; else the first")
    args = parser.parse_args()
    key, number = KEY_128 if args.keyed else "", 0
    with ExitStack() as stack:
        running = {}
        for count in args.workers:
            setup = Setup(key, every_core=args.every_core, receiver=f"workers = {count}\n")
            running[count] = stack.enter_context(receiver(setup))
        for connections in args.connections:
            costs: dict[int, list[float]] = {count: [] for count in args.workers}
            rates: dict[int, list[float]] = {count: [] for count in args.workers}
            for _ in range(args.rounds):
                number += 1
                order = {"connections": connections, "seconds": args.seconds, "key": key, "token": args.token}
                for count, server in running.items():
                    told = generate(server, "closed", round=number, frames=6000, **order)
                    costs[count].append(told["cpu_us"])
                    rates[count].append(told["rate"])
            for count in args.workers:
                ratio = statistics.median(
                    own / first for own, first in zip(costs[count], costs[args.workers[0]], strict=True)
                )
                print(
                    f"{connections:>5} connections  {count} workers  {statistics.median(costs[count]):6.1f} µs a message  "
                    f"{ratio - 1:+6.1%}  {statistics.median(rates[count]):>8.0f}/s", flush=True,
                )  # fmt: skip


if __name__ == "__main__":
    main()
