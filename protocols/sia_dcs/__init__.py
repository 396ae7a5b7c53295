"""SIA DC-03 event blocks: two-letter codes with modifiers and text."""

from protocols.sia_dcs.block import SiaEvent, decode, encode
from protocols.sia_dcs.codes import CODES, Code

__all__ = ["CODES", "Code", "SiaEvent", "decode", "encode"]
