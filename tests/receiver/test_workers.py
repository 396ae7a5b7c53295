"""Parts of workers: counts that travel, shares of limits, what is sent for what a worker does not have."""

import asyncio
import pickle
import socket
from collections import Counter
from typing import Any

import pytest

from protocols import dc09
from receiver.accounts import Account, Accounts, OldKey
from receiver.arrivals import Route
from receiver.config import ClockSettings, ListenerSettings, Settings
from receiver.errors import JournalUnavailable, RegisterUnavailable
from receiver.journal import Entry, Origin, Receipt, Refusal
from receiver.on_test import Ticket
from receiver.pipeline import Pipeline
from receiver.telemetry import Telemetry
from receiver.workers import counts, orders
from receiver.workers.desk import Desk
from receiver.workers.link import Link
from receiver.workers.orders import Opening, Orders
from receiver.workers.remote import Outbox, RemoteJournal, RemoteSenders
from receiver.workers.worker import share_of

WAY = Route("main", "tcp", "192.0.2.1:4000", 1)


def _counters(telemetry: Telemetry) -> set[str]:
    """Return what of telemetry can be counted up by a listener or the pipeline."""
    outputs = {"delivered", "delivery_failures", "converted"}  # worker 0 alone has outputs
    found = {name for name, value in vars(telemetry).items() if type(value) in (int, dict, Counter)}
    return found - outputs - {"delivery_seconds", "_lines"}


def test_everything_a_worker_counts_is_added_once_to_what_worker_0_counts() -> None:
    here, there = Telemetry(), Telemetry()
    for _ in range(2):
        there.accepted("tcp", "sia", 1, 3)
        there.repeated("udp")
        there.link_tested("tcp")
        there.refused("tcp", "nak", "stale-timestamp")
        there.refused_over_budget("udp", "bad-crc")
        there.connection_refused("noise")
        there.accept_failed(False)
        there.reply_withheld()
        there.datagram_dropped()
        there.refusals_dropped += 1
        there.ack_seconds.observe(0.002)
        touched = {name for name in _counters(there) if sum(_values(getattr(there, name)))}
        counts.add(here, counts.take(there))
    assert touched == _counters(there) - {"slow_syncs"}, "a counter does not travel: add it to receiver/workers/counts.py"
    both = Telemetry()
    assert {name: _values(getattr(here, name)) for name in touched} != {
        name: _values(getattr(both, name)) for name in touched
    }
    assert here.frames == Counter(
        {
            ("tcp", "ack", ""): 4,
            ("udp", "ack", ""): 2,
            ("tcp", "nak", "stale-timestamp"): 2,
            ("udp", "silence", "bad-crc"): 2,
        }
    )
    assert all(value == 0 for name in touched for value in _values(getattr(there, name)))
    text = here.scrape().decode()
    assert 'receiver_signals_total{priority="1",protocol="sia"} 6.0' in text
    assert "receiver_ack_seconds_count 2.0" in text
    assert "receiver_udp_replies_withheld_total 2.0" in text


def _values(counter: Any) -> list[int]:
    return [counter] if isinstance(counter, int) else list(counter.values())


@pytest.mark.parametrize("workers", [1, 2, 3, 7])
def test_shares_add_up_to_the_limit_and_never_to_nothing(workers: int) -> None:
    whole = ListenerSettings(max_connections=10, max_connections_per_source=1, refused_frames_burst=100)
    share = share_of(whole, workers)
    assert whole.max_connections <= share.max_connections * workers < whole.max_connections + workers
    assert share.max_connections_per_source == 1
    assert whole.refused_frames_burst <= share.refused_frames_burst * workers < whole.refused_frames_burst + workers
    assert share.receive_buffer_bytes == whole.receive_buffer_bytes
    assert share_of(whole, 1) is whole


def test_orders_arrive_whole_with_their_sockets() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, socket.socket() as extra:
        orders.send(ours, Orders(3, Settings()), [])
        orders.send(ours, Opening({}, 1, 2, 3, [(0, "tcp")]), [extra.fileno()])
        assert orders.receive(theirs) == (Orders(3, Settings()), [])
        opening, handles = orders.receive(theirs)
        assert opening == Opening({}, 1, 2, 3, [(0, "tcp")])
        with socket.socket(fileno=handles[0]) as received:
            assert received.type == socket.SOCK_STREAM
        ours.close()
        with pytest.raises(EOFError):
            orders.receive(theirs)
    assert pickle.loads(orders.pack(Settings())) == Settings()  # noqa: S301


