"""Supervision as a panel and an operator meet it: lost, restored, storms, never seen, restarts; one real process each."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

from protocols import dc09
from receiver import clock
from tests.wire.running import Running, frame, wait_until

QUICK = "[supervision]\ngrace_seconds = 2\nsave_seconds = 0.2\nstorm_hold_seconds = 2\n"


def link_test(account: str) -> bytes:
    return dc09.encode("NULL", "0000", dc09.Address(None, "0", account))


def paths(running: Running, state: str) -> list[dict[str, Any]]:
    return [e["data"] for e in running.events("receiver.path.v1") if e["data"]["state"] == state]


def _told_once(running: Running, state: str) -> list[str]:
    """Return whose paths were told so, without what an output was given again after a crash."""
    found = {e["id"]: e["data"] for e in running.events("receiver.path.v1")}
    return [data["account"] for data in found.values() if data["state"] == state]


def _written_since(file: Path, moment_ns: int) -> bool:
    return file.stat().st_mtime_ns > moment_ns


def troubles(running: Running, reason: str) -> list[dict[str, Any]]:
    return [e["data"] for e in running.events("receiver.trouble.v1") if e["data"]["reason"] == reason]


def test_a_silent_path_is_lost_and_restored_also_where_the_file_of_paths_was_damaged(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "paths.state").write_bytes(b"no good")
    with Running(tmp_path, accounts="account,supervision_seconds\n0003,1\n0004,3600\n0005,\n") as running:
        for account in ("0003", "0004", "0005"):
            running.udp(link_test(account))
        wait_until(lambda: paths(running, "lost"))
        running.udp(frame("0001", account="0003"))
        wait_until(lambda: paths(running, "restored"))
        assert {path["account"] for path in paths(running, "lost")} == {"0003"}
        assert running.metric("receiver_paths", 'state="alive"') == 2
        assert running.metric("receiver_accounts_unsupervised") == 1
        assert "the state of supervised paths begins anew" in running.log()


def test_many_lost_at_once_are_one_trouble_and_only_who_stays_silent_is_told_singly(tmp_path: Path) -> None:
    rows = "account,supervision_seconds\n" + "".join(f"{n:04d},1\n" for n in range(25)) + "9999,3600\n"
    with Running(tmp_path, accounts=rows, more=QUICK) as running:
        for n in (*range(25), 9999):
            running.udp(link_test(f"{n:04d}"))
        (storm,) = wait_until(lambda: troubles(running, "paths-lost"))
        assert (storm["count"], len(storm["accounts"]), storm["listener"]) == (25, 25, "main")
        assert "25 at listener main" in storm["text"]

        def singly() -> bool:
            for n in range(20):
                running.udp(link_test(f"{n:04d}"))  # these come back and stay
            return len(paths(running, "lost")) >= 5

        wait_until(singly)
        assert {path["account"] for path in paths(running, "lost")} == {f"{n:04d}" for n in range(20, 25)}
        assert wait_until(lambda: troubles(running, "paths-restored"))[0]["count"] == 20
        assert troubles(running, "listener-silent") == []
        assert paths(running, "restored") == []


def test_what_was_told_before_a_crash_is_not_told_again_and_its_end_is(tmp_path: Path) -> None:
    rows = "account,supervision_seconds\n0001,1\n0002,4\n0003,1\n"
    with Running(tmp_path, accounts=rows, more=QUICK) as running:
        running.udp(link_test("0001"))
        wait_until(lambda: troubles(running, "never-seen"))
        running.udp(link_test("0002"))
        state = tmp_path / "data" / "paths.state"
        for _ in range(2):  # the first may have been begun before
            wait_until(partial(_written_since, state, state.stat().st_mtime_ns))
        running.kill()
        running.start()
        wait_until(lambda: len(paths(running, "lost")) == 2)  # 0002 is silent after the start too
        assert [path["account"] for path in paths(running, "lost")] == ["0001", "0002"]
        assert [trouble["account"] for trouble in troubles(running, "never-seen")] == ["0003"]
        running.udp(link_test("0001"))
        running.udp(link_test("0003"))
        (restored,) = wait_until(lambda: paths(running, "restored"))
        assert restored["account"] == "0001"
        heard = [clock.from_text(path["last_seen"]) for path in (restored, paths(running, "lost")[0])]
        assert abs(heard[0] - heard[1]) < clock.SECOND_US // 2
        (cleared,) = wait_until(lambda: troubles(running, "never-seen-cleared"))
        assert cleared["account"] == "0003"


def test_what_was_told_after_the_paths_were_written_down_is_told_after_a_crash_to_have_ended(tmp_path: Path) -> None:
    rows = "account,supervision_seconds\n0001,1\n0002,1\n0003,1\n0004,600\n"
    with Running(tmp_path, accounts=rows, more=QUICK.replace("0.2", "3600")) as running:
        wait_until((tmp_path / "data" / "paths.state").exists)
        running.udp(link_test("0001"))
        running.udp(link_test("0002"))
        wait_until(lambda: len(paths(running, "lost")) == 2 and troubles(running, "never-seen"))
        running.udp(link_test("0002"))
        wait_until(lambda: paths(running, "restored"))
        running.kill()
        running.start()
        running.udp(link_test("0001"))
        running.udp(link_test("0002"))
        running.udp(link_test("0003"))
        wait_until(lambda: "0001" in _told_once(running, "restored") and troubles(running, "never-seen-cleared"))
        restored, lost = (_told_once(running, state) for state in ("restored", "lost"))
        assert restored.count("0001") == lost.count("0001")  # more than once, where this machine was slow
        assert restored.count("0002") == lost.count("0002")
        assert {trouble["account"] for trouble in troubles(running, "never-seen-cleared")} == {"0003"}


def test_an_account_taken_from_the_register_is_forgotten(tmp_path: Path) -> None:
    with Running(tmp_path, accounts="account,supervision_seconds\n0001,1\n0002,60\n", more=QUICK) as running:
        running.udp(link_test("0002"))
        assert running.metric("receiver_paths", 'state="alive"') == 1
        (tmp_path / "accounts.csv").write_text("account,supervision_seconds\n0001,1\n0002,\n", "utf-8")
        running.signal(signal.SIGHUP)
        wait_until(lambda: running.metric("receiver_paths", 'state="alive"') == 0)


def test_a_listener_is_primary_or_backup_and_is_told_when_it_hears_nobody_any_more(tmp_path: Path) -> None:
    running = Running(tmp_path, listener='role = "backup"', accounts="account,supervision_seconds\n0001,1\n0002,1\n")
    with running:
        running.udp(link_test("0001"))
        running.udp(link_test("0002"))
        (silent,) = wait_until(lambda: troubles(running, "listener-silent"))
        assert (silent["listener"], "all 2 supervised paths" in silent["text"]) == ("main", True)
        wait_until(lambda: len(paths(running, "lost")) == 2)
        assert {path["role"] for path in paths(running, "lost")} == {"backup"}


def test_an_account_of_two_paths_is_awaited_on_the_one_where_it_was_never_heard(tmp_path: Path) -> None:
    running = Running(tmp_path, listener='role = "primary"', accounts="account,supervision_seconds\n0001,DP4\n0002,SP4\n")
    radio = running.add_listener('name = "radio"\nrole = "backup"')
    with running:
        for account in ("0001", "0002"):
            running.udp(link_test(account))
        wait_until(lambda: running.metric("receiver_paths", 'state="alive"') == 2)
        wait_until(lambda: running.metric("receiver_paths", 'state="never-seen"') == 1)
        assert running.stop() == 0
        running.start()
        running.port = radio
        wait_until(lambda: running.metric("receiver_paths", 'state="never-seen"') == 1)
        running.udp(link_test("0001"))
        wait_until(lambda: running.metric("receiver_paths", 'state="never-seen"') == 0)
