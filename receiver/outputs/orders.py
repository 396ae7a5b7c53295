"""What a command asks of the running receiver: a file laid into ``orders`` in the data folder, found within a second.

Only the receiver writes its journal; a command that wants dead letters to go out again says so here. An order that comes
while no receiver runs is carried out at the next start.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from receiver import ownership

_FOLDER = "orders"
_SUFFIX = ".replay"


def ask(data_dir: Path, output: str, positions: Sequence[int] | None) -> None:
    """Ask that dead letters of an output go out again: those at these positions, or all.

    Raises:
        OSError: the order cannot be written.
    """
    folder = data_dir / _FOLDER
    ownership.make_folder(folder)
    file = folder / f"{output}.{secrets.token_hex(8)}"
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="ascii") as out:
        ownership.hand_over(handle, folder)
        json.dump(positions, out)
    file.rename(file.with_name(file.name + _SUFFIX))  # whole, or not there


def waiting(data_dir: Path, output: str) -> list[tuple[Path, list[int] | None]]:
    """Return the orders for an output with their files, which go once an order is carried out; unreadable ones go now."""
    found: list[tuple[Path, list[int] | None]] = []
    try:
        files = sorted((data_dir / _FOLDER).glob(f"{output}.*{_SUFFIX}"))
    except OSError:
        return found  # the disk is away; the journal tells of it
    for file in files:
        try:
            positions = json.loads(file.read_text("ascii"))
        except (OSError, ValueError):
            with contextlib.suppress(OSError):
                file.unlink()
            continue
        found.append((file, positions if isinstance(positions, list) else None))
    return found
