"""``make bench-profile``: where a signal's CPU time goes, as a picture: ``docs/images/message.svg``.

py-spy samples the threads of a receiver under load. The picture is a flame graph hung from the top: each box is a function,
as wide as its share, under the one that called it; what the kernel did stands in the function that asked for it. The width
of a thread is the CPU time that the kernel says it had; within it shares are py-spy's, to which a thread that waits for the
core looks busy, so that what follows a wait is drawn a little too wide.
"""

import argparse
import subprocess
import sys
from html import escape
from pathlib import Path
from threading import Thread

from bench import servers, usage
from bench.servers import generate

PY_SPY = Path(sys.executable).with_name("py-spy")
RATE = 500
SECONDS = 8.0
LEAST_SHARE = 0.008
_WIDTH, _ROW, _TOP, _CHARACTER = 1180, 21, 54, 6.3
_FILLS = {"protocols": "#cfe3f7", "receiver": "#d9efd0", "receiver/journal": "#f9dcc0", "python": "#e9e4f4", "": "#e6e6e6"}
_MEANINGS = {
    "protocols": "wire formats", "receiver": "receiver", "receiver/journal": "journal",
    "python": "libraries and the event loop",
}  # fmt: skip


class Box:
    """A function as one caller uses it: what a message costs in it and in all that it calls."""

    def __init__(self, name: str) -> None:
        self.name, self.cost_us, self.under = name, 0.0, dict[str, Box]()

    def add(self, stack: list[str], cost_us: float) -> None:
        """Take a part of the cost, by its stack, outermost function first."""
        self.cost_us += cost_us
        if stack:
            self.under.setdefault(stack[0], Box(stack[0])).add(stack[1:], cost_us)

    def itself(self) -> float:
        """Return what is not in the functions it calls."""
        return self.cost_us - sum(under.cost_us for under in self.under.values())


_ENTRIES = ("Runner.run (", "Thread._bootstrap_inner (")
"""What a thread is in before it comes to our code."""


def _named(frame: str) -> str:
    """Turn py-spy's ``function (path/to/file.py:12)`` into ``function (path/to/file.py``."""
    return frame.rsplit(":", 1)[0].rstrip(")")


def read(raw: str, threads_us: dict[int, float]) -> Box:
    """Read collapsed stacks, one a line: ``thread (1): MainThread;outer (file:1);inner (file:2) 17``.

    ``threads_us`` is what a message costs in each thread, by its number.
    """
    stacks: dict[int, list[tuple[list[str], int]]] = {}
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        entry = next((at for at, frame in enumerate(frames) if frame.startswith(_ENTRIES)), -1)
        name = thread.rsplit(": ", 1)[-1].replace("MainThread", "event loop, sockets").replace("-", " ")
        number = int(thread[thread.index("(") + 1 : thread.index(")")])
        stacks.setdefault(number, []).append(([name, *map(_named, frames[entry + 1 :])], int(count)))
    whole = Box("a signal")
    for number, found in stacks.items():
        each = threads_us.get(number, 0.0) / sum(count for _, count in found)
        for shown, samples in found:
            whole.add(shown, samples * each)
    return whole


def _kind(name: str) -> str:
    file = name.partition(" (")[2]
    if file.startswith("receiver/journal"):
        return "receiver/journal"
    return next((kind for kind in ("protocols", "receiver") if file.startswith(kind)), "python" if file else "")


def _draw_box(name: str, cost_us: float, left: float, top: int, width: float) -> str:
    function, _, file = name.partition(" (")
    room, cost = int((width - 8) / _CHARACTER), f"{cost_us:.1f}"
    label = f"{function} {cost}"
    if len(label) > room:
        label = function if len(function) <= room else function[: max(0, room - 1)] + "…" if room > 3 else ""
    return (
        f"<g><title>{escape(function)} ({escape(file)}): {cost_us:.2f} µs</title>"
        f'<rect x="{left:.1f}" y="{top}" width="{width - 1:.1f}" height="{_ROW - 2}" rx="2" fill="{_FILLS[_kind(name)]}"/>'
        f'<text x="{left + 4:.1f}" y="{top + 14}">{escape(label)}</text></g>'
    )


def _boxes(box: Box, left: float, depth: int, scale: float) -> tuple[list[str], int]:
    """Draw what is under a box; return the elements and how deep they go."""
    drawn, deepest = [], depth
    parts = sorted(box.under.values(), key=lambda found: -found.cost_us)
    if depth == 1 and box.itself() > 0:  # of a thread: what no function of ours is in
        rest = Box("uvloop and the kernel" if box.name.startswith("event loop") else "itself")
        rest.cost_us = box.itself()
        parts.append(rest)
    for under in parts:
        width = under.cost_us * scale
        if width < _WIDTH * LEAST_SHARE:
            continue
        drawn.append(_draw_box(under.name, under.cost_us, left, _TOP + depth * _ROW, width))
        more, low = _boxes(under, left, depth + 1, scale)
        drawn, deepest = drawn + more, max(deepest, low)
        left += width
    return drawn, max(deepest, depth + bool(drawn))


def draw(whole: Box, title: str) -> str:
    """Return the picture as SVG."""
    drawn, depth = _boxes(whole, 10, 0, (_WIDTH - 20) / whole.cost_us)
    legend, left = [], 10
    for kind, meaning in _MEANINGS.items():
        legend.append(
            f'<rect x="{left}" y="30" width="14" height="14" rx="2" fill="{_FILLS[kind]}"/><text x="{left + 19}" y="41">'
            f"{meaning}</text>"
        )
        left += 40 + round(len(meaning) * _CHARACTER)
    height = _TOP + depth * _ROW + 8
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-size="15">{escape(title)}</text>', *legend, *drawn, "</svg>", "",
    ])  # fmt: skip


def measure(seconds: float, raw: Path) -> dict[int, float]:
    """Sample a receiver under load into a file of collapsed stacks; return a message's CPU time in each thread, in µs."""
    with servers.receiver() as ours:
        done: list[int] = []

        def load() -> None:
            done.append(generate(ours, "closed", frames=3000, seconds=seconds + 2, round=1)["done"])

        generate(ours, "closed", frames=600, seconds=1.0)  # caches are warm, the journal's log has its length
        generator, before = Thread(target=load), usage.threads_seconds(ours.pid)
        generator.start()
        command = [str(PY_SPY), "record", "--pid", str(ours.pid), "--duration", str(round(seconds)), "--rate", str(RATE)]
        command += ["--format", "raw", "--function", "--threads", "--output", str(raw)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        generator.join()
        after = usage.threads_seconds(ours.pid)
    return {number: (spent - before.get(number, 0.0)) / done[0] * 1e6 for number, spent in after.items()}


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(prog="make bench-profile")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--output", type=Path, default=Path("docs/images/message.svg"))
    args = parser.parse_args()
    if not PY_SPY.exists():
        sys.exit("py-spy is not installed: make bench-profile installs it, pip install 'dc09-receiver[bench]' does as well")
    with servers.scratch() as folder:
        threads = measure(args.seconds, folder / "stacks")
        whole = read((folder / "stacks").read_text("utf-8"), threads)
    title = f"One plain signal over TCP, 50 connections, durable: {whole.cost_us:.0f} µs of CPU time; numbers are µs"
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(draw(whole, title), "utf-8")
    print(f"{args.output}: {whole.cost_us:.1f} µs a signal")


if __name__ == "__main__":
    main()
