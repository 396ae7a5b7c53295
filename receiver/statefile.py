"""Small files of state, JSON, for the next start or for a command: each is the old one or the new one at any moment."""

import json
import os
from pathlib import Path

from receiver import ownership


def write(file: Path, content: object, synced: bool = True) -> Path:
    """Write a file whole or not at all, readable by its owner alone; ``synced`` waits until it is on disk.

    Root's file belongs to the folder's owner.

    Raises:
        OSError: it cannot be written; the old one stays.
    """
    new = file.with_name(file.name + ".new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        ownership.hand_over(handle, file.parent)
        json.dump(content, out)
        if synced:
            out.flush()
            os.fsync(out.fileno())
    new.replace(file)
    return file
