"""``make flood``: attack a real receiver in every way we know, and see how soon a panel's duress is acknowledged meanwhile.

Four panels send an encrypted duress ten times a second each, by turns on a new connection and on one they keep, at due times
whatever the answers do; a latency runs from the due time to the ACK. Memory is what the receiver's process held at most
during the attack, less what it held before. Attackers run for SECONDS (10) each and come from the panel's own address.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from protocols import dc09
from tests.wire.running import KEY, KEYED, Running, frame, read_replies

P99_WANTED_MS = 250.0
GROWTH_WANTED_MB = 80.0
_PANELS, _RATE = 4, 10  # each with so many duresses a second
_LEAD_SECONDS = 0.7  # the attack is under way when the panel comes
WORST = "2,000 slow, a 20 MB line, garbage at once"
PARTS = ("nobody", "2,000 slow connections", "a 20 MB line", "garbage")
ATTACKS: dict[str, tuple[str, ...]] = {
    "nobody": (),
    "2,000 slow connections": ("slow",),
    "a 20 MB line": ("line",),
    "garbage": ("garbage",),
    WORST: ("slow", "line", "garbage"),
    "frames of an unknown account": ("unknown",),
    "encrypted junk for a keyed account": ("junk",),
    "UDP from forged addresses": ("forged",),
    "connect and hang up": ("connects",),
    "50 that never read": ("unread",),
}


class Outcome(NamedTuple):
    """What one attack did to a panel and to us."""

    attack: str
    wanted: int
    acknowledged: int
    tries: int
    p50_ms: float
    p99_ms: float
    longest_ms: float
    growth_mb: float
    counted: dict[str, int]
    scores: list[dict[str, int]]


def _memory_mb(pid: int, name: str) -> float:
    """Return ``VmRSS`` (now) or ``VmHWM`` (at most since ``_forget_peak``) of a process."""
    for row in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
        if row.startswith(name + ":"):
            return int(row.split()[1]) / 1024
    raise LookupError(name)


def _forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5", "ascii")


@contextlib.contextmanager
def attacking(running: Running, kinds: tuple[str, ...], seconds: float) -> Iterator[list[subprocess.Popen[str]]]:
    """Run attackers beside the body; they end by themselves, and at the latest with it."""
    attackers = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.wire.attackers", kind, str(running.port), str(seconds)],
            stdout=subprocess.PIPE, text=True,
        )
        for kind in kinds
    ]  # fmt: skip
    try:
        for attacker in attackers:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == "ready\n"
        yield attackers
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()
            if attacker.stdout is not None:
                attacker.stdout.close()


class Panel(threading.Thread):
    """A panel under duress, as patient as a panel is."""

    def __init__(self, running: Running, first: int, count: int) -> None:
        super().__init__(daemon=True)
        self._running = running
        self._numbers = range(first, first + count)
        self._kept: socket.socket | None = None
        self.tries = 0
        self.latencies_ms: list[float] = []

    def run(self) -> None:
        began = time.monotonic()
        for place, number in enumerate(self._numbers):
            due = began + place / _RATE
            time.sleep(max(0.0, due - time.monotonic()))
            if self.duress(number):
                self.latencies_ms.append((time.monotonic() - due) * 1000)
        self.hang_up()

    def hang_up(self) -> None:
        """Close the connection that was kept."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def duress(self, number: int, seconds: float = 10.0) -> bool:
        """Send duress ``number`` until it is acknowledged, as a panel does; tell whether it was in time."""
        sent = frame(f"{number % 9999 + 1:04d}", f"1121 01 {number % 1000:03d}", KEYED, KEY)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.tries += 1
            if self._try(sent, keep=number % 2 == 1, until=until):
                return True
            time.sleep(0.02)  # a panel waits longer; we look closer
        return False

    def _try(self, sent: bytes, keep: bool, until: float) -> bool:
        link = None
        try:
            link = self._kept if keep and self._kept else self._running.connect()
            link.sendall(sent)
            acknowledged = _acknowledged(read_replies(link, 1, until - time.monotonic()))
        except OSError:
            acknowledged = False
        if keep and acknowledged:
            self._kept = link
            return True
        if keep:
            self._kept = None
        if link is not None:
            link.close()
        return acknowledged


