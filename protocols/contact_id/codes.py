"""The Contact ID event codes: what each means, how urgent it is, and whether its number is a zone or a user.

The table is ``codes.csv`` beside this module, with sources and traps in its ``notes``; priorities are this project's
advice (1 act now … 9 log only), no public standard gives any. Read once, when the module is imported.
"""

import csv
from importlib import resources
from typing import NamedTuple


class Code(NamedTuple):
    """One row of the table; ``number`` says what CCC is: ``zone``, ``user`` or ``none``."""

    event: str
    category: str
    priority: int
    duress: bool
    number: str


def _read() -> dict[str, Code]:
    text = resources.files(__package__).joinpath("codes.csv").read_text("utf-8")
    return {
        row["code"]: Code(
            row["name"], row["category"], int(row["default_priority"]), row["is_duress_family"] == "yes", row["zone_or_user"]
        )
        for row in csv.DictReader(text.splitlines())
    }


CODES = _read()
