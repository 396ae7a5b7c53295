"""A damaged journal at start: found, kept aside, and every message that can be read carried over.

Alarms first: damage never keeps the receiver from starting. The damaged files stay untouched in a folder of their own, for
whoever wants to try again; messages, cursors and origins go into a new journal at the same positions. The new file is
complete and synced before the old one is moved: a crash at any step leaves one of the two in place for the next start.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from receiver import clock
from receiver.errors import ConfigError
from receiver.journal.folder import FILE_NAME, MARK_NAME, mark_damage, sync
from receiver.journal.groups import INSERT_GROUP, Group, is_whole, pack, unpack
from receiver.journal.jobs import is_foreign
from receiver.journal.log import PAGE_BYTES, index_of, indexed_frames, log_of, lost_groups, mended, pages_of
from receiver.journal.pages import rows_of
from receiver.journal.records import SCHEMA, wrong_version

CHECKED_AT_START_BYTES = 48 * 1024 * 1024
"""A larger file is checked after the start, in the background: 48 MB, 400,000 signals, take about 0.3 s."""
_NEW = "journal.salvaged"
_WRITTEN_LATER = ("paths.state",)  # by a receiver whose journal was open
_RANGE = "SELECT * FROM groups WHERE last BETWEEN ? AND ?"
_SINGLE = "SELECT * FROM groups WHERE last = ? AND last = ?"
_POSITIONS_AT_ONCE = 500
_MOST_FAILURES = 200_000  # queries that may fail before the rest of a file counts as unreadable; some 10 s
_LOOKED_BEYOND = 10_000
_FIRST_GUESSED = 10_000  # a journal whose oldest readable position is later had its first ones deleted by retention


class Damage(NamedTuple):
    """What was wrong, where the damaged files lie, how many events were carried over and how many positions were not."""

    what: str
    folder: Path
    kept: int
    lost: int
    cursors_kept: bool
    letters_kept: bool = True

    def __str__(self) -> str:
        """Say it to a person."""
        told = f"the journal was damaged ({self.what}); "
        if self.kept or self.lost:
            told += f"{self.kept} events were carried into a new one, {self.lost} positions could not be read"
        else:
            told += "nothing of it could be read, nor how many events it held; a new one was begun, empty"
        told += f"; the damaged files are kept in {self.folder}"
        if not self.kept:
            told += ": keep that folder, take what is missing from the outputs' side and the panels, and mistrust the disk"
        if not self.letters_kept:
            told += "; not all dead letters could be read: events that an output never took may be among the lost ones"
        return told if self.cursors_kept else told + "; the outputs' places were lost, they are handed everything again"


class Checked(NamedTuple):
    """What the check at start found, and whether the whole file was checked."""

    damage: Damage | None
    whole: bool


def check(file: Path, wrong: str = "") -> Checked:
    """Look at a journal before it is opened; a damaged one (``wrong`` says how) is replaced by what can be read of it.

    Raises:
        ConfigError: it is another program's.
        OSError: the disk does not let us.
        sqlite3.Error: the disk does not let us write the new one.
    """
    _finish_interrupted(file)
    if not file.exists():
        return Checked(None, whole=True)
    if not file.stat().st_size:
        emptied = _emptied(file)
        return Checked(_replace(file, emptied) if emptied else None, whole=True)
    _roll_back(file)
    _refuse_foreign(file)
    mark = file.with_name(MARK_NAME)
    small = file.stat().st_size <= CHECKED_AT_START_BYTES
    wrong = wrong or _first_look(file)
    if not wrong and (small or mark.exists()):
        wrong = quick_check(file)
    damage = _replace(file, wrong) if wrong else None
    mark.unlink(missing_ok=True)
    return Checked(damage, whole=small or damage is not None)


def _emptied(file: Path) -> str:
    """Say that a file without a byte held something once; a first start that was cut short leaves an empty one too."""
    log = log_of(file)
    if (log.exists() and log.stat().st_size) or any(file.with_name(name).exists() for name in _WRITTEN_LATER):
        return f"{file.name} was empty, 0 bytes, though a receiver had used it"
    return ""


def _read_only(file: Path) -> sqlite3.Connection:
    if not file.stat().st_size:  # SQLite would delete its log, even now
        return sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    return sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)


def _roll_back(file: Path) -> None:
    """End what a crash left half done before the log was in use, when the file was made; readers cannot."""
    if file.with_name(file.name + "-journal").exists():
        with closing(sqlite3.connect(file)) as db, suppress(sqlite3.DatabaseError):
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()


def _refuse_foreign(file: Path) -> None:
    """Leave another program's database as it is; in a damaged file nothing is found that tells it from ours.

    Raises:
        ConfigError: it is one.
    """
    with closing(_read_only(file)) as db, suppress(sqlite3.DatabaseError):
        if is_foreign(db):
            raise ConfigError(f"{file} {wrong_version(0)}")


def _first_look(file: Path) -> str:
    """Let SQLite find its log and look at what it leaves out."""
    taken = 0
    with closing(_read_only(file)) as db:
        try:
            db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
            taken = indexed_frames(file)[0]
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return str(error)
        return lost_groups(log_of(file), taken) or ""


def is_damage(error: sqlite3.Error) -> bool:
    """Tell damage of the file from a disk that fails."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def mark_if_damaged(file: Path, error: BaseException) -> bool:
    """Return whether SQLite says by an error that what it read is damaged; if so, leave a note of it."""
    damaged: bool = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF == sqlite3.SQLITE_CORRUPT
    if damaged:
        mark_damage(file, str(error))
    return damaged


