"""Reading the journal: for outputs, for `journal show · export · verify`, of a running receiver or a stopped one."""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from receiver.errors import ConfigError, JournalDamaged, JournalUnavailable
from receiver.journal.deliveries import WANTED, Letter, Span, count_dead, span_at
from receiver.journal.folder import FILE_NAME, barred, mark_damage
from receiver.journal.groups import Group, Opened, count_urgent, unpack
from receiver.journal.jobs import is_foreign
from receiver.journal.lanes import Lane
from receiver.journal.records import FORMAT_VERSION, SIGNAL, Entry, Origin, Refusal, Row, Stored, wrong_version
from receiver.journal.salvage import is_denied, mark_if_damaged

_COLUMNS = "last, first, urgent, received_us, parts, content"
_AFTER = f"SELECT {_COLUMNS} FROM groups WHERE last > ? ORDER BY last"  # noqa: S608 - our own names
# Without the literal, SQLite cannot know that the index over the groups with urgent events serves.
_URGENT_AFTER = f"SELECT {_COLUMNS} FROM groups WHERE last > ? AND urgent > 0 ORDER BY last"  # noqa: S608

_LOST_ORIGIN = Origin(
    "0", "0", "unknown", "tcp"
)  # of what was carried over from a damaged journal without it, and of what is lost

_LOST_PRIORITY = 5
_REMEDY = (
    "leave it and the files beside it as they are: the next start of the receiver keeps them aside, carries over what can "
    "be read and tells of it as journal-damaged"
)
_EMPTY = (
    "is empty, 0 bytes: its first start was cut short, or it was emptied; leave the files beside it as they are: the next "
    "start of the receiver begins a new one and, if this one was used, carries over what its log holds and tells of it as "
    "journal-damaged"
)


class _Read(NamedTuple):
    """A group as it was read: its messages, and what stands for those that are lost."""

    first: int
    last: int
    messages: list[tuple[int, Entry]]
    lost: Stored | None


