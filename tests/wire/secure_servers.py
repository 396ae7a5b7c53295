"""The real servers again, as a careful centre runs them: TLS, a certificate asked of us, a login.

Each listens on 127.0.0.1 with a certificate for that address alone, so that ``localhost`` is a wrong name for it.
"""

import asyncio
import contextlib
import json
import shutil
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.wire.certificates import Authority
from tests.wire.servers import Mosquitto, Nats, Postgresql, Rabbit, Redis, Server

USER, PASSWORD = "receiver", "Geheim!p@ss/42"
IN_URL = "Geheim%21p%40ss%2F42"


class Papers:
    """An authority, what it signed for the server and for us, and another authority that nobody here knows."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.stranger = Authority(folder, "authority"), Authority(folder, "stranger")
        self.server = self.authority.sign("server", "127.0.0.1")
        self.client = self.authority.sign(USER, "127.0.0.1")

    def context(self) -> ssl.SSLContext:
        """Return what the test's own reader of a server connects with."""
        made = ssl.create_default_context(cafile=str(self.authority.ca_file))
        made.load_cert_chain(*self.client)
        return made

    def settings(self, ca_file: Path | None = None, certificate: bool = True) -> str:
        """Return the settings that trust ``ca_file``, the authority if none is given, and show our certificate."""
        told = f'ca_file = "{ca_file or self.authority.ca_file}"\n'
        return told + (f'cert_file = "{self.client[0]}"\nkey_file = "{self.client[1]}"\n' if certificate else "")


class Secure(Server):
    """What the secured servers have in common."""

    papers: Papers

    def output(self, host: str = "127.0.0.1", password: str = PASSWORD, files: str = "") -> str:
        """Return the whole [[outputs]] table; ``files`` are the settings of certificates."""
        return f'[[outputs]]\nname = "bus"\ntype = "{self.kind}"\n{self.place(host, password)}\n{files}'

    def place(self, host: str, password: str) -> str:
        """Return the settings of address and login, with TLS."""
        raise NotImplementedError

    def ready(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class SecureNats(Secure, Nats):
    """nats-server that asks for a certificate."""

    def command(self) -> list[str]:
        command, (certificate, key) = super().command(), self.papers.server
        config = Path(command[2])
        told = f'authorization {{ user: {USER}, password: "{PASSWORD}" }}\n'
        told += f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{self.papers.authority.ca_file}"'
        config.write_text(config.read_text("utf-8") + told + ", verify: true }\n", "utf-8")
        return command

    def place(self, host: str, password: str) -> str:
        told = f'servers = ["nats://{host}:{self.port}"]\nuser = "{USER}"\npassword = "{password}"\n'
        return told + "tls = true\ntimeout_seconds = 3"

    def events(self) -> list[dict[str, Any]]:
        import nats

        async def read() -> list[dict[str, Any]]:
            client = await nats.connect(
                f"tls://127.0.0.1:{self.port}",
                tls=self.papers.context(),
                user=USER,
                password=PASSWORD,
                allow_reconnect=False,
            )
            stream = client.jetstream()
            count = (await stream.stream_info("SIGNALS")).state.last_seq
            found = [json.loads((await stream.get_msg("SIGNALS", n)).data or b"") for n in range(1, count + 1)]
            await client.close()
            return found

        return asyncio.run(read())


class SecureMosquitto(Secure, Mosquitto):
    """mosquitto with a password file and ``require_certificate``; what it keeps is the retained last state."""

    def __init__(self, folder: Path) -> None:
        Server.__init__(self, folder)

    def command(self) -> list[str]:
        maker = shutil.which("mosquitto_passwd")
        if maker is None:
            pytest.skip("mosquitto_passwd is not installed here")
        (certificate, key), config = self.papers.server, self.folder / "mosquitto.conf"
        passwords = self.folder / "passwords"
        subprocess.run([maker, "-b", "-c", str(passwords), USER, PASSWORD], check=True, capture_output=True)
        config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n"
            f"cafile {self.papers.authority.ca_file}\ncertfile {certificate}\nkeyfile {key}\nrequire_certificate true\n"
            f"max_queued_messages 0\n", "utf-8",
        )  # fmt: skip
        return [self.path, "-c", str(config)]

    def place(self, host: str, password: str) -> str:
        told = f'host = "{host}"\nport = {self.port}\nuser = "{USER}"\npassword = "{password}"\n'
        return told + 'tls = true\ntimeout_seconds = 3\nstate_topic = "states/{account}"'

    def events(self) -> list[dict[str, Any]]:
        import aiomqtt

        async def read() -> list[dict[str, Any]]:
            client = aiomqtt.Client(
                "127.0.0.1", self.port, username=USER, password=PASSWORD, tls_context=self.papers.context()
            )
            async with client:
                await client.subscribe("states/#", 1)
                with contextlib.suppress(TimeoutError):
                    message = await asyncio.wait_for(anext(aiter(client.messages)), 5)
                    return [json.loads(bytes(message.payload))]
            return []

        return asyncio.run(read())


