"""Outputs against real files and a real HTTP server: at least once, urgent first, a dead one delays only itself."""

import hashlib
import hmac
import json
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.wire.running import KEY, KEYED, PLAIN, Running, frame, free_port, said, wait_until

SECRET = "a webhook's secret"


class Hook:
    """A web server that takes events; what it answers can be changed, and it can go away and come back."""

    def __init__(self) -> None:
        self.port = free_port()
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answer = 204
        self.delay_seconds = 0.0
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(hook.delay_seconds)
                answer = hook.judge(body)
                if not answer:
                    self.close_connection = True
                    return
                if answer < 300:
                    hook.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def judge(self, _body: bytes) -> int:
        return self.answer

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for headers, body in list(self.requests):
            told = json.loads(body)
            found += told if headers["content-type"].startswith("application/cloudevents-batch+json") else [told]
        return found


@pytest.fixture
def hook() -> Iterator[Hook]:
    server = Hook()
    server.start()
    yield server
    server.stop()


def webhook(hook: Hook, more: str = "") -> str:
    return (
        f'[[outputs]]\nname = "hook"\ntype = "webhook"\nurl = "http://127.0.0.1:{hook.port}/events"\n'
        f'secret = "{SECRET}"\n{more}\n'
        '[[outputs]]\nname = "events"\ntype = "jsonl"\npath = "events.jsonl"\n'
    )


def sequences(events: list[dict[str, Any]]) -> list[str]:
    return [event["data"]["sequence"] for event in events]


def test_a_webhook_is_handed_signed_cloudevents(tmp_path: Path, hook: Hook) -> None:
    with Running(tmp_path, outputs=webhook(hook)) as running:
        assert said(running.tcp(frame("0001", "1121 01 005", KEYED, KEY))[0], KEY) == "ACK 0001"
        wait_until(lambda: hook.requests)
        (event,) = running.events()
    headers, body = hook.requests[0]
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert headers["x-dc09-signature"] == "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert json.loads(body) == event
    assert SECRET not in running.log()


def test_refusals_and_absence_are_tried_again_and_nothing_is_lost(tmp_path: Path, hook: Hook) -> None:
    hook.answer = 500
    with Running(tmp_path, outputs=webhook(hook, "batch = 10")) as running:
        running.tcp(*[frame(f"{n:04d}") for n in range(1, 31)], replies=30)
        wait_until(lambda: running.metric("receiver_output_failures_total") >= 1)
        assert (
            len(wait_until(lambda: len(running.events()) == 30 and running.events())) == 30
        )  # the other output is not delayed
        hook.stop()
        wait_until(lambda: running.metric("receiver_output_failures_total") >= 2)
        running.kill()
        running.start()
        hook.answer = 200
        hook.start()
        wait_until(lambda: len(set(sequences(hook.events()))) == 30, 30)
        assert running.metric("receiver_output_backlog") == 0 or wait_until(
            lambda: running.metric("receiver_output_backlog") == 0
        )
        stored = {event["id"] for event in running.export()}
    assert {event["id"] for event in hook.events()} == stored
    assert sequences(hook.events()) == sorted(sequences(hook.events()))


def test_the_receiver_is_killed_in_mid_stream_and_nothing_is_lost(tmp_path: Path, hook: Hook) -> None:
    hook.delay_seconds = 0.01
    with Running(tmp_path, outputs=webhook(hook)) as running:
        running.tcp(*[frame(f"{n:04d}") for n in range(1, 101)], replies=100)
        wait_until(lambda: len(hook.requests) > 10)
        running.kill()
        running.start()
        wait_until(lambda: len(set(sequences(hook.events()))) == 100, 30)
    ids: dict[str, set[str]] = {}
    for event in hook.events():
        ids.setdefault(event["data"]["sequence"], set()).add(event["id"])
    assert all(len(found) == 1 for found in ids.values())


def test_a_server_that_never_answers_is_given_up_and_tried_again(tmp_path: Path, hook: Hook) -> None:
    hook.delay_seconds = 1.0
    with Running(tmp_path, outputs=webhook(hook, "timeout_seconds = 0.2")) as running:
        running.tcp(frame("0001"))
        wait_until(lambda: "did not answer in 0.2 s" in running.log())
        hook.delay_seconds = 0.0
        wait_until(lambda: "0001" in sequences(hook.events()))


