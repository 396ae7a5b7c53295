"""``python -m bench.reload``: how long panels wait for an ACK around a SIGHUP, with a million accounts registered.

Each account was heard before. 500 signals a second go in over TCP for 30 s, an account each; at 10 s the register is read
again: a CSV file that is the same, one in which some thousand accounts are others, and the managed register with the same
settings and with others, and after an import of some thousand accounts. Printed: how long the reload took, and the longest
wait and the 99th per cent of those due from its beginning until 3 s after its end; and the same of the rest.
"""

import argparse
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGHUP
from typing import Any

from bench import servers, usage
from bench.big import MILLION, write_register
from bench.frames import STEP, key_of, large
from bench.servers import Server, generate
from receiver import register
from receiver.managed import ManagedStore
from receiver.vault import Vault
from tests.wire.running import Running

RATE, SECONDS, AT_SECONDS, AFTER_SECONDS = 500, 30.0, 10.0, 3.0
KEYED_EACH = 5
CHANGED = 3000
_CONNECTIONS = 50
_CLOCK = "[clock]\nbehind_seconds = 1200\n"
_HOUR = 3600
_MASTER = "5" * 64
Event = Callable[[Running], bool]
"""What happens at 10 s; it returns whether the receiver will say that it reloaded."""


@contextmanager
def receiver(folder: Path, managed: bool, accounts: int = MILLION) -> Iterator[Running]:
    """Run a receiver with so many accounts, an hour's supervision and each fifth with a key, that were all heard once."""
    running = Running(folder, more=_CLOCK, outputs="")
    write_register(folder / "accounts.csv", accounts, accounts // KEYED_EACH, _HOUR)
    if managed:
        _manage(running, folder, accounts)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {servers.SERVER_CORE})
    try:
        with running:
            os.sched_setaffinity(0, cores)
            frames = accounts // _CONNECTIONS * 5 // 4 + 1
            order = {"large": accounts, "token": "NULL", "frames": frames, "seconds": 300}
            generate(_server(running), "closed", **order, **_keys(), connections=_CONNECTIONS)
            yield running
    finally:
        os.sched_setaffinity(0, cores)


def _keys() -> dict[str, Any]:
    return {"key": "each", "keyed_each": KEYED_EACH}


def _server(running: Running) -> Server:
    assert running.process is not None
    return Server(running.port, running.process.pid, running.http)


def _manage(running: Running, folder: Path, accounts: int) -> None:
    store = ManagedStore(folder / "data", Vault(_MASTER))
    store.put(register.read_rows(folder / "accounts.csv"), folder)
    store.close()
    text = running.config.read_text("utf-8").replace('file = "accounts.csv"', f'store = "managed"\ncached = {accounts}')
    running.config.write_text(text.replace("cached", f'master_key = "{_MASTER}"\ncached'), "utf-8")


def unchanged(running: Running) -> bool:
    """Ask for a reload of what is there."""
    running.signal(SIGHUP)
    return True


def _quiet_panels(accounts: int) -> list[int]:
    """Return panels that send nothing while somebody measures."""
    heard = {at * STEP % accounts for at in range(10 * round(RATE * SECONDS))}
    return [panel for panel in range(0, accounts, accounts // 2 // CHANGED) if panel not in heard][:CHANGED]


def changed_file(running: Running) -> bool:
    """Put in place what ``write_changed`` wrote."""
    (running.folder / "changed.csv").replace(running.folder / "accounts.csv")
    return unchanged(running)


def write_changed(folder: Path, accounts: int = MILLION) -> None:
    """Write a register in which a third of some accounts have other keys, a third other names, a third other accounts."""
    kind = {panel: number % 3 for number, panel in enumerate(_quiet_panels(accounts))}
    before, after = folder / "accounts.csv", folder / "changed.csv"
    with before.open(encoding="utf-8") as old, after.open("w", encoding="utf-8") as new:
        new.write(next(old))
        for number, line in enumerate(old):
            cells = line.split(",")
            match kind.get(number):
                case 0:
                    cells[2] = key_of(accounts + number)
                case 1:
                    cells[1] += " that moved"
                case 2:
                    cells[0] = large(accounts + number)
            new.write(",".join(cells))


def changed_settings(running: Running) -> bool:
    """Ask for a reload with another setting of the register: the managed one is opened anew."""
    text = running.config.read_text("utf-8")
    running.config.write_text(text.replace("cached = ", 'unknown = "refuse"\ncached = ', 1), "utf-8")
    return unchanged(running)


def imported(running: Running) -> bool:
    """Give some accounts of the managed register other names, in one command: more than it names one by one."""
    store = ManagedStore(running.folder / "data", Vault(_MASTER))
    store.put([{"account": large(panel), "name": "moved"} for panel in _quiet_panels(MILLION)], running.folder)
    store.close()
    return False


def measure(running: Running, event: Event, number: int, accounts: int = MILLION) -> str:
    """Return one line of the table; ``number`` keeps the signals of several rounds apart."""
    order = {"large": accounts, "rate": RATE, "seconds": SECONDS, "connections": _CONNECTIONS, **_keys()}
    server, times = _server(running), list[float]()
    with servers.prepared(server, "open", **order, skip=round(RATE * SECONDS) * number, round=number) as begin:
        timer = threading.Timer(AT_SECONDS, _reload, (running, event, times))
        timer.start()
        told = begin()
        timer.join()
    pairs = sorted(zip(told["due"], told["latencies"], strict=True))
    first, last = AT_SECONDS - 0.2, AT_SECONDS + times[0] + AFTER_SECONDS
    around = sorted(latency for due, latency in pairs if first <= due <= last)
    rest = sorted(latency for due, latency in pairs if not first <= due <= last)
    lost = told["sent"] - told["done"]
    return (
        f"reload {times[0]:5.1f} s; around it {_shown(around)}; the rest {_shown(rest)}; {lost} of {told['sent']} "
        f"unanswered, waited for a core {told['server_waited']:.0%}, "
        f"{usage.resident_bytes(server.pid) / 2**20:.0f} MB"
    )


def _reload(running: Running, event: Event, times: list[float]) -> None:
    before, began = running.log().count("settings reloaded"), time.monotonic()
    if event(running):
        while running.log().count("settings reloaded") == before and time.monotonic() - began < SECONDS:
            time.sleep(0.05)
    times.append(time.monotonic() - began)


def _shown(waits: list[float]) -> str:
    p99 = waits[len(waits) * 99 // 100]
    above = sum(wait > 0.02 for wait in waits)
    return f"longest {waits[-1] * 1e3:6.1f} ms, p99 {p99 * 1e3:5.1f} ms, {above} of {len(waits)} above 20 ms"


def works(folder: Path, managed: bool) -> dict[str, Event]:
    """Return what is measured with a register, by name."""
    if managed:
        return {"managed, unchanged": unchanged, "managed, import": imported, "managed, other settings": changed_settings}
    write_changed(folder)
    return {"CSV, unchanged": unchanged, "CSV, 3,000 changed": changed_file}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=("csv", "managed"))
    only = parser.parse_args().only
    for managed in (False, True):
        if only in (None, "managed" if managed else "csv"):
            with servers.scratch() as folder, receiver(folder, managed) as running:
                for number, (name, event) in enumerate(works(folder, managed).items()):
                    print(f"{name:<24} {measure(running, event, number)}", flush=True)


if __name__ == "__main__":
    main()
