"""Everything that can be wrong with what a panel sent, on one screen.

Each leaf carries a ``reason``: a slug from a closed set, used as log field, metric label and in the refusals log. A text
tells what was expected and how much came, and holds no byte of what came: it is logged, and user codes and keys are not.
The bytes stand in the refusals log.
"""

from typing import ClassVar


class ProtocolError(Exception):
    """What was received does not follow the format it claims."""

    reason: ClassVar[str] = "malformed"


class FramingError(ProtocolError):
    """No frame could be taken from the bytes."""


class NotDc09(FramingError):
    """The bytes do not look like a DC-09 frame at all."""

    reason = "not-dc09"


class BadLength(FramingError):
    """The length field does not fit the frame, or its first digit is not 0."""

    reason = "bad-length"


class BadCrc(FramingError):
    """The CRC does not fit the bytes it covers."""

    reason = "bad-crc"


class Truncated(FramingError):
    """A frame began and did not end."""

    reason = "truncated"


class EnvelopeError(ProtocolError):
    """The frame is whole, but its header cannot be read."""


class BodyError(ProtocolError):
    """The part after the opening bracket has no readable end."""


class Undecryptable(ProtocolError):
    """No key is known, or the key does not open the message to a body that ends in a time stamp."""

    reason = "undecryptable"


class KeyFormatError(ProtocolError):
    """The text is no AES key; the message never repeats the text."""

    reason = "bad-key"


class TimestampError(ProtocolError):
    """The text is no DC-09 time stamp."""

    reason = "bad-timestamp"


class ContactIdError(ProtocolError):
    """The text is no Contact ID event."""

    reason = "unreadable"


class SiaDcsError(ProtocolError):
    """The text is no SIA event block."""

    reason = "unreadable"


class ReportError(ProtocolError):
    """The bytes are no report of this automation format."""

    reason = "unreadable"


class DoesNotFit(ProtocolError):
    """An account, number or text has no room in the automation format; it is never cut to size here."""

    reason = "does-not-fit"


class NoEquivalent(ProtocolError):
    """The tables pair this event code with none of the other format."""

    reason = "no-equivalent"
