"""One receiver for the tests that do not need to break it."""

from collections.abc import Iterator

import pytest

from tests.wire.running import Running


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("receiver")) as running:
        yield running
