"""``make bench`` and ``make bench-full``: measure, print one table, write ``bench.json``.

The server runs on one core, the generator on another. A work's ratio is its rate against the echo's in the round right
before it; the table shows medians over the rounds. ``docs/performance.md`` explains the method.
"""

import argparse
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import big, works
from bench.report import Figure, print_figure, print_head, write_json
from bench.works import Plan

Works = Iterator[tuple[str, Callable[[], Iterator[Figure]]]]


def all_works(plan: Plan, full: bool) -> Works:
    """Give each work's name, and what measures it; ``full`` adds what takes long."""
    yield from works.small_works(plan)
    yield "start", lambda: iter([big.start(plan)])
    yield "heartbeats", lambda: big.heartbeats(plan, 2.0 * big.HEARTBEAT_SECONDS if full else 20.0)
    if full:
        yield "accounts", lambda: iter([big.accounts(plan)])
        yield "journal", lambda: iter([big.journal(plan)])


def main() -> None:
    """Measure everything, or what was asked for, and print the table."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one round")
    parser.add_argument("--only", default="", help="part of a work's name; 'outputs' for the rates of outputs")
    parser.add_argument("--full", action="store_true", help="also what takes long")
    parser.add_argument("--json", type=Path, default=Path("bench.json"))
    args = parser.parse_args()
    plan = Plan(args.rounds, args.seconds)
    figures: list[Figure] = []
    print_head()
    for name, measure in all_works(plan, args.full):
        if args.only in name:
            for found in measure():
                print_figure(found)
                figures.append(found)
    more: dict[str, Any] = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "outputs": [],
    }
    if args.only.startswith("outputs"):
        from bench import outputs  # needs the libraries of every output

        more["outputs"] = outputs.measure(args.only.removeprefix("outputs").strip(), 20_000, args.seconds * 2)
    write_json(args.json, figures, more)
    missed = [found.work for found in figures if found.met is False]
    print(f"\n{len(figures)} figures, {len(missed)} below what is wanted; {args.json}")


if __name__ == "__main__":
    main()
