"""Looks after the journal once a second and says in words what stands between a panel and its ACK.

Each state is told when it begins and when it ends, not in between. An end is told only when it has lasted, so that a disk
that comes and goes is one outage and not a storm.
"""

import os
import threading
from collections.abc import Callable
from pathlib import Path

from receiver.config import JournalSettings
from receiver.errors import JournalUnavailable
from receiver.journal import Journal, check_whole, marked_damage
from receiver.telemetry import Telemetry
from receiver.troubles import Trouble

_WELL_SECONDS = 2.0
_SLOW_TOLD_SECONDS = 60.0
_HUNG_SECONDS = 3.0
"""A panel waits some seconds for its ACK; a disk that has not answered for so long does not take signals."""
_HIGH, _LOW = 0.8, 0.7

Tell = Callable[[Trouble], None]


class JournalWatch:
    """The watch over one journal; ``tell`` takes each trouble at once."""

    def __init__(
        self, journal: Journal, settings: JournalSettings, data_dir: Path, telemetry: Telemetry, tell: Tell
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._data_dir = data_dir
        self._telemetry = telemetry
        self._tell = tell
        self._failed_since: float | None = None
        self._failed_us = 0
        self._well_since: float | None = None
        self._slow_syncs = 0
        self._slow_told = float("-inf")
        self._level = 0
        self._disk_low = False
        self._measuring = False
        self.free_bytes: int | None = None
        self._mark_told = False
        self._to_tell = journal.damage

    # -- once a second --------------------------------------------------------------------------------------------

    def look(self, now: float, now_us: int) -> None:
        """Tell what has changed; ``now`` is monotonic."""
        self._look_at_damage(now_us)
        self._look_at_failure(now, now_us)
        self._look_at_speed(now, now_us)
        self._look_at_backlog(now_us)
        self._look_at_disk(now_us)

    def _look_at_damage(self, now_us: int) -> None:
        damage, self._to_tell = self._to_tell, None
        if damage is not None:
            self._tell(Trouble("journal-damaged", str(damage), now_us, max(1, damage.lost)))
        found = None if self._mark_told else marked_damage(self._data_dir)
        if found is not None:
            self._mark_told = True
            text = f"the journal's file is damaged ({found}); restart the receiver: it keeps the file aside and "
            self._tell(Trouble("journal-damaged", text + "carries over what can be read", now_us))

    def _look_at_failure(self, now: float, now_us: int) -> None:
        failure = self._journal.failure
        if failure is not None:
            self._well_since = None
            if self._failed_since is None:
                self._failed_since, self._failed_us = now, now_us
                self._telemetry.journal_failed(str(failure))
                self._tell(Trouble("journal-unwritable", f"ACKs are withheld: {_cannot(failure)}", now_us))
        elif self._failed_since is not None:
            self._well_since = now if self._well_since is None else self._well_since
            if now - self._well_since >= _WELL_SECONDS:
                seconds = self._well_since - self._failed_since
                self._failed_since = self._well_since = None
                self._telemetry.journal_recovered()
                text = f"the journal takes signals again; it did not for {seconds:.0f} s"
                self._tell(Trouble("journal-recovered", text, self._failed_us))

    def _look_at_speed(self, now: float, now_us: int) -> None:
        slow, busy = self._journal.slow_syncs - self._slow_syncs, self._journal.busy_seconds
        if (slow or busy > self._settings.slow_sync_seconds) and now - self._slow_told > _SLOW_TOLD_SECONDS:
            limit = f"longer than {self._settings.slow_sync_seconds:g} s"
            text = f"{slow} commits took {limit}" if slow else f"a commit has been running for {busy:.1f} s, {limit}"
            self._tell(
                Trouble("journal-slow", f"{text}; panels wait for their ACKs: look at the disk", now_us, max(1, slow))
            )
            self._slow_told, self._slow_syncs = now, self._journal.slow_syncs

    def _look_at_backlog(self, now_us: int) -> None:
        output, waiting = self._journal.slowest(), self._journal.backlog()
        most = self._settings.max_backlog
        share = waiting / most
        level = 2 if share >= 1 else 1 if share >= (_LOW if self._level else _HIGH) else 0
        if level == self._level or (level == 1 and self._level == 2):  # from full it is full again or cleared
            return
        told = f"{waiting} events wait for the output {output}"
        if level and not self._level:
            text = f"{told}: at max_backlog ({most}) ACKs are withheld"
            self._tell(Trouble("backlog-high", text, now_us, output=output))
        if level == 2:
            self._tell(Trouble("backlog-full", f"ACKs are withheld: {told}, max_backlog is {most}", now_us, output=output))
        if not level:
            self._tell(Trouble("backlog-cleared", "the outputs have caught up", now_us))
        self._level = level

    def _look_at_disk(self, now_us: int) -> None:
        """Ask for the free room in a thread: a file system that is away may not answer."""
        if not self._measuring:
            self._measuring = True
            threading.Thread(target=self._measure, name="journal-disk", daemon=True).start()
        free = self.free_bytes
        if free is not None and (free < self._settings.min_free_bytes) != self._disk_low:
            self._disk_low = not self._disk_low
            told = f"{free // 2**20} MiB are free on the disk of {self._data_dir}"
            if self._disk_low:
                text = f"{told}, fewer than min_free_bytes ({self._settings.min_free_bytes // 2**20} MiB): make room"
                self._tell(Trouble("disk-low", text, now_us))
            else:
                self._tell(Trouble("disk-cleared", told, now_us))

    def _measure(self) -> None:
        try:
            found = os.statvfs(self._data_dir)
            self.free_bytes = found.f_bavail * found.f_frsize
        except OSError:
            self.free_bytes = None
        self._measuring = False

    # -- what others ask ------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Ask the disk whether it can be written, and check a file that was too large for the start, in a thread."""
        self._journal.flush(ask=True)
        if not self._journal.checked:
            threading.Thread(target=check_whole, args=(self._data_dir,), name="journal-check", daemon=True).start()

    @property
    def withheld(self) -> bool:
        """Whether what is stored now would wait: the disk fails or does not answer."""
        return self._journal.failure is not None or self._journal.busy_seconds > self._settings.slow_sync_seconds

    def wrong(self) -> list[str]:
        """Return why the journal takes no signals, in sentences; nothing when it does."""
        wrong = []
        if self._journal.failure is not None:
            wrong.append(_cannot(self._journal.failure))
        if self._journal.busy_seconds > _HUNG_SECONDS:
            wrong.append(f"the journal's disk has not answered for {self._journal.busy_seconds:.0f} s")
        try:
            self._journal.check_room()
        except JournalUnavailable as error:
            wrong.append(str(error))
        return wrong

    def add_gauges(self) -> None:
        """Tell telemetry what to read at a scrape."""
        journal, gauge = self._journal, self._telemetry.gauge
        gauge("receiver_journal_backlog", "Events the slowest output has before it", (), lambda: [((), journal.backlog())])
        gauge("receiver_journal_failures_total", "Groups that could not be stored", (), lambda: [((), journal.failures)])
        gauge("receiver_journal_slow_syncs_total", "Commits slower than the limit", (), lambda: [((), journal.slow_syncs)])
        gauge("receiver_journal_busy_seconds", "Age of the commit in hand", (), lambda: [((), journal.busy_seconds)])
        gauge(
            "receiver_disk_free_bytes", "Room left on the journal's disk", (),
            lambda: [] if self.free_bytes is None else [((), self.free_bytes)],
        )  # fmt: skip


def _cannot(failure: JournalUnavailable) -> str:
    return f"the journal cannot be written: {failure}"
