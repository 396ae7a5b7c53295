"""One line a work: what it was compared with, what came out, and whether that is what was wanted."""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

DISTURBED = 0.10
"""A round in which generator or echo waited so much of the time for a core was disturbed by other programs."""


class Figure(NamedTuple):
    """One row of the table. ``met`` is None where nothing is wanted or nothing could be measured."""

    work: str
    baseline: str
    figure: str
    ratio: str
    target: str
    met: bool | None
    note: str = ""
    data: dict[str, Any] = {}  # noqa: RUF012 - never changed


class Pair(NamedTuple):
    """One round: the baseline and, right after it, the receiver; what the generator told of both."""

    base: dict[str, Any]
    own: dict[str, Any]

    @property
    def ratio(self) -> float:
        """The receiver's rate against the baseline's."""
        return float(self.own["rate"] / self.base["rate"])

    @property
    def cpu_ratio(self) -> float:
        """The baseline's CPU time for a message against the receiver's; steadier than rates on a shared machine."""
        return float(self.base["cpu_us"] / self.own["cpu_us"])

    @property
    def disturbed(self) -> bool:
        """Whether somebody else had the cores."""
        shares = (self.base["generator_waited"], self.base["server_waited"], self.own["generator_waited"])
        return bool(max(shares) > DISTURBED)


def rounds_of(measure: Callable[[int], Pair], wanted: int) -> tuple[list[Pair], int]:
    """Measure until ``wanted`` rounds were undisturbed, half as many more at most; return what counts, and the disturbed.

    When too few were left alone all count, and the table says so.
    """
    pairs: list[Pair] = []
    for number in range(wanted + wanted // 2):
        pairs.append(measure(number))
        good = [pair for pair in pairs if not pair.disturbed]
        if len(good) == wanted:
            return good, 0
    return pairs, sum(pair.disturbed for pair in pairs)


def median_of(pairs: Sequence[Pair], side: int, name: str) -> float:
    """Return the median of one thing told of the baseline (0) or the receiver (1)."""
    return float(statistics.median(pair[side][name] for pair in pairs))


def spread(values: Sequence[float]) -> str:
    """Write a median with the lowest and the highest."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def compare(work: str, target: float, pairs: Sequence[Pair], disturbed: int) -> Figure:
    """Judge paired rounds by the median ratio of the rates; where most rounds were disturbed, by that of CPU times."""
    noisy = disturbed * 2 > len(pairs)
    ratios, cpu = [pair.ratio for pair in pairs], [pair.cpu_ratio for pair in pairs]
    found = statistics.median(cpu if noisy else ratios)
    busiest = max(pair.base["generator_cpu"] for pair in pairs), max(pair.own["generator_cpu"] for pair in pairs)
    note = f"generator {busiest[0]:.0%}, {busiest[1]:.0%}; ratio of CPU times {spread(cpu)}"
    if noisy:
        note += f"; {disturbed} of {len(pairs)} rounds disturbed, judged by CPU time"
    return Figure(
        work,
        f"{median_of(pairs, 0, 'rate'):,.0f}/s {median_of(pairs, 0, 'cpu_us'):.1f} µs",
        f"{median_of(pairs, 1, 'rate'):,.0f}/s {median_of(pairs, 1, 'cpu_us'):.1f} µs",
        spread(ratios), f">= {target:g}" if target else "-", found >= target if target else None, note,
        {"ratios": ratios, "cpu_ratios": cpu, "target": target, "disturbed": disturbed, "rounds": len(pairs)}
        | {f"{name}_{what}": median_of(pairs, side, what) for side, name in ((0, "base"), (1, "own"))
           for what in ("rate", "cpu_us", "generator_cpu")},
    )  # fmt: skip


_HEAD = ("work", "baseline", "figure", "ratio", "wanted", "met")
_WIDTHS = (53, 20, 24, 18, 17, 4)
_MET = {True: "yes", False: "NO", None: "-"}


def print_head() -> None:
    """Print the table's first line."""
    print(" ".join(f"{text:<{width}}" for text, width in zip(_HEAD, _WIDTHS, strict=True)), flush=True)


def print_figure(found: Figure) -> None:
    """Print one row, its note on a line below."""
    cells = (*found[:5], _MET[found.met])
    print(" ".join(f"{text:<{width}}" for text, width in zip(cells, _WIDTHS, strict=True)))
    print(f"    {found.note}" if found.note else "", end="\n" if found.note else "", flush=True)


def write_json(file: Path, figures: Sequence[Figure], more: dict[str, Any]) -> None:
    """Write all that was measured."""
    file.write_text(json.dumps({"figures": [found._asdict() for found in figures]} | more, indent=1) + "\n", "utf-8")


def markdown(file: Path) -> str:
    """Return what was measured as the table of ``docs/performance.md``."""
    lines = ["| work | baseline | figure | ratio | wanted | met |", "|---|---|---|---|---|---|"]
    for found in json.loads(file.read_text("utf-8"))["figures"]:
        cells = [found[name] for name in ("work", "baseline", "figure", "ratio", "target")]
        if costs := found["data"].get("cpu_ratios"):
            cells[3] += f"; by CPU time {spread(costs)}"
        lines.append(f"| {' | '.join(cells)} | {_MET[found['met']]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown(Path(sys.argv[1] if len(sys.argv) > 1 else "bench.json")))
