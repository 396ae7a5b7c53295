"""The journal at start: checked, mended where it was damaged, and what must be known of it read.

Nothing is written unless it must be: a receiver starts on a full disk too, and withholds its ACKs.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from receiver import clock
from receiver.config import JournalSettings
from receiver.errors import ConfigError
from receiver.journal.folder import sync
from receiver.journal.jobs import learn_origins, newest_moments
from receiver.journal.log import log_of
from receiver.journal.records import FORMAT_VERSION, SCHEMA, Origin
from receiver.journal.repeats import Repeats
from receiver.journal.salvage import Checked, Damage, check, is_damage
from receiver.journal.writer import connect

Recall = Callable[[sqlite3.Connection], None]


class Found(NamedTuple):
    """What a journal holds at start: its last position and the identity there, and what ``Journal`` tells of it."""

    position: int
    identity: bytes | None
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
        raise ConfigError(f"the journal {file} cannot be opened: {error}") from None


def _read(file: Path, origins: Sequence[Origin], recall: Recall, checked: Checked) -> Found:
    os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    for path in (log_of(file), file):
        with suppress(FileNotFoundError):
            sync(path)  # a crash may have left rows that were written and never synced; repeats of them get an ACK
    with closing(connect(file, create=True)) as db:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, FORMAT_VERSION):
            raise ConfigError(f"{file} has format {version}, this program writes format {FORMAT_VERSION}")
        if version == 0 or not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'dead_letters'").fetchone():
            db.executescript(SCHEMA)  # also into a journal from before there were dead letters
        position, identity = _last(db)
        numbers, moments = learn_origins(db, origins), newest_moments(db)
        recall(db)
    return Found(position, identity, numbers, *moments, checked.damage, checked.whole)


def _last(db: sqlite3.Connection) -> tuple[int, bytes | None]:
    newest = db.execute("SELECT position, identity FROM signals ORDER BY position DESC LIMIT 1").fetchone()
    handed_over = db.execute("SELECT COALESCE(MAX(position), 0) FROM cursors").fetchone()[0]
    if newest is None or newest[0] < handed_over:
        return handed_over, None  # the newest were lost: what comes must lie beyond every output's place
    return newest[0], newest[1]


def recall_repeats(db: sqlite3.Connection, repeats: Repeats, settings: JournalSettings, now_us: int, steady_us: int) -> None:
    """Learn again which messages came within the window, so that a restart makes no second signal.

    How long ago that was, only the wall clock can say; what bears a later time than it came just now.
    """
    since_us = now_us - settings.repeat_window_seconds * clock.SECOND_US
    last = db.execute("SELECT COALESCE(MAX(position), 0) FROM signals").fetchone()[0]
    old = db.execute(
        "SELECT position FROM signals WHERE received_us < ? ORDER BY position DESC LIMIT 1", (since_us,)
    ).fetchone()
    recent = db.execute(
        "SELECT identity, position, MAX(0, ? - received_us) / 1000000 FROM signals "
        "WHERE position > ? AND kind = 0 AND number = 0 ORDER BY position",
        (now_us, max(old[0] if old else 0, last - settings.repeat_max)),
    )
    came_us = steady_us - settings.repeat_window_seconds * clock.SECOND_US
    for age, together in groupby(recent, itemgetter(2)):
        came_us = max(came_us, steady_us - age * clock.SECOND_US)
        repeats.add({identity: position for identity, position, _ in together}, came_us)
