"""Changing the account register's CSV file: one command at a time, and the old file stays until the new one is whole.

Where a link stands for the file it stays one: what it leads to is written anew, in the folder where that stands.
"""

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

_MOST_LINKS = 40  # as the kernel
Rows = dict[str, dict[str, str]]
"""The cells of each account by column, under the upper-case account."""


def edit(file: Path, apply: Callable[[Rows], None]) -> None:
    """Let ``apply`` change the rows of the CSV file and write it anew; other commands wait meanwhile.

    Raises:
        ConfigError: the result would not be a valid register; the file is unchanged. Or what ``apply`` raises.
    """
    base, file = file.parent, _end_of(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        if file.exists() and file.stat().st_size:
            read_csv(file, base=base)  # what is wrong already is not made worse
        old = file.read_text("utf-8-sig") if file.exists() else ""
        reader = csv.DictReader(io.StringIO(old, newline=""))
        columns = [name.strip() for name in reader.fieldnames or COLUMNS]
        reader.fieldnames = columns
        rows = {row["account"].strip().upper(): {name: (text or "").strip() for name, text in row.items()} for row in reader}
        apply(rows)
        header = dict.fromkeys(columns) | dict.fromkeys(name for row in rows.values() for name in row)
        _write(file, base, list(header), rows)
    finally:
        os.close(folder)


def _end_of(file: Path) -> Path:
    """Return what a link leads to, or the file itself.

    Root follows links of root and of who has what they lead to: a service must not make root write where it may not.

    Raises:
        ConfigError: it leads to no folder or back to itself, or is somebody else's.
    """
    if not file.is_symlink():
        return file
    end, owners = file, list[int]()
    while end.is_symlink():
        owners.append(end.lstat().st_uid)
        end = end.parent / os.readlink(end)
        if len(owners) > _MOST_LINKS:
            raise ConfigError(f"{file} is a link that leads back to itself: let it lead to the register")
    end = Path(os.path.realpath(end))
    if not end.parent.is_dir():
        raise ConfigError(f"{file} is a link that leads to {end}, and there is no folder {end.parent}")
    owner = (end if end.exists() else end.parent).stat().st_uid
    if os.geteuid() == 0 and not {0, owner}.issuperset(owners):
        raise ConfigError(f"{file} is a link of another user than {end} is: make the link as root, or as the owner of that")
    return end


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


def _write(file: Path, base: Path, header: list[str], rows: Rows) -> None:
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
        read_csv(temporary, base=base)
        temporary.replace(file)
    except ConfigError as error:
        raise ConfigError(*(text.replace(f"{name} ", f"{file} as it would be: ") for text in error.mistakes)) from None
    finally:
        temporary.unlink(missing_ok=True)
