"""The real servers behind the outputs, each a process of its own on loopback, on a folder it keeps over kills."""

import json
import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.wire.running import free_port, wait_until


class Server:
    """A server's process; ``events`` reads what it holds, in its order."""

    kind: ClassVar[str]
    program: ClassVar[str]
    once: ClassVar[bool] = True
    """Whether the target itself drops an event that comes twice."""
    options: ClassVar[str] = ""

    def __init__(self, folder: Path) -> None:
        found = shutil.which(self.program, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
        if found is None:
            pytest.skip(f"{self.program} is not installed here")
        self.path, self.folder, self.port = found, folder, free_port()
        folder.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    def command(self) -> list[str]:
        """Return the command that starts it."""
        raise NotImplementedError

    def settings(self) -> str:
        """Return the output's settings beyond name and type."""
        raise NotImplementedError

    def events(self) -> list[dict[str, Any]]:
        """Return the events it holds, oldest first."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Tell whether it takes connections."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder
            )
        wait_until(self._up, 30)

    def _up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text("utf-8", "replace")
        return self.ready()

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(15)

    def toml(self, more: str = "") -> str:
        """Return the whole [[outputs]] table."""
        return f'[[outputs]]\nname = "bus"\ntype = "{self.kind}"\n{self.settings()}{self.options}{more}\n'


class Nats(Server):
    """nats-server with JetStream, syncing always where the version can."""

    kind, program = "nats", "nats-server"

    def command(self) -> list[str]:
        config = self.folder / "nats.conf"
        config.write_text(f'listen: 127.0.0.1:{self.port}\njetstream {{ store_dir: "{self.folder}/js" }}\n', "utf-8")
        return [self.path, "-c", str(config)]

    def settings(self) -> str:
        return f'servers = ["nats://127.0.0.1:{self.port}"]\n'

    def events(self) -> list[dict[str, Any]]:
        import asyncio

        import nats
        import nats.errors
        import nats.js.errors

        async def read() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            client = await nats.connect(f"nats://127.0.0.1:{self.port}", allow_reconnect=False)
            try:
                stream = client.jetstream()
                info = await stream.stream_info("SIGNALS")
                for number in range(info.state.first_seq, info.state.last_seq + 1):
                    message = await stream.get_msg("SIGNALS", number)
                    found.append(json.loads(message.data or b""))
            except nats.js.errors.NotFoundError:
                return []
            finally:
                await client.close()
            return found

        return asyncio.run(read())


SERVERS: list[type[Server]] = [Nats]
