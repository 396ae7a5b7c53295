"""Remembers over a restart that an automation link was told as lost: its return must be told too, or it stays lost to all.

A file in the data folder, there while the link is lost. It is written in a thread: the disk may be away.
"""

import contextlib
import threading
from pathlib import Path


class LostMark:
    """The mark of one link."""

    def __init__(self, data_dir: Path, output: str) -> None:
        self._file = data_dir / f"automation-lost.{output}"
        self._writing = threading.Lock()
        self.lost = self._file.exists()

    def set(self, lost: bool) -> None:
        """Note how the link stands."""
        self.lost = lost
        threading.Thread(target=self._write, name="automation-mark", daemon=True).start()

    def _write(self) -> None:
        with self._writing, contextlib.suppress(OSError):  # without it a restart tells the loss anew, and no return
            if self.lost:
                self._file.touch(mode=0o600)
            else:
                self._file.unlink(missing_ok=True)
