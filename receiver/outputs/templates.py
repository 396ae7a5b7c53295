"""Subjects, topics, streams and routing keys from a template such as ``signals.{lane}.{account}``.

An account is text from the wire. Whatever is not a letter, a digit, ``-`` or ``_`` becomes ``_``, so that no account can add
a level, a wildcard or a control character. Events without an account have ``none`` in its place.
"""

import re
from functools import lru_cache

from receiver.events import OutEvent

_UNSAFE = re.compile(r"[^0-9A-Za-z_-]")
_KINDS = ("signal", "path", "trouble")
_LONGEST = 64
NO_ACCOUNT = "none"


def fill(template: str, event: OutEvent) -> str:
    """Return the template with the event's values in it."""
    row = event.stored.row
    return _fill(template, row.lane, event.account, row.kind, row.priority)


@lru_cache(maxsize=4096)
def _fill(template: str, lane: int, account: str | None, kind: int, priority: int) -> str:
    safe = _UNSAFE.sub("_", account[:_LONGEST]) if account else NO_ACCOUNT
    return template.format(lane=("urgent", "normal")[lane], account=safe, kind=_KINDS[kind], priority=priority)


def pattern(template: str, wildcard: str) -> str:
    """Return the template with a wildcard in place of each field: what a stream or a consumer has to take."""
    return re.sub(r"\{[a-z]+\}", wildcard, template)
