"""Changing the account register's CSV file: one command at a time, and the old file stays until the new one is whole."""

import csv
import fcntl
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from receiver import ownership
from receiver.accounts import COLUMNS, read_csv
from receiver.errors import ConfigError

Rows = dict[str, dict[str, str]]
"""The cells of each account by column, under the upper-case account."""


def edit(file: Path, apply: Callable[[Rows], None]) -> None:
    """Let ``apply`` change the rows of the CSV file and write it anew; other commands wait meanwhile.

    Raises:
        ConfigError: the result would not be a valid register; the file is unchanged. Or what ``apply`` raises.
    """
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if file.exists() and file.stat().st_size:
            read_csv(file)  # what is wrong already is not made worse
        old = file.read_text("utf-8-sig") if file.exists() else ""
        reader = csv.DictReader(io.StringIO(old, newline=""))
        rows = {row["account"].strip().upper(): row for row in reader}
        apply(rows)
        header = dict.fromkeys(reader.fieldnames or COLUMNS) | dict.fromkeys(name for row in rows.values() for name in row)
        _write(file, list(header), rows)
    finally:
        os.close(folder)


def _give(handle: int, file: Path) -> None:
    """Let the new register be readable for whom the old one was; the receiver among them.

    Raises:
        ConfigError: the old one belongs to somebody else.
    """
    try:
        if file.exists():
            ownership.keep_as_it_was(handle, file)
        else:
            ownership.hand_over(handle, file.parent)
    except PermissionError:
        raise ConfigError(f"{file} belongs to another user or group: run the command as its owner, or as root") from None


def _write(file: Path, header: list[str], rows: Rows) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name, suffix=".new")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as out:
            _give(handle, file)
            writer = csv.DictWriter(out, header, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows.values())
            out.flush()
            os.fsync(out.fileno())
        read_csv(temporary)
        temporary.replace(file)
    except ConfigError as error:
        raise ConfigError(*(text.replace(f"{name} ", f"{file} as it would be: ") for text in error.mistakes)) from None
    finally:
        temporary.unlink(missing_ok=True)
