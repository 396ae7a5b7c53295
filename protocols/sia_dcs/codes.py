"""The SIA event codes: what each means, what its address is, and which Contact ID code stands for it.

The table is ``codes.csv`` beside this module; pairings with Contact ID are conventions of panels and receivers, many to
one, not a standard. Read once, when the module is imported.
"""

import csv
from importlib import resources
from typing import NamedTuple


class Code(NamedTuple):
    """One row of the table; ``address`` says what the number after the code is: zone, user, area or none."""

    event: str
    category: str
    duress: bool
    restoral: bool
    address: str
    contact_id: str | None


def _read() -> dict[str, Code]:
    text = resources.files(__package__).joinpath("codes.csv").read_text("utf-8")
    return {
        row["code"]: Code(
            row["name"],
            row["category"],
            row["is_duress_family"] == "yes",
            row["cid_qualifier"] == "3" or row["name"].endswith("restored"),
            row["address_field"],
            row["cid_code"] or None,
        )
        for row in csv.DictReader(text.splitlines())
    }


CODES = _read()