def is_denied(error: sqlite3.Error | OSError) -> bool:
    """Tell whether we may not use a file; SQLite says only that it cannot be opened, or written."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    return isinstance(error, PermissionError) or code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def check_whole(data_dir: Path) -> None:
    """Check a journal in use; what is found is noted for the next start, which carries over what can be read."""
    file = data_dir / FILE_NAME
    with suppress(sqlite3.Error):  # the disk fails: the writer tells of it
        wrong = quick_check(file)
        if wrong:
            mark_damage(file, wrong)


def quick_check(file: Path) -> str:
    """Check the whole file and return the first thing that is wrong, empty when it is sound.

    Raises:
        sqlite3.Error: it cannot be read now.
    """
    with closing(_read_only(file)) as db:
        try:
            found = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
            if found == "ok":
                return _first_altered(db)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return str(error)
    return found.replace("\n", " ")


def _first_altered(db: sqlite3.Connection) -> str:
    """Check what SQLite has no checksum for: the content of the groups."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'groups'").fetchone():
        return ""
    for last, first, parts, content in db.execute("SELECT last, first, parts, content FROM groups"):
        if not is_whole(last, first, parts, content):
            return f"something of positions {first} to {last} does not fit its checksum"
    return ""


# -- carrying over ------------------------------------------------------------------------------------------------------


def _replace(file: Path, wrong: str) -> Damage:
    """Write the new journal beside the damaged one, then put one in the place of the other."""
    new, log = file.with_name(_NEW), log_of(file)
    for left in (new, log_of(new), index_of(new)):
        left.unlink(missing_ok=True)
    folder = _folder_for(file)
    kept_file = folder / file.name
    os.link(file, kept_file)  # the same bytes under a second name, so that it can be read with another log
    if log.exists():
        _write(log_of(kept_file), mended(log) if lost_groups(log, 0) else log.read_bytes())
    os.close(os.open(new, os.O_RDWR | os.O_CREAT, 0o600))
    with closing(sqlite3.connect(new, isolation_level=None)) as db, closing(_read_only(kept_file)) as damaged:
        db.execute("PRAGMA synchronous = OFF")
        db.executescript(SCHEMA)
        db.execute("BEGIN")
        kept, lost = _carry_signals(damaged, kept_file, db)
        unread = _carry_rest(damaged, db)
        db.execute("COMMIT")
    sync(new)
    _move(file, folder)
    return Damage(wrong, folder, kept, lost, "cursors" not in unread, "dead_letters" not in unread)


def _folder_for(file: Path) -> Path:
    moment = clock.to_text(clock.now_us())[:19].replace(":", "")
    for number in range(100):
        folder = file.with_name(f"damaged-{moment}Z" + (f"-{number}" if number else ""))
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
            return folder
    raise FileExistsError(f"{folder} and a hundred like it exist: look at them and move them away")


def _write(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())


def _move(file: Path, folder: Path) -> None:
    """Put the new journal in the place of the damaged one: its file goes first, by which the next start would know."""
    file.unlink(missing_ok=True)  # it has its second name in the folder
    with suppress(FileNotFoundError):
        os.rename(log_of(file), folder / f"{log_of(file).name}.damaged")
    index_of(file).unlink(missing_ok=True)
    os.rename(file.with_name(_NEW), file)
    sync(folder)
    sync(file.parent)


def _finish_interrupted(file: Path) -> None:
    """Go on where a crash stopped ``_move``: without the file, the new one is whole and only to be put in place."""
    if file.with_name(_NEW).exists() and not file.exists():
        folders = sorted(file.parent.glob("damaged-*"))
        _move(file, folders[-1] if folders else _folder_for(file))


def _carry_signals(damaged: sqlite3.Connection, file: Path, db: sqlite3.Connection) -> tuple[int, int]:
    """Copy every message that can be read; return how many events, and how many positions between them cannot be read."""
    reading = _Reading(damaged)
    for groups in reading.groups():
        for group in groups:
            _carry(db, group)
    kept, lost = _count(reading, db)
    if lost or not kept or reading.newest_unreadable:
        _carry_from_pages(file, db, 0 if reading.oldest_unreadable else reading.first or 0)
        kept, lost = _count(reading, db)
    return kept, lost


