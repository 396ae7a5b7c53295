"""Every bus, by its real server: exactly once in effect, order kept, urgent first, over kills of both sides.

``make buses`` tells the long story: ``WAITING`` ordinary signals before the duress, ``CYCLES`` kills of server and receiver.
"""

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.wire.running import PLAIN, Running, frame, wait_until
from tests.wire.servers import SERVERS, Mosquitto, Server

PANELS = [f"A{n:03X}" for n in range(4)]
WAITING = int(os.environ.get("WAITING", "200"))
CYCLES = int(os.environ.get("CYCLES", "1"))


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
    """Send signals of all panels, some of them urgent; each is different."""
    for begin in range(first, first + count, 500):
        numbers = range(begin, min(begin + 500, first + count))
        frames = [
            frame(
                f"{n % 9999 + 1:04d}",
                f"{'1121' if urgent_each and n % urgent_each == 0 else '1130'} {n // 1000 % 100:02d} {n % 1000:03d}",
                PANELS[n % len(PANELS)],
            )
            for n in numbers
        ]
        assert len(running.tcp(*frames, replies=len(frames), seconds=30)) == len(frames)


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


def test_a_duress_comes_first_and_nothing_is_lost_over_kills_of_server_and_receiver(tmp_path: Path, server: Server) -> None:
    chance, waiting = random.Random(WAITING), min(WAITING, server.holds)
    states = 'state_topic = "states/{account}"' if isinstance(server, Mosquitto) else ""
    with receiver(tmp_path, server, states) as running:
        send(running, 0, waiting)
        send(running, waiting, 1, 1)
        wait_until(lambda: running.metric("receiver_output_failures_total") > 0)
        server.start()
        wait_until(lambda: drained(running), 120)
        sent = after = waiting + 1
        for _ in range(CYCLES):
            send(running, sent, 60, 7)
            time.sleep(chance.uniform(0.0, 0.05))
            server.kill()
            send(running, sent + 60, 80, 7)
            server.start()
            after = sent + 140
            send(running, after, 60, 7)
            time.sleep(chance.uniform(0.0, 0.2))
            running.kill()
            running.start()
            sent += 200
        wait_until(lambda: drained(running), 60)
        send(running, sent, 20, 7)
        wait_until(lambda: drained(running), 20)
        stored = running.export()
        assert running.metric("receiver_output_delivery_seconds_count", 'output="bus"', 'lane="urgent"') > 0
        assert running.metric("receiver_output_dead_letters") == 0
    assert len(stored) == sent + 20
    found = signals(server.events())
    lost = {event["id"] for event in stored} - {event["id"] for event in found}
    print(f"{server.kind}: {len(stored)} stored, {len(found)} found, {CYCLES} kills of each side, lost {len(lost)}")
    if isinstance(server, Mosquitto):
        last = {event["data"]["account"]: event["id"] for event in server.states()}
        assert set(last) == set(PANELS)
        assert set(last.values()) <= {event["id"] for event in stored}
    assert next(n for n, event in enumerate(found) if event["data"]["duress"]) < 50
    if server.sure:
        check(found, stored, server.once)
    else:  # what lay in its buffers when it was killed is gone; nothing of what came after is
        there = {event["id"] for event in found}
        check(found, [event for event in stored if event["id"] in there], server.once)
        assert {event["id"] for event in stored if event["data"]["position"] > after} <= there