def test_a_duress_overtakes_what_waits(tmp_path: Path, hook: Hook) -> None:
    hook.stop()
    with Running(tmp_path, outputs=webhook(hook)) as running:
        running.tcp(*[frame(f"{n:04d}") for n in range(1, 301)], replies=300)
        running.tcp(frame("9999", "1121 01 005"))
        failures = running.metric("receiver_output_failures_total")  # an attempt that was under way has to end first
        wait_until(lambda: running.metric("receiver_output_failures_total") > failures, 20)
        hook.start()
        wait_until(lambda: len(hook.requests) > 20, 40)
    assert sequences(hook.events()).index("9999") == 0


def test_events_of_one_message_stay_in_order_while_nothing_waits(tmp_path: Path) -> None:
    from protocols import dc09

    with Running(tmp_path) as running:
        address = dc09.Address(None, "0", PLAIN)
        for n in range(1, 20):
            running.tcp(dc09.encode("SIA-DCS", f"{n:04d}", address, f"#{PLAIN}|Nri4/id22/CL/PA31".encode()))
            wait_until(lambda: len(running.events()) == 2 * n)  # noqa: B023
        assert [event["data"]["event_code"] for event in running.events()] == ["CL", "PA"] * 19


def test_filters_leave_out_what_is_not_wanted(tmp_path: Path) -> None:
    outputs = "".join(
        f'[[outputs]]\nname = "{name}"\ntype = "jsonl"\npath = "{name}.jsonl"\n{setting}\n'
        for name, setting in (
            ("urgent", 'lanes = ["urgent"]\ntroubles = false'), ("two", "min_priority = 2\ntroubles = false"),
            ("one", f'accounts = ["{KEYED.lower()}"]'), ("all", ""),
        )
    )  # fmt: skip
    with Running(tmp_path, outputs=outputs) as running:
        running.tcp(frame("0001", "1121 01 005"), frame("0002"), frame("0003", "1139 01 001"), replies=3)
        running.tcp(frame("0004", "1602 00 000", KEYED, KEY), frame("0005", account="9999"))
        wait_until(
            lambda: (
                running.metric("receiver_output_backlog") == 0 and "unknown-account" in (tmp_path / "all.jsonl").read_text()
            )
        )

        def found(name: str) -> list[str]:
            file = tmp_path / f"{name}.jsonl"
            lines = [json.loads(line)["data"] for line in file.read_text().splitlines()] if file.exists() else []
            return sorted(data.get("sequence") or data["reason"] for data in lines)

        assert found("all") == ["0001", "0002", "0003", "0004", "unknown-account"]
        assert found("urgent") == ["0001"]
        assert found("two") == ["0001", "0003"]
        assert found("one") == ["0004"]


def test_a_rotated_file_is_reopened_and_a_torn_line_is_closed_off(tmp_path: Path) -> None:
    with Running(tmp_path) as running:
        running.tcp(frame("0001"))
        wait_until(lambda: len(running.events()) == 1)
        running.events_file.rename(tmp_path / "events.1")
        running.signal(signal.SIGHUP)
        wait_until(lambda: "settings reloaded" in running.log())
        running.tcp(frame("0002"))
        assert sequences(wait_until(running.events)) == ["0002"]
        running.stop()
        with running.events_file.open("ab") as file:
            file.write(b'{"torn": ')
        running.start()
        running.tcp(frame("0003"))
        wait_until(lambda: sequences(running.events()) == ["0002", "0003"])
    assert len((tmp_path / "events.1").read_text().splitlines()) == 1


def test_a_file_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").mkdir()
    with Running(tmp_path) as running:
        assert said(running.tcp(frame("0001"))[0]) == "ACK 0001"
        wait_until(lambda: "delivery failed" in running.log())
        assert running.get("/readyz")[0] == 200
        (tmp_path / "events.jsonl").rmdir()
        wait_until(lambda: sequences(running.events()) == ["0001"])
