"""A technician on the phone, with a real receiver and the real command."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from protocols import dc09
from tests.wire.running import KEYED, PLAIN, Running, frame, said, wait_until


def test_a_technician_is_told_live_what_became_of_each_frame(tmp_path: Path) -> None:
    with Running(tmp_path) as receiver, (tmp_path / "told").open("wb") as out:
        command = [sys.executable, "-m", "receiver", "watch", "--config", str(receiver.config)]
        watching = [
            subprocess.Popen([*command, "--account", account], stdout=out, stderr=subprocess.DEVNULL)
            for account in (PLAIN, KEYED)
        ]
        wait_until(lambda: len(list((tmp_path / "data" / "orders").glob("*.watch"))) == 2)
        try:
            told = tmp_path / "told"
            assert receiver.tcp(frame("0001", account=KEYED), seconds=0.3) == []
            wait_until(lambda: "plaintext-refused, no answer" in told.read_text("utf-8"))
            assert receiver.tcp(frame("0002").replace(b"1130", b"1120"), seconds=0.3) == []
            wait_until(lambda: "bad-crc, no answer" in told.read_text("utf-8"))
            assert said(receiver.tcp(frame("0003"))[0]) == "ACK 0003"
            wait_until(lambda: "ADM-CID 0003 in clear from 127.0.0.1" in told.read_text("utf-8"))
            test = dc09.encode("NULL", "0004", dc09.Address(None, "0", PLAIN))
            assert said(receiver.tcp(test)[0]) == "ACK 0004"
            wait_until(lambda: "link test or repeat from 127.0.0.1" in told.read_text("utf-8"))
        finally:
            for process in watching:
                process.send_signal(signal.SIGINT)
        assert [process.wait(10) for process in watching] == [0, 0]
        assert list((tmp_path / "data" / "orders").glob("*.watch")) == []


def test_link_tests_are_told_of_an_account_however_the_register_spells_it(tmp_path: Path) -> None:
    with Running(tmp_path, accounts="account\naB12\n") as receiver, (tmp_path / "told").open("wb") as out:
        command = [sys.executable, "-m", "receiver", "watch", "--config", str(receiver.config), "--account", "ab12"]
        watching = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: list((tmp_path / "data" / "orders").glob("*.watch")))
            told = tmp_path / "told"
            assert said(receiver.tcp(frame("0003", account="AB12"))[0]) == "ACK 0003"
            wait_until(lambda: "ADM-CID 0003 in clear" in told.read_text("utf-8"))
            later = time.monotonic() + 0.5  # what comes at the moment of a signal is taken for it
            wait_until(lambda: time.monotonic() > later)
            test = dc09.encode("NULL", "0004", dc09.Address(None, "0", "AB12"))
            assert said(receiver.tcp(test)[0]) == "ACK 0004"
            wait_until(lambda: "link test or repeat from 127.0.0.1" in told.read_text("utf-8"))
        finally:
            watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 0
