"""Beginning and ending a test from a command: an order in the data folder, and the file of what is in force.

The command lays ``orders/<id>.test`` down whole; the receiver looks each second, puts it in force, and keeps all tickets in
``on-test.json``, which it alone writes. An order that comes while no receiver runs is carried out at the next start, if its
time is not over by then.
"""

import contextlib
import json
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from receiver import ownership, statefile
from receiver.on_test.tickets import Ticket

_FOLDER, _SUFFIX, _KEPT = "orders", ".test", "on-test.json"


class Order(NamedTuple):
    """What a command wants: a ticket begun, or (None) the account's test ended; ``by`` and ``reason`` say who and why."""

    file: Path
    account: str
    ticket: Ticket | None
    by: str
    reason: str


def ask_begin(data_dir: Path, ticket: Ticket) -> Path:
    """Ask that a test begin; return the order's file, which goes when it is carried out.

    Raises:
        OSError: the order cannot be written.
    """
    return _lay(data_dir, {"begin": ticket._asdict()})


def ask_end(data_dir: Path, account: str, by: str, reason: str) -> Path:
    """Ask that an account's test end.

    Raises:
        OSError: the order cannot be written.
    """
    return _lay(data_dir, {"end": {"account": account.upper(), "by": by, "reason": reason}})


def taken(order: Path) -> bool:
    """Tell whether an order has been carried out."""
    return not order.exists()


def _lay(data_dir: Path, content: dict[str, Any]) -> Path:
    folder = data_dir / _FOLDER
    ownership.make_folder(folder)
    return statefile.write(folder / f"{secrets.token_hex(8)}{_SUFFIX}", content)


def waiting(data_dir: Path) -> list[Order]:
    """Return the orders that wait, oldest first; those that cannot be read go now. Nothing while the disk is away."""
    found: list[tuple[int, Order]] = []
    try:
        files = [(file.stat().st_mtime_ns, file) for file in (data_dir / _FOLDER).glob(f"*{_SUFFIX}")]
    except OSError:
        return []
    for moment, file in files:
        try:
            found.append((moment, _read_order(file)))
        except OSError:
            continue
        except (ValueError, TypeError, KeyError):
            with contextlib.suppress(OSError):
                file.unlink()
    return [order for _, order in sorted(found)]


def _read_order(file: Path) -> Order:
    told = json.loads(file.read_text("utf-8"))
    if "begin" in told:
        ticket = _ticket(told["begin"])
        return Order(file, ticket.account, ticket, ticket.by, ticket.reason)
    end = told["end"]
    return Order(file, str(end["account"]), None, str(end["by"]), str(end["reason"]))


def _ticket(told: dict[str, Any]) -> Ticket:
    found = Ticket(**told)
    return found._replace(
        zones=tuple(found.zones), points=tuple(found.points), since_us=int(found.since_us), until_us=int(found.until_us)
    )


def keep(data_dir: Path, tickets: Iterable[Ticket]) -> None:
    """Write down what is in force, over a restart.

    Raises:
        OSError: it cannot be written; the old file is as it was.
    """
    statefile.write(data_dir / _KEPT, {"tickets": [ticket._asdict() for ticket in tickets]})


def in_force(data_dir: Path) -> list[Ticket]:
    """Return the tickets that were in force when they were last written down; none when there is no such file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not ours.
    """
    try:
        told = json.loads((data_dir / _KEPT).read_text("utf-8"))
        return [_ticket(ticket) for ticket in told["tickets"]]
    except FileNotFoundError:
        return []
    except (TypeError, KeyError) as error:
        raise ValueError(f"{data_dir / _KEPT} is not ours: {error}") from None