class _Other:
    """The other end of a link: keeps what is sent."""

    def __init__(self) -> None:
        self.full = False
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


def _message(sequence: str, token: str = "ADM-CID") -> dc09.Message:
    raw = dc09.encode(token, sequence, dc09.Address(None, "0", "1A01"), b"#1A01|1130 01 001" if token != "NULL" else b"")
    (found,) = dc09.split_datagram(raw)
    assert isinstance(found, dc09.Frame)
    return dc09.unseal(dc09.open_envelope(found), None)


def _entry(message: dc09.Message, number: int) -> Entry:
    raw = message.envelope.frame.raw
    return Entry(0, bytes([number]) * 16, 0, None, 1, WAY.peer, "", raw, None, ((1, 5, 0),))


def _outbox() -> tuple[Outbox, Any]:
    outbox, other = Outbox(), _Other()
    outbox.link = other  # type: ignore[assignment]
    return outbox, other


def test_what_a_turn_of_the_loop_brings_is_one_message_and_each_gets_its_own_outcome() -> None:
    async def run() -> None:
        outbox, other = _outbox()
        senders, journal = RemoteSenders(outbox), RemoteJournal(outbox)
        messages = [_message("0001"), _message("0000", "NULL"), _message("0002"), _message("0003")]
        for message in messages:
            heard = senders.heard(message, None, None, WAY, 0)  # type: ignore[arg-type]
            assert not heard.fresh, "worker 0 alone keeps paths"
        signals = [messages[0], messages[2], messages[3]]
        async with asyncio.TaskGroup() as group:
            storing = group.create_task(journal.append([_entry(message, n) for n, message in enumerate(signals)]))
            await asyncio.sleep(0.01)  # some turns of the loop
            ((name, number, items, *_),) = other.sent
            assert (name, [item[3] for item in items]) == ("batch", ["0001", "0000", "0002", "0003"])
            assert [item[-1] and item[-1].identity[0] for item in items] == [0, None, 1, 2]
            assert not storing.done(), "no receipt, no ACK"
            outbox.receive(("receipts", number, [7, -5, "the disk is full"]))
        first, again, refused = storing.result()
        assert (first, again) == (Receipt(7, repeat=False), Receipt(5, repeat=True))
        assert isinstance(refused, JournalUnavailable)
        assert str(refused) == "the disk is full"

    asyncio.run(run())


def test_nothing_is_acknowledged_or_kept_for_a_receiver_that_does_not_read() -> None:
    async def run() -> None:
        outbox, other = _outbox()
        other.full = True
        with pytest.raises(JournalUnavailable):
            RemoteSenders(outbox).heard(_message("0000", "NULL"), None, None, WAY, 0)  # type: ignore[arg-type]
        assert not RemoteJournal(outbox).refuse(Refusal(0, "bad-crc", "", None, "main", "tcp", WAY.peer, b""))

    asyncio.run(run())


def test_an_entry_finds_its_message_past_one_that_the_story_stumbled_over() -> None:
    async def run() -> None:
        outbox, other = _outbox()
        broken, good = _message("0001"), _message("0002")
        outbox.tell(broken, WAY._replace(peer="192.0.2.9:1"))
        outbox.tell(good, WAY)
        outbox.store([_entry(good, 1)])
        outbox.flush()
        items = other.sent[0][2]
        assert [item[-1] is None for item in items] == [True, False]

    asyncio.run(run())


def test_messages_cross_a_link_whole_however_they_are_cut() -> None:
    heard: list[Any] = []
    link = Link(heard.append, lambda: None)
    packed = link._pack(("batch", 1, [["\udcff", b"\xff", None]])) + link._pack(("tell",))
    for at in range(len(packed)):
        link.data_received(packed[at : at + 1])
    assert heard == [("batch", 1, (("\udcff", b"\xff", None),)), ("tell",)]


# -- the desk ---------------------------------------------------------------------------------------------------------

OLD, NEW = dc09.Key(b"o" * 16), dc09.Key(b"n" * 16)
NOW_US = 1_800_000_000_000_000


class _Journal:
    """Keeps what is appended."""

    origins = {Origin("1", "1", "main", "tcp"): 1}  # noqa: RUF012 - read only

    def __init__(self) -> None:
        self.stored: list[Entry] = []

    async def append(self, entries: Any) -> list[Receipt]:
        self.stored += entries
        return [Receipt(len(self.stored), repeat=False) for _ in entries]

    def append_later(self, entries: Any) -> None:
        """Take an event of our own."""


