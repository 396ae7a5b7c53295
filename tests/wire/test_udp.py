"""UDP as panels use it."""

import socket

from protocols import dc09
from tests.wire.running import KEY, KEYED, Running, frame, said


def test_a_datagram_is_answered_from_the_port_it_went_to(receiver: Running) -> None:
    assert said(receiver.udp(frame("3000"))) == "ACK 3000"
    assert said(receiver.udp(frame("3001", "1121 01 001", KEYED, KEY)), KEY) == "ACK 3001"


def test_two_frames_in_a_datagram_are_both_answered(receiver: Running) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.settimeout(5)
        link.connect(("127.0.0.1", receiver.port))
        link.send(frame("3002") + frame("3003"))
        assert {said(link.recv(1000)) for _ in range(2)} == {"ACK 3002", "ACK 3003"}


def test_garbage_and_our_own_replies_get_no_answer(receiver: Running) -> None:
    for datagram in (b"", b"\n", b"x" * 2000, frame("3004")[:-1], dc09.wrap(b'"ACK"0001L0#1A01[]'), b'\n00000FFF"'):
        assert receiver.udp(datagram, seconds=0.1) is None


def test_a_burst_is_taken_whole(receiver: Running) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        link.settimeout(5)
        link.connect(("127.0.0.1", receiver.port))
        wanted = {f"ACK {n:04d}" for n in range(4000, 5000)}
        for n in range(4000, 5000):
            link.send(frame(f"{n:04d}", "1602 00 000"))
        assert {said(link.recv(1000)) for _ in range(1000)} == wanted


def test_a_link_test_is_acknowledged_and_is_no_event(receiver: Running) -> None:
    before = len(receiver.export())
    address = dc09.Address(None, "0", "1A01")
    assert said(receiver.udp(dc09.encode("NULL", "0000", address))) == "ACK 0000"
    assert len(receiver.export()) == before
