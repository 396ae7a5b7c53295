"""What a large register and a full journal cost: start, memory, heartbeats of a million accounts, and growth by work done.

The register is written as accounts are in the field; a journal is filled through its own ``append``.
"""

import asyncio
import os
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

from bench import servers, usage
from bench.frames import key_of, large
from bench.report import Figure
from bench.servers import Server, Setup, generate
from bench.start import start_once
from bench.works import Plan, judge_flat, judge_latency
from protocols import dc09
from receiver import clock
from receiver.config import JournalSettings
from receiver.journal import Entry, Journal, Origin
from tests.wire.running import free_port

MILLION = 1_000_000
REGISTERED = (1000, 100_000, MILLION)
KEYED = 200_000
HEARTBEAT_SECONDS = 90
HEARTBEATS = MILLION // HEARTBEAT_SECONDS
STORED = 5_000_000
_GROUP = 10_000
_SHARE_SECONDS = 18  # of heartbeats made by one generator
_DAY_US = 86400 * clock.SECOND_US


def write_register(file: Path, count: int, keyed: int, supervision: int | None = None) -> None:
    """Write ``count`` accounts with names, sites and instructions, ``keyed`` of them with a key of their own."""
    each, interval = count // keyed if keyed else count + 1, "" if supervision is None else supervision
    with file.open("w", encoding="utf-8") as out:
        out.write("account,name,key,plaintext,supervision_seconds,time_zone,dialect,site,instructions\n")
        for number in range(count):
            key = key_of(number) if keyed and number % each == 0 else ""
            out.write(f"{large(number)},panel {number},{key},,{interval},,,site {number},call the key holder {number}\n")


def start(plan: Plan) -> Figure:
    """Measure from exec to ready with a million accounts registered, 200,000 of them keyed."""
    with servers.scratch() as folder:
        write_register(folder / "register.csv", MILLION, KEYED)
        http = free_port()
        config = servers.write_settings(folder, free_port(), http, Setup(register=folder / "register.csv"))
        rounds = [start_once(config, http) for _ in range(plan.rounds)]
    seconds, cpu = (statistics.median(found[at] for found in rounds) for at in (0, 1))
    resident = max(found.resident_mb for found in rounds)
    return Figure(
        "start with 1,000,000 accounts, 200,000 keyed", f"{cpu:.1f} s of a core", f"{seconds:.1f} s, {resident:.0f} MB", "-",
        "<= 6 s, 700 MB", seconds <= 6 and resident <= 700,
        f"ready after {', '.join(f'{found.seconds:.1f}' for found in rounds)} s",
        {"seconds": seconds, "cpu_seconds": cpu, "resident_mb": resident, "rounds": rounds},
    )  # fmt: skip


