"""``python -m bench.register [accounts]``: what the managed register costs, with a million accounts in a folder of its own.

Printed: import, size on disk with the log, opening, the first look at an account and later ones, a stranger, memory for each
account kept, and one change with the look that finds it. A minute or two; it deletes what it made.
"""

import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from receiver.managed import ManagedAccounts, ManagedStore
from receiver.register import Row
from receiver.vault import Vault

_LOOKS = 50_000


def _rows(count: int) -> Iterator[Row]:
    for number in range(count):
        yield {
            "account": f"{number:08X}", "name": f"Site number {number}", "key": f"{number:032X}", "site": f"Street {number}",
            "supervision_seconds": "90", "time_zone": "Europe/Vilnius",
        }  # fmt: skip


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _resident_bytes() -> int:
    found = re.search(r"VmRSS:\s+([0-9]+)", Path("/proc/self/status").read_text("ascii"))
    return int(found[1]) * 1024 if found else 0


def main(count: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder, vault = Path(name), Vault("5" * 64)
        store = ManagedStore(folder, vault)
        print(f"import           {_timed(lambda: store.put(_rows(count), folder)):10.1f} s for {count} accounts")
        print(f"on disk          {sum(file.stat().st_size for file in folder.iterdir()) / 1e6:10.0f} MB")
        opened: list[ManagedAccounts] = []
        seconds = _timed(lambda: opened.append(ManagedAccounts(ManagedStore(folder, vault), None, None, 2 * _LOOKS)))
        print(f"open             {seconds * 1e3:10.1f} ms")
        register, before = opened[0], _resident_bytes()
        names = [f"{number:08X}" for number in random.sample(range(count), min(count, _LOOKS))]
        for what in ("first look", "later looks"):
            print(f"{what:<16} {_timed(lambda: [register.find(name) for name in names]) / len(names) * 1e6:10.2f} us each")
        print(f"memory           {(_resident_bytes() - before) / len(names):10.0f} bytes for each account kept")
        print(f"a stranger       {_timed(lambda: [register.find('ZZ') for _ in names]) / len(names) * 1e6:10.2f} us each")
        print(f"one change       {_timed(lambda: store.change(names[0], lambda row: row)) * 1e3:10.1f} ms")
        print(f"found by         {_timed(register.refresh) * 1e6:10.0f} us")
        print(f"all names asked  {_timed(lambda: register.missing(f'{number:08X}' for number in range(count))):10.1f} s")
        register.close()
        store.close()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
