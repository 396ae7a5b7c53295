"""An account on test, with a real receiver: by the command, over a kill, until it is ended."""

from pathlib import Path

from tests.wire.running import PLAIN, Running, frame, said


def _flags(receiver: Running) -> list[tuple[str, list[str]]]:
    return [(event["data"]["event_code"], event["data"]["flags"]) for event in receiver.export()]


def test_a_test_begins_by_command_survives_a_kill_and_ends_by_command(tmp_path: Path) -> None:
    receiver = Running(tmp_path)

    def command(*args: str) -> tuple[int, str]:
        done = receiver.command("accounts", "test", "--config", str(receiver.config), *args)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout + done.stderr

    with receiver:
        code, told = command(PLAIN, "--zones", "all", "--points", "15", "--reason", "service", "--by", "A. Jansen")
        assert (code, "A. Jansen" in told) == (0, True), told
        receiver.kill()
        receiver.start()
        sent = [frame("0001", "1130 01 001"), frame("0002", "1120 01 015"), frame("0003", "1120 01 016")]
        assert [said(reply) for reply in receiver.tcp(*sent, replies=3)] == ["ACK 0001", "ACK 0002", "ACK 0003"]
        assert receiver.metric("receiver_accounts_on_test") == 1
        assert PLAIN in command("--list")[1]
        assert command(PLAIN, "--end", "--by", "A. Jansen")[0] == 0
        assert said(receiver.tcp(frame("0004", "1130 01 001"))[0]) == "ACK 0004"
        assert "0 accounts on test" in command("--list")[1]
    assert _flags(receiver) == [("130", ["on-test"]), ("120", ["on-test"]), ("120", []), ("130", [])]
    reasons = [event["data"]["reason"] for event in receiver.export("receiver.trouble.v1")]
    assert reasons == ["on-test-began", "on-test-ended"]


def test_an_account_is_on_test_also_where_the_panel_writes_zeros_in_front_of_it(tmp_path: Path) -> None:
    with Running(tmp_path, accounts="account,dialect\n1A01,padded\n") as receiver:
        command = ("accounts", "test", "--config", str(receiver.config), "001A01", "--by", "A. Jansen")
        done = receiver.command(*command, "--reason", "service")
        assert (done.returncode, done.stdout.startswith("1A01 ")) == (0, True), done.stderr
        for number, account in ((1, "001A01"), (2, PLAIN)):
            assert said(receiver.tcp(frame(f"000{number}", account=account))[0]) == f"ACK 000{number}"
        done = receiver.command(*command, "--end")
        assert done.returncode == 0, done.stderr
        assert said(receiver.tcp(frame("0003", account="001A01"))[0]) == "ACK 0003"
    assert [flags for _, flags in _flags(receiver)] == [["on-test"], ["on-test"], []]
