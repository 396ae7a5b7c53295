"""Tests, rotations, the managed register and ``watch`` with several workers: the same whichever process took the frame."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from protocols import dc09
from tests.wire.running import KEY, KEYED, PLAIN, SECRET, Running, frame, read_replies, said, wait_until
from tests.wire.test_workers import TWO, ask, links_apart

NEW = "FFEEDDCCBBAA99887766554433221100"
Links = tuple[socket.socket, socket.socket]


def command(running: Running, *args: str, feed: str | None = None) -> str:
    """Run ``accounts`` with a command of its own."""
    done = running.command("accounts", args[0], "--config", str(running.config), *args[1:], feed=feed)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def managed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("managed"), more=TWO)
    told = running.config.read_text("utf-8")
    told = told.replace('file = "accounts.csv"', 'store = "managed"\nunknown = "refuse"\nmaster_key_file = "master"')
    running.config.write_text(told, "utf-8")
    (running.folder / "master").write_text("5" * 64, "utf-8")
    with running:
        command(running, "add", PLAIN)
        command(running, "add", KEYED, "--key-stdin", feed=SECRET)
        yield running


@pytest.fixture
def links(managed: Running) -> Iterator[Links]:
    wait_until(lambda: managed.metric("receiver_accounts") >= 2)
    wait_until(lambda: all(managed.tcp(frame("0000"), seconds=0.3) for _ in range(8)))  # every worker has read it
    first, second = links_apart(managed)
    with first, second:
        yield first, second


def flags(running: Running, *sequences: str) -> list[list[str]]:
    found = {event["data"]["sequence"]: event["data"]["flags"] for event in running.export()}
    return [found[sequence] for sequence in sequences]


def test_signals_are_on_test_at_every_worker_and_a_duress_that_was_not_ticked_at_none(
    managed: Running, links: Links
) -> None:
    scope = ("--zones", "all", "--points", "15", "--reason", "service", "--by", "A. Jansen")
    command(managed, "test", PLAIN, *scope)
    for number, link in enumerate(links):
        for place, event in enumerate(("1130 01 001", "1120 01 015", "1120 01 016", "1121 01 001")):
            assert said(ask(link, frame(f"1{number}0{place}", event))) == f"ACK 1{number}0{place}"
    command(managed, "test", PLAIN, "--end", "--by", "A. Jansen")
    for number, link in enumerate(links):
        ask(link, frame(f"1{number}09"))
        told = flags(managed, *(f"1{number}0{place}" for place in (0, 1, 2, 3, 9)))
        assert told == [["on-test"], ["on-test"], [], [], []], f"worker {number}"


def test_a_change_of_the_managed_register_is_taken_by_every_worker(managed: Running, links: Links) -> None:
    def answered(link: socket.socket) -> bool:
        link.sendall(frame("0000", account="FEED"))
        return bool(read_replies(link, 1, 0.3))

    def silent(link: socket.socket) -> bool:
        return not answered(link)

    assert not any(answered(link) for link in links)
    command(managed, "add", "FEED")
    for link in links:
        wait_until(partial(answered, link))
    command(managed, "remove", "FEED")
    for link in links:
        wait_until(partial(silent, link))


def test_who_still_uses_an_old_key_is_known_whichever_worker_heard_it(managed: Running, links: Links) -> None:
    new = dc09.Key.parse(NEW)
    command(managed, "rotate-key", KEYED, "--key-stdin", "--overlap", "2h", feed=NEW)
    for number, link in enumerate(links[::-1]):
        assert said(ask(link, frame(f"2{number}01", account=KEYED, key=KEY)), KEY) == f"ACK 2{number}01"
        wait_until(lambda: "OLD key since" in command(managed, "list", "--old-keys"))
        assert managed.metric("receiver_accounts_on_old_key") == 1
        wait_until(partial(_opens, link, new))  # within a second
        wait_until(lambda: "NEW key since" in command(managed, "list", "--old-keys"))
        assert managed.metric("receiver_accounts_on_old_key") == 0


def _opens(link: socket.socket, key: dc09.Key) -> bool:
    link.sendall(frame("0000", account=KEYED, key=key))
    return bool(read_replies(link, 1, 0.3))


def test_watch_shows_link_tests_and_refusals_of_every_worker(managed: Running, links: Links) -> None:
    told = managed.folder / "told"
    watch = [sys.executable, "-m", "receiver", "watch", "--config", str(managed.config), "--account", PLAIN]
    test = dc09.encode("NULL", "0000", dc09.Address(None, "0", PLAIN))

    def shown(link: socket.socket) -> bool:
        return "link test or repeat from {}:{}".format(*link.getsockname()) in told.read_text("utf-8")

    with told.open("wb") as out:
        watching = subprocess.Popen(watch, stdout=out, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: "TAKEN" in told.read_text("utf-8"))
            time.sleep(0.3)  # what is older than its beginning is not shown
            for link in links:
                ask(link, test)
                wait_until(partial(shown, link))
            links[1].sendall(frame("0001").replace(b"1130", b"1120"))
            wait_until(lambda: "bad-crc, no answer" in told.read_text("utf-8"))
        finally:
            watching.send_signal(signal.SIGINT)
            watching.wait(10)


def test_with_a_file_too_a_key_is_rotated_for_every_worker(tmp_path: Path) -> None:
    with Running(tmp_path, more=TWO) as running:
        command(running, "rotate-key", KEYED, "--key-stdin", "--overlap", "2h", feed=NEW)
        running.signal(signal.SIGHUP)
        wait_until(lambda: "settings reloaded" in running.log())
        first, second = links_apart(running)
        with first, second:
            wait_until(lambda: _opens(second, dc09.Key.parse(NEW)))
            wait_until(lambda: "NEW key since" in command(running, "list", "--old-keys"))
            ask(second, frame("0002", account=KEYED, key=KEY))
            wait_until(lambda: "OLD key since" in command(running, "list", "--old-keys"))
