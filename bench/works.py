"""What is measured in ten minutes: rates against the echo and pysiaalarm, latencies, memory, bursts, connections."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bench import servers, usage
from bench.report import DISTURBED, Figure, Pair, compare, median_of, rounds_of
from bench.servers import Server, Setup, generate
from receiver.config.settings import SECTIONS

KEY_128 = "000102030405060708090A0B0C0D0E0F"
KEY_256 = KEY_128 * 2
RIVAL_KEY = "AES128KEYOF16CHR"  # pysiaalarm takes a key's characters as its bytes, and so do we when there are 16


class Rate(NamedTuple):
    """A work whose rate is compared with the echo's."""

    name: str
    target: float
    order: dict[str, Any]
    mode: str = "closed"
    output: bool = False


RATES = [
    Rate("plain signals, TCP, 50 connections, durable", 0.40, {}),
    Rate("AES-128 signals, TCP, 50 connections, durable", 0.30, {"key": KEY_128}),
    Rate("AES-256 signals, TCP, 50 connections, durable", 0.28, {"key": KEY_256}),
    Rate("encrypted link tests (*NULL), TCP, 50 connections", 0.35, {"key": KEY_128, "token": "NULL"}),
    Rate("plain signals, UDP, 50 panels, durable", 0.35, {"transport": "udp"}),
    Rate("one connection a message, 50 at a time, durable", 0.60, {"frames": 600}, "one-shot"),
    Rate("plain signals, TCP, with a jsonl output that keeps up", 0.0, {}, output=True),
]
CONNECTIONS = (10, 100, 1000, 5000)
COMMITS = "receiver_journal_sync_seconds_count"
IDLE_FIRST, IDLE_CONNECTIONS = 1000, 20_000
IDLE_LISTENER = "max_connections = 25000\nmax_connections_per_source = 2000\n"
BURST = 20_000


class Plan(NamedTuple):
    """How long and how often to measure."""

    rounds: int
    seconds: float


def paired(
    base: Server, ours: Server, mode: str, order: dict[str, Any], seconds: float, echo: bool = True
) -> Callable[[int], Pair]:
    """Return what measures one round: the baseline, then the receiver; ``echo``: the baseline sends back what it gets."""

    def measure(number: int) -> Pair:
        reference = generate(base, mode, **order, seconds=seconds, round=number, echo=echo)
        return Pair(reference, generate(ours, mode, **order, seconds=seconds, round=number))

    return measure


def rate(work: Rate, plan: Plan) -> Figure:
    """Compare one work with the echo, by turns."""
    order = {"frames": round(plan.seconds * 2000)} | work.order
    with servers.echo() as base, servers.receiver(Setup(work.order.get("key", ""), work.output)) as ours:
        found = rounds_of(paired(base, ours, work.mode, order, plan.seconds), plan.rounds)
    return compare(work.name, work.target, *found)


def generator(plan: Plan) -> Figure:
    """Show what the generator could do if nobody were slower: its own CPU time for a message against the echo's."""
    with servers.echo() as base:
        rounds = [generate(base, "closed", seconds=plan.seconds, echo=True) for _ in range(plan.rounds)]
    own = statistics.median(told["generator_cpu"] * told["seconds"] / told["done"] * 1e6 for told in rounds)
    python = statistics.median(told["generator_user_seconds"] / told["done"] * 1e6 for told in rounds)
    echo_us = statistics.median(told["cpu_us"] for told in rounds)
    return Figure(
        "generator's own ceiling (CPU time for a message)", f"echo {1e6 / echo_us:,.0f}/s {echo_us:.1f} µs",
        f"{1e6 / own:,.0f}/s {own:.1f} µs", f"{echo_us / own:.2f}", "-", None,
        f"only {python:.1f} µs of it are its own, the rest is the kernel's for a message there and back: no other generator "
        "would be much faster. A receiver at 0.40 of the echo needs well under half of it",
        {"generator_us": own, "generator_python_us": python, "echo_us": echo_us},
    )  # fmt: skip


def against_rival(plan: Plan) -> Iterator[Figure]:
    """Compare with pysiaalarm, plain and encrypted, 50 connections."""
    for name, key, target in (("plain", "", 7.0), ("AES-128", RIVAL_KEY, 10.0)):
        work = f"{name} signals against pysiaalarm 3.2.2 (not durable)"
        if not servers.RIVAL_PYTHON.exists():
            yield Figure(
                work, "-", "not measured", "-", f">= {target:g}", None, "make bench installs it; no index in reach?"
            )
            continue
        order = {"key": key, "frames": round(plan.seconds * 2000)}
        with servers.rival(key) as base, servers.receiver(Setup(key)) as ours:
            found = rounds_of(paired(base, ours, "closed", order, plan.seconds, echo=False), plan.rounds)
        yield compare(work, target, *found)


def _at(found: list[float], share: float) -> float:
    """Return a latency in milliseconds that this share of the answers did not exceed."""
    return found[min(len(found) - 1, int(len(found) * share))] * 1000 if found else float("inf")


