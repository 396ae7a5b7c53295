"""Exhaustion: what attackers cost us is bounded, and a panel gets its ACK meanwhile. ``make flood`` is the long form."""

import contextlib
import ctypes
import resource
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols import dc09
from receiver import clock
from tests.wire import flood
from tests.wire.running import KEY, KEYED, PLAIN, Running, connect_from, frame, is_closed, read_replies, said, wait_until

LINK_TEST = dc09.encode("NULL", "0000", dc09.Address(None, "0", PLAIN))
DAMAGED = frame("0001").replace(b"130", b"131")
SO_ATTACH_FILTER = 26


@contextlib.contextmanager
def _links(running: Running, count: int, source: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    links = [connect_from(source, running.port) for _ in range(count)]
    try:
        yield links
    finally:
        for link in links:
            link.close()


def _proven(link: socket.socket) -> bool:
    """Earn an answer, as a panel does."""
    link.sendall(LINK_TEST)
    return [said(reply) for reply in read_replies(link, 1, 5)] == ["ACK 0000"]


def _closed(running: Running, reason: str) -> float:
    return running.metric("receiver_connections_closed_total", f'reason="{reason}"')


def _lines(running: Running, text: str) -> int:
    return sum(text in line for line in running.log().splitlines())


# -- floods --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A receiver with the settings it comes with, attacked in one way after the other."""
    with Running(tmp_path_factory.mktemp("attacked")) as running:
        yield running


@pytest.mark.parametrize("name", [name for name in flood.ATTACKS if name not in flood.PARTS])
def test_a_flood_keeps_no_duress_from_its_ack_and_does_not_grow_us(attacked: Running, name: str) -> None:
    """The p99 is wanted of 2,000 slow connections, a long line and garbage at once; a busy machine may try three times."""
    figures = name == flood.WORST
    for turn in range(3):
        first = 1000 * list(flood.ATTACKS).index(name) + 300 * turn
        told = flood.attack(attacked, name, 3.0 if figures else 0.7, first)
        assert told.acknowledged == told.wanted
        assert told.growth_mb < flood.GROWTH_WANTED_MB
        assert sum(score["received_bytes"] for score in told.scores) <= sum(score["sent_bytes"] for score in told.scores)
        if not figures or told.p99_ms < flood.P99_WANTED_MS:
            break
    assert not figures or told.p99_ms < flood.P99_WANTED_MS


def test_a_flood_does_not_fill_the_log(attacked: Running) -> None:
    """Runs after the floods: tens of thousands of refusals and closed connections are some hundred lines."""
    assert attacked.metric("receiver_frames_total", 'answer="silence"') > 5000
    assert attacked.metric("receiver_refused_over_budget_total") > 5000
    assert _lines(attacked, "") < 3000


# -- connections ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "source"), [("max_connections", "127.0.0.2"), ("max_connections_per_source", "127.0.0.1")]
)
def test_where_connections_run_out_one_that_never_got_an_answer_makes_room(tmp_path: Path, limit: str, source: str) -> None:
    with (
        Running(tmp_path, listener=f"{limit} = 20\ncrowded_out_after_seconds = 0.2") as running,
        _links(running, 20) as silent,
    ):
        time.sleep(0.3)
        with _links(running, 1, source) as (panel,):
            assert _proven(panel)
            assert is_closed(silent[0], 5)
            silent[1].sendall(LINK_TEST)
            assert read_replies(silent[1], 1, 5) != []
        assert _closed(running, "crowded-out") == 1


def test_a_panel_that_was_answered_is_never_crowded_out(tmp_path: Path) -> None:
    with (
        Running(tmp_path, listener="max_connections = 10\ncrowded_out_after_seconds = 0.1") as running,
        _links(running, 10) as panels,
    ):
        assert all(_proven(link) for link in panels)
        time.sleep(0.2)
        with _links(running, 5, "127.0.0.2") as callers:
            assert all(is_closed(caller, 5) for caller in callers)
        assert all(_proven(link) for link in panels)
        assert _closed(running, "max-connections") == 5


def test_nobody_gains_time_by_dripping(tmp_path: Path) -> None:
    limits = "first_frame_timeout_seconds = 0.5\nidle_timeout_seconds = 0.5"
    with Running(tmp_path, listener=limits) as running, _links(running, 6) as links:
        assert _proven(links[4])
        assert _proven(links[5])
        assert _drip(links, [b"\r", b"x", b"\n", b"\n00000FFF", b"\r\n", b"x"]) < 3
        assert _closed(running, "first-frame-timeout") == 4
        assert _closed(running, "idle-timeout") == 2


