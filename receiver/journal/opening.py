"""The journal at start: checked, mended where it was damaged, and what must be known of it read.

Nothing is written unless it must be: a receiver starts on a full disk too, and withholds its ACKs.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from receiver import clock
from receiver.config import JournalSettings
from receiver.errors import ConfigError
from receiver.journal.deliveries import count_dead
from receiver.journal.folder import sync, withheld
from receiver.journal.groups import unpack
from receiver.journal.jobs import learn_origins, newest_moments
from receiver.journal.log import log_of
from receiver.journal.records import FORMAT_VERSION, SCHEMA, SIGNAL, Origin, wrong_version
from receiver.journal.repeats import Repeats
from receiver.journal.salvage import Checked, Damage, check, is_damage, is_denied
from receiver.journal.writer import connect

Recall = Callable[[sqlite3.Connection], None]


class Found(NamedTuple):
    """What a journal holds at start: its last position, the parts of the group there, and what ``Journal`` tells of it."""

    position: int
    parts: bytes | None
    origins: dict[Origin, int]
    newest_us: int
    newest_stamp_us: int
    damage: Damage | None
    checked: bool


def open_journal(file: Path, origins: Sequence[Origin], recall: Recall) -> Found:
    """Check what is there, create what is missing, and return what must be known; ``recall`` reads the rest.

    Raises:
        ConfigError: it cannot be opened, or is of another version.
    """
    try:
        checked = check(file)
        try:
            return _read(file, origins, recall, checked)
        except sqlite3.DatabaseError as error:  # damage in a file too large to be checked as a whole
            if not is_damage(error):
                raise
            return _read(file, origins, recall, check(file, str(error)))
    except (sqlite3.Error, OSError) as error:
        why = withheld(file.parent) if is_denied(error) else None
        raise ConfigError(f"the journal {file} cannot be opened: {why or error}") from None


def _read(file: Path, origins: Sequence[Origin], recall: Recall, checked: Checked) -> Found:
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    for path in (log_of(file), file):
        with suppress(FileNotFoundError):
            sync(path)  # a crash may have left groups that were written and never synced; repeats of them get an ACK
    with closing(connect(file, create=True)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT_VERSION):
            raise ConfigError(f"{file} {wrong_version(version)}")
        if version == 0:
            db.executescript(SCHEMA)
        position, parts = _last(db)
        numbers, moments = learn_origins(db, origins), newest_moments(db)
        count_dead(db)  # read for the outputs, when it is too late to mend anything
        recall(db)
    return Found(position, parts, numbers, *moments, checked.damage, checked.whole)


def _last(db: sqlite3.Connection) -> tuple[int, bytes | None]:
    newest = db.execute("SELECT last, parts FROM groups ORDER BY last DESC LIMIT 1").fetchone()
    handed_over = db.execute("SELECT COALESCE(MAX(position), 0) FROM cursors").fetchone()[0]
    if newest is None or newest[0] < handed_over:
        return handed_over, None  # the newest were lost: what comes must lie beyond every output's place
    return newest[0], newest[1]


def recall_repeats(repeats: Repeats, settings: JournalSettings, now_us: int, steady_us: int, db: sqlite3.Connection) -> None:
    """Learn again which messages came within the window, so that a restart makes no second signal.

    How long ago that was, only the wall clock can say; what bears a later time than it came just now.
    """
    since_us = now_us - settings.repeat_window_seconds * clock.SECOND_US
    last = db.execute("SELECT COALESCE(MAX(last), 0) FROM groups").fetchone()[0]
    old = db.execute("SELECT last FROM groups WHERE received_us < ? ORDER BY last DESC LIMIT 1", (since_us,)).fetchone()
    after = max(old[0] if old else 0, last - settings.repeat_max)
    came_us = steady_us - settings.repeat_window_seconds * clock.SECOND_US
    recent = db.execute("SELECT last, first, parts, content FROM groups WHERE last > ? ORDER BY last", (after,))
    for group in recent:
        messages = [(position, entry) for position, entry in unpack(*group).messages if entry.kind == SIGNAL]
        for age, together in groupby(messages, lambda message: max(0, now_us - message[1].received_us) // clock.SECOND_US):
            came_us = max(came_us, steady_us - age * clock.SECOND_US)
            repeats.add({entry.identity: position for position, entry in together}, came_us)