class Reader:
    """A read-only view of a journal; each has a connection of its own and is used from one thread at a time.

    ``close`` is the exception: it waits for a thread that is still inside ``after``, as when an output was ended while
    it read. SQLite ends the process when a connection goes away under a query.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open the journal in ``data_dir``.

        Raises:
            ConfigError: there is none, it is of another version, or we may not read it.
            JournalDamaged: nothing of it can be read.
        """
        self._file = data_dir / FILE_NAME
        self._origins: dict[int, Origin] = {}
        self._in_use = threading.Lock()
        self._read_last: dict[Lane, _Read] = {}  # an output takes the events of one group in several steps
        try:
            self._connection = self._open()
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"there is no journal in {data_dir}: has the receiver run with this configuration?") from None
        except OSError as error:
            raise ConfigError(f"{self._file} cannot be read: {barred(data_dir) or error.strerror}") from None
        except sqlite3.DatabaseError as error:
            if is_denied(error) and (why := barred(data_dir)):
                raise ConfigError(f"{self._file} cannot be read: {why}") from None
            raise JournalDamaged(f"nothing of {self._file} can be read: {error}; {_REMEDY}") from None

    def _open(self) -> sqlite3.Connection:
        found = os.stat(self._file)
        self._opened = found.st_dev, found.st_ino
        if not found.st_size:  # SQLite would delete the log beside it, in which there may be signals
            raise JournalDamaged(f"{self._file} {_EMPTY}")
        uri = f"{self._file.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            foreign = is_foreign(connection)
            if foreign or version != FORMAT_VERSION:
                raise ConfigError(f"{self._file} {wrong_version(0 if foreign else version)}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _follow(self) -> None:
        """Open the file anew when another is at its path: the folder was away, or was brought back from elsewhere.

        Raises:
            JournalUnavailable: there is none now.
        """
        try:
            found = os.stat(self._file)
            if (found.st_dev, found.st_ino) != self._opened:
                connection, self._connection = self._connection, self._open()
                connection.close()
                self._origins.clear()
                self._read_last.clear()
        except (OSError, ConfigError, sqlite3.Error) as error:
            raise JournalUnavailable(f"the journal cannot be read: {error}") from error

    def close(self) -> None:
        """Let go of the file."""
        with self._in_use:
            self._connection.close()

    def after(self, lane: Lane, position: int, limit: int) -> list[Stored]:
        """Return up to ``limit`` events of a lane that follow ``position``.

        Raises:
            JournalUnavailable: the file cannot be read now.
        """
        try:
            with self._in_use:
                self._follow()
                return self._after(lane, position, limit)
        except sqlite3.Error as error:
            mark_if_damaged(self._file, error)
            raise JournalUnavailable(f"the journal cannot be read: {error}") from error

    def _after(self, lane: Lane, position: int, limit: int) -> list[Stored]:
        found: list[Stored] = []
        before = self._read_last.get(lane)
        if before is not None and before.first - 1 <= position < before.last:
            found += islice(self._events(before, lane, position), limit)
            position = before.last
        if len(found) < limit:
            with closing(self._connection.execute(_URGENT_AFTER if lane is Lane.URGENT else _AFTER, (position,))) as rows:
                for row in rows:
                    self._read_last[lane] = group = self._open_group(row, lane)
                    found += islice(self._events(group, lane, position), limit - len(found))
                    if len(found) >= limit:
                        break
        return found

    def holding_after(self, position: int, texts: tuple[bytes, bytes]) -> Iterator[Stored]:
        """Return the events that follow ``position`` in groups in which one of these texts stands; 1 µs an event skipped.

        Raises:
            JournalUnavailable: the file cannot be read now.
        """
        query = f"SELECT {_COLUMNS} FROM groups WHERE last > ? AND (instr(content, ?) OR instr(content, ?)) ORDER BY last"  # noqa: S608 - our own names
        try:
            with closing(self._connection.execute(query, (position, *texts))) as rows:
                for row in rows:
                    yield from self._events(self._open_group(row, None), None, position)
        except sqlite3.Error as error:
            raise JournalUnavailable(f"the journal cannot be read: {error}") from error

    def _open_group(self, row: Sequence[Any], lane: Lane | None) -> _Read:
        """Read a group; where some of it cannot be read, note that for the next start and make what stands for it."""
        group = Group._make(row)
        opened = unpack(group.last, group.first, group.parts, group.content)
        lost = None
        if opened.holes or group.urgent != count_urgent([entry for _, entry in opened.messages]):
            mark_damage(self._file, f"the group of positions {group.first} to {group.last} is not as it was written")
            lost = self._lost(group, opened, lane)
        return _Read(group.first, group.last, opened.messages, lost)

    def _events(self, group: _Read, lane: Lane | None, after: int) -> Iterator[Stored]:
        """Return the events of a group that follow a position, in order: those of one lane, or all."""
        lost = group.lost if group.lost is not None and group.lost.position > after else None
        for position, entry in group.messages:
            if lost is not None and lost.position < position:
                yield lost
                lost = None
            if position + len(entry.events) <= after + 1:
                continue
            if lane is None or lane in [event[0] for event in entry.events]:
                origin = self._origin(entry.origin)
                for number, row in enumerate(entry.rows(), position):
                    if number > after and (lane is None or row.lane == lane):
                        yield Stored(number, row, origin)
        if lost is not None:
            yield lost

    def _lost(self, group: Group, opened: Opened, lane: Lane | None) -> Stored | None:
        """Return what stands for the events of a group that cannot be read, of one lane or of both; None if all can.

        How many of them were urgent follows from the number that the group has in a column of its own.
        """
        holes = opened.holes
        told = ", ".join(f"{first} to {last}" for first, last in holes)
        count = sum(last - first + 1 for first, last in holes)
        urgent = min(count, max(0, group.urgent - count_urgent([entry for _, entry in opened.messages])))
        if lane is not None:
            count = urgent if lane is Lane.URGENT else count - urgent
        identity = blake2b(f"lost {told}".encode(), digest_size=16).digest()
        row = Row(
            SIGNAL, Lane.NORMAL if lane is None else lane, _LOST_PRIORITY, 0, group.received_us, None, identity,
            0, 0, "", "", b"", None,
        )  # fmt: skip
        return Stored(holes[-1][1], row, _LOST_ORIGIN, told, count) if count else None

    def all(self) -> Iterator[Stored]:
        """Return every stored event in order.

        Raises:
            JournalDamaged: not all can be read; so do the others that commands ask.
        """
        with self._asked():
            for row in self._connection.execute(f"SELECT {_COLUMNS} FROM groups ORDER BY last"):  # noqa: S608 - our own names
                yield from self._events(self._open_group(row, None), None, 0)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Tell damage that a command meets in words, and note it for the next start."""
        try:
            yield
        except sqlite3.DatabaseError as error:
            if mark_if_damaged(self._file, error):
                raise JournalDamaged(f"not all of {self._file} can be read: {error}; {_REMEDY}") from None
            raise ConfigError(f"{self._file} cannot be read: {error}") from None

    def last(self, count: int) -> list[Stored]:
        """Return the newest events, oldest first."""
        found: list[Stored] = []
        newest = f"SELECT {_COLUMNS} FROM groups ORDER BY last DESC"  # noqa: S608 - our own names
        with self._asked(), closing(self._connection.execute(newest)) as rows:
            for row in rows:
                found = [*self._events(self._open_group(row, None), None, 0), *found]
                if len(found) >= count:
                    break
        return found[-count:]

    def refusals(self, count: int) -> list[Refusal]:
        """Return the newest refused frames, oldest first."""
        columns = ", ".join(Refusal._fields)
        newest = f"SELECT {columns} FROM refusals ORDER BY refusal DESC LIMIT ?"  # noqa: S608 - our own names
        with self._asked():
            return [Refusal(*row) for row in reversed(self._connection.execute(newest, (count,)).fetchall())]

    def refusals_after(self, number: int, limit: int) -> list[tuple[int, Refusal]]:
        """Return up to ``limit`` refused frames that were kept after the one of this number, with their numbers.

        Raises:
            JournalUnavailable: the file cannot be read now.
        """
        query = f"SELECT refusal, {', '.join(Refusal._fields)} FROM refusals WHERE refusal > ? ORDER BY refusal LIMIT ?"  # noqa: S608 - our own names
        try:
            return [(row[0], Refusal(*row[1:])) for row in self._connection.execute(query, (number, limit))]
        except sqlite3.Error as error:
            raise JournalUnavailable(f"the refusals log cannot be read: {error}") from error

    def newest_refusal(self) -> int:
        """Return the number of the refused frame that was kept last, 0 when there is none."""
        with self._asked():
            return int(self._connection.execute("SELECT COALESCE(MAX(refusal), 0) FROM refusals").fetchone()[0])

    def cursors(self) -> dict[tuple[str, Lane], int]:
        """Return how far each output has come in each lane."""
        with self._asked():
            found = self._connection.execute("SELECT output, lane, position FROM cursors")
            return {(output, Lane(lane)): position for output, lane, position in found}

    def span(self, output: str, stored: Stored) -> Span | None:
        """Return when an output took an event, or had it left out by its filter; None: not yet, or no longer known."""
        with self._asked():
            return span_at(self._connection, output, stored.lane, stored.position)

    def letters(self, output: str, position: int | None = None) -> list[tuple[Letter, Stored]]:
        """Return the dead letters of an output, oldest first, or the one at a position; those taken since are among them."""
        with self._asked():
            if position is None:
                return self._letters("output = ? ORDER BY position", (output,))
            return self._letters("output = ? AND position = ?", (output, position))

    def count_dead(self, output: str) -> int:
        """Return how many dead letters of an output have not been taken."""
        return count_dead(self._connection).get(output, 0)

    def wanted_letters(self, output: str, limit: int) -> list[tuple[Letter, Stored]]:
        """Return dead letters that are to go out again, urgent ones first.

        Raises:
            JournalUnavailable: the file cannot be read now.
        """
        try:
            with self._in_use:
                self._follow()
                condition = "output = ? AND state = ? ORDER BY lane, position LIMIT ?"
                return self._letters(condition, (output, WANTED, limit))
        except sqlite3.Error as error:
            raise JournalUnavailable(f"the journal cannot be read: {error}") from error

    def _letters(self, condition: str, values: tuple[object, ...]) -> list[tuple[Letter, Stored]]:
        rows = self._connection.execute(f"SELECT * FROM dead_letters WHERE {condition}", values).fetchall()  # noqa: S608 - ours
        fields = len(Letter._fields)
        return [(Letter._make(row[:fields]), self._letter(row[fields:])) for row in rows]

    def _letter(self, row: tuple[Any, ...]) -> Stored:
        kept = Row._make(row[1:])
        return Stored(int(row[0]), kept, self._origin(kept.origin))

    def damage(self) -> list[str]:
        """Check the file and return what is wrong with it, in sentences; none when it is sound."""
        try:
            wrong = [f"SQLite: {text}" for (text,) in self._connection.execute("PRAGMA integrity_check") if text != "ok"]
            return wrong + self._gaps() + self._altered()
        except sqlite3.DatabaseError as error:
            return [f"SQLite: {error}"]

    def _gaps(self) -> list[str]:
        first, last, count = self._connection.execute(
            "SELECT MIN(first), MAX(last), SUM(last - first + 1) FROM groups"
        ).fetchone()
        if count and last - first + 1 != count:
            return [f"{last - first + 1 - count} positions are missing between {first} and {last}"]
        return []

    def _altered(self) -> list[str]:
        """Return what does not fit its checksum, and the groups whose columns do not fit what is in them."""
        wrong: list[str] = []
        for row in self._connection.execute(f"SELECT {_COLUMNS} FROM groups ORDER BY last"):  # noqa: S608 - our own names
            group = Group._make(row)
            opened = unpack(group.last, group.first, group.parts, group.content)
            wrong += [
                f"positions {first} to {last}: the checksum does not fit; they were altered" for first, last in opened.holes
            ]
            entries = [entry for _, entry in opened.messages]
            if not opened.holes and group[1:4] != (opened.messages[0][0], count_urgent(entries), entries[-1].received_us):
                wrong.append(f"positions {group.first} to {group.last}: what the row says of its content is not so")
        return wrong

    def _origin(self, number: int) -> Origin:
        """Return the origin with a number, which stands for it in what is stored."""
        origin = self._origins.get(number)
        if origin is None:
            found = self._connection.execute(
                "SELECT receiver_number, line, listener, transport FROM origins WHERE origin = ?", (number,)
            ).fetchone()
            origin = self._origins[number] = Origin(*found) if found else _LOST_ORIGIN
        return origin
