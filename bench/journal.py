"""What the journal costs by itself: CPU of the loop's thread and of the writer's for a signal, and for a commit.

``python -m bench.journal [SIZE ...]``: rounds of messages that arrive together, one commit a round; on one core, like the
bench's server. The slope between commits of different sizes is what a signal costs, the rest what a commit costs.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from protocols import dc09
from receiver.config import JournalSettings
from receiver.journal import Entry, Journal, Lane, Origin

SIZES = (1, 25, 50, 100)
START = 1_790_000_000_000_000


class Cost(NamedTuple):
    """Microseconds of CPU a commit: of the loop's thread, of the whole process; and how long a commit took."""

    size: int
    loop_us: float
    process_us: float
    wall_us: float

    def __str__(self) -> str:
        writer = self.process_us - self.loop_us
        return (
            f"{self.size:5} a commit: loop {self.loop_us:7.1f}, writer {writer:7.1f}, {self.wall_us:7.1f} µs a commit; "
            f"loop {self.loop_us / self.size:6.2f}, writer {writer / self.size:6.2f} µs a signal"
        )


def entries() -> Iterator[Entry]:
    """Make messages, each different."""
    number = 0
    while True:
        number += 1
        raw = dc09.encode("ADM-CID", f"{number % 9999 + 1:04d}", dc09.Address(None, "0", "A001"), b"#A001|1130 01 015")
        yield Entry(0, os.urandom(16), START + number, START // 1_000_000, 1, "127.0.0.1:40112", "", raw, None, ((1, 5, 0),))


async def measure(folder: Path, size: int, seconds: float) -> Cost:
    """Append ``size`` messages at a time for about ``seconds``, the commits counted after the first few."""
    journal = Journal(folder, JournalSettings(), [Origin("1", "1", "main", "tcp")])
    for lane in Lane:
        journal.cursor("out", lane)
    source, commits = entries(), 0
    loop_s = process_s = wall_s = 0.0
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        made = [[next(source) for _ in range(size)] for _ in range(max(1, 500 // size))]
        loop_began, began = time.thread_time(), time.monotonic()
        used = resource.getrusage(resource.RUSAGE_SELF)
        for together in made:
            await journal.append(together)
        now = resource.getrusage(resource.RUSAGE_SELF)
        loop_s += time.thread_time() - loop_began
        wall_s += time.monotonic() - began
        process_s += now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        commits += len(made)
    await journal.close()
    return Cost(size, loop_s / commits * 1e6, process_s / commits * 1e6, wall_s / commits * 1e6)


def main() -> None:
    """Measure each size and print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--dir", type=Path, help="where the journals go; the disk counts")
    order = parser.parse_args()
    os.sched_setaffinity(0, {0})
    import uvloop

    for size in order.sizes:
        with tempfile.TemporaryDirectory(prefix="dc09-journal-", dir=order.dir) as name:
            print(uvloop.run(measure(Path(name), size, order.seconds)))


if __name__ == "__main__":
    main()
