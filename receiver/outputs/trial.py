"""One marked test event through one output: what ``outputs test`` does.

The event is a signal, so that every format can express it, and can be taken for nothing else: Contact ID 602, the periodic
test report, priority 9, with the flags ``on-test`` and ``drill``, at position 0, from the listener ``outputs-test``.
"""

import asyncio
import os

from protocols import dc09
from receiver import clock
from receiver.accounts import Accounts
from receiver.errors import DeliveryError, EventRefused
from receiver.events import OutEvent, render
from receiver.journal import SIGNAL, Lane, Origin, Row, Stored
from receiver.outputs.contract import Output

LONGEST_SECONDS = 30.0


def make_event(account: str, receiver_number: str, accounts: Accounts) -> OutEvent:
    """Return a test event of an account."""
    now_us = clock.now_us()
    panel_time = now_us // clock.SECOND_US
    raw = dc09.encode(
        "ADM-CID", "0001", dc09.Address(None, "0", account), f"#{account}|1602 00 000".encode(), panel_time=panel_time
    )
    row = Row(
        SIGNAL, Lane.NORMAL.value, 9, 0, now_us, panel_time, os.urandom(16), 0, 0, "127.0.0.1:0", "on-test drill",
        raw, None,
    )  # fmt: skip
    return render(Stored(0, row, Origin(receiver_number, "0", "outputs-test", "tcp")), accounts)


async def attempt(output: Output, event: OutEvent) -> tuple[bool, str]:
    """Hand the event to the output and tell whether it was taken, and in words what happened."""
    began = clock.monotonic()
    beside = asyncio.ensure_future(output.run())
    try:
        async with asyncio.timeout(LONGEST_SECONDS):
            await output.deliver([event])
    except EventRefused as error:
        return False, f"the other side is there and refused the event: {error}"
    except DeliveryError as error:
        return False, f"the event could not be handed over: {error}"
    except TimeoutError:
        return False, f"nothing took the event within {LONGEST_SECONDS:g} s"
    except Exception as error:  # noqa: BLE001 - whatever a library does; its text may hold a password
        return False, f"unexpected {type(error).__name__} in the output"
    finally:
        beside.cancel()
        await output.close()
    return True, f"the event was taken after {(clock.monotonic() - began) * 1000:.0f} ms"
