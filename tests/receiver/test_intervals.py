"""Supervision intervals: seconds and categories, with and without a margin."""

import re
from pathlib import Path

import pytest

from receiver import intervals
from receiver.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "primary", "backup", "margin", "words"),
    [
        ("90", 90, 90, None, "every 90 s"),
        ("90+30", 90, 90, 30, "every 90 s +30 s"),
        ("SP4", 180, 180, None, "SP4: every 180 s"),
        ("dp3+0", 180, 90_000, 0, "DP3: every 180 s +0 s, backup 90000 s"),
    ],
)
def test_seconds_and_categories_are_read_with_their_margin(
    text: str, primary: int, backup: int, margin: int | None, words: str
) -> None:
    found = intervals.parse(text)
    assert (found.seconds("primary"), found.seconds(""), found.seconds("backup")) == (primary, primary, backup)
    assert (found.margin_seconds, found.in_words(), str(found)) == (margin, words, text.upper())


@pytest.mark.parametrize("text", ["0", "0+5", "-1", "1.5", "SP0", "SP7", "DP5", "DP6", "SP", "90+", "+5", "9" * 20, "٣"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="SP1 to SP6, DP1 to DP4"):
        intervals.parse(text)


def test_the_documented_times_are_those_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/settings.md").read_text("utf-8")
    units = {"s": 1, "min": 60, "h": 3600, "days": 86400}
    told = dict[str, tuple[int, int]]()
    for name, *cells in re.findall(r"^\| `([SD]P[0-9])` \| (.*?) \| (.*?) \|$", page, re.MULTILINE):
        seconds = [int(cell.split()[0]) * units[cell.split()[1]] if cell != "–" else 0 for cell in cells]
        told[name] = seconds[0], seconds[1] or seconds[0]
    assert told == intervals.CATEGORIES