def judge_latency(work: str, rounds: list[dict[str, Any]], p99_ms: float, p999_ms: float = float("inf")) -> Figure:
    """Judge open loops by the medians of their quantiles; whatever was not acknowledged is a failure.

    Where others had the generator's core in every round a figure that is too long says nothing of the receiver: not judged.
    """
    quiet = [told for told in rounds if told["generator_waited"] <= DISTURBED]
    each = [sorted(told["latencies"]) for told in quiet or rounds]
    p50, p99, p999 = (statistics.median(_at(found, share) for found in each) for share in (0.5, 0.99, 0.999))
    lost = sum(told["sent"] - told["done"] for told in quiet or rounds)
    good = p99 <= p99_ms and p999 <= p999_ms and not lost
    cpu = median(quiet or rounds, "cpu_us")
    return Figure(
        work, f"p50 {p50:.2f} ms", f"p99 {p99:.2f} p99.9 {p999:.2f}", f"{cpu:.1f} µs CPU",
        f"p99 <= {p99_ms:g} ms" + (f" {p999_ms:g}" if p999_ms != float("inf") else ""), good if good or quiet else None,
        f"{sum(told['done'] for told in rounds)} of {sum(told['sent'] for told in rounds)} acknowledged, longest "
        f"{max(_at(found, 1) for found in each):.1f} ms; {len(rounds) - len(quiet)} of {len(rounds)} rounds disturbed",
        {
            "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "lost": lost, "cpu_us": cpu,
            "p99_each": [_at(found, 0.99) for found in each], "disturbed": len(rounds) - len(quiet),
        },
    )  # fmt: skip


def latencies(plan: Plan) -> Iterator[Figure]:
    """Measure ACK latency at 1,000 signals a second and at half of saturation."""
    for name, key in (("plain", ""), ("AES-128", KEY_128)):
        with servers.receiver(Setup(key, output=True)) as ours:
            rounds = [
                generate(ours, "open", rate=1000, key=key, seconds=2 * plan.seconds, round=number)
                for number in range(plan.rounds)
            ]
        yield judge_latency(f"ACK latency, {name}, 1,000/s, with a jsonl output", rounds, 3.0, 10.0)
    with servers.receiver() as ours:
        order = {"frames": round(plan.seconds * 2000), "seconds": plan.seconds}
        full = statistics.median(generate(ours, "closed", **order, round=90 + number)["rate"] for number in range(3))
        rounds = [
            generate(ours, "open", rate=full / 2, seconds=2 * plan.seconds, round=number) for number in range(plan.rounds)
        ]
    yield judge_latency(f"ACK latency, plain, at half of saturation ({full / 2:,.0f}/s)", rounds, 8.0)


def idle_memory() -> Figure:
    """Measure what a connection holds that sent one link test and is silent: growth from 1,000 to 20,000 of them."""
    wanted = servers.connections_allowed(IDLE_CONNECTIONS)
    with (
        servers.receiver(Setup(listener=IDLE_LISTENER)) as ours,
        servers.holding(ours, token="NULL", connections=IDLE_FIRST) as first,
    ):
        before = usage.resident_bytes(ours.pid)
        with servers.holding(ours, token="NULL", connections=wanted - IDLE_FIRST, first=IDLE_FIRST) as rest:
            after = usage.resident_bytes(ours.pid)
    each, held = (after - before) / max(1, rest), first + rest
    return Figure(
        "memory of an idle TCP connection, 20,000 held", f"{before / 2**20:.0f} MB", f"{each:,.0f} bytes each",
        f"{held} held", "<= 3,000 bytes", each <= 3000 and held == wanted,
        "resident memory, the kernel's sockets not counted"
        + (f"; the system's limit on open files allows {wanted}" if wanted < IDLE_CONNECTIONS else ""),
        {"bytes": each, "held": held},
    )  # fmt: skip


def udp_burst(plan: Plan) -> Figure:
    """Send 20,000 datagrams at once and count the ACKs."""
    rounds = []
    for number in range(plan.rounds):
        with servers.receiver() as ours:
            told = generate(ours, "burst", panels=BURST, round=number)
            told["kernel"] = servers.metric(ours, "receiver_udp_dropped_total")
            rounds.append(told)
    lost = [told["sent"] - told["done"] for told in rounds]
    return Figure(
        "a burst of 20,000 UDP datagrams", f"sent in {median(rounds, 'sent_seconds') * 1000:.0f} ms",
        f"{max(lost)} lost at most", f"{sum(lost)} of {BURST * plan.rounds}", "none lost", not any(lost),
        f"answered in {median(rounds, 'seconds'):.2f} s; dropped by the receiver's own count: "
        f"{max(told['kernel'] for told in rounds):.0f} at most",
        {"lost": lost},
    )  # fmt: skip


def median(rounds: list[dict[str, Any]], name: str) -> float:
    """Return the median of one thing told."""
    return float(statistics.median(told[name] for told in rounds))


