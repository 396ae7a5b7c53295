"""What alarm receivers tell automation software: Sur-Gard, Ademco 685 and SIA DC-07, each a module of its own."""

from protocols.automation import ademco685, conversion, dc07, surgard

__all__ = ["ademco685", "conversion", "dc07", "surgard"]
