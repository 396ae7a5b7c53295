"""Outputs over TLS: the server's certificate and name are checked, whoever else answers is handed nothing."""

import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest

from tests.wire.running import Running, frame, free_port, wait_until
from tests.wire.servers import Nats


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed here")
    folder = tmp_path_factory.mktemp("certificates")
    for name in ("good", "other"):
        command = (
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
            f"-addext subjectAltName=IP:127.0.0.1 -keyout {folder}/{name}.key -out {folder}/{name}.pem"
        )
        subprocess.run(command.split(), check=True, capture_output=True, timeout=20)
    return folder


class SecureNats(Nats):
    """nats-server that speaks TLS."""

    certificates = Path()

    def command(self) -> list[str]:
        command = super().command()
        config = Path(command[2])
        told = "authorization { user: receiver, password: secret }\n"
        told += f'tls {{ cert_file: "{self.certificates}/good.pem", key_file: "{self.certificates}/good.key" }}\n'
        config.write_text(config.read_text("utf-8") + told, "utf-8")
        return command


@pytest.mark.parametrize("trusted", ["good", "other"])
def test_nats_is_trusted_by_its_certificate_and_trusts_our_password(
    tmp_path: Path, certificates: Path, trusted: str
) -> None:
    server = SecureNats(tmp_path / "server")
    server.certificates = certificates
    server.start()
    more = f'user = "receiver"\npassword = "secret"\ntls = true\nca_file = "{certificates}/{trusted}.pem"'
    try:
        with Running(tmp_path / "receiver", outputs=server.toml(more)) as running:
            running.tcp(frame("0001"))
            if trusted == "good":
                wait_until(lambda: running.metric("receiver_output_delivered_total") == 1)
            else:
                wait_until(lambda: "certificate verify failed" in running.log())
                assert running.metric("receiver_output_delivered_total") == 0
    finally:
        server.end()


@pytest.mark.parametrize("trusted", ["good", "other"])
def test_syslog_is_trusted_by_its_certificate(tmp_path: Path, certificates: Path, trusted: str) -> None:
    import socket

    port, lines = free_port(), list[bytes]()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "good.pem", certificates / "good.key")

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                link, _ = listening.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(link, server_side=True) as secure:
                    while data := secure.recv(65536):
                        lines.append(data)
            except OSError:
                continue

    more = f'port = {port}\ntls = true\nca_file = "{certificates}/{trusted}.pem"'
    with socket.create_server(("127.0.0.1", port)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        with Running(tmp_path, outputs=f'[[outputs]]\nname = "log"\ntype = "syslog"\n{more}\n') as running:
            running.tcp(frame("0001"))
            if trusted == "good":
                told = wait_until(lambda: b"".join(lines))
                assert told.split(b" ", 1)[1].startswith(b"<107>1 ")
            else:
                wait_until(lambda: "certificate verify failed" in running.log().lower())
                assert not lines
        listening.shutdown(socket.SHUT_RDWR)
