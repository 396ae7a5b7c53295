"""Frames of panels that deviate, over real sockets: taken, kept and read again where a dialect allows them."""

from pathlib import Path

from tests import vectors
from tests.wire.running import Running, frame, said, wait_until

ELDES = {vector["name"]: bytes.fromhex(vector["frame"]) for vector in vectors.load("eldes")}
CRC_ONLY, LENGTH_TOO = ELDES["eldes-crc-covers-cr-1"], ELDES["eldes-2019-crc-and-length-cover-cr-1"]
ACCOUNTS = "account,dialect\n4F39,eldes\n9999,eldes\n1A01,\n"


def test_eldes_panels_are_answered_over_tcp_and_udp_and_what_they_sent_is_handed_on(tmp_path: Path) -> None:
    with Running(tmp_path, accounts=ACCOUNTS) as running:
        assert said(running.tcp(LENGTH_TOO)[0]) == "ACK 0056"  # though nothing follows it
        assert [said(reply) for reply in running.tcp(CRC_ONLY + LENGTH_TOO + frame("0007"), replies=3)] == [
            "ACK 0227", "ACK 0056", "ACK 0007",
        ]  # fmt: skip
        assert said(running.udp(ELDES["eldes-2019-crc-and-length-cover-cr-2"])) == "ACK 0061"
        events = wait_until(lambda: len(running.events()) >= 4 and running.events())
        assert {event["data"]["event_code"] for event in events} == {"900", "401", "130", "602"}
        assert running.events("receiver.trouble.v1") == []
        done = running.command("journal", "verify", "--config", str(running.config))
        assert done.returncode == 0, done.stdout


def test_a_listeners_dialect_counts_for_accounts_without_one_and_a_refusal_names_what_would_help(tmp_path: Path) -> None:
    running = Running(tmp_path, 'dialect = "eldes"', accounts="account,dialect\n4F39,\n9999,ajax\n")
    with running:
        assert said(running.tcp(CRC_ONLY)[0]) == "ACK 0227"
        assert running.tcp(LENGTH_TOO, seconds=0.3) == []
        shown = wait_until(
            lambda: (
                "bad-crc" in running.command("journal", "show", "--refused", "--config", str(running.config)).stdout
                and running.command("journal", "show", "--refused", "--config", str(running.config)).stdout
            )
        )
        assert "account 9999 fits with dialect eldes (CRC over the CR)" in shown
