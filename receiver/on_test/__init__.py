"""Accounts on test: what a technician has been given leave to set off, by whom, why and until when."""

from receiver.on_test.desk import Desk
from receiver.on_test.orders import ask_begin, ask_end, in_force, taken
from receiver.on_test.tickets import LONGEST_US, MOST_NAMES, OnTest, Ticket, read_names

__all__ = [
    "LONGEST_US",
    "MOST_NAMES",
    "Desk",
    "OnTest",
    "Ticket",
    "ask_begin",
    "ask_end",
    "in_force",
    "read_names",
    "taken",
]
