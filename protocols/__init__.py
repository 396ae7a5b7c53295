"""Alarm wire formats: bytes to values and back. No sockets, no clock, no logging, no settings."""
