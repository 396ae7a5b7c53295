"""``python -m bench.paths``: what supervision costs, with 1,000 to a million paths.

For each number of paths: µs of CPU for a heartbeat with its share of the looks at timers (panels report each 90 s, a path is
lost after 270 s, one look a second, as in the receiver), bytes a path beside its account in the register, and the longest
single step: a look, a look when all are lost at once, and one of the copy that is written down each minute.
"""

import argparse
import gc
import os
import tempfile
import time
import tracemalloc
from pathlib import Path

from receiver import path_file
from receiver.clock import SECOND_US
from receiver.paths import Paths

INTERVAL_SECONDS, HEARTBEAT_SECONDS = 270, 90
_ROUNDS = 3  # of heartbeats: as long as an interval, so that each timer is looked at once


def _filled(names: list[str]) -> Paths:
    paths = Paths()
    share = HEARTBEAT_SECONDS * SECOND_US // len(names)
    for number, name in enumerate(names):
        paths.seen(name, "main", INTERVAL_SECONDS, number * share)
    return paths


def _heartbeats(paths: Paths, names: list[str]) -> tuple[float, float]:
    """Return seconds of CPU for a heartbeat, and the longest look in seconds."""
    a_second = max(1, len(names) // HEARTBEAT_SECONDS)
    longest, done, began = 0.0, 0, time.process_time()
    for second in range(HEARTBEAT_SECONDS, HEARTBEAT_SECONDS * (_ROUNDS + 1)):
        now = second * SECOND_US
        first = second % HEARTBEAT_SECONDS * a_second
        for name in names[first : first + a_second]:
            paths.seen(name, "main", INTERVAL_SECONDS, now)
            done += 1
        while paths.is_behind(now):
            looking = time.process_time()
            paths.check(now)
            longest = max(longest, time.process_time() - looking)
    return (time.process_time() - began) / done, longest


def _all_lost(paths: Paths, count: int) -> float:
    """Return the longest look, in seconds, when nobody is heard any more."""
    longest, now, lost = 0.0, 1000 * SECOND_US, paths.count()["lost"]
    while lost < count:
        began = time.process_time()
        lost += len(paths.check(now))
        longest = max(longest, time.process_time() - began)
    return longest


def _kept(paths: Paths, folder: Path) -> tuple[float, float, float, int]:
    """Return seconds: for the longest step of the copy, for writing it in the thread, for a start with it; and its bytes."""
    file, longest, kept = folder / "paths.state", 0.0, None
    copying = paths.keeping(1000 * SECOND_US)
    while kept is None:
        began = time.process_time()
        kept = next(copying)
        longest = max(longest, time.process_time() - began)
    copied = time.process_time()
    path_file.write(file, kept, 0)
    written = time.process_time()
    found = path_file.read(file)
    assert found is not None
    Paths().resume(found[0], ["main"], lambda account: account, 0, 0)
    return longest, written - copied, time.process_time() - written, file.stat().st_size


def measure(count: int) -> str:
    """Return one line of the table."""
    count -= count % HEARTBEAT_SECONDS  # the same number of heartbeats each second
    names = [f"{number:08X}" for number in range(count)]
    gc.collect()
    tracemalloc.start()
    paths = _filled(names)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del paths
    paths = _filled(names)
    beat, longest = _heartbeats(paths, names)
    with tempfile.TemporaryDirectory() as folder:
        copy, write, start, size = _kept(paths, Path(folder))
    assert paths.count()["lost"] == 0
    lost = _all_lost(paths, count)
    return (
        f"{count:>9}  {beat * 1e6:8.2f}  {held / count:8.0f}  {longest * 1e3:8.1f}  {lost * 1e3:8.1f}  {copy * 1e3:8.1f}"
        f"  {write * 1e3:8.0f}  {start * 1e3:8.0f}  {size / 1e6:6.1f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[1_000, 100_000, 1_000_000])
    os.nice(5)
    print("    paths  µs/beat  bytes/path  look ms  all lost  copy ms  write ms  start ms  file MB")
    for count in parser.parse_args().counts:
        print(measure(count), flush=True)


if __name__ == "__main__":
    main()
