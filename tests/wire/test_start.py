"""Start to ready with a large register and a full journal. ``LONG=1`` runs it; ``make bench-start`` prints more."""

import os
import sys
from pathlib import Path

import pytest

from bench.start import TARGET_SECONDS, prepare, start_once


@pytest.mark.skipif(not os.environ.get("LONG"), reason="takes fifteen seconds; LONG=1 runs it")
def test_it_is_ready_within_two_seconds_with_100000_accounts_and_200000_signals(tmp_path: Path) -> None:
    config, http = prepare(tmp_path, 100_000, 200_000)
    found = [start_once(config, http) for _ in range(5)]
    sys.stdout.write("".join(f"\nready after {start.seconds:.2f} s, {start.cpu_seconds:.2f} s of a core" for start in found))
    # One thread works until ready; a machine that others use up as well gives it less than a core.
    assert min(start.cpu_seconds for start in found) < TARGET_SECONDS
    if os.getloadavg()[0] < (os.cpu_count() or 1):
        assert min(start.seconds for start in found) < TARGET_SECONDS