def _carry(db: sqlite3.Connection, group: Group) -> None:
    """Write the messages of a group that are not there yet: a row for each run without a gap."""
    messages = unpack(group.last, group.first, group.parts, group.content).messages
    if messages and _is_there(db, messages[0][0], group.last):  # a part of it was carried over before
        messages = [(at, entry) for at, entry in messages if not _is_there(db, at, at + len(entry.events) - 1)]
    begin = 0
    for number in range(1, len(messages) + 1):
        end = messages[number - 1][0] + len(messages[number - 1][1].events)
        if number == len(messages) or messages[number][0] != end:
            db.executemany(INSERT_GROUP, pack(messages[begin][0], [entry for _, entry in messages[begin:number]]))
            begin = number


def _is_there(db: sqlite3.Connection, first: int, last: int) -> bool:
    """Tell whether any of these positions was carried over."""
    found = db.execute("SELECT first FROM groups WHERE last >= ? ORDER BY last LIMIT 1", (first,)).fetchone()
    return found is not None and bool(found[0] <= last)


def _count(reading: "_Reading", db: sqlite3.Connection) -> tuple[int, int]:
    kept, lowest, highest = db.execute("SELECT SUM(last - first + 1), MIN(first), MAX(last) FROM groups").fetchone()
    if not kept:
        return 0, reading.last or 0
    first = lowest if lowest > _FIRST_GUESSED else min(lowest, reading.first or lowest)
    return kept, max(highest, reading.last or 0) - first + 1 - kept


def _carry_from_pages(file: Path, db: sqlite3.Connection, first: int) -> None:
    """Take messages that are missing so far from any page that holds them, whether the tree leads to it or not."""
    have = {last for (last,) in db.execute("SELECT last FROM groups")}
    newer = pages_of(log_of(file))
    with file.open("rb") as raw:

        def page_of(number: int) -> bytes:
            if not 0 < number < 1 << 31:
                return b""
            raw.seek((number - 1) * PAGE_BYTES)
            return newer.get(number) or raw.read(PAGE_BYTES)

        for number in range(2, max([file.stat().st_size // PAGE_BYTES, *newer]) + 1):
            found = rows_of(page_of(number), lambda last: last >= first and last not in have, page_of)
            for row in found:
                if _plausible(row):
                    _carry(db, Group._make(row))


class _Reading:
    """Reads a damaged table around what cannot be read, by halving; ``first`` and ``last`` are the positions known of."""

    def __init__(self, damaged: sqlite3.Connection) -> None:
        self._damaged = damaged
        self._failures = 0
        self.first = self._from = self._one("SELECT first FROM groups ORDER BY last LIMIT 1")
        if self.first is None:  # the oldest page is unreadable; without deletions before it, positions began at 1
            self.first, self._from = 1, 0
        self.oldest_unreadable = self._from == 0
        self.last = self._until = self._one("SELECT MAX(last) FROM groups")
        self.newest_unreadable = False
        if self.last is None:  # the newest page is unreadable: ask the index of urgent groups and the cursors, look beyond
            known = (
                self._one("SELECT MAX(last) FROM groups WHERE urgent > 0"),
                self._one("SELECT MAX(position) FROM cursors"),
            )
            self.newest_unreadable = True
            self.last = max([0, *[value for value in known if value is not None]])
            self._until = self.last + _LOOKED_BEYOND

    def _one(self, query: str) -> int | None:
        with suppress(sqlite3.DatabaseError):
            found = self._damaged.execute(query).fetchone()
            return None if found is None or found[0] is None else int(found[0])
        return None

    def groups(self) -> Iterator[list[Group]]:
        """Return all groups that can be read, some at a time."""
        first, last = self._from or 0, self._until or 0
        ranges = [(begin, min(begin + _POSITIONS_AT_ONCE - 1, last)) for begin in range(first, last + 1, _POSITIONS_AT_ONCE)]
        ranges.reverse()
        while ranges and self._failures < _MOST_FAILURES:
            begin, end = ranges.pop()
            try:
                # A range looks at the group behind it too, which may lie in a damaged page; a single position does not.
                query = _RANGE if begin < end else _SINGLE
                found = self._damaged.execute(query, (begin, end)).fetchall()
            except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError):
                self._failures += 1
                if begin < end:
                    middle = (begin + end) // 2
                    ranges += [(middle + 1, end), (begin, middle)]
                continue
            yield [Group._make(row) for row in found if _plausible(row)]


def _plausible(row: tuple[object, ...]) -> bool:
    """Tell whether a row has the types that we write; one that has not is unreadable."""
    kinds = (int, int, int, int, bytes, bytes)
    return all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True))


def _carry_rest(damaged: sqlite3.Connection, db: sqlite3.Connection) -> set[str]:
    """Copy cursors, origins, refused frames and what the outputs took or refused; return the tables not read to the end."""
    unread = set[str]()
    for table, width in (("origins", 5), ("refusals", 9), ("cursors", 3), ("spans", 6), ("dead_letters", 20)):
        try:
            found = damaged.execute(f"SELECT * FROM {table}")  # noqa: S608 - our own names
            db.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?{', ?' * (width - 1)})", found)  # noqa: S608
        except sqlite3.DatabaseError:
            unread.add(table)
    return unread
