"""The managed register under a running receiver: no signal, no restart."""

from pathlib import Path

from tests.wire.running import KEY, KEYED, PLAIN, SECRET, Running, frame, said, wait_until

NEW = "FFEEDDCCBBAA99887766554433221100"


def test_accounts_are_added_rotated_and_removed_while_the_receiver_runs(tmp_path: Path) -> None:
    receiver = Running(tmp_path)
    receiver.config.write_text(
        receiver.config.read_text("utf-8").replace(
            'file = "accounts.csv"', 'store = "managed"\nunknown = "refuse"\nmaster_key_file = "master"'
        ),
        "utf-8",
    )
    (tmp_path / "master").write_text("5" * 64, "utf-8")

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
