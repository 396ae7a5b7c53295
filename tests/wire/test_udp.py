"""UDP as panels use it."""

import contextlib
import re
import signal
import socket
from collections import Counter
from pathlib import Path

import pytest

from protocols import dc09
from tests.wire.running import KEY, KEYED, PLAIN, Running, frame, said, wait_until


def _panel(running: Running, buffer_bytes: int = 1 << 22) -> socket.socket:
    """Return a socket that hears nobody but the port it sends to."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
    link.settimeout(5)
    link.connect(("127.0.0.1", running.port))
    return link


def test_a_datagram_is_answered_from_the_port_it_went_to(receiver: Running) -> None:
    assert said(receiver.udp(frame("3000"))) == "ACK 3000"
    assert said(receiver.udp(frame("3001", "1121 01 001", KEYED, KEY)), KEY) == "ACK 3001"


def test_two_frames_in_a_datagram_are_both_answered(receiver: Running) -> None:
    with _panel(receiver) as link:
        link.send(frame("3002") + frame("3003"))
        assert {said(link.recv(1000)) for _ in range(2)} == {"ACK 3002", "ACK 3003"}


def test_damage_in_a_datagram_takes_no_neighbour_with_it(receiver: Running) -> None:
    with _panel(receiver) as link:
        link.send(b"noise" + frame("3005") + frame("3006").replace(b"130", b"131") + b"\x00\r\n" + frame("3007") + b"\nFFFF")
        assert {said(link.recv(1000)) for _ in range(2)} == {"ACK 3005", "ACK 3007"}


def test_a_frame_does_not_go_on_in_the_next_datagram(receiver: Running) -> None:
    whole = frame("3008")
    with _panel(receiver) as link:
        link.send(whole[:30])
        link.send(whole[30:])
        link.send(frame("3009"))
        assert said(link.recv(1000)) == "ACK 3009"


def test_the_longest_frame_fits_a_datagram(receiver: Running) -> None:
    text = b"#1A01|Nri1/HA001^" + b"t" * 4000 + b"^"
    assert said(receiver.udp(dc09.encode("SIA-DCS", "3010", dc09.Address(None, "0", PLAIN), text))) == "ACK 3010"


def test_garbage_and_our_own_replies_get_no_answer(receiver: Running) -> None:
    for datagram in (b"", b"\n", b"x" * 2000, frame("3004")[:-1], dc09.wrap(b'"ACK"0001L0#1A01[]'), b'\n00000FFF"'):
        assert receiver.udp(datagram, seconds=0.1) is None


def test_a_burst_is_taken_whole(receiver: Running) -> None:
    with _panel(receiver) as link:
        wanted = {f"ACK {n:04d}" for n in range(4000, 5000)}
        for n in range(4000, 5000):
            link.send(frame(f"{n:04d}", "1602 00 000"))
        assert {said(link.recv(1000)) for _ in range(1000)} == wanted


def test_a_duress_behind_a_storm_of_link_tests_is_answered_before_most_of_them(tmp_path: Path) -> None:
    with Running(tmp_path, "max_frames_in_hand = 600") as receiver, _panel(receiver) as link:
        assert receiver.process is not None
        count = min(8000, int(re.findall(r"receive_buffer_bytes=(\d+)", receiver.log())[0]) // 1024)
        if count < 4000:
            pytest.skip("the kernel grants a UDP buffer for few datagrams; raise net.core.rmem_max to 8 MB, or be root")
        receiver.process.send_signal(signal.SIGSTOP)  # all of it lies in the kernel when it goes on
        for number in range(1, count + 1):
            link.send(dc09.encode("NULL", f"{number:04d}", dc09.Address(None, "0", PLAIN)))
        link.send(frame("9999", "1121 01 001"))
        receiver.process.send_signal(signal.SIGCONT)
        answers = [said(link.recv(1000)) for _ in range(count + 1)]
    assert answers.index("ACK 9999") < count * 3 // 4  # the disk takes its time, and link tests go on meanwhile
    assert len(set(answers)) == count + 1  # those that wait do not count as frames in hand


def test_every_copy_of_a_message_that_comes_twice_at_once_is_answered(receiver: Running) -> None:
    with _panel(receiver) as link:
        for n in range(3100, 3150):
            for _ in range(3):
                link.send(frame(f"{n:04d}", "1121 01 001", KEYED, KEY))
        answers = Counter(said(link.recv(1000), KEY) for _ in range(150))
    assert answers == {f"ACK {n:04d}": 3 for n in range(3100, 3150)}
    stored = Counter(event["data"]["sequence"] for event in receiver.export())
    assert all(stored[f"{n:04d}"] == 1 for n in range(3100, 3150))


def test_panels_behind_one_address_are_answered_at_their_own_ports(receiver: Running) -> None:
    links = [_panel(receiver) for _ in range(20)]
    try:
        for n, link in enumerate(links, 3200):
            link.send(frame(f"{n:04d}"))
        assert [said(link.recv(1000)) for link in links] == [f"ACK {n:04d}" for n in range(3200, 3220)]
    finally:
        for link in links:
            link.close()


def test_a_panel_that_has_gone_harms_nobody(receiver: Running) -> None:
    for n in range(3300, 3320):
        with _panel(receiver) as link:
            link.send(frame(f"{n:04d}"))  # its answer finds no one, and comes back to us as an error
    assert said(receiver.udp(frame("3320"))) == "ACK 3320"
    wait_until(lambda: {f"{n:04d}" for n in range(3300, 3320)} <= {e["data"]["sequence"] for e in receiver.events()})


def test_a_link_test_is_acknowledged_and_is_no_event(receiver: Running) -> None:
    before = len(receiver.export())
    address = dc09.Address(None, "0", PLAIN)
    assert said(receiver.udp(dc09.encode("NULL", "0000", address))) == "ACK 0000"
    assert len(receiver.export()) == before


def test_what_is_too_much_at_once_is_dropped_counted_and_taken_when_repeated(tmp_path: Path) -> None:
    with Running(tmp_path, listener="max_frames_in_hand = 40") as running, _panel(running) as link:
        missing = {f"{n:04d}" for n in range(1, 201)}
        link.settimeout(0.2)
        while missing:
            before = len(missing)
            for sequence in sorted(missing):
                link.send(frame(sequence))
            try:
                while missing:
                    missing.discard(said(link.recv(1000)).split()[1])
            except TimeoutError:
                assert len(missing) < before
        assert running.metric("receiver_udp_dropped_total") > 0
        stored = Counter(event["data"]["sequence"] for event in running.export())
        assert stored == {f"{n:04d}": 1 for n in range(1, 201)}


def test_a_stopping_receiver_answers_what_it_has_in_hand(tmp_path: Path) -> None:
    with Running(tmp_path) as running, _panel(running) as link:
        for n in range(1, 301):
            link.send(frame(f"{n:04d}"))
        answered = {said(link.recv(1000)).split()[1]}
        assert running.stop() == 0
        link.setblocking(False)
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                answered.add(said(link.recv(1000)).split()[1])
        assert answered == {event["data"]["sequence"] for event in running.export()}


def test_a_burst_after_a_line_returns_waits_in_the_kernel_and_is_answered_whole(tmp_path: Path) -> None:
    with Running(tmp_path) as running, _panel(running, 1 << 26) as link:
        granted = int(re.findall(r"receive_buffer_bytes=(\d+)", running.log())[0])
        count = min(20_000, granted // 1024)  # the kernel counts 768 bytes for a small datagram
        sent = [dc09.encode("NULL", f"{n % 10000:04d}", dc09.Address(None, "0", PLAIN)) for n in range(count)]
        running.signal(signal.SIGSTOP)  # everything comes while nobody reads
        for datagram in sent:
            link.send(datagram)
        running.signal(signal.SIGCONT)
        wait_until(lambda: running.metric("receiver_link_tests_total") == count, 30)
        assert running.metric("receiver_udp_dropped_total") == 0
