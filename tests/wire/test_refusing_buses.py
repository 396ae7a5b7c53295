"""Real servers that refuse one event: it becomes a dead letter, whatever comes after it arrives."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols import dc09
from tests.wire.running import Running, frame, wait_until
from tests.wire.servers import Mosquitto, Nats, Postgresql, Rabbit, Server

PANELS = ["A000", "A001"]


def receiver(folder: Path, server: Server, more: str) -> Running:
    accounts = "account\n" + "\n".join(PANELS) + "\n"
    return Running(folder / "receiver", outputs=server.toml(more), accounts=accounts)


def send(running: Running, count: int, long_one: int = 0) -> None:
    """Send signals of both panels by turns, one of them with a long text."""
    frames = []
    for n in range(1, count + 1):
        account = PANELS[n % 2]
        text = "x" * 1200 if n == long_one else "short"
        frames.append(
            dc09.encode("SIA-DCS", f"{n:04d}", dc09.Address(None, "0", account), f"#{account}|Nri1/BA001^{text}^".encode())
        )
    assert len(running.tcp(*frames, replies=count, seconds=20)) == count


def found(server: Server) -> list[str]:
    return [event["data"]["sequence"] for event in server.events() if event["type"] == "receiver.signal.v1"]


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[list[Server]]:
    servers: list[Server] = []
    yield servers
    for server in servers:
        server.end()


def dead(running: Running, count: int) -> None:
    wait_until(lambda: running.metric("receiver_output_dead_letters") == count, 20)
    wait_until(lambda: running.metric("receiver_output_backlog") == 0)


def test_jetstream_refuses_what_is_too_large(tmp_path: Path, ended: list[Server]) -> None:
    server = Nats(tmp_path / "server")
    ended.append(server)
    config = Path(server.command()[2])
    server.command = lambda: [server.path, "-c", str(config)]  # type: ignore[method-assign]
    config.write_text(config.read_text("utf-8") + "max_payload: 3000\n", "utf-8")
    server.start()
    with receiver(tmp_path, server, "max_tries = 2\ntroubles = false") as running:
        send(running, 9, 4)
        dead(running, 1)
        assert "takes no message above 3000 bytes" in running.log()
    assert found(server) == [f"{n:04d}" for n in range(1, 10) if n != 4]


def test_a_stream_in_memory_and_a_server_of_unknown_sync_are_warned_of(tmp_path: Path, ended: list[Server]) -> None:
    import asyncio

    import nats
    from nats.js.api import StorageType

    server = Nats(tmp_path / "server")
    ended.append(server)
    server.start()

    async def make() -> None:
        client = await nats.connect(f"nats://127.0.0.1:{server.port}")
        await client.jetstream().add_stream(name="SIGNALS", subjects=["signals.>"], storage=StorageType.MEMORY)
        await client.close()

    asyncio.run(make())
    with receiver(tmp_path, server, "") as running:
        send(running, 1)
        wait_until(lambda: found(server))
        wait_until(lambda: "kept in memory" in running.log())
        assert "duplicate window is shorter" in running.log()
        assert "sync_interval: always" in running.log()


def test_a_table_refuses_what_does_not_fit_it(tmp_path: Path, ended: list[Server]) -> None:
    server = Postgresql(tmp_path / "server")
    ended.append(server)
    server.start()
    from receiver.outputs.postgresql import _TABLE

    table = _TABLE.format(table="signals").replace("account text", "account text CHECK (account <> 'A001')")
    server.query(table)
    with receiver(tmp_path, server, "max_tries = 1\ntroubles = false") as running:
        send(running, 6)
        dead(running, 3)
        exported = running.command("outputs", "dead", "export", "bus", "--config", str(running.config)).stdout
    letters: list[dict[str, Any]] = [json.loads(line) for line in exported.splitlines()]
    assert {event["data"]["account"] for event in letters} == {"A001"}
    assert found(server) == ["0002", "0004", "0006"]


def _breaks_at_the_long_one(folder: Path, server: Server) -> None:
    """The server hangs up on one event and says no word of it: the others testify."""
    server.start()
    with receiver(folder, server, "max_tries = 3\ntroubles = false") as running:
        send(running, 12, 5)
        dead(running, 1)
        assert "with this event in hand while it takes others" in running.log()
        assert running.metric("receiver_output_delivered_total") == 11
    told = list(dict.fromkeys(found(server)))  # at their first coming
    assert sorted(told) == [f"{n:04d}" for n in range(1, 13) if n != 5]
    for half in (0, 1):
        mine = [n for n in map(int, told) if n % 2 == half]
        assert mine == sorted(mine)


def test_mosquitto_hangs_up_on_what_is_too_large(tmp_path: Path, ended: list[Server]) -> None:
    server = Mosquitto(tmp_path / "server")
    ended.append(server)
    server.more = "message_size_limit 2500\n"
    _breaks_at_the_long_one(tmp_path, server)


def test_a_topic_that_mosquitto_does_not_let_us_write_is_no_event_lost(tmp_path: Path, ended: list[Server]) -> None:
    """It acknowledges, and says no in the acknowledgement."""
    server = Mosquitto(tmp_path / "server")
    ended.append(server)
    access = tmp_path / "access"
    access.write_text("topic readwrite signals/mark\ntopic read signals/#\ntopic readwrite signals/normal/A000\n", "utf-8")
    server.more = f"acl_file {access}\n"
    server.start()
    server.events()  # subscribes: with an access list mosquitto 2.0.11 keeps no subscription over its end
    with receiver(tmp_path, server, "max_tries = 2\ntroubles = false") as running:
        send(running, 8)
        wait_until(lambda: "did not take it: the server refuses our login" in running.log())
        running.tcp(*[frame(f"{n:04d}", account="A000") for n in range(11, 21)], replies=10)  # they testify
        dead(running, 4)
    assert set(found(server)) == {"0002", "0004", "0006", "0008", *[f"{n:04d}" for n in range(11, 21)]}


@pytest.mark.skipif("CYCLES" not in os.environ, reason="RabbitMQ takes long to start: make buses")
def test_rabbitmq_ends_the_channel_at_what_is_too_large(tmp_path: Path, ended: list[Server]) -> None:
    server = Rabbit(tmp_path / "server")
    ended.append(server)
    server.more = "max_message_size = 2500\n"
    _breaks_at_the_long_one(tmp_path, server)


@pytest.mark.skipif("CYCLES" not in os.environ, reason="RabbitMQ takes long to start: make buses")
@pytest.mark.parametrize("unroutable", ["refuse", "wait"])
def test_an_event_that_no_queue_takes_is_not_lost(tmp_path: Path, ended: list[Server], unroutable: str) -> None:
    server = Rabbit(tmp_path / "server")
    ended.append(server)
    server.binding = "*.A000"
    server.start()
    with receiver(tmp_path, server, f'max_tries = 1\ntroubles = false\nunroutable = "{unroutable}"') as running:
        send(running, 4)
        if unroutable == "refuse":
            dead(running, 2)
            assert found(server) == ["0002", "0004"]
        else:
            wait_until(lambda: running.metric("receiver_output_failures_total") >= 3)
            assert running.metric("receiver_output_dead_letters") == 0
            server.binding = "#"
            server.prepare()
            wait_until(lambda: running.metric("receiver_output_backlog") == 0, 20)
            assert set(found(server)) == {"0001", "0002", "0003", "0004"}
