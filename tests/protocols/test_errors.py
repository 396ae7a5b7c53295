"""The tree of what can be wrong with what a panel sent."""

import re

import pytest

from protocols import errors
from protocols.errors import ProtocolError

EVERY = [found for found in vars(errors).values() if isinstance(found, type) and issubclass(found, Exception)]


@pytest.mark.parametrize("error", EVERY)
def test_every_error_is_a_protocol_error_told_in_one_line(error: type[ProtocolError]) -> None:
    assert issubclass(error, ProtocolError)
    assert error.__doc__
    assert "\n" not in error.__doc__


@pytest.mark.parametrize("error", EVERY)
def test_every_reason_is_a_slug(error: type[ProtocolError]) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", error.reason)


def test_a_frame_that_cannot_be_cut_out_tells_why_in_one_of_five_words() -> None:
    family = {error.reason for error in EVERY if issubclass(error, errors.FramingError)}
    assert family == {"malformed", "not-dc09", "bad-length", "bad-crc", "truncated"}