def _acknowledged(replies: list[bytes]) -> bool:
    """Tell whether the one reply is an ACK that opens with the panel's key."""
    if len(replies) != 1:
        return False
    found = dc09.split_datagram(replies[0])[0]
    assert isinstance(found, dc09.Frame)
    envelope = dc09.open_envelope(found)
    dc09.unseal(envelope, KEY)
    return envelope.token == "ACK" and envelope.encrypted


def _counts(running: Running) -> dict[str, int]:
    """Return what was closed, by reason, and how many frames were refused, or refused and only counted, or dropped."""
    told: dict[str, int] = {}
    for row in running.get("/metrics")[1].splitlines():
        name, _, value = row.rpartition(" ")
        key = ""
        if name.startswith("receiver_connections_closed_total"):
            key = "closed " + name.split('"')[1]
        elif name.startswith("receiver_frames_total") and 'answer="ack"' not in name:
            key = "refused"
        elif name.startswith("receiver_refused_over_budget_total"):
            key = "of these only counted"
        elif name.startswith("receiver_udp_dropped_total"):
            key = "datagrams dropped"
        if key:
            told[key] = told.get(key, 0) + round(float(value))
    return told


def attack(running: Running, name: str, seconds: float, first: int = 0) -> Outcome:
    """Let attackers loose on a receiver and measure a panel meanwhile; ``first`` numbers its first duress."""
    assert running.process is not None
    pid, count = running.process.pid, max(1, round(_RATE * seconds))
    panels = [Panel(running, first + 1 + place * count, count) for place in range(_PANELS)]
    warm = Panel(running, first, 1)
    assert warm.duress(first)  # what is made only once is made now
    warm.hang_up()
    before, rss = _counts(running), _memory_mb(pid, "VmRSS")
    _forget_peak(pid)
    with attacking(running, ATTACKS[name], seconds + _LEAD_SECONDS) as attackers:
        time.sleep(_LEAD_SECONDS)
        for panel in panels:
            panel.start()
        for panel in panels:
            panel.join()
        growth = _memory_mb(pid, "VmHWM") - rss
        scores = [json.loads(attacker.stdout.read()) for attacker in attackers if attacker.stdout]
    after, found = _counts(running), sorted(late for panel in panels for late in panel.latencies_ms)
    acknowledged, tries = len(found), sum(panel.tries for panel in panels)
    found = found or [float("inf")]
    grown = {key: value - before.get(key, 0) for key, value in after.items() if value != before.get(key, 0)}
    p50, p99 = found[len(found) // 2], found[min(len(found) - 1, int(len(found) * 0.99))]
    return Outcome(name, count * _PANELS, acknowledged, tries, p50, p99, found[-1], growth, grown, scores)


def main() -> None:
    """Measure every attack and print the table."""
    seconds, only = float(os.environ.get("SECONDS", "10")), os.environ.get("ONLY", "")
    print(f"{'attack':<43} {'ACKs':>9} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7} {'MB more':>8}  closed and counted")
    missed = False
    with tempfile.TemporaryDirectory(prefix="dc09-flood-") as folder:
        for name in ATTACKS:
            if only not in name:
                continue
            with Running(Path(folder) / str(len(name)) / name.split()[0], more="[clock]\nbehind_seconds = 600") as running:
                told = attack(running, name, seconds)
            counted = ", ".join(f"{key} {value}" for key, value in sorted(told.counted.items())) or "nothing"
            sent = sum(score["sent_bytes"] for score in told.scores) / 1e6
            back = sum(score["received_bytes"] for score in told.scores) / 1e6
            print(
                f"{name:<43} {told.acknowledged:>4}/{told.wanted:<4} {told.p50_ms:>7.1f} {told.p99_ms:>7.1f} "
                f"{told.longest_ms:>7.1f} {told.growth_mb:>8.1f}  {counted}; sent {sent:.1f} MB, came back {back:.1f} MB",
                flush=True,
            )
            missed |= told.acknowledged < told.wanted or told.p99_ms > P99_WANTED_MS or told.growth_mb > GROWTH_WANTED_MB
    print(f"wanted: every duress acknowledged, p99 below {P99_WANTED_MS:.0f} ms, growth below {GROWTH_WANTED_MB:.0f} MB")
    sys.exit(missed)


if __name__ == "__main__":
    main()
