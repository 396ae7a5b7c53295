"""Sockets that change hands, and waiting for the journal: with real sockets and files, in one process."""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver import succession
from receiver.config import JournalSettings, ListenerSettings
from receiver.errors import ConfigError, JournalInUse
from receiver.journal import Journal
from receiver.listeners.handover import HATCH, Hatch, Ports, from_systemd, knock
from receiver.succession import Succession
from receiver.telemetry import Telemetry


@contextlib.contextmanager
def sockets(*kinds: socket.SocketKind, host: str = "127.0.0.1") -> Iterator[list[socket.socket]]:
    made = [socket.socket(socket.AF_INET, kind) for kind in kinds]
    try:
        for sock in made:
            sock.bind((host, 0))
            if sock.type == socket.SOCK_STREAM:
                sock.listen()
        yield made
    finally:
        for sock in made:
            sock.close()


def listener(sock: socket.socket, transport: str, **more: object) -> ListenerSettings:
    given = {"host": "127.0.0.1", "port": sock.getsockname()[1], "transport": transport} | more
    return ListenerSettings(**given)


def test_an_inherited_socket_is_used_where_address_port_and_kind_fit() -> None:
    with sockets(socket.SOCK_STREAM, socket.SOCK_DGRAM) as (tcp, udp):
        ports = Ports([listener(tcp, "tcp"), listener(udp, "udp")], [udp, tcp])
        assert ports.claim() == []
        assert [(port.transport, port.sock, port.inherited) for port in ports.claimed] == [
            ("tcp", tcp, True),
            ("udp", udp, True),
        ]
        assert ports.claim() == []
        ports.close()


def test_what_does_not_fit_is_bound_and_what_nobody_wants_is_closed_and_named() -> None:
    with sockets(socket.SOCK_STREAM, socket.SOCK_DGRAM) as (tcp, udp):
        unwanted, other = int(tcp.getsockname()[1]), int(udp.getsockname()[1])
        ports = Ports([ListenerSettings(host="127.0.0.1", port=0, transport="udp")], [tcp])
        assert ports.claim() == [f"tcp 127.0.0.1:{unwanted}"]
        assert tcp.fileno() == -1
        assert not ports.claimed[0].inherited
        assert ports.claimed[0].sock.getsockname()[1] not in (0, other)
        ports.close()


def test_a_socket_of_another_address_or_that_does_not_listen_does_not_fit() -> None:
    with sockets(socket.SOCK_DGRAM, host="0.0.0.0") as (udp,), socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        ports = Ports([ListenerSettings(host="127.0.0.1", port=0, transport="both")], [udp, idle])
        assert len(ports.claim()) == 2
        assert [port.inherited for port in ports.claimed] == [False, False]
        assert len({port.sock.getsockname()[1] for port in ports.claimed}) == 1
        ports.close()


def test_an_address_that_is_not_ours_leaves_nothing_bound() -> None:
    settings = [ListenerSettings(host="127.0.0.1", port=0), ListenerSettings(name="b", host="192.0.2.1", port=1)]
    ports = Ports(settings)
    with pytest.raises(ConfigError, match=r"192\.0\.2\.1"):
        ports.claim()
    assert ports.claimed == []


@pytest.mark.parametrize("pid", ["", "1", "x"])
def test_systemds_sockets_for_another_process_are_left_alone(pid: str) -> None:
    environment = {"LISTEN_PID": pid, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "a:b", "HOME": "/"}
    assert from_systemd(environment) == []
    assert environment == {"HOME": "/"}


@pytest.mark.parametrize("count", ["", "-1", "two"])
def test_a_count_of_sockets_that_is_none_gives_none(count: str) -> None:
    assert from_systemd({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}) == []


def test_nobody_behind_the_hatch_is_nobody_to_take_over_from(tmp_path: Path) -> None:
    assert knock(tmp_path) is None
    assert knock(tmp_path / "absent") is None
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / HATCH))
    assert knock(tmp_path) is None


def test_sockets_pass_through_the_hatch_and_only_go_makes_the_old_one_go() -> None:
    went = []

    async def story(folder: Path) -> None:
        with sockets(socket.SOCK_STREAM, socket.SOCK_DGRAM) as passed:
            hatch = Hatch(folder, lambda: [sock.fileno() for sock in passed], lambda: went.append(True))
            hatch.open()
            assert (folder / HATCH).stat().st_mode & 0o777 == 0o600
            async with asyncio.TaskGroup() as group:
                tending = group.create_task(hatch.tend())
                asked = await asyncio.to_thread(knock, folder)
                assert asked is not None
                assert asked.pid == os.getpid()
                assert [sock.getsockname() for sock in asked.sockets] == [sock.getsockname() for sock in passed]
                asked.close()
                again = await asyncio.to_thread(knock, folder)
                assert again is not None
                assert went == []
                again.send_off()
                while not went:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                again.close()
                for sock in (*asked.sockets, *again.sockets):
                    sock.close()
                tending.cancel()
            hatch.close()
            assert not (folder / HATCH).exists()

    with tempfile.TemporaryDirectory() as name:
        asyncio.run(story(Path(name)))


@pytest.mark.parametrize(("take_over", "seconds"), [(False, 0.0), (True, 0.2)])
def test_a_journal_that_is_not_let_go_is_an_error_that_says_who_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take_over: bool, seconds: float
) -> None:
    monkeypatch.setattr(succession, "LET_GO_SECONDS", seconds)

    async def story() -> None:
        holder = Journal(tmp_path, JournalSettings())
        following = Succession(tmp_path, Ports([]), Telemetry(), take_over)
        with pytest.raises(ConfigError, match="another receiver runs") as told:
            await following.open_journal(lambda: Journal(tmp_path, JournalSettings()), asyncio.Event())
        assert not isinstance(told.value, JournalInUse)
        assert len(told.value.mistakes) == 1 + take_over
        following._pid = 4711
        with pytest.raises(ConfigError, match=r"process 4711 .* nobody serves now"):
            await following.open_journal(lambda: Journal(tmp_path, JournalSettings()), asyncio.Event())
        await holder.close()
        journal = await following.open_journal(lambda: Journal(tmp_path, JournalSettings()), asyncio.Event())
        await journal.close()

    asyncio.run(story())


def test_each_worker_has_a_socket_and_more_that_were_inherited_are_dealt_out() -> None:
    with sockets(socket.SOCK_STREAM) as (tcp,):
        port = tcp.getsockname()[1]
        ports = Ports([listener(tcp, "tcp")], [tcp], workers=3)
        assert ports.claim() == []
        assert [(found.worker, found.inherited) for found in ports.claimed] == [(0, True), (1, False), (2, False)]
        assert {found.sock.getsockname()[1] for found in ports.claimed} == {port}
        fewer = Ports([listener(tcp, "tcp")], [found.sock for found in ports.claimed], workers=2)
        assert fewer.claim() == []
        assert [found.worker for found in fewer.claimed] == [0, 1, 0], "no queue is left unread"
        fewer.let_go()
        assert [found.sock.fileno() == -1 for found in fewer.claimed] == [False, True, False]
        fewer.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be two users")
def test_a_socket_of_another_user_is_read_by_all_workers_together() -> None:
    with sockets(socket.SOCK_STREAM, socket.SOCK_DGRAM) as (tcp, udp):
        os.seteuid(65534)
        try:
            ports = Ports([listener(tcp, "tcp"), listener(udp, "udp")], [tcp, udp], workers=2)
            assert ports.claim() == []
            assert [(found.worker, found.inherited) for found in ports.claimed] == [(0, True), (1, True)] * 2
        finally:
            os.seteuid(0)
        ports.close()