class SecureRedis(Secure, Redis):
    """redis-server without a port in clear, with a user of the access list."""

    def command(self) -> list[str]:
        certificate, key = self.papers.server
        return [
            self.path, "--port", "0", "--tls-port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "yes",
            "--tls-ca-cert-file", str(self.papers.authority.ca_file), "--save", "", "--appendonly", "yes",
            "--user", "default", "off", "--user", USER, "on", f">{PASSWORD}", "~*", "+@all",
        ]  # fmt: skip

    def place(self, host: str, password: str) -> str:
        url = f"rediss://{USER}:{IN_URL if password == PASSWORD else password}@{host}:{self.port}/0"
        return f'url = "{url}"\ntimeout_seconds = 3'

    def events(self) -> list[dict[str, Any]]:
        import redis

        certificate, key = map(str, self.papers.client)
        with redis.Redis(
            port=self.port, host="127.0.0.1", ssl=True, ssl_ca_certs=str(self.papers.authority.ca_file), username=USER,
            password=PASSWORD, ssl_certfile=certificate, ssl_keyfile=key,
        ) as client:  # fmt: skip
            return [json.loads(fields[b"event"]) for _, fields in client.xrange("signals")]


class SecureRabbit(Secure, Rabbit):
    """RabbitMQ without a port in clear; the user is made by its own tool's interface, the definitions file."""

    def environment(self) -> dict[str, str]:
        told, (certificate, key) = super().environment(), self.papers.server
        definitions = self.folder / "definitions.json"
        rights = {"user": USER, "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}
        named = {"name": USER, "password": PASSWORD, "tags": ""}
        definitions.write_text(json.dumps({"users": [named], "vhosts": [{"name": "/"}], "permissions": [rights]}), "utf-8")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp = none\nlisteners.ssl.1 = 127.0.0.1:{self.port}\nload_definitions = {definitions}\n"
            f"ssl_options.cacertfile = {self.papers.authority.ca_file}\nssl_options.certfile = {certificate}\n"
            f"ssl_options.keyfile = {key}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
            "utf-8",
        )  # fmt: skip
        return {
            name: value for name, value in told.items() if name not in ("RABBITMQ_NODE_PORT", "RABBITMQ_NODE_IP_ADDRESS")
        }

    def place(self, host: str, password: str) -> str:
        url = f"amqps://{USER}:{IN_URL if password == PASSWORD else password}@{host}:{self.port}/"
        return f'url = "{url}"\ntimeout_seconds = 3'

    def _work(self, read: bool) -> list[dict[str, Any]]:
        import aio_pika

        async def work() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            url = f"amqps://{USER}:{IN_URL}@127.0.0.1:{self.port}/"
            async with await aio_pika.connect(url, ssl_context=self.papers.context(), timeout=3) as connection:
                channel = await connection.channel()
                exchange = await channel.declare_exchange("signals", aio_pika.ExchangeType.TOPIC, durable=True)
                queue = await channel.declare_queue("all", durable=True)
                await queue.bind(exchange, "#")
                while read and (message := await queue.get(no_ack=True, fail=False)) is not None:
                    found.append(json.loads(message.body))
            return found

        return asyncio.run(work())

    def ready(self) -> bool:
        return Rabbit.ready(self)


class SecurePostgresql(Secure, Postgresql):
    """PostgreSQL that takes a password (SCRAM) over TLS alone, and a certificate."""

    def command(self) -> list[str]:
        cluster = self.data / "cluster"
        for name, source in zip(("server.crt", "server.key"), self.papers.server, strict=True):
            shutil.copy(source, cluster / name)
            (cluster / name).chmod(0o600)
        shutil.copy(self.papers.authority.ca_file, cluster / "root.crt")
        for name in ("server.crt", "server.key", "root.crt"):
            if self.user:
                shutil.chown(cluster / name, self.user)
        rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"
        (cluster / "pg_hba.conf").write_text(rules, "utf-8")
        return [*super().command(), "-c", "ssl=on", "-c", "ssl_ca_file=root.crt"]

    def place(self, host: str, password: str) -> str:
        told = IN_URL if password == PASSWORD else password
        return f'timeout_seconds = 3\ndsn = "postgresql://{USER}:{told}@{host}:{self.port}/postgres?sslmode=verify-full'

    def output(self, host: str = "127.0.0.1", password: str = PASSWORD, files: str = "") -> str:
        names = {"ca_file": "sslrootcert", "cert_file": "sslcert", "key_file": "sslkey"}
        lines = dict(line.split(" = ") for line in files.splitlines())
        more = "".join(f"&{names[name]}={file[1:-1]}" for name, file in lines.items())
        return f'[[outputs]]\nname = "bus"\ntype = "{self.kind}"\n{self.place(host, password)}{more}"\n'

    def address(self) -> str:
        return f"postgresql://dc09@/postgres?host={self.data}&port={self.port}"

    def ready(self) -> bool:
        return Postgresql.ready(self)

    def prepare(self) -> None:
        self.query(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}'")
        self.query(f"GRANT ALL ON SCHEMA public TO {USER}")


SECURE: list[type[Secure]] = [SecureNats, SecureMosquitto, SecureRedis, SecureRabbit, SecurePostgresql]
