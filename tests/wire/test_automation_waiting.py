"""Every output to automation with a long queue: urgent first when the other side is back, order kept, nothing lost.

``make buses`` tells the long story, with ``WAITING`` signals before the duress.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from protocols import dc09
from tests.wire.automation import ACK, Automation
from tests.wire.running import Running, frame, free_port, wait_until
from tests.wire.test_automation import _dc07_answer
from tests.wire.test_relay import FRAME

WAITING = int(os.environ.get("WAITING", "300"))
PANELS = [f"A00{n}" for n in range(5)]
AT_ONCE = 400


def numbered(number: int, code: str = "1130") -> bytes:
    """A frame whose event bears its number in partition and zone; sequences of four digits begin again after 9999."""
    told = f"{code} {number // 1000:02d} {number % 1000:03d}"
    return frame(f"{number % 9999 + 1:04d}", told, PANELS[number % len(PANELS)])


def _relay_answer(report: bytes) -> bytes:
    found = FRAME.fullmatch(report)
    assert found is not None, report
    return dc09.wrap(b'"ACK"' + found["sequence"] + found["address"] + b"[]")


class Kind(NamedTuple):
    """How a type is set up, answered and read: a report's account, code, and number in two parts."""

    settings: str
    end: bytes
    answer: Callable[[bytes], bytes | None]
    report: re.Pattern[bytes]


KINDS = {
    "surgard": Kind("", b"\x14", lambda _: ACK, re.compile(rb"501001 18(A00.)E(...)(..)(...)\x14")),
    "ademco685": Kind("", b"\r", lambda _: ACK, re.compile(rb"\n11 (A00.) 18 E(...) (..) [CU](...)\r")),
    "dc07": Kind("", b"\r", _dc07_answer, re.compile(rb"\n.{8}\"ADM-CID\"....R1L1\[#(A00.)\|1(...) (..) (...)\]\r")),
    "dc09": Kind(
        'host = "127.0.0.1"', b"\r", _relay_answer, re.compile(rb".*\[#(A00.)\|1(...) (..) (...)\].*\r", re.DOTALL)
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_duress_that_comes_last_goes_first_when_the_other_side_is_back(tmp_path: Path, kind: str) -> None:
    port, (settings, end, answer, report) = free_port(), KINDS[kind]
    outputs = f'[[outputs]]\nname = "centre"\ntype = "{kind}"\nport = {port}\ntroubles = false\n{settings}\n'
    accounts = "account\n" + "\n".join(PANELS) + "\n"
    with Running(tmp_path, outputs=outputs, accounts=accounts) as running:
        for first in range(1, WAITING + 1, AT_ONCE):
            frames = [numbered(n) for n in range(first, min(first + AT_ONCE, WAITING + 1))]
            assert len(running.tcp(*frames, replies=len(frames), seconds=60)) == len(frames)
        assert len(running.tcp(numbered(WAITING + 1, "1121"))) == 1
        assert running.metric("receiver_output_backlog", 'output="centre"') == WAITING + 1
        automation = Automation(port, end, listens=kind == "dc09")
        automation.answer = answer
        with automation:
            wait_until(lambda: running.metric("receiver_output_backlog") == 0, 300)
            reports = [report.fullmatch(told) for told in automation.had()]
        assert running.metric("receiver_output_dead_letters") == 0
    had = [(found[1].decode(), found[2].decode(), int(found[3] + found[4])) for found in reports if found is not None]
    assert len(had) == len(reports) == WAITING + 1
    codes = [code for _, code, _ in had]
    print(f"{kind}: {WAITING + 1} stored, {len(had)} taken, the duress as number {codes.index('121') + 1}")
    assert codes.index("121") < 50
    assert {number for _, _, number in had} == set(range(1, WAITING + 2))
    for account in PANELS:
        mine = [number for panel, code, number in had if (panel, code) == (account, "130")]
        assert mine == sorted(mine)
