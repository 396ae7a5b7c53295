"""Reading the journal: for outputs, for `journal show · export · verify`, of a running receiver or a stopped one."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from receiver.errors import ConfigError, JournalUnavailable
from receiver.journal.deliveries import TAKEN, WANTED, Letter, Span, span_at
from receiver.journal.folder import FILE_NAME, mark_damage
from receiver.journal.lanes import Lane
from receiver.journal.records import FORMAT_VERSION, Origin, Refusal, Row, Stored

_AFTER = "SELECT * FROM signals WHERE position > ? AND lane = ? ORDER BY position LIMIT ?"
# Without the literal, SQLite cannot know that the index over the urgent rows serves.
_URGENT_AFTER = "SELECT * FROM signals WHERE position > ? AND lane = 0 ORDER BY position LIMIT ?"

_LOST_ORIGIN = Origin("0", "0", "unknown", "tcp")  # of a row that was carried over from a damaged journal without it


class Reader:
    """A read-only view of a journal; each has a connection of its own and is used from one thread at a time.

    ``close`` is the exception: it waits for a thread that is still inside ``after``, as when an output was ended while
    it read. SQLite ends the process when a connection goes away under a query.
    """

    def __init__(self, data_dir: Path) -> None:
        """Open the journal in ``data_dir``.

        Raises:
            ConfigError: there is none, or it is of another version.
        """
        self._file = data_dir / FILE_NAME
        self._origins: dict[int, Origin] = {}
        self._in_use = threading.Lock()
        if not self._file.exists():
            raise ConfigError(f"there is no journal in {data_dir}: has the receiver run with this configuration?")
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            raise ConfigError(f"{self._file} is damaged: {error}") from None

    def _open(self) -> sqlite3.Connection:
        found = os.stat(self._file)
        self._opened = found.st_dev, found.st_ino
        uri = f"{self._file.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version != FORMAT_VERSION:
                raise ConfigError(f"{self._file} has format {version}, this program reads format {FORMAT_VERSION}")
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
                if lane is Lane.URGENT:
                    found = self._connection.execute(_URGENT_AFTER, (position, limit))
                else:
                    found = self._connection.execute(_AFTER, (position, lane.value, limit))
                return [self._stored(row) for row in found.fetchall()]
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CORRUPT:
                mark_damage(self._file, str(error))
            raise JournalUnavailable(f"the journal cannot be read: {error}") from error

    def all(self) -> Iterator[Stored]:
        """Return every stored event in order."""
        for row in self._connection.execute("SELECT * FROM signals ORDER BY position"):
            yield self._stored(row)

    def last(self, count: int) -> list[Stored]:
        """Return the newest events, oldest first."""
        found = self._connection.execute("SELECT * FROM signals ORDER BY position DESC LIMIT ?", (count,)).fetchall()
        return [self._stored(row) for row in reversed(found)]

    def refusals(self, count: int) -> list[Refusal]:
        """Return the newest refused frames, oldest first."""
        columns = ", ".join(Refusal._fields)
        found = self._connection.execute(f"SELECT {columns} FROM refusals ORDER BY refusal DESC LIMIT ?", (count,))  # noqa: S608 - our own names
        return [Refusal(*row) for row in reversed(found.fetchall())]

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
        return int(self._connection.execute("SELECT COALESCE(MAX(refusal), 0) FROM refusals").fetchone()[0])

    def cursors(self) -> dict[tuple[str, Lane], int]:
        """Return how far each output has come in each lane."""
        found = self._connection.execute("SELECT output, lane, position FROM cursors")
        return {(output, Lane(lane)): position for output, lane, position in found}

    def span(self, output: str, stored: Stored) -> Span | None:
        """Return when an output took an event, or had it left out by its filter; None: not yet, or no longer known."""
        with suppress(sqlite3.OperationalError):  # a journal from before there were spans
            return span_at(self._connection, output, stored.lane, stored.position)
        return None

    def letters(self, output: str, position: int | None = None) -> list[tuple[Letter, Stored]]:
        """Return the dead letters of an output, oldest first, or the one at a position; those taken since are among them."""
        if position is None:
            return self._letters("output = ? ORDER BY position", (output,))
        return self._letters("output = ? AND position = ?", (output, position))

    def count_dead(self, output: str) -> int:
        """Return how many dead letters of an output have not been taken."""
        found = self._connection.execute(
            "SELECT COUNT(*) FROM dead_letters WHERE output = ? AND state <> ?", (output, TAKEN)
        )
        return int(found.fetchone()[0])

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
        try:
            rows = self._connection.execute(f"SELECT * FROM dead_letters WHERE {condition}", values).fetchall()  # noqa: S608 - ours
        except sqlite3.OperationalError:
            if self._connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'dead_letters'").fetchone():
                raise
            return []  # a journal from before there were dead letters
        fields = len(Letter._fields)
        return [(Letter._make(row[:fields]), self._stored(row[fields:])) for row in rows]

    def damage(self) -> list[str]:
        """Check the file and return what is wrong with it, in sentences; none when it is sound."""
        try:
            wrong = [f"SQLite: {text}" for (text,) in self._connection.execute("PRAGMA integrity_check") if text != "ok"]
            return wrong + self._gaps()
        except sqlite3.DatabaseError as error:
            return [f"SQLite: {error}"]

    def _gaps(self) -> list[str]:
        found = self._connection.execute("SELECT MIN(position), MAX(position), COUNT(*) FROM signals").fetchone()
        first, last, count = found
        if count and last - first + 1 != count:
            return [f"{last - first + 1 - count} positions are missing between {first} and {last}"]
        return []

    def _stored(self, row: tuple[object, ...]) -> Stored:
        record = Row._make(row[1:])
        origin = self._origins.get(record.origin)
        if origin is None:
            found = self._connection.execute(
                "SELECT receiver_number, line, listener, transport FROM origins WHERE origin = ?", (record.origin,)
            ).fetchone()
            origin = self._origins[record.origin] = Origin(*found) if found else _LOST_ORIGIN
        return Stored(int(str(row[0])), record, origin)
