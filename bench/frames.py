"""What the panels of a measurement send. Every frame is made before the clock starts.

A panel's account is its number: ``A000`` and up in a small register, six digits in a large one. In a large register each
keyed account has a key of its own, made from its number, so that the generator needs no register.
"""

import time
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from protocols import dc09

SMALL_REGISTER = 20_000
STEP = 7_654_321
"""Through the accounts of a large register, so that neighbours in time are none in memory; nothing divides both."""
_SEQUENCES = 9999


def small(number: int) -> str:
    """Return the account of a panel in the small register."""
    return f"{0xA000 + number:04X}"


def large(number: int) -> str:
    """Return the account of a panel in a large register."""
    return f"{number:06X}"


def key_of(number: int) -> str:
    """Return the key that an account of a large register has for itself."""
    return blake2b(number.to_bytes(4, "big"), digest_size=16).hexdigest()


@lru_cache(maxsize=4)
def _key(text: str) -> dc09.Key:
    return dc09.Key.parse(text)


def frame(order: dict[str, Any], panel: int, at: int, now: int) -> bytes:
    """Return a panel's message number ``at``; ``round``, as the partition, keeps the rounds of one run apart."""
    account = large(panel) if order.get("large") else small(panel)
    key = None
    if order["key"] and panel % order.get("keyed_each", 1) == 0:
        key = dc09.Key.parse(key_of(panel)) if order["key"] == "each" else _key(order["key"])
    address = dc09.Address(None, "0", account)
    if order["token"] == dc09.LINK_TEST:
        return dc09.encode("NULL", "0000", address, panel_time=now, key=key)
    urgent_each = order.get("urgent_each", 0)
    code = "1121" if urgent_each and at % urgent_each == urgent_each - 1 else "1130"
    place = order["round"] % 100
    data = f"#{account}|{code} {place:02d} {at // _SEQUENCES % 1000:03d}".encode()
    return dc09.encode("ADM-CID", f"{at % _SEQUENCES + 1:04d}", address, data, (), now, key)


def frames(order: dict[str, Any], panel: int, count: int) -> list[bytes]:
    """Return ``count`` different messages of one panel (a link test is the same each time)."""
    now = int(time.time())  # noqa: TID251 - the generator is a panel with a clock of its own
    if order["token"] == dc09.LINK_TEST:
        return [frame(order, panel, 0, now)] * count
    return [frame(order, panel, at, now) for at in range(count)]
