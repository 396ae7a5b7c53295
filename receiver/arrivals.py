"""Frames between their arrival and their reply. Those that the loop read in one turn are handled together.

One callback, one coroutine, one reading of the clock and one wait for the disk serve all of them; a lone frame waits for
nobody. A task or a callback for each frame would cost more than all the rest of its story (``docs/decisions/0015``).

Where many come at once, signals go first: thousands of panels send link tests when a line returns, and a duress among them
must not wait until each was opened and answered. To read a frame costs a tenth of that, so what lies in the sockets is read
to its end while link tests wait.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from msgspec import Struct

from protocols.dc09 import Frame, is_link_test
from receiver import clock
from receiver.defaults import Defaults

_MANY = 500  # frames of one turn, about 5 ms of work; heavy senders add no more to it
_FEW = 256  # frames of one turn that are handled as they come; with more, as many may lie in the sockets still
_TESTS_A_TURN, _OLD_TESTS_A_TURN = 256, 32  # the latter while the sockets bring more and more
_OLD_SECONDS = 0.5
_TESTS_KEPT = 20_000  # link tests that wait, about 20 MB


class Route(Struct, frozen=True, gc=False):
    """The way a frame came: listener, transport, the peer's address, and the number the journal has for the first two.

    ``spend`` is asked of each refused frame, with the peer and whether it proved a key: may it cost more than a count?
    ``defaults`` is what the listener says of accounts that say nothing themselves, None for nothing.
    """

    listener: str
    transport: str
    peer: str
    origin: int
    spend: Callable[[str, bool], bool] = lambda _peer, _proven: True
    defaults: Defaults | None = None


class Panel(Protocol):
    """Who is to be given a reply."""

    def answered(self, arrival: "Arrival", now: float) -> None:
        """Take note that a frame is done; what was ready together is all done by then (``now`` in monotonic seconds)."""

    def let_close(self, ours: bool) -> None:
        """Take note of who closes the connection after the answer, by the account's dialect: we, or the panel."""


class Arrival(Struct, eq=False):
    """One frame in hand: how it came, who is to be answered, and when its last byte came (monotonic seconds).

    ``reply`` is valid once ``done``; None is silence.
    """

    frame: Frame
    route: Route
    panel: Panel
    arrived: float
    reply: bytes | None = None
    done: bool = False


Story = Callable[[Sequence[Arrival]], Coroutine[Any, Any, None]]


class Arrivals:
    """Gathers the frames of one turn of the loop and begins their story in the next."""

    def __init__(self, story: Story, gave_up: Callable[[Sequence[Arrival], Exception], None]) -> None:
        """Take the story, and who is told when it breaks: our own bug."""
        self._story = story
        self._gave_up = gave_up
        self._gathered: list[Arrival] = []
        self._tests: deque[Arrival] = deque()
        self._coming = False

    @property
    def many(self) -> bool:
        """Whether this turn has as much to do as it should."""
        return len(self._gathered) + len(self._tests) >= _MANY

    @property
    def tests_waiting(self) -> int:
        """How many link tests wait while signals go first."""
        return len(self._tests)

    def take(self, arrival: Arrival) -> None:
        """Take a frame; the loop gets round to it as soon as it has read what lies ready."""
        if not self._coming:
            self._come()
        self._gathered.append(arrival)

    def _come(self) -> None:
        self._coming = True
        asyncio.get_running_loop().call_soon(self._begin)

    def again(self, arrivals: Sequence[Arrival]) -> None:
        """Begin the story of frames that were set aside, at once."""
        self._go_on([*arrivals], self._story(arrivals))

    def _begin(self) -> None:
        self._coming = False
        arrivals, self._gathered = self._gathered, []
        if len(arrivals) < _FEW and not self._tests:
            self._go_on(arrivals, self._story(arrivals))
            return
        for some in self._signals_first(arrivals):
            if some:
                self._go_on(some, self._story(some))
        if self._tests and not self._coming:
            self._come()

    def _signals_first(self, arrivals: list[Arrival]) -> tuple[list[Arrival], list[Arrival]]:
        """Return what is handled now: what is no link test, and those link tests for which there is time."""
        tests = self._tests
        first: list[Arrival] = []
        for arrival in arrivals:
            (tests if is_link_test(arrival.frame) else first).append(arrival)
        count = _TESTS_A_TURN
        if len(arrivals) >= _FEW:
            count = _OLD_TESTS_A_TURN if tests and clock.monotonic() - tests[0].arrived > _OLD_SECONDS else 0
        count = min(len(tests), max(count, len(tests) - _TESTS_KEPT))
        return first, [tests.popleft() for _ in range(count)]

    def _go_on(
        self, arrivals: list[Arrival], story: Coroutine[Any, Any, None], _: "asyncio.Future[Any] | None" = None
    ) -> None:
        """Run a story until it waits or ends, as a task would; a task costs 5 µs, which a lone frame would pay alone."""
        try:
            waiting: asyncio.Future[Any] = story.send(None)
        except StopIteration:
            return
        except Exception as error:  # noqa: BLE001 - the frames stay unanswered, and the next ones must not
            self._gave_up(arrivals, error)
            return
        waiting._asyncio_future_blocking = False  # as a task does: tells the future that its waiter has it
        waiting.add_done_callback(partial(self._go_on, arrivals, story))