def judge_flat(work: str, points: dict[int, float], note: str, allowed: float = 0.10) -> Figure:
    """Judge whether the CPU time for a message grew by no more than a tenth from the smallest to any larger."""
    first = next(iter(points.values()))
    growth = max(points.values()) / first - 1
    return Figure(
        work, f"{first:.1f} µs at {next(iter(points)):,}", f"{list(points.values())[-1]:.1f} µs at {list(points)[-1]:,}",
        f"{growth:+.0%} at most", f"within {allowed:.0%}", growth <= allowed,
        "; ".join(f"{count:,}: {cost:.1f} µs" for count, cost in points.items()) + f". {note}",
        {"points": {str(count): cost for count, cost in points.items()}},
    )  # fmt: skip


def connections(plan: Plan) -> Iterator[Figure]:
    """Measure the cost of a message with 10 to 5,000 connections open: 10 messages under way at any time, then one each.

    The echo runs beside, 10 under way: what it needs more with many connections is the kernel's, out of its caches.
    """
    turns, full, echoed, grouped = ({count: list[float]() for count in CONNECTIONS} for _ in range(4))
    with servers.receiver(Setup(listener=IDLE_LISTENER)) as ours, servers.echo() as base:
        for number in range(plan.rounds):
            for at, count in enumerate(CONNECTIONS):  # by turns, so that a disturbance hits all alike
                own = 2 * (number * len(CONNECTIONS) + at)  # messages not sent before: a repeat is answered without a commit
                frames = max(12, round(50_000 * plan.seconds / count))
                order = {"connections": count, "seconds": plan.seconds, "frames": frames}
                commits = servers.metric(ours, COMMITS)
                told = generate(ours, "closed", **order, in_flight=10, round=own)
                turns[count].append(told["cpu_us"])
                grouped[count].append(told["done"] / max(1.0, servers.metric(ours, COMMITS) - commits))
                full[count].append(generate(ours, "closed", **order, round=own + 1)["cpu_us"])
                echoed[count].append(generate(base, "closed", **order, in_flight=10, echo=True)["cpu_us"])
    beside = ", ".join(f"{statistics.median(costs):.1f}" for costs in echoed.values())
    shared = ", ".join(f"{statistics.median(found):.1f}" for found in grouped.values())
    note = f"CPU time; panels take turns; {shared} messages a commit; the echo: {beside} µs"
    points = {count: statistics.median(costs) for count, costs in turns.items()}
    yield judge_flat("cost, 10 to 5,000 connections, 10 messages under way", points, note)
    points = {count: statistics.median(costs) for count, costs in full.items()}
    yield judge_flat("cost, 10 to 5,000 connections, one under way on each", points, "CPU time; more share a commit")


def has_workers() -> str:
    """Return the section of the settings that has ``workers``, or nothing."""
    found = [name for name, section in SECTIONS.items() if "workers" in getattr(section, "__dataclass_fields__", {})]
    return found[0] if found else ""


def workers(plan: Plan) -> Figure:
    """Compare the CPU time of a message in two processes with that in one; both have every core."""
    work, section = "workers = 2, CPU time for a message", has_workers()
    if not section:
        return Figure(work, "-", "not measured", "-", "<= +15%", None, "this version has no setting workers")
    two = "workers = 2\n" if section == "receiver" else ""
    more = "" if section == "receiver" else f"[{section}]\nworkers = 2\n"
    order = {"frames": round(plan.seconds * 2000), "connections": 100}
    with (
        servers.receiver(Setup(every_core=True)) as one,
        servers.receiver(Setup(every_core=True, more=more, receiver=two)) as both,
    ):
        pairs, _ = rounds_of(paired(one, both, "closed", order, plan.seconds, echo=False), plan.rounds)
    growth = statistics.median(pair.own["cpu_us"] / pair.base["cpu_us"] for pair in pairs) - 1
    return Figure(
        work, f"{median_of(pairs, 0, 'cpu_us'):.1f} µs", f"{median_of(pairs, 1, 'cpu_us'):.1f} µs", f"{growth:+.0%}",
        "<= +15%", growth <= 0.15, "100 connections", {"growth": growth},
    )  # fmt: skip


def small_works(plan: Plan) -> Iterator[tuple[str, Callable[[], Iterator[Figure]]]]:
    """Give each work's name, and what measures it."""
    for work in RATES:
        yield work.name, lambda work=work: iter([rate(work, plan)])  # type: ignore[misc]
    yield "generator", lambda: iter([generator(plan)])
    yield "pysiaalarm", lambda: against_rival(plan)
    yield "latency", lambda: latencies(plan)
    yield "idle", lambda: iter([idle_memory()])
    yield "burst", lambda: iter([udp_burst(plan)])
    yield "connections", lambda: connections(Plan(plan.rounds, plan.seconds / 2))
    yield "workers", lambda: iter([workers(plan)])