def _drip(links: list[socket.socket], drops: list[bytes]) -> float:
    """Send a drop on each connection every 50 ms; return after how long all were closed."""
    began, left = time.monotonic(), dict(zip(links, drops, strict=True))
    while left and time.monotonic() < began + 10:
        for link, drop in list(left.items()):
            link.setblocking(False)
            try:
                link.sendall(drop)
                if link.recv(100) == b"":
                    del left[link]
            except BlockingIOError:
                continue
            except ConnectionError:
                del left[link]
        time.sleep(0.05)
    return time.monotonic() - began


def test_a_frame_is_timed_from_its_own_first_byte(tmp_path: Path) -> None:
    with Running(tmp_path, listener="frame_timeout_seconds = 1.2") as running, running.connect() as link:
        assert _proven(link)
        time.sleep(1.3)
        whole = frame("0002")
        link.sendall(whole[:30])
        time.sleep(0.6)  # a sweep of the time limits passes
        link.sendall(whole[30:])
        assert [said(reply) for reply in read_replies(link, 1, 5)] == ["ACK 0002"]


def test_a_peer_that_is_gone_without_a_word_is_given_up(tmp_path: Path) -> None:
    with Running(tmp_path, listener="keepalive_seconds = 1") as running, _links(running, 2) as (gone, there):
        assert _proven(gone)
        assert _proven(there)
        _cut_off(gone)
        wait_until(lambda: running.metric("receiver_connections") == 1, 15)
        assert _closed(running, "keepalive") == 1
        assert _proven(there)


