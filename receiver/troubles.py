"""Troubles: what an operator must be told of beside the signals; pure state, with time passed in.

The first of its kind goes out at once. Its like, from the same account at the same listener or output, are counted for a
minute and then told as one with their ``count``, so that a storm is one line and not ten thousand.
"""

from dataclasses import dataclass, replace

from receiver.clock import SECOND_US

REASONS = {
    "undecryptable": "an encrypted message that no known key opens",
    "plaintext-refused": "a message in clear for an account that has a key",
    "unknown-account": "a message of an account that is not registered",
    "unknown-token": "a message in a format that is in no table of the standards",
    "journal-damaged": "a stored event that cannot be read again; its bytes stand in raw",
    "dead-letter": "an output's target refused an event for good; it lies in the output's dead letters",
    "automation-lost": "an output's automation software does not answer; events wait for it",
    "automation-restored": "an output's automation software answers again",
    "does-not-fit": "an account or number had no room in an automation format and went out cut",
    "paths-lost": "many paths were lost at once; the count stands for them",
}
_WINDOW_US = 60 * SECOND_US
_MAX_KINDS = 2000


@dataclass(frozen=True, slots=True)
class Trouble:
    """One trouble; ``count`` is how many happenings it stands for, since ``since_us``."""

    reason: str
    text: str
    since_us: int
    count: int = 1
    account: str | None = None
    listener: str | None = None
    peer: str | None = None
    raw: str | None = None
    output: str | None = None


class Troubles:
    """Counts like troubles together."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str | None, str | None, str | None], tuple[int, Trouble | None]] = {}

    def add(self, trouble: Trouble, now_us: int) -> Trouble | None:
        """Return the trouble when it is to go out now, None when it was counted."""
        kind = (trouble.reason, trouble.account, trouble.listener, trouble.output)
        if kind not in self._open and len(self._open) >= _MAX_KINDS:
            trouble = replace(trouble, account=None)  # too many different ones: one counter for the reason
            kind = (trouble.reason, None, trouble.listener, trouble.output)
        if kind not in self._open:
            self._open[kind] = (now_us + _WINDOW_US, None)
            return trouble
        until, held = self._open[kind]
        count = 1 if held is None else held.count + 1
        since = trouble.since_us if held is None else held.since_us
        self._open[kind] = (until, replace(trouble, count=count, since_us=since))
        return None

    def due(self, now_us: int) -> list[Trouble]:
        """Return what was counted in windows that have ended."""
        ended = [kind for kind, (until, _) in self._open.items() if until <= now_us]
        told = []
        for kind in ended:
            _, held = self._open.pop(kind)
            if held is not None:
                told.append(held)
                self._open[kind] = (now_us + _WINDOW_US, None)
        return told
