"""What the bench says of its figures: a row is met only by what was measured, and disturbed rounds are no proof."""

import json
from pathlib import Path
from typing import Any

import pytest

from bench import frames, profile, report, servers, works
from bench.report import Pair
from protocols import dc09


def told(rate: float, cpu_us: float, waited: float = 0.0) -> dict[str, Any]:
    return {
        "rate": rate,
        "cpu_us": cpu_us,
        "generator_cpu": 0.5,
        "generator_waited": waited,
        "server_waited": 0.0,
    }


QUIET = Pair(told(100_000, 6.0), told(42_000, 15.0))
DISTURBED = Pair(told(20_000, 6.0, waited=0.5), told(20_000, 24.0))


def test_rounds_that_others_disturbed_do_not_count() -> None:
    rounds = iter([DISTURBED, QUIET, QUIET])
    assert report.rounds_of(lambda _: next(rounds), 2) == ([QUIET, QUIET], 0)


def test_where_all_rounds_were_disturbed_cpu_time_decides_and_the_row_says_so() -> None:
    pairs, disturbed = report.rounds_of(lambda _: DISTURBED, 2)
    assert (len(pairs), disturbed) == (3, 3)
    found = report.compare("work", 0.40, pairs, disturbed)
    assert found.met is False  # by rate it would be 1.00
    assert "3 of 3 rounds disturbed, judged by CPU time" in found.note


@pytest.mark.parametrize(("target", "met"), [(0.40, True), (0.43, False), (0.0, None)])
def test_a_row_is_met_from_its_target_on_and_without_one_is_not_judged(target: float, met: bool | None) -> None:
    assert report.compare("work", target, [QUIET] * 5, 0).met is met


@pytest.mark.parametrize(("sent", "slow", "met"), [(1000, 0, True), (1001, 0, False), (1000, 11, False)])
def test_a_latency_is_met_only_when_nothing_is_lost_and_the_slow_are_few(sent: int, slow: int, met: bool) -> None:
    latencies = [0.001] * (1000 - slow) + [0.5] * slow
    round_told = {"latencies": latencies, "sent": sent, "done": 1000, "generator_waited": 0.0, "cpu_us": 20.0}
    assert works.judge_latency("work", [round_told], 3.0).met is met


def test_a_latency_that_others_may_have_made_is_not_judged() -> None:
    round_told = {"latencies": [0.5] * 100, "sent": 100, "done": 100, "generator_waited": 0.4, "cpu_us": 20.0}
    quiet = round_told | {"latencies": [0.001] * 100, "generator_waited": 0.0}
    assert works.judge_latency("work", [round_told], 3.0).met is None
    assert works.judge_latency("work", [round_told, quiet], 3.0).met is True


def test_growth_is_judged_by_the_dearest_point() -> None:
    assert works.judge_flat("work", {10: 20.0, 100: 21.9, 1000: 20.0}, "").met is True
    assert works.judge_flat("work", {10: 20.0, 100: 22.1, 1000: 20.0}, "").met is False


def test_the_generator_sends_each_signal_once_and_the_receiver_acknowledges_all() -> None:
    with servers.receiver() as ours:
        found = servers.generate(ours, "closed", frames=10, seconds=20.0, round=1)
        stored = servers.metric(ours, "receiver_signals_total")
    assert 50 <= found["done"] <= 500  # it ends when the first of 50 panels has sent its ten
    assert stored == found["done"]
    assert found["cpu_us"] > 0


def test_the_accounts_of_a_large_register_have_keys_that_differ() -> None:
    order = {"large": 100, "key": "each", "token": "NULL"}
    (one,) = dc09.split_datagram(frames.frame(order, 1, 0, 1_700_000_000))
    assert isinstance(one, dc09.Frame)
    envelope = dc09.open_envelope(one)
    assert envelope.address.account == "000001"
    assert dc09.unseal(envelope, dc09.Key.parse(frames.key_of(1))).data == b""
    assert frames.key_of(1) != frames.key_of(2)


STACKS = """\
thread (7): MainThread;main (cli.py:1);Runner.run (aio.py:86);take (receiver/listeners/tcp.py:9);read (protocols/x.py:2) 30
thread (7): MainThread;main (cli.py:1);Runner.run (aio.py:86);take (receiver/listeners/tcp.py:9) 10
thread (9): journal-writer;Thread._bootstrap_inner (threading.py:1);Writer.run (receiver/journal/writer.py:5) 80
"""


def test_the_picture_is_as_wide_as_the_time_each_thread_had() -> None:
    whole = profile.read(STACKS, {7: 20.0, 9: 5.0})
    assert whole.cost_us == pytest.approx(25.0)
    loop, writer = whole.under["event loop, sockets"], whole.under["journal writer"]
    assert [loop.cost_us, writer.cost_us] == pytest.approx([20.0, 5.0])
    (take,) = loop.under.values()
    assert take.itself() == pytest.approx(5.0)
    picture = profile.draw(whole, "A signal & its cost")
    assert "A signal &amp; its cost" in picture
    assert "read 15.0" in picture


def test_the_json_holds_every_row(tmp_path: Path) -> None:
    row = report.compare("work", 0.40, [QUIET], 0)
    report.write_json(tmp_path / "bench.json", [row], {"cores": 2})
    found = json.loads((tmp_path / "bench.json").read_text("utf-8"))
    assert found["figures"][0]["data"]["ratios"] == [pytest.approx(0.42)]
    assert found["cores"] == 2
    assert report.markdown(tmp_path / "bench.json").endswith("| >= 0.4 | yes |")
