"""Rotating a key while a real receiver runs."""

import signal
from pathlib import Path

from protocols import dc09
from tests.wire.running import KEY, KEYED, SECRET, Running, frame, said, wait_until

NEW = "FFEEDDCCBBAA99887766554433221100"


def test_a_key_is_rotated_while_the_receiver_runs_and_who_uses_the_old_one_is_told(tmp_path: Path) -> None:
    with Running(tmp_path) as receiver:

        def command(*args: str, feed: str | None = None) -> str:
            done = receiver.command("accounts", args[0], "--config", str(receiver.config), *args[1:], feed=feed)
            assert done.returncode == 0, done.stderr
            assert SECRET not in done.stdout + done.stderr
            assert NEW not in done.stdout + done.stderr
            return done.stdout

        def reported(key: dc09.Key, sequence: str) -> str:
            return said(receiver.tcp(frame(sequence, account=KEYED, key=key))[0], key)

        assert reported(KEY, "0001") == "ACK 0001"
        command("rotate-key", KEYED, "--key-stdin", "--overlap", "2h", feed=NEW + "\n")
        receiver.signal(signal.SIGHUP)
        wait_until(lambda: "settings reloaded" in receiver.log())
        assert reported(KEY, "0002") == "ACK 0002"
        wait_until(lambda: "OLD key since" in command("list", "--old-keys"))
        assert receiver.metric("receiver_accounts_on_old_key") == 1
        assert reported(dc09.Key.parse(NEW), "0003") == "ACK 0003"
        wait_until(lambda: "NEW key since" in command("list", "--old-keys"))
        receiver.kill()
        receiver.start()
        assert "NEW key since" in command("list", "--old-keys")
        assert reported(KEY, "0004") == "ACK 0004"
        assert NEW not in receiver.log()
