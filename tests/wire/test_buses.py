"""Every bus, by its real server: exactly once in effect, order kept, urgent first, over kills of both sides."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire.running import PLAIN, Running, frame, wait_until
from tests.wire.servers import SERVERS, Server

PANELS = [f"A{n:03X}" for n in range(4)]
WAITING = int(os.environ.get("WAITING", "1000"))


@pytest.fixture(params=SERVERS, ids=lambda server: server.kind)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    made: Server = request.param(tmp_path / "server")
    try:
        yield made
    finally:
        made.end()


def receiver(folder: Path, server: Server, more: str = "") -> Running:
    accounts = "account\n" + "\n".join([PLAIN, *PANELS]) + "\n"
    return Running(folder / "receiver", outputs=server.toml(more), accounts=accounts)


def send(running: Running, first: int, count: int, urgent_each: int = 0) -> None:
    """Send signals of all panels, some of them urgent; each has its own sequence."""
    frames = [
        frame(
            f"{n:04d}",
            f"{'1121' if urgent_each and n % urgent_each == 0 else '1130'} {n // 1000:02d} {n % 1000:03d}",
            PANELS[n % len(PANELS)],
        )
        for n in range(first, first + count)
    ]
    assert len(running.tcp(*frames, replies=count, seconds=30)) == count


def drained(running: Running) -> bool:
    return running.metric("receiver_output_backlog", 'output="bus"') == 0


def signals(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == "receiver.signal.v1"]


def check(found: list[dict[str, Any]], stored: list[dict[str, Any]], once: bool) -> None:
    """Lost none; twice only with the same id, and not at all where the target can tell; order kept per account and lane."""
    first: dict[str, dict[str, Any]] = {}
    for event in found:
        assert first.setdefault(event["id"], event) == event
    assert set(first) == {event["id"] for event in stored}
    if once:
        assert len(found) == len(first)
    ways: dict[tuple[str, bool], list[int]] = {}
    for event in first.values():
        data = event["data"]
        ways.setdefault((data["account"], data["priority"] == 1), []).append(data["position"])
    assert all(positions == sorted(positions) for positions in ways.values())


def test_nothing_is_lost_over_kills_of_the_server_and_of_the_receiver(tmp_path: Path, server: Server) -> None:
    server.start()
    with receiver(tmp_path, server) as running:
        send(running, 1, 100, 7)
        server.kill()
        send(running, 101, 150, 7)
        server.start()
        send(running, 251, 50, 7)
        running.kill()
        running.start()
        wait_until(lambda: drained(running), 60)
        send(running, 301, 20, 7)
        wait_until(lambda: drained(running), 20)
        stored = running.export()
        assert running.metric("receiver_output_delivery_seconds_count", 'output="bus"', 'lane="urgent"') > 0
    assert len(stored) == 320
    if server.sure:
        check(signals(server.events()), stored, server.once)
    else:  # what lay in its buffers when it was killed is gone; nothing of what came after is
        found = signals(server.events())
        check(found, [event for event in stored if event["id"] in {event["id"] for event in found}], server.once)
        assert {f"{n:04d}" for n in range(251, 321)} <= {event["data"]["sequence"] for event in found}


def test_a_duress_that_comes_last_is_among_the_first_delivered(tmp_path: Path, server: Server) -> None:
    with receiver(tmp_path, server) as running:
        send(running, 1, WAITING)
        running.tcp(frame("9999", "1121 01 005"))
        wait_until(lambda: running.metric("receiver_output_failures_total") > 0)
        server.start()
        wait_until(lambda: drained(running), 60)
    order = [event["data"]["sequence"] for event in signals(server.events())]
    assert order.index("9999") < 50
    assert len(order) >= WAITING + 1
