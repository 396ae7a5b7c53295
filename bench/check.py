"""``make bench-check``: has speed been lost grossly? Plain signals over TCP against the echo in the same run, under 30 s.

What decides is the CPU time of a message against the echo's: it hardly moves when other programs take the cores, while rates
halve. The rate has a bound of its own, far lower, for time lost in waiting. One good round of three is enough.
"""

import sys

from bench import servers
from bench.works import paired

LEAST_CPU = 0.12
"""Of CPU times, half of what the slowest machine seen gives."""
LEAST_RATE = 0.04
"""Of rates. A receiver that has no core for most of the time still does more."""
ROUNDS, SECONDS = 3, 1.5


def main() -> None:
    """Exit 0 as soon as one round is good, 1 when none is."""
    with servers.echo() as base, servers.receiver() as ours:
        measure = paired(base, ours, "closed", {"frames": round(SECONDS * 2000)}, SECONDS)
        for number in range(ROUNDS):
            pair = measure(number)
            print(
                f"plain signals, TCP: {pair.cpu_ratio:.2f} of the echo by CPU time (at least {LEAST_CPU:.2f}), "
                f"{pair.ratio:.2f} by rate (at least {LEAST_RATE:.2f})", flush=True,
            )  # fmt: skip
            if pair.cpu_ratio >= LEAST_CPU and pair.ratio >= LEAST_RATE:
                return
    sys.exit(
        "a message has become much dearer: no round was good. make bench-profile shows what a message costs, and where; "
        "make bench measures more"
    )


if __name__ == "__main__":
    main()