class _Room:
    """Worker 0 as far as the desk knows it; ``newer`` is what the register's next look brings."""

    def __init__(self, accounts: Accounts, newer: Accounts | None = None) -> None:
        self.journal = _Journal()
        self.pipeline = Pipeline(
            accounts, ClockSettings(), self.journal, Telemetry(), lambda: NOW_US, lambda: NOW_US  # type: ignore[arg-type]
        )  # fmt: skip
        self.newer = newer

    def _refresh(self, _now_us: int) -> None:
        self.pipeline.accounts = self.newer or self.pipeline.accounts

    def take(self, message: dc09.Message, key: dc09.Key | None = None, duress: int = 0) -> Entry:
        """Let a worker send one signal."""

        async def run() -> None:
            outbox, other = _outbox()
            outbox.tell(message, WAY, key)
            outbox.store([_entry(message, 1)._replace(events=((1, 1, duress),))])
            outbox.flush()
            async with asyncio.TaskGroup() as tasks:
                desk = Desk(self.pipeline, self.journal, Telemetry(), tasks, self._refresh)  # type: ignore[arg-type]
                sent = Link(lambda heard: desk.take(other, heard), lambda: None)
                sent.data_received(sent._pack(other.sent[0]))

        asyncio.run(run())
        return self.journal.stored[-1]


def _register(key: dc09.Key | None = None, old: dc09.Key | None = None, dialect: str = "") -> Accounts:
    account = Account("1A01", key=key, old_key=None if old is None else OldKey(old, NOW_US), dialect=dialect)
    return Accounts({"1A01": account})


def _signal(data: str, key: dc09.Key | None = None) -> dc09.Message:
    raw = dc09.encode(
        "ADM-CID", "0001", dc09.Address(None, "0", "1A01"), f"#1A01|{data}".encode(), panel_time=1_800_000_000, key=key
    )
    (found,) = dc09.split_datagram(raw)
    assert isinstance(found, dc09.Frame)
    return dc09.unseal(dc09.open_envelope(found), key)


@pytest.mark.parametrize(
    ("data", "duress", "dialect", "flags"),
    [
        ("1130 01 001", 0, "", "on-test"),
        ("1120 01 015", 1, "", "on-test"),
        ("1120 01 016", 1, "", ""),
        ("1423 01 016", 0, "", "on-test"),
        ("1423 01 016", 1, "", ""),  # the worker has read that the panel speaks Ajax, and we have not
        ("1423 01 016", 0, "ajax", ""),  # the other way round
    ],
)
def test_what_is_on_test_is_flagged_whichever_worker_took_it_and_no_duress_that_either_knows(
    data: str, duress: int, dialect: str, flags: str
) -> None:
    room = _Room(_register(dialect=dialect))
    assert room.take(_signal(data), None, duress).flags == ""
    ticket = Ticket("1A01", True, (), ("15",), "service", "somebody", 0, 1 << 62)
    room.pipeline.on_test.tickets["1A01"] = (ticket, 1 << 62)
    assert room.take(_signal(data), None, duress).flags == flags


@pytest.mark.parametrize(
    ("opened", "before", "newer", "known"),
    [
        (OLD, _register(NEW, OLD), None, OLD),
        (NEW, _register(NEW, OLD), None, NEW),
        (NEW, _register(OLD), _register(NEW, OLD), NEW),  # the worker read the register first
        (OLD, _register(OLD), _register(NEW, OLD), OLD),
        (OLD, _register(NEW), None, None),  # it has yet to read it: says nothing of the new key
    ],
)
def test_which_key_opened_a_message_is_known_whichever_worker_took_it(
    opened: dc09.Key, before: Accounts, newer: Accounts | None, known: dc09.Key | None
) -> None:
    room = _Room(before, newer)
    room.take(_signal("1130 01 001", opened), opened)
    assert room.pipeline.senders.key_of("1A01") == known


def test_a_signal_is_stored_though_worker_0_cannot_read_the_register() -> None:
    class Unreadable(Accounts):
        def find(self, _account: str) -> Account:
            raise RegisterUnavailable("no disk")

    room = _Room(Unreadable({}))
    room.pipeline.on_test.tickets["1A01"] = (Ticket("1A01", True, (), (), "service", "somebody", 0, 1 << 62), 1 << 62)
    assert room.take(_signal("1120 01 016"), None, 1).flags == ""
    assert room.take(_signal("1130 01 016"), None, 0).flags == "on-test"
    assert room.pipeline.troubles.happened["register-unreadable"] == 4
