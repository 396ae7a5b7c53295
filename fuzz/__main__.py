"""``python -m fuzz --seconds 60``: every target in turn; prints what was done and exits 1 when something was found.

``python -m fuzz --replay FILE`` runs one input again, without the fuzzer; its name begins with its target.
"""

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fuzz.seeds import CORPUS
from fuzz.targets import TARGETS

HERE = Path(__file__).parent
FINDINGS = HERE / "findings"
_LONGEST_BYTES = 6000  # a frame and a half
_TIMEOUT_SECONDS = 5  # for one input; the slowest takes a few milliseconds
_MEMORY_MB = 512
_TOLD_LINES = 25
_SHARES = {
    "contact_id": 1,
    "frame": 2,
    "message": 2,
    "sia_dcs": 2,
    "pipeline": 4,
}  # of the time; the smallest is soon exhausted


class Outcome(NamedTuple):
    """What one target did. ``inputs`` reached something new; ``edges`` of the code were reached in all."""

    target: str
    executions: int
    per_second: int
    inputs: int
    edges: int
    memory_mb: int
    finding: Path | None
    said: str


def fuzz(target: str, seconds: int, jobs_folder: Path) -> Outcome:
    """Fuzz one target; what reaches new code goes to ``jobs_folder``, what breaks the contract to ``findings``."""
    grown = jobs_folder / target
    grown.mkdir(exist_ok=True)
    known = len(list(grown.iterdir()))
    FINDINGS.mkdir(exist_ok=True)
    before = set(FINDINGS.iterdir())
    options = [
        f"-max_total_time={seconds}", f"-timeout={_TIMEOUT_SECONDS}", f"-rss_limit_mb={_MEMORY_MB}",
        f"-max_len={_LONGEST_BYTES}", f"-dict={HERE / 'dc09.dict'}", f"-artifact_prefix={FINDINGS}/{target}-",
        "-print_final_stats=1",
    ]  # fmt: skip
    command = [sys.executable, "-m", "fuzz.one", target, *options, str(grown), str(CORPUS / target)]
    done = subprocess.run(
        command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False
    )
    said = done.stdout
    finding = next(iter(set(FINDINGS.iterdir()) - before), None)
    if done.returncode and finding is None:
        raise RuntimeError(f"{target}: the fuzzer ended with {done.returncode} and saved no input\n{_end_of(said)}")
    return Outcome(
        target,
        _stat(said, "number_of_executed_units"),
        _stat(said, "average_exec_per_sec"),
        len(list(grown.iterdir())) - known,
        max(map(int, re.findall(r" cov: ([0-9]+)", said)), default=0),
        _stat(said, "peak_rss_mb"),
        finding,
        said,
    )


def _stat(said: str, name: str) -> int:
    found = re.search(rf"stat::{name}:\s+(\d+)", said)
    return int(found[1]) if found else 0


def _what_broke(said: str) -> str:
    """Return the exception, or the end of what the fuzzer said when there was none (too slow, too much memory)."""
    told = said.partition("=== Uncaught Python exception: ===")[2].partition("\n==")[0]
    return told.strip() or _end_of(said)


def _end_of(said: str) -> str:
    return "\n".join(said.splitlines()[-_TOLD_LINES:])


def report(outcomes: Sequence[Outcome]) -> int:
    """Print one line a target and what was found; return the exit code."""
    print(f"{'target':12} {'executions':>11} {'a second':>9} {'edges':>6} {'new inputs':>11} {'peak MB':>8}  findings")
    for told in outcomes:
        print(
            f"{told.target:12} {told.executions:11,} {told.per_second:9,} {told.edges:6,} {told.inputs:11,} "
            f"{told.memory_mb:8,}  {1 if told.finding else 0}"
        )
    print(f"{'all':12} {sum(told.executions for told in outcomes):11,}")
    found = [told for told in outcomes if told.finding]
    for told in found:
        print(f"\n{told.target}: saved {told.finding}; run it again: python -m fuzz --replay {told.finding}")
        print(_what_broke(told.said))
    return 1 if found else 0


def replay(file: Path) -> int:
    """Run one input again; the exception is told as Python tells it."""
    target = next((name for name in TARGETS if file.name.startswith(name) or file.parent.name == name), None)
    if target is None:
        print(f"{file}: the name must begin with its target: {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    TARGETS[target](file.read_bytes())
    print(f"{file}: the target {target} takes it")
    return 0


def main() -> int:
    """Read the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="time in all, split over the targets (60)")
    parser.add_argument("--target", action="append", choices=list(TARGETS), help="only this one; may be given again")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one saved input again")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep the inputs that reached new code here, and go on from them"
    )
    chosen = parser.parse_args()
    if chosen.replay:
        return replay(chosen.replay)
    if importlib.util.find_spec("atheris") is None:
        print("atheris, the fuzzer, is not installed: make fuzz installs it where there is a wheel for it.", file=sys.stderr)
        return 2
    targets = chosen.target or list(TARGETS)
    with tempfile.TemporaryDirectory(prefix="dc09-fuzz-") as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        shares = sum(_SHARES[target] for target in targets)
        return report([fuzz(target, max(1, chosen.seconds * _SHARES[target] // shares), folder) for target in targets])


if __name__ == "__main__":
    sys.exit(main())
