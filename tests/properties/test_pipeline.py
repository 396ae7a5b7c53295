"""The pipeline against the contract's table of answers (its section 5), message after message, with a journal of lists.

The model never reads a frame: it knows how each was made.
"""

from itertools import product
from typing import NamedTuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from fuzz.memory import MemoryJournal
from fuzz.single import Strict, handle_one
from protocols import dc09
from receiver.accounts import Account, Accounts
from receiver.clock import SECOND_US
from receiver.config import ClockSettings
from receiver.pipeline import Pipeline, Route

START = 1_790_000_000
KEY, OTHER_KEY = dc09.Key(bytes(range(16))), dc09.Key(bytes(range(32)))
WINDOW_SECONDS = 600
OPEN, KEYED, EITHER, STRANGER = "1234", "5678", "9ABC", "FFFF"
"""An account without a key, one with a key, one with a key that may report in clear, one that nobody registered."""
ACCOUNTS = (OPEN, KEYED, EITHER, STRANGER)
FROM_RECEIVER = ("ACK", "NAK", "DUH", "RSP")
TOKENS = ("ADM-CID", "SIA-DCS", "FBI-SF", "NULL", "XYZ", *FROM_RECEIVER)
CLEAR_AGES = (None, 0, 41, -21, 9999)
SEALED_AGES = (0, 40, -20, 41, -21, 9999, -9999)
EVENTS = {  # data and how many events are in it
    b"#1|1121 01 005": 1, b"#1|Nri1/HA001/BA002|Ori2/PA3": 3, b"what is this": 1, b"": 1, b"\x81\xff": 1,
}  # fmt: skip


class Sent(NamedTuple):
    """One message as a panel means it; the age of its stamp is in seconds, None for no stamp."""

    account: str
    token: str
    sequence: str
    data: bytes
    key: dc09.Key | None
    age: int | None

    def frame(self, now: int) -> bytes:
        stamp = None if self.age is None else now - self.age
        address = dc09.Address(None, "0", self.account)
        return dc09.encode(self.token, self.sequence, address, self.data, (), stamp, self.key)


clear = st.builds(
    Sent,
    st.sampled_from(ACCOUNTS),
    st.sampled_from(TOKENS),
    st.sampled_from(["0000", "0001", "0002", "00af"]),
    st.sampled_from(sorted(EVENTS)),
    st.none(),
    st.sampled_from(CLEAR_AGES),
)
encrypted = clear.flatmap(
    lambda sent: st.builds(sent._replace, key=st.sampled_from([KEY, OTHER_KEY]), age=st.sampled_from(SEALED_AGES))
)


