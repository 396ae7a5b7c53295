"""The managed register under a running receiver: no signal, no restart."""

import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

from protocols import dc09
from tests.wire.running import KEY, KEYED, PLAIN, SECRET, Running, frame, said, wait_until

NEW = "FFEEDDCCBBAA99887766554433221100"


def _managed(tmp_path: Path) -> Running:
    receiver = Running(tmp_path)
    receiver.config.write_text(
        receiver.config.read_text("utf-8").replace(
            'file = "accounts.csv"', 'store = "managed"\nunknown = "refuse"\nmaster_key_file = "master"'
        ),
        "utf-8",
    )
    (tmp_path / "master").write_text("5" * 64, "utf-8")
    return receiver


def test_the_master_key_is_changed_while_the_receiver_runs_and_the_old_one_then_opens_nothing(tmp_path: Path) -> None:
    receiver = _managed(tmp_path)
    late, late_key = "3C03", dc09.Key.parse(NEW)
    (tmp_path / "rows.csv").write_text(f"account,key\n{KEYED},{SECRET}\n{late},{NEW}\n", "utf-8")

    def command(*args: str, code: int = 0) -> str:
        done = receiver.command("accounts", args[0], "--config", str(receiver.config), *args[1:])
        assert done.returncode == code, done.stderr
        return done.stderr

    command("import", str(tmp_path / "rows.csv"))
    with receiver:
        assert said(receiver.tcp(frame("0001", account=KEYED, key=KEY))[0], KEY) == "ACK 0001"
        command("rotate-master", "--generate", str(tmp_path / "next"))
        # read for the first time, sealed under a key that the receiver was not started with
        assert said(receiver.tcp(frame("0002", account=late, key=late_key))[0], late_key) == "ACK 0002"
        assert said(receiver.tcp(frame("0003", account=KEYED, key=KEY))[0], KEY) == "ACK 0003"
        assert "still hold the old master key" in command("rotate-master", "--finish", code=2)
        assert "is not finished" in command("rotate-master", "--generate", str(tmp_path / "more"), code=2)
        assert not (tmp_path / "more").exists()
        receiver.kill()
        receiver.start()  # with the old one still
        assert "the settings still hold the old master key" in receiver.log()
        assert said(receiver.tcp(frame("0004", account=late, key=late_key))[0], late_key) == "ACK 0004"
        old = (tmp_path / "master").read_text("utf-8")
        (tmp_path / "master").write_bytes((tmp_path / "next").read_bytes())
        receiver.signal(signal.SIGHUP)
        command("rotate-master", "--finish")
        command("add", PLAIN)
        wait_until(lambda: said_to(receiver, frame("0005")) == "ACK 0005")
        assert said(receiver.tcp(frame("0006", account=KEYED, key=KEY))[0], KEY) == "ACK 0006"
        assert {event["data"]["reason"] for event in receiver.events("receiver.trouble.v1")} <= {"unknown-account"}
        assert receiver.stop() == 0
        (tmp_path / "master").write_text(old, "utf-8")
        assert "is not the one" in command("list", code=2)
        (tmp_path / "master").write_bytes((tmp_path / "next").read_bytes())
        receiver.start()
        assert said(receiver.tcp(frame("0007", account=late, key=late_key))[0], late_key) == "ACK 0007"
        for secret in (SECRET, NEW, "5" * 64, (tmp_path / "next").read_text("utf-8").strip()):
            assert secret not in receiver.log()


def said_to(receiver: Running, raw: bytes) -> str:
    replies = receiver.tcp(raw, seconds=0.3)
    return said(replies[0]) if replies else ""


def test_accounts_are_added_rotated_and_removed_while_the_receiver_runs(tmp_path: Path) -> None:
    receiver = _managed(tmp_path)

    def command(*args: str, feed: str | None = None) -> None:
        done = receiver.command("accounts", args[0], "--config", str(receiver.config), *args[1:], feed=feed)
        assert done.returncode == 0, done.stderr

    with receiver:
        assert receiver.tcp(frame("0001"), seconds=0.3) == []
        command("add", PLAIN, "--supervision-seconds", "3600")
        command("add", KEYED, "--key-stdin", feed=SECRET)
        wait_until(lambda: receiver.metric("receiver_accounts") == 2)
        assert said(receiver.tcp(frame("0002"))[0]) == "ACK 0002"
        assert said(receiver.tcp(frame("0003", account=KEYED, key=KEY))[0], KEY) == "ACK 0003"
        assert receiver.metric("receiver_paths") == 1
        command("rotate-key", KEYED, "--key-stdin", feed=NEW)
        wait_until(lambda: receiver.metric("receiver_accounts_on_old_key") == 1)
        assert said(receiver.tcp(frame("0004", account=KEYED, key=KEY))[0], KEY) == "ACK 0004"
        command("remove", PLAIN)
        wait_until(lambda: receiver.metric("receiver_paths") == 0)
        assert receiver.tcp(frame("0005"), seconds=0.3) == []
        receiver.kill()
        receiver.start()
        assert said(receiver.tcp(frame("0006", account=KEYED, key=KEY))[0], KEY) == "ACK 0006"
        assert SECRET not in receiver.log()


def test_panels_are_answered_while_a_register_that_was_brought_back_is_opened(tmp_path: Path) -> None:
    receiver = _managed(tmp_path)
    data = tmp_path / "data"

    def command(*args: str) -> None:
        assert receiver.command("accounts", args[0], "--config", str(receiver.config), *args[1:]).returncode == 0

    command("add", PLAIN)
    command("add", "7777")
    shutil.copy(data / "accounts.sqlite", tmp_path / "backup")
    command("remove", "7777")
    with receiver, closing(sqlite3.connect(tmp_path / "backup", isolation_level=None)) as held:
        held.execute("PRAGMA locking_mode = EXCLUSIVE")
        held.execute("BEGIN EXCLUSIVE")  # whoever opens it waits
        assert said(receiver.tcp(frame("0001"))[0]) == "ACK 0001"
        for end in ("-wal", "-shm", ""):
            (data / f"accounts.sqlite{end}").unlink(missing_ok=True)
        for end in ("-wal", ""):
            (tmp_path / f"backup{end}").rename(data / f"accounts.sqlite{end}")
        receiver.signal(signal.SIGHUP)
        assert said(receiver.tcp(frame("0002"))[0]) == "ACK 0002"
        assert receiver.tcp(frame("0003", account="7777"), seconds=0.4) == []
        assert "settings reloaded" not in receiver.log()
        held.execute("ROLLBACK")
        held.close()
        wait_until(lambda: "settings reloaded" in receiver.log(), 40)
        assert said(receiver.tcp(frame("0003", account="7777"))[0]) == "ACK 0003"
        command("remove", "7777")
        wait_until(lambda: receiver.metric("receiver_accounts") == 1)
        assert receiver.stop() == 0
