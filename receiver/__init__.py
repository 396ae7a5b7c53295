"""The alarm receiver: takes signals from panels, puts them on disk, acknowledges them and hands them on."""

__version__ = "0.1.0"