def _cut_off(link: socket.socket) -> None:
    """Let the kernel drop what comes for a socket: no ACK, no reset, as if its line had been cut."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # one instruction: let no byte in
    link.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))


# -- bytes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("megabytes", [1, 20])
@pytest.mark.parametrize("piece", [b"A" * 65536, b'\n00000FFF"' + b"A" * 65526, b"\n" * 65536], ids=["A", "frames", "lf"])
def test_a_line_without_an_end_is_cut_off_after_a_few_kilobytes(attacked: Running, megabytes: int, piece: bytes) -> None:
    before = _closed(attacked, "noise") + _closed(attacked, "refused-too-often")
    held = attacked.metric("receiver_resident_bytes")
    sent = 0
    with attacked.connect() as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
        try:
            while sent < megabytes * 1_000_000:
                sent += link.send(piece)
        except ConnectionError:
            pass
        else:
            assert is_closed(link, 5)
    assert sent < 500_000  # what the kernel's buffers at both ends hold is in it
    wait_until(lambda: _closed(attacked, "noise") + _closed(attacked, "refused-too-often") == before + 1)
    assert attacked.metric("receiver_resident_bytes") - held < 5_000_000
    assert said(attacked.tcp(frame("7000"))[0]) == "ACK 7000"


def test_noise_within_its_bound_costs_no_frame(tmp_path: Path) -> None:
    with Running(tmp_path) as running, running.connect() as link:
        for n in range(4):  # the count begins anew with each frame
            link.sendall(b"\xff" * 12_000 + frame(f"000{n}"))
            assert [said(reply) for reply in read_replies(link, 1, 5)] == [f"ACK 000{n}"]


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_panel_that_never_reads_is_closed_in_time(tmp_path: Path, half_closed: bool) -> None:
    with Running(tmp_path, listener="unread_timeout_seconds = 1.0") as running, running.connect() as rude:
        rude.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        rude.setblocking(False)
        until = time.monotonic() + 2
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until and _closed(running, "unread-timeout") == 0:
                with contextlib.suppress(BlockingIOError):
                    while True:
                        rude.send(LINK_TEST * 500)
                if half_closed:
                    rude.shutdown(socket.SHUT_WR)
                    break
                time.sleep(0.05)
        wait_until(lambda: running.metric("receiver_connections") == 0, 15)
        assert half_closed or _closed(running, "unread-timeout") == 1


def test_a_panel_that_reads_slowly_gets_all_its_answers(tmp_path: Path) -> None:
    with Running(tmp_path, listener="unread_timeout_seconds = 1.0") as running, running.connect() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.sendall(LINK_TEST * 600)
        replies = 0
        while replies < 600:
            found = read_replies(slow, 1, 5)
            assert found
            replies += len(found)
            time.sleep(0.02)
        assert replies == 600


def test_a_panel_that_begins_to_read_late_is_not_blamed_for_the_frame_we_did_not_read(tmp_path: Path) -> None:
    with Running(tmp_path, listener="frame_timeout_seconds = 0.3") as running, running.connect() as late:
        late.settimeout(1.5)  # until nothing more goes out, and then some: longer than the limit
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                sent += late.send(LINK_TEST * 500)
        late.settimeout(10)
        asked, answered = sent // len(LINK_TEST), 0
        while answered < asked and (data := late.recv(1 << 20)):
            answered += data.count(b"\r")
        assert running.metric("receiver_connections_closed_total") == 0


# -- refused frames --------------------------------------------------------------------------------------------------------


def test_frames_refused_too_often_close_their_connection_and_no_other(tmp_path: Path) -> None:
    limits = "refused_frames_burst = 20\nrefused_frames_per_second = 0.1"
    with Running(tmp_path, listener=limits) as running, _links(running, 3) as (bad, good, worse):
        assert _proven(good)
        for n in range(21):
            bad.sendall(frame(f"{n:04d}", account="F00D"))
        assert is_closed(bad, 5)
        good.sendall(frame("0100"))
        assert [said(reply) for reply in read_replies(good, 1, 5)] == ["ACK 0100"]
        worse.sendall(frame("0101") + DAMAGED + frame("0102"))
        assert [said(reply) for reply in read_replies(worse, 2, 5)] == ["ACK 0101"]  # what was owed is given; then the end
        assert is_closed(worse, 5)
        assert _closed(running, "refused-too-often") == 2
        assert running.metric("receiver_refused_over_budget_total", 'transport="tcp"') == 2
        refused = running.command("journal", "show", "--refused", "--last", "200", "--config", str(running.config)).stdout
        assert wait_until(lambda: refused.count("unknown-account")) <= 20
        with _links(running, 1, "127.0.0.2") as (elsewhere,):
            elsewhere.sendall(DAMAGED + frame("0103"))
            assert [said(reply) for reply in read_replies(elsewhere, 1, 5)] == ["ACK 0103"]


def test_a_journal_that_cannot_store_is_no_fault_of_the_panels(tmp_path: Path) -> None:
    limits = "refused_frames_burst = 1\nrefused_frames_per_second = 0.1"
    with Running(tmp_path, listener=limits, more="[journal]\nmax_backlog = 1", outputs=DEAD) as running:
        with running.connect() as link:
            link.sendall(b"".join(frame(f"{n:04d}") for n in range(1, 60)))
            read_replies(link, 59, 0.5)
            for n in range(60, 80):
                link.sendall(frame(f"{n:04d}"))
            assert _proven(link)
        assert running.metric("receiver_frames_total", 'reason="journal-unavailable"') >= 20
        assert running.metric("receiver_refused_over_budget_total") == 0
        assert _closed(running, "refused-too-often") == 0


DEAD = '[[outputs]]\nname = "away"\ntype = "webhook"\nurl = "http://127.0.0.1:9/"\n'


# -- UDP -------------------------------------------------------------------------------------------------------------------


def test_a_datagram_is_never_answered_with_more_bytes_than_came(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        known, stranger = dc09.Address(None, "0", PLAIN), dc09.Address(None, "0", "F00D")
        long_data = b"#1A01|1130 01 001"
        for datagram in (
            dc09.wrap(b'"X"0001L0#1A01[]'), dc09.wrap(b'"XY"0001L0#1A01[]'), dc09.wrap(b'"XYZ"0001L0#1A01[]'),
            dc09.wrap(b'"X"0001L0#1A01[]', True), dc09.encode("NO-SUCH", "0001", known, long_data), LINK_TEST,
            dc09.encode("ADM-CID", "0001", stranger), frame("0001"), frame("0002", account=KEYED, key=KEY), LINK_TEST * 100,
            dc09.encode("NULL", "0003", dc09.Address(None, "0", KEYED), panel_time=clock.now_us() // 1_000_000, key=KEY),
            dc09.encode("ADM-CID", "0004", dc09.Address(None, "0", KEYED), b"", (), 1_790_000_000, KEY),
        ):  # fmt: skip
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.connect(("127.0.0.1", running.port))
                link.send(datagram)
                link.settimeout(0.1)
                came = 0
                with contextlib.suppress(TimeoutError):
                    while True:
                        came += len(link.recv(65535))
                assert came <= len(datagram), datagram
        assert running.metric("receiver_udp_replies_withheld_total") == 3


def test_a_datagram_longer_than_any_panel_sends_is_not_read(tmp_path: Path) -> None:
    with Running(tmp_path, listener="max_datagram_bytes = 5000") as running:
        assert running.udp(frame("0001") + b"\x00" * 6000, seconds=0.2) is None
        assert running.metric("receiver_frames_total", 'reason="bad-length"', 'transport="udp"') == 1
        assert said(running.udp(frame("0001") + b"\x00" * 4000)) == "ACK 0001"


def test_over_the_budget_a_refused_datagram_is_counted_and_nothing_else(tmp_path: Path) -> None:
    limits = "refused_frames_burst = 5\nrefused_frames_per_second = 0.1"
    with Running(tmp_path, listener=limits) as running:
        unknown_token = dc09.encode("NO-SUCH-TOKEN", "0001", dc09.Address(None, "0", PLAIN))
        answers = [running.udp(unknown_token, seconds=0.1) for _ in range(8)]
        assert [answer is not None for answer in answers] == [True] * 5 + [False] * 3
        assert said(running.udp(frame("0002"))) == "ACK 0002"
        assert running.metric("receiver_refused_over_budget_total", 'transport="udp"') == 3
        assert running.metric("receiver_frames_total", 'reason="unknown-token"') == 8
        assert _lines(running, "frame refused") == 5


def test_forged_addresses_share_what_refusals_may_cost_and_a_panel_on_udp_is_answered(tmp_path: Path) -> None:
    with Running(tmp_path, listener="refused_datagrams_per_second = 20") as running:
        for n in range(1, 200):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
                link.bind((f"127.0.3.{n}", 0))
                link.sendto(frame("0001", account="F00D"), ("127.0.0.1", running.port))
        assert said(running.udp(frame("0002", "1121 01 001", KEYED, KEY)), KEY) == "ACK 0002"
        assert running.metric("receiver_refused_over_budget_total", 'transport="udp"') > 100
        stale = dc09.encode("ADM-CID", "0004", dc09.Address(None, "0", KEYED), b"#2B02|1130 01 001", (), 1_790_000_000, KEY)
        assert b'"NAK"0000R0L0A0[]' in (
            running.udp(stale) or b""
        )  # our time is not withheld from a panel that holds the key


# -- descriptors -----------------------------------------------------------------------------------------------------------


def _allow_files(running: Running, count: int) -> None:
    assert running.process is not None
    _, hard = resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (count, hard))


def test_connections_never_get_the_descriptors_that_the_journal_and_the_outputs_need(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        _allow_files(running, 300)
        with _links(running, 250):
            wait_until(lambda: _closed(running, "max-files") + _closed(running, "crowded-out") > 80)
            assert 100 <= running.metric("receiver_connections") <= 150
            time.sleep(0.6)
            with running.connect() as panel:
                panel.sendall(frame("0001", "1121 01 001", KEYED, KEY))
                assert [said(reply, KEY) for reply in read_replies(panel, 1, 5)] == ["ACK 0001"]
        assert running.get("/readyz")[0] == 200
        assert running.metric("receiver_accept_failures_total") == 0


def test_without_a_descriptor_callers_wait_and_those_inside_go_on(tmp_path: Path) -> None:
    with Running(tmp_path) as running, _links(running, 50) as inside:
        assert all(_proven(link) for link in inside)
        _allow_files(running, 20)
        with running.connect() as waiting:
            waiting.sendall(frame("0001"))
            spent = _cpu_seconds(running)
            assert read_replies(waiting, 1, 1.3) == []
            assert _cpu_seconds(running) - spent < 0.5
            inside[7].sendall(frame("0002"))
            assert [said(reply) for reply in read_replies(inside[7], 1, 5)] == ["ACK 0002"]
            _allow_files(running, 20000)
            assert [said(reply) for reply in read_replies(waiting, 1, 5)] == ["ACK 0001"]
        assert 2 <= running.metric("receiver_accept_failures_total") <= 30
        assert _lines(running, "connections cannot be taken") == 1
        assert _lines(running, "connections are taken again") == 1
        assert said(running.tcp(frame("0003"))[0]) == "ACK 0003"


def _cpu_seconds(running: Running) -> float:
    assert running.process is not None
    columns = Path(f"/proc/{running.process.pid}/stat").read_text("ascii").rsplit(")", 1)[1].split()
    return (int(columns[11]) + int(columns[12])) / 100
