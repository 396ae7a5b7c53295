"""What stands beside the register while a receiver runs: tests, rotations, and who was heard; one object for the service."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from receiver.accounts import Accounts
from receiver.on_test import Desk
from receiver.pipeline import Pipeline
from receiver.rotation import KeyWatch
from receiver.sightings import Sightings
from receiver.troubles import Trouble

Tell = Callable[[Trouble], None]


class AccountDesk:
    """Built before panels are heard: what was on test before a restart is on test again."""

    def __init__(
        self, data_dir: Path, pipeline: Pipeline, accounts: Callable[[], Accounts], tell: Tell, count: Tell
    ) -> None:
        """``tell`` takes a trouble at once, ``count`` with its like."""
        self._tests = Desk(data_dir, pipeline.on_test, tell)
        self._tests.load()
        self.keys = KeyWatch(data_dir, accounts, pipeline.senders.key_of, count)
        self._sightings = Sightings(data_dir, lambda name: pipeline.senders.last_heard(accounts().spelled(name)))

    @property
    def parts(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """What is to run as long as the receiver does."""
        return self._tests.run, self.keys.run, self._sightings.run