class PipelineMachine(RuleBasedStateMachine):
    """One receiver, and what the contract says it must have answered and stored."""

    def __init__(self) -> None:
        super().__init__()
        rows = {
            OPEN: Account(OPEN, supervision_seconds=60),
            KEYED: Account(KEYED, key=KEY, accepts_plaintext=False),
            EITHER: Account(EITHER, key=KEY, accepts_plaintext=True),
        }
        self.now = START
        self.journal = MemoryJournal()
        self.pipeline = Pipeline(
            Accounts(rows, None, accept_unknown=False), ClockSettings(), self.journal, Strict(),  # type: ignore[arg-type]
            lambda: self.now * SECOND_US,
        )  # fmt: skip
        self.stored_at: dict[tuple[object, ...], int] = {}  # what makes a message the same -> when it was stored
        self.stored = 0
        self.refused = 0

    # -- what the contract says -----------------------------------------------------------------------------------

    def _expected(self, sent: Sent) -> str:
        keyed = sent.account in (KEYED, EITHER)
        if sent.token in FROM_RECEIVER:
            return "silence"
        if sent.key is not None and not (keyed and sent.key is KEY):
            return "silence"
        if sent.key is None and sent.account == KEYED:
            return "silence"
        if sent.key is not None and sent.age is not None and not -20 <= sent.age <= 40:
            return "NAK"
        if sent.account == STRANGER:
            return "silence"
        if sent.token == "XYZ":
            return "DUH"
        if sent.token == "NULL":
            return "ACK"
        if self._same(sent) in self.stored_at:
            return "repeat"
        return "silence" if self._full(sent) else "stored"

    def _same(self, sent: Sent) -> tuple[object, ...]:
        """Return what is equal for repeats; with sequence 0000 the stamp counts, and without one nothing repeats."""
        stamp: object = None
        if sent.sequence == "0000":
            stamp = object() if sent.age is None else self.now - sent.age
        return sent.account, sent.token, sent.sequence.upper(), sent.data, stamp

    def _full(self, sent: Sent) -> bool:
        return self.journal.failing or len(self.journal.signals()) + self._events(sent) > self.journal.max_backlog

    def _events(self, sent: Sent) -> int:
        return EVENTS[sent.data] if sent.token == "SIA-DCS" else 1

    # -- what happens ---------------------------------------------------------------------------------------------

    def _send(self, raw: bytes, transport: str = "udp") -> bytes | None:
        (frame,) = dc09.split_datagram(raw)
        assert isinstance(frame, dc09.Frame)
        waiting = handle_one(self.pipeline, frame, Route("main", transport, "127.0.0.1:40112", 1))
        try:
            waiting.send(None)
        except StopIteration as done:
            reply: bytes | None = done.value
        assert reply is None or len(reply) <= len(raw)
        return reply

    @rule(sent=clear | encrypted, transport=st.sampled_from(["tcp", "udp"]))
    def report(self, sent: Sent, transport: str) -> None:
        """A panel reports, or somebody who would like to be one."""
        same, expected, refused = self._same(sent), self._expected(sent), len(self.journal.refusals)
        before = len(self.journal.signals())
        reply = self._send(sent.frame(self.now), transport)
        if expected in ("ACK", "repeat", "stored"):
            assert said(reply) == ("*ACK" if sent.key else "ACK")
        else:
            assert said(reply) == expected
            self.refused += 1
        if expected == "stored":
            self.stored_at[same] = self.now
            self.stored += self._events(sent)
            assert {row.raw for row in self.journal.signals()[before:]} == {sent.frame(self.now)} or sent.key
        assert len(self.journal.refusals) - refused == (expected in ("silence", "NAK", "DUH"))

    @rule(sent=clear | encrypted, times=st.integers(2, 5))
    def report_over_and_over(self, sent: Sent, times: int) -> None:
        """A panel sends one message again, byte for byte, as a panel does that got no answer."""
        for _ in range(times):
            self.report(sent, "udp")

    @rule(content=st.binary(max_size=80).filter(lambda content: b"_" not in content), bare=st.booleans())
    def junk_under_the_key(self, content: bytes, bare: bool) -> None:
        """Whoever has the key, or guesses, sends what ends in no time stamp."""
        plain = content.ljust(16) if bare else b"x" * (15 - len(content) % 16) + b"|" + content
        plain += bytes(-len(plain) % 16)
        assert self._send(dc09.wrap(b'"*ADM-CID"0001L0#5678[' + KEY.encrypt(plain).hex().upper().encode())) is None
        self.refused += 1

    @rule(content=st.binary(min_size=1, max_size=80))
    def junk_for_ciphertext(self, content: bytes) -> None:
        """What was never encrypted pretends to be."""
        assert self._send(dc09.wrap(b'"*SIA-DCS"0001L0#5678[' + content)) is None
        self.refused += 1

    @rule(sent=clear, at=st.floats(0, 1), bits=st.integers(1, 255))
    def damaged(self, sent: Sent, at: float, bits: int) -> None:
        """The line changes one byte of the body: no answer, whatever it was."""
        raw = sent.frame(self.now)
        place = 9 + int(at * (len(raw) - 11))
        found = dc09.split_datagram(raw[:place] + bytes([raw[place] ^ bits]) + raw[place + 1 :])
        for damage in found:
            assert isinstance(damage, dc09.Damage)
            self.pipeline.handle_damage(damage, Route("main", "udp", "127.0.0.1:1", 1))
        self.refused += len(found)

    @rule(body=st.binary(max_size=60).filter(lambda body: not body.startswith(b'"')))
    def whole_frames_of_nothing(self, body: bytes) -> None:
        """A frame whose length and CRC fit, and whose header is none."""
        assert self._send(dc09.wrap(b'"ADM-CID"' + body.replace(b"#", b"") + b"[]")) is None
        self.refused += 1

    @rule(seconds=st.sampled_from([1, 30, 599, 602, 5000]))
    def time_passes(self, seconds: int) -> None:
        """Repeats leave their window."""
        self.now += seconds
        self.stored_at = {same: at for same, at in self.stored_at.items() if self.now - at < WINDOW_SECONDS}

    @rule()
    def a_second_about_the_window_passes(self) -> None:
        """Not to the second: the memory of repeats counts in whole ones."""
        self.time_passes(WINDOW_SECONDS + 2)

    @rule(failing=st.booleans())
    def the_disk_fails_or_comes_back(self, failing: bool) -> None:
        self.journal.failing = failing

    @rule(room=st.sampled_from([0, 1, 2, 1_000_000]))
    def the_outputs_fall_behind(self, room: int) -> None:
        self.journal.max_backlog = len(self.journal.signals()) + room

    # -- what always holds ----------------------------------------------------------------------------------------

    @invariant()
    def acknowledged_is_stored_exactly_once_and_refused_is_not(self) -> None:
        signals = self.journal.signals()
        assert len(signals) == self.stored
        assert [row.received_us for row in signals] == sorted(row.received_us for row in signals)

    @invariant()
    def every_refusal_is_kept_with_its_reason(self) -> None:
        assert len(self.journal.refusals) == min(self.refused, 1000)
        assert all(refusal.reason for refusal in self.journal.refusals)


def said(reply: bytes | None) -> str:
    if reply is None:
        return "silence"
    (frame,) = dc09.split_datagram(reply)
    assert isinstance(frame, dc09.Frame)
    return frame.body[1:5].decode().strip('"')


@pytest.mark.parametrize("disk", ["well", "failing", "full"])
def test_every_combination_of_account_token_key_and_age_is_answered_as_the_table_says(disk: str) -> None:
    machine = PipelineMachine()
    machine.journal.failing = disk == "failing"
    machine.journal.max_backlog = 0 if disk == "full" else machine.journal.max_backlog
    keys_and_ages = [(None, age) for age in CLEAR_AGES] + [(key, age) for key in (KEY, OTHER_KEY) for age in SEALED_AGES]
    for account, token, (key, age) in product(ACCOUNTS, TOKENS, keys_and_ages):
        machine.now += WINDOW_SECONDS + 2
        machine.stored_at.clear()
        machine.report(Sent(account, token, "0001", b"#1|Nri1/HA001/BA002|Ori2/PA3", key, age), "udp")
        machine.acknowledged_is_stored_exactly_once_and_refused_is_not()


TestPipeline = PipelineMachine.TestCase
TestPipeline.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)
