"""Durable, ordered storage of signals on SQLite; the only maker of receipts."""

from receiver.journal.cursor import Cursor
from receiver.journal.deliveries import DEAD, SPAN_US, TAKEN, WANTED, Letter, Span, burial, recall, settlement
from receiver.journal.folder import marked_damage
from receiver.journal.lanes import Lane, lane_of
from receiver.journal.reader import Reader
from receiver.journal.records import SIGNAL, Entry, Kind, Origin, Receipt, Refusal, Row, Stored
from receiver.journal.salvage import check_whole
from receiver.journal.store import Journal

__all__ = [
    "DEAD",
    "SIGNAL",
    "SPAN_US",
    "TAKEN",
    "WANTED",
    "Cursor",
    "Entry",
    "Journal",
    "Kind",
    "Lane",
    "Letter",
    "Origin",
    "Reader",
    "Receipt",
    "Refusal",
    "Row",
    "Span",
    "Stored",
    "burial",
    "check_whole",
    "lane_of",
    "marked_damage",
    "recall",
    "settlement",
]
