"""``make bench-start``: from exec to ready, with a large register and a full journal.

The worst of both: every stored signal lies within the repeat window, and none was handed over yet, so that both memories are
filled at start. Printed for each round: seconds until ``/readyz`` answers 200, and CPU time and resident memory until then.
"""

import argparse
import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from protocols import dc09
from receiver import clock
from receiver.config import JournalSettings
from receiver.journal import Entry, Journal, Lane, Origin
from receiver.pipeline import repeat_identity
from tests.wire.running import free_port

TARGET_SECONDS = 2.0
_AT_ONCE = 10_000


def write_register(file: Path, count: int) -> None:
    """Write accounts as they are in the field: half with a key, a third supervised, some in another time zone."""
    with file.open("w", encoding="utf-8") as out:
        out.write("account,name,key,plaintext,supervision_seconds,time_zone,dialect,site,instructions\n")
        for number in range(count):
            key = os.urandom(16).hex() if number % 2 else ""
            interval, zone = "300" if number % 3 == 0 else "", "Europe/Vilnius" if number % 10 == 0 else ""
            out.write(f"{number:06X},panel {number},{key},,{interval},{zone},,site {number},call the key holder {number}\n")


async def write_journal(data_dir: Path, count: int, output: str) -> None:
    """Store signals as the receiver would, all of the last minutes, none of them handed over."""
    settings = JournalSettings(max_waiting=2 * _AT_ONCE, max_backlog=2 * count)
    journal = Journal(data_dir, settings, [Origin("1", "1", "main", "tcp")])
    for lane in Lane:
        journal.cursor(output, lane)
    now_us = clock.now_us()
    for first in range(0, count, _AT_ONCE):
        for number in range(first, min(count, first + _AT_ONCE)):
            account = f"{number % 100_000:06X}"
            data = f"#{account}|1130 01 {number % 1000:03d}".encode()
            raw = dc09.encode("ADM-CID", f"{number % 9999 + 1:04d}", dc09.Address(None, "0", account), data)
            (frame,) = dc09.split_datagram(raw)
            assert isinstance(frame, dc09.Frame)
            identity = repeat_identity(dc09.unseal(dc09.open_envelope(frame), None))
            urgent = number % 20 == 0
            told = (int(not urgent), 1 if urgent else 5, 0)
            journal.append_later([Entry(0, identity, now_us, None, 1, "192.0.2.1:40112", "", raw, None, (told,))])
        await journal.append([Entry(0, os.urandom(16), now_us, None, 1, "192.0.2.1:40112", "", raw, None, ((1, 5, 0),))])
    await journal.close()


def prepare(folder: Path, accounts: int, signals: int) -> tuple[Path, int]:
    """Make a folder with register, journal and settings; return the settings' file and the HTTP port."""
    http = free_port()
    write_register(folder / "accounts.csv", accounts)
    asyncio.run(write_journal(folder / "data", signals, "away"))
    config = folder / "receiver.toml"
    config.write_text(
        f'[receiver]\ndata_dir = "data"\n[[listeners]]\nhost = "127.0.0.1"\nport = 0\n[accounts]\nfile = "accounts.csv"\n'
        f'[http]\nport = {http}\n[log]\nlevel = "error"\n[journal]\nrepeat_window_seconds = 86400\n'
        '[[outputs]]\nname = "away"\ntype = "webhook"\nurl = "http://127.0.0.1:1/"\n', "utf-8",
    )  # fmt: skip
    return config, http


class Start(NamedTuple):
    """One start: how long it took, on the clock and of a core, and what it holds."""

    seconds: float
    cpu_seconds: float
    resident_mb: float


def start_once(config: Path, http: int) -> Start:
    """Start the receiver, wait until it is ready, end it."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "receiver", "serve", "--config", str(config)])
    try:
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{http}/readyz", timeout=1):
                    took = time.perf_counter() - began
                    break
            except OSError:
                if process.poll() is not None or time.perf_counter() - began > 60:
                    raise RuntimeError("the receiver did not start") from None
                time.sleep(0.005)
        ticks = sum(map(int, Path(f"/proc/{process.pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()[11:13]))
        status = Path(f"/proc/{process.pid}/status").read_text("ascii")
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return Start(took, ticks / os.sysconf("SC_CLK_TCK"), resident / 1024)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(15)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="make bench-start")
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--signals", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dc09-start-", dir=os.environ.get("BENCH_DIR")) as name:
        config, http = prepare(Path(name), args.accounts, args.signals)
        rounds = [start_once(config, http) for _ in range(args.rounds)]
    for found in rounds:
        print(f"ready after {found.seconds:.2f} s, {found.cpu_seconds:.2f} s of a core, {found.resident_mb:.0f} MB resident")
    print(
        f"{args.accounts} accounts, {args.signals} signals stored in the repeat window and not handed over: "
        f"median {statistics.median(found.seconds for found in rounds):.2f} s (wanted: below {TARGET_SECONDS:.0f} s)"
    )


if __name__ == "__main__":
    main()
