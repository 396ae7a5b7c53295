"""The time stamp, in GMT, read strictly and written back."""

from datetime import UTC, datetime

import pytest

from protocols.dc09 import timestamp
from protocols.errors import TimestampError


@pytest.mark.parametrize(
    ("stamp", "moment"),
    [
        (b"_00:00:00,01-01-1970", datetime(1970, 1, 1, tzinfo=UTC)),
        (b"_23:59:59,12-31-1969", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        (b"_10:01:02,11-23-2026", datetime(2026, 11, 23, 10, 1, 2, tzinfo=UTC)),
        (b"_12:00:00,02-29-2028", datetime(2028, 2, 29, 12, tzinfo=UTC)),
        (b"_00:00:00,01-01-0001", datetime(1, 1, 1, tzinfo=UTC)),
        (b"_07:08:09,10-11-0999", datetime(999, 10, 11, 7, 8, 9, tzinfo=UTC)),
        (b"_23:59:59,12-31-9999", datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_stamp_names_a_moment_in_gmt_and_is_written_with_twenty_characters(stamp: bytes, moment: datetime) -> None:
    assert timestamp.decode(stamp) == int(moment.timestamp())
    assert timestamp.encode(int(moment.timestamp())) == stamp
    assert len(stamp) == timestamp.SIZE_BYTES


def test_the_month_stands_before_the_day() -> None:
    assert timestamp.decode(b"_00:00:00,02-01-2026") - timestamp.decode(b"_00:00:00,01-01-2026") == 31 * 86400


def test_a_year_ends_between_two_seconds() -> None:
    assert timestamp.decode(b"_00:00:00,01-01-2027") - timestamp.decode(b"_23:59:59,12-31-2026") == 1


@pytest.mark.parametrize(
    "stamp",
    [
        b"_24:00:00,11-23-2026", b"_10:60:00,11-23-2026", b"_10:00:60,11-23-2026", b"_10:00:00,00-23-2026",
        b"_10:00:00,13-23-2026", b"_10:00:00,11-00-2026", b"_10:00:00,11-31-2026", b"_10:00:00,02-29-2027",
        b"_10:00:00,11-23-0000",
    ],
)  # fmt: skip
def test_a_stamp_of_no_real_moment_is_refused(stamp: bytes) -> None:
    with pytest.raises(TimestampError, match="no real moment"):
        timestamp.decode(stamp)


@pytest.mark.parametrize(
    "stamp",
    [
        b"", b"_", b"10:01:02,11-23-2026", b"_10:01:02,11-23-2026\n", b" _10:01:02,11-23-2026", b"_10:01:02,11-23-2026 ",
        b"_10:01:02 11-23-2026", b"_10.01.02,11-23-2026", b"_+1:01:02,11-23-2026", b"_ 1:01:02,11-23-2026",
        b"_1_:01:02,11-23-2026", b"_10:01:02,11-23-26", b"_10:01:02,2026-11-23", "_１0:01:02,11-23-2026".encode(),
        b"\xff" * 20,
    ],
)  # fmt: skip
def test_a_stamp_of_another_shape_is_refused(stamp: bytes) -> None:
    with pytest.raises(TimestampError, match="expected"):
        timestamp.decode(stamp)


def test_a_long_text_is_not_repeated_whole() -> None:
    with pytest.raises(TimestampError) as caught:
        timestamp.decode(b"x" * 4000)
    assert len(str(caught.value)) < 120
