"""Outputs over TLS: the server's certificate and name are checked, and whoever else answers is handed nothing.

Each real server asks for a certificate of ours and for a password as well. Kafka's mock broker speaks neither, so there a
plain TLS listener shows what its library does; no login at a Kafka is tested.
"""

import gc
import json
import socket
import ssl
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver.cli import main
from tests.wire.running import Running, frame, wait_until
from tests.wire.secure_servers import IN_URL, PASSWORD, SECURE, Papers, Secure

WRONG = "another-password"
UNKNOWN = "is not signed by anyone we trust"
ANOTHER_NAME = "is for another name than the one we connect to"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module", params=SECURE, ids=lambda server: server.kind)
def server(request: pytest.FixtureRequest, papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    made: Secure = request.param(tmp_path_factory.mktemp("server"))
    made.papers = papers
    try:
        made.start()
        yield made
    finally:
        made.end()


def attempt(folder: Path, output: str) -> tuple[bool, str]:
    """Send the test event; return whether it was taken, and the words, in which no password may stand."""
    file = folder / "receiver.toml"
    file.write_text("[[listeners]]\n" + output, "utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # paho leaves the socket of a failed handshake to the collector
        done = CliRunner().invoke(main, ["outputs", "test", "bus", "--config", str(file)])
        gc.collect()
    assert done.exit_code in (0, 1), done.output
    assert not any(secret in done.output for secret in (PASSWORD, IN_URL, WRONG))
    assert "Traceback" not in done.output
    return done.exit_code == 0, done.output


def test_a_server_of_our_authority_that_takes_our_login_gets_the_event(tmp_path: Path, server: Secure) -> None:
    before = server.events() if server.kind == "amqp" else []  # its queue is made by looking
    taken, words = attempt(tmp_path, server.output(files=server.papers.settings()))
    assert (taken, before) == (True, []), words
    assert [event["data"]["event_code"] for event in server.events()] == ["602"]


def test_a_server_whose_authority_nobody_knows_is_handed_nothing(tmp_path: Path, server: Secure) -> None:
    files = server.papers.settings(server.papers.stranger.ca_file)
    taken, words = attempt(tmp_path, server.output(files=files))
    assert not taken
    assert UNKNOWN in words


def test_a_server_under_another_name_is_handed_nothing(tmp_path: Path, server: Secure) -> None:
    taken, words = attempt(tmp_path, server.output("localhost", files=server.papers.settings()))
    assert not taken
    assert ANOTHER_NAME in words


def test_a_wrong_password_is_told_without_any_password(tmp_path: Path, server: Secure) -> None:
    output = server.output(password=WRONG, files=server.papers.settings())

    def refused() -> bool:
        """A server may hang up before its words are read."""
        taken, words = attempt(tmp_path, output)
        assert not taken
        return "the server refuses our login: compare user and password with its own" in words

    wait_until(refused, 30)


def test_a_server_that_wants_a_certificate_of_ours_is_told_of(tmp_path: Path, server: Secure) -> None:
    output = server.output(files=server.papers.settings(certificate=False))

    def refused() -> bool:
        taken, words = attempt(tmp_path, output)
        assert not taken
        wanted = "certificate it asks us for is missing" if server.kind == "mqtt" else "wants a certificate of ours"
        return wanted in words

    wait_until(refused, 30)


def test_a_receiver_hands_over_by_itself_once_the_certificate_is_right(
    tmp_path: Path, papers: Papers, server: Secure
) -> None:
    with Running(tmp_path, outputs=server.output(files=papers.settings(papers.stranger.ca_file))) as running:
        running.tcp(frame("0001"))
        wait_until(lambda: UNKNOWN in running.log())
        assert running.metric("receiver_output_delivered_total") == 0
        assert running.stop() == 0
        told = running.config.read_text("utf-8")
        running.config.write_text(told.replace(str(papers.stranger.ca_file), str(papers.authority.ca_file)), "utf-8")
        running.start()
        wait_until(lambda: running.metric("receiver_output_delivered_total") >= 1)
        log = running.log()
    assert not any(secret in log for secret in (PASSWORD, IN_URL))


@pytest.fixture
def listening(papers: Papers) -> Iterator[tuple[int, list[bytes]]]:
    """A TLS listener that wants a certificate, and what clients whose TLS stands have said to it."""
    said = list[bytes]()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(papers.authority.ca_file))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(*papers.server)
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_serve, args=(door, context, said.append), daemon=True).start()
        yield door.getsockname()[1], said
        door.shutdown(socket.SHUT_RDWR)


def _serve(door: socket.socket, context: ssl.SSLContext, note: Callable[[bytes], None]) -> None:
    while True:
        try:
            link, _ = door.accept()
        except OSError:
            return
        try:
            with context.wrap_socket(link, server_side=True) as secure:
                while data := secure.recv(65536):
                    note(data)
        except OSError:
            continue


def kafka(port: int, files: str, host: str = "127.0.0.1") -> str:
    login = f'user = "receiver"\npassword = "{PASSWORD}"\ntls = true\ntimeout_seconds = 2\n'
    return f'[[outputs]]\nname = "bus"\ntype = "kafka"\nservers = ["{host}:{port}"]\n{login}{files}'


def test_kafka_speaks_tls_and_shows_our_certificate(
    tmp_path: Path, papers: Papers, listening: tuple[int, list[bytes]]
) -> None:
    taken, _ = attempt(tmp_path, kafka(listening[0], papers.settings()))
    assert not taken  # what listens there is no broker
    assert b"dc09-receiver-bus" in listening[1][0]
    assert PASSWORD.encode() not in b"".join(listening[1])  # it is said only to one that answers as a broker


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_kafka_tells_a_broker_with_a_strange_certificate_nothing(
    tmp_path: Path, papers: Papers, listening: tuple[int, list[bytes]], host: str
) -> None:
    stranger = papers.stranger.ca_file if host == "127.0.0.1" else None
    taken, words = attempt(tmp_path, kafka(listening[0], papers.settings(stranger), host))
    assert not taken
    assert UNKNOWN in words
    assert ANOTHER_NAME in words
    assert not listening[1]


def test_an_expired_certificate_is_told_of(tmp_path: Path, papers: Papers) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*papers.authority.sign("old", "127.0.0.1", days=-1))
    with socket.create_server(("127.0.0.1", 0)) as door:
        threading.Thread(target=_serve, args=(door, context, lambda _: None), daemon=True).start()
        more = f"port = {door.getsockname()[1]}\ntls = true\n{papers.settings(certificate=False)}"
        taken, words = attempt(tmp_path, f'[[outputs]]\nname = "bus"\ntype = "mqtt"\n{more}')
        door.shutdown(socket.SHUT_RDWR)
    assert not taken
    assert "has expired: renew it there, and compare the clocks" in words


def test_syslog_over_tls_is_one_frame_an_event_and_a_stranger_gets_none(
    tmp_path: Path, papers: Papers, listening: tuple[int, list[bytes]]
) -> None:
    told = f'[[outputs]]\nname = "bus"\ntype = "syslog"\nport = {listening[0]}\ntls = true\ntimeout_seconds = 3\n'
    taken, words = attempt(tmp_path, told + papers.settings(papers.stranger.ca_file))
    assert not taken
    assert UNKNOWN in words
    assert not listening[1]
    taken, words = attempt(tmp_path, told + papers.settings())
    assert taken, words
    length, _, rest = wait_until(lambda: b"".join(listening[1])).partition(b" ")
    assert len(rest) == int(length)
    assert json.loads(rest.split("\ufeff".encode(), 1)[1])["data"]["event_code"] == "602"
