"""What a server uses, with all its children, as Linux tells it under ``/proc``."""

from pathlib import Path


def _family(pid: int) -> list[int]:
    """Return a process and all processes under it."""
    found = [pid]
    for parent in found:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            found += map(int, children.read_text("ascii").split())
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of all threads so far, to the microsecond."""
    return sum(sum(threads_seconds(member).values()) for member in _family(pid))


def threads_seconds(pid: int) -> dict[int, float]:
    """Return user and system time of each thread of one process, by its number."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return {int(file.parent.name): int(file.read_text("ascii").split()[0]) / 1e9 for file in threads}


def waited_seconds(pid: int) -> float:
    """Return how long the first thread was ready to run and had no core."""
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[1]) / 1e9


def resident_bytes(pid: int) -> int:
    """Return the memory held."""
    total = 0
    for member in _family(pid):
        status = Path(f"/proc/{member}/status").read_text("ascii")
        total += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) * 1024
    return total
