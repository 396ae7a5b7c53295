"""How long a path may be silent: seconds, or a category of EN 50136-1 by name, and a margin on top.

The register's column ``supervision_seconds`` holds ``90``, ``SP4``, or either with a margin of its own: ``90+30``.
The numbers of the categories are commonly quoted ones for the time within which a fault must be reported. None of them was
checked against the norm (``docs/reference/settings.md``).
"""

import re
from functools import lru_cache
from typing import NamedTuple

from receiver.errors import ConfigError

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_TEXT = re.compile(r"(?:(?P<seconds>[0-9]{1,8})|(?P<category>[SD]P[1-6]))(?:\+(?P<margin>[0-9]{1,6}))?")
_SHORTEST_KEY = 16  # a cell as long as a key is not repeated in a message


class Supervision(NamedTuple):
    """What is expected of an account: silence of its primary and of its backup path, in seconds.

    ``margin_seconds`` is None where the setting ``[supervision] margin_seconds`` counts; ``category`` is empty for plain
    seconds.
    """

    primary_seconds: int
    backup_seconds: int
    margin_seconds: int | None = None
    category: str = ""

    def seconds(self, role: str, primary_lost: bool = False) -> int:
        """Return the interval of a path by its listener's role, ``primary``, ``backup`` or empty.

        While the primary path is lost, its interval counts for the backup too: so it is in all categories of two paths.
        """
        return self.backup_seconds if role == "backup" and not primary_lost else self.primary_seconds

    @property
    def has_two_paths(self) -> bool:
        """Whether the category asks for a primary and a backup path."""
        return self.category.startswith("D")

    def in_words(self) -> str:
        """Say it in a list of accounts."""
        named = f"{self.category}: " if self.category else ""
        margin = "" if self.margin_seconds is None else f" +{self.margin_seconds} s"
        backup = "" if self.backup_seconds == self.primary_seconds else f", backup {self.backup_seconds} s"
        return f"{named}every {self.primary_seconds} s{margin}{backup}"

    def __str__(self) -> str:
        margin = "" if self.margin_seconds is None else f"+{self.margin_seconds}"
        return f"{self.category or self.primary_seconds}{margin}"


CATEGORIES = {
    "SP1": (32 * _DAY, 32 * _DAY),
    "SP2": (25 * _HOUR, 25 * _HOUR),
    "SP3": (30 * _MINUTE, 30 * _MINUTE),
    "SP4": (3 * _MINUTE, 3 * _MINUTE),
    "SP5": (90, 90),
    "SP6": (20, 20),
    "DP1": (25 * _HOUR, 50 * _HOUR),
    "DP2": (30 * _MINUTE, 25 * _HOUR),
    "DP3": (3 * _MINUTE, 25 * _HOUR),
    "DP4": (90, 5 * _HOUR),
}
"""Primary path, and alternative path while the primary fails; alternative path while the primary works. Unverified."""


@lru_cache(maxsize=1000)  # a register of a million rows has a handful of them, and its rows share the value
def parse(text: str) -> Supervision:
    """Read the register's cell.

    Raises:
        ConfigError: it is neither seconds nor a category.
    """
    match = _TEXT.fullmatch(text.upper())
    seconds = int(match["seconds"] or 0) if match else 0
    if match is None or (match["category"] not in CATEGORIES and seconds < 1):
        shown = repr(text) if len(text) < _SHORTEST_KEY else f"a text of {len(text)} characters"
        raise ConfigError(
            f"supervision_seconds is {shown}; it must be a whole number of 1 to 99999999, a category (SP1 to SP6, DP1 to "
            "DP4), either with a margin such as 90+30, or empty"
        )
    margin = None if match["margin"] is None else int(match["margin"])
    primary, backup = CATEGORIES.get(match["category"] or "", (seconds, seconds))
    return Supervision(primary, backup, margin, match["category"] or "")
