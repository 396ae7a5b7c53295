"""Durable, ordered storage of signals on SQLite; the only maker of receipts."""

from receiver.journal.cursor import Cursor
from receiver.journal.folder import marked_damage
from receiver.journal.lanes import Lane, lane_of
from receiver.journal.reader import Reader
from receiver.journal.records import Kind, Origin, Receipt, Refusal, Row, Stored
from receiver.journal.salvage import check_whole
from receiver.journal.store import Journal

__all__ = [
    "Cursor",
    "Journal",
    "Kind",
    "Lane",
    "Origin",
    "Reader",
    "Receipt",
    "Refusal",
    "Row",
    "Stored",
    "check_whole",
    "lane_of",
    "marked_damage",
]