def heartbeats(plan: Plan, seconds: float) -> Iterator[Figure]:
    """Send the encrypted link tests of a million accounts, each with a key of its own, every 90 s over UDP.

    The first 90 s, in which each account is heard for the first time, and what comes after them are judged apart. All frames
    are made before: a pause between two shares would have paths lost. They are, 30 s after a heartbeat that does not come.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(servers.scratch())
        write_register(folder / "register.csv", MILLION, MILLION, HEARTBEAT_SECONDS)
        setup = Setup(register=folder / "register.csv", more="[supervision]\nmargin_seconds = 30\n")
        ours = stack.enter_context(servers.receiver(setup))
        share = seconds / max(1, round(seconds / _SHARE_SECONDS))
        order = {"token": "NULL", "key": "each", "large": MILLION, "rate": HEARTBEATS, "seconds": share}
        shares = [
            stack.enter_context(servers.prepared(ours, "beats", **order, skip=round(HEARTBEATS * share) * number))
            for number in range(round(seconds / share))
        ]
        first = -(-HEARTBEATS * HEARTBEAT_SECONDS // round(HEARTBEATS * share))
        for name, part in (("for the first time", shares[:first]), ("again", shares[first:])):
            if part:
                yield _heartbeats(name, ours, part)


def _heartbeats(name: str, ours: servers.Server, shares: list[Callable[[], dict[str, Any]]]) -> Figure:
    before, cpu = usage.resident_bytes(ours.pid), usage.cpu_seconds(ours.pid)
    rounds = [share() for share in shares]
    spent, after = usage.cpu_seconds(ours.pid) - cpu, usage.resident_bytes(ours.pid)
    dropped, troubles = (servers.metric(ours, f"receiver_{what}_total") for what in ("udp_dropped", "troubles"))
    found = judge_latency(f"heartbeats of a million accounts, heard {name}, {HEARTBEATS:,}/s over UDP", rounds, 20.0)
    sent = sum(told["sent"] for told in rounds)
    note = (
        f"worst share's p99 {max(found.data['p99_each']):.2f} ms; {spent / (sent / HEARTBEATS):.0%} of a core; {sent:,} "
        f"sent, dropped by the receiver's count: {dropped:.0f}; troubles, lost paths among them: {troubles:.0f}; "
        f"{before / 2**20:.0f} MB before, {after / 2**20:.0f} MB after "
        f"({(after - before) / min(sent, MILLION):,.0f} bytes for each account heard)"
    )
    return found._replace(
        note=f"{found.note}; {note}", met=found.met and not dropped,
        data=found.data | {"resident_before": before, "resident_after": after, "dropped": dropped, "troubles": troubles},
    )  # fmt: skip


@contextmanager
def _heard(count: int) -> Iterator[Server]:
    """Run a receiver with so many accounts registered, each heard once.

    Links do not keep step: where one has sent all it has, others are a sixth behind. A quarter more is sent, so that they
    get round.
    """
    with servers.scratch() as folder:
        write_register(folder / "register.csv", count, 0)
        with servers.receiver(Setup(register=folder / "register.csv")) as ours:
            frames = count // 50 * 5 // 4 + 1
            generate(ours, "closed", large=count, connections=50, token="NULL", frames=frames, seconds=300)
            yield ours


def accounts(plan: Plan) -> Figure:
    """Measure a signal's cost when its account is one of 1,000 to a million, by turns; each account was heard before."""
    points: dict[int, list[float]] = {count: [] for count in REGISTERED}
    with ExitStack() as stack:
        running = {count: stack.enter_context(_heard(count)) for count in REGISTERED}
        for number in range(plan.rounds):
            for count, ours in running.items():
                frames = round(plan.seconds * 2000)
                order = {"large": count, "connections": 50, "seconds": plan.seconds, "round": number}
                told = generate(ours, "closed", **order, frames=frames, skip=number * frames * 50)
                points[count].append(told["cpu_us"])
    found = {count: statistics.median(costs) for count, costs in points.items()}
    return judge_flat("cost, 1,000 to 1,000,000 accounts", found, "CPU time, TCP, 50 connections, by turns")


async def fill(data_dir: Path, count: int) -> None:
    """Store signals of the last month, older than the window of repeats, through the journal itself."""
    journal = Journal(data_dir, JournalSettings(max_waiting=4 * _GROUP), [Origin("1", "1", "main", "tcp")])
    began_us = clock.now_us() - 30 * _DAY_US
    raw = dc09.encode("ADM-CID", "0001", dc09.Address(None, "0", "A000"), b"#A000|1130 01 001")
    for first in range(0, count, _GROUP):
        for at in range(first, min(count, first + _GROUP)):
            identity = blake2b(b"%d" % at, digest_size=16).digest()
            told = Entry(0, identity, began_us + at * 1000, None, 1, "192.0.2.1:40112", "", raw, None, ((1, 5, 0),))
            if at % _GROUP:
                journal.append_later([told])
            else:
                last = told
        await journal.append([last])
    await journal.close()


def journal(plan: Plan, stored: int = STORED) -> Figure:
    """Measure a signal's cost on an empty journal and on one that holds five million."""
    points: dict[int, float] = {}
    for count in (0, stored):
        with servers.scratch() as folder:
            if count:
                asyncio.run(fill(folder / "filled", count))
            with servers.receiver(Setup(data_dir=folder / "filled" if count else None)) as ours:
                order = {"frames": round(plan.seconds * 2000), "seconds": plan.seconds}
                rounds = [generate(ours, "closed", **order, round=number) for number in range(plan.rounds)]
            points[count] = statistics.median(told["cpu_us"] for told in rounds)
    os.sync()
    return judge_flat("cost, empty journal to 5,000,000 signals", points, "CPU time, TCP, 50 connections")
