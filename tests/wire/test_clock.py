"""The real process with a clock that we move: a shim laid over the C library, compiled here, shifts what it says.

The machine's clock is left alone. Without a C compiler or the loader's preloading these tests are skipped.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from protocols import dc09
from receiver import clock
from tests.wire.running import KEY, KEYED, SECRET, Running, said, wait_until
from tests.wire.shim import Dial, compile_shim, laid_over

SHIM = r"""
int clock_gettime(clockid_t which, struct timespec *told) {
    int result = syscall(SYS_clock_gettime, which, told);
    if (result == 0 && which == CLOCK_REALTIME && dial) {
        int64_t total = (int64_t)told->tv_sec * 1000000 + told->tv_nsec / 1000 + *dial;
        told->tv_sec = total / 1000000;
        told->tv_nsec = (total % 1000000) * 1000;
    }
    return result;
}

int gettimeofday(struct timeval *told, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    told->tv_sec = now.tv_sec;
    told->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *told) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (told) *told = now.tv_sec;
    return now.tv_sec;
}
"""
NAK = b'"NAK"0000R0L0A0[]_'
ACCOUNTS = (
    f"account,key,supervision_seconds\n{KEYED},{SECRET},30\n"
    + "".join(f"C{number:03d},{SECRET},\n" for number in range(6))
)  # fmt: skip


class Clock(Dial):
    """The receiver's wall clock, as far from the true one as we say."""

    def shift(self, seconds: float) -> None:
        self.set(round(seconds * clock.SECOND_US))


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shim")
    library, moving = compile_shim(SHIM, folder), Clock(folder)
    moving.shift(-1_000_000_000)
    told = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time_ns())"], capture_output=True, text=True, check=True,
        env={**os.environ, **laid_over(library, moving)},
    ).stdout  # fmt: skip
    if int(told) > clock.now_us() * 1000 - 10**18 // 2:
        pytest.skip("the loader takes no preloaded library here: the receiver's clock cannot be moved")
    return library


@pytest.fixture
def moved(tmp_path: Path, shim: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Running, Clock]:
    moving = Clock(tmp_path)
    for name, value in laid_over(shim, moving).items():
        monkeypatch.setenv(name, value)
    return Running(tmp_path, accounts=ACCOUNTS, more="[clock]\nunsynchronised_seconds = 0\n"), moving


def duress(sequence: str, account: str = KEYED, off: int = 0) -> bytes:
    """Return an encrypted duress of a panel whose clock is off by so many seconds from the true time."""
    at = clock.now_us() // clock.SECOND_US + off
    data = f"#{account}|1121 01 005".encode()
    return dc09.encode("ADM-CID", sequence, dc09.Address(None, "0", account), data, panel_time=at, key=KEY)


def reasons(running: Running) -> list[str]:
    return [event["data"]["reason"] for event in running.events("receiver.trouble.v1")]


@pytest.mark.parametrize("jump", [7200, -7200])
def test_a_jump_of_our_clock_loses_no_duress_and_no_path(moved: tuple[Running, Clock], jump: int) -> None:
    running, moving = moved
    with running:
        assert said(running.tcp(duress("0001"))[0], KEY) == "ACK 0001"
        moving.shift(jump)
        assert said(running.tcp(duress("0002"))[0], KEY) == "ACK 0002"  # before the watch has looked
        wait_until(lambda: running.metric("receiver_clock_steps_total") == 1)
        assert said(running.tcp(duress("0003"))[0], KEY) == "ACK 0003"
        assert said(running.tcp(duress("0001"))[0], KEY) == "ACK 0001"  # a repeat is still a repeat
        assert NAK in running.tcp(duress("0004", off=-600))[0]  # an old recording
        wait_until(lambda: {"clock-stepped", "clock-suspect"} <= set(reasons(running)))
        assert "jumped 2:00:00" in running.log()
        stored = {event["data"]["sequence"]: event["data"]["flags"] for event in running.export()}
        assert stored == {"0001": [], "0002": ["clock-suspect"], "0003": ["clock-suspect"]}
        assert running.events("receiver.path.v1") == []
        assert running.metric("receiver_output_oldest_seconds") < 60
        moving.shift(0)
        wait_until(lambda: running.metric("receiver_clock_steps_total") == 2)
        assert running.stop() == 0


def test_a_clock_that_starts_in_the_year_2000_is_told_and_a_duress_is_taken(moved: tuple[Running, Clock]) -> None:
    running, moving = moved
    with running:
        assert said(running.tcp(duress("0001"))[0], KEY) == "ACK 0001"
        running.stop()
        moving.shift(-26 * 365 * 86400)
        running.start()
        wait_until(lambda: "clock-behind-journal" in reasons(running))
        assert said(running.tcp(duress("0002"))[0], KEY) == "ACK 0002"
        assert NAK in running.tcp(duress("0003", off=-600))[0]
        assert running.metric("receiver_clock_suspect") == 1
        running.signal(signal.SIGTERM)


def test_five_keyed_panels_outvote_a_clock_that_is_an_hour_ahead_from_the_start(moved: tuple[Running, Clock]) -> None:
    running, moving = moved
    moving.shift(3600)
    with running:
        for number in range(5):
            assert NAK in running.tcp(duress("0001", f"C{number:03d}"))[0]
        wait_until(lambda: running.metric("receiver_clock_suspect") == 1)
        assert running.metric("receiver_clock_panels_offset_seconds") == pytest.approx(-3600, abs=5)
        assert said(running.tcp(duress("0002", "C000"))[0], KEY) == "ACK 0002"
        wait_until(lambda: "clock-suspect" in reasons(running))
        (event,) = running.export()
        assert event["data"]["flags"] == ["clock-suspect"]
