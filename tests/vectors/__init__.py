"""Frames and payloads as data, one file for each origin: a make of panel, a form of the standard, or what is no panel."""

import json
from pathlib import Path
from typing import Any

FRAMES = (
    "ajax", "duress", "eldes", "forms", "inim", "not-from-panels", "pyronix", "shapes-of-the-field", "standard", "trikdis",
    "unnamed-panels",
)  # fmt: skip


def load(origin: str) -> list[dict[str, Any]]:
    """Return the vectors of one origin."""
    found: list[dict[str, Any]] = json.loads(Path(__file__).with_name(f"{origin}.json").read_text("utf-8"))
    return found


def frames() -> list[dict[str, Any]]:
    """Return every frame, named ``origin/name``."""
    return [{**vector, "name": f"{origin}/{vector['name']}"} for origin in FRAMES for vector in load(origin)]
