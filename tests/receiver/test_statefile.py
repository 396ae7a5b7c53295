"""Small files of state: the old one or the new one, and nobody else's to read."""

import json
from pathlib import Path

import pytest

from receiver import statefile


@pytest.mark.parametrize("synced", [True, False])
def test_a_file_takes_the_place_of_the_one_before_and_is_private(tmp_path: Path, synced: bool) -> None:
    file = tmp_path / "state.json"
    for content in ({"a": 1}, {"b": [2, 3]}):
        assert statefile.write(file, content, synced) == file
        assert json.loads(file.read_text("utf-8")) == content
    assert file.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["state.json"]


def test_what_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    statefile.write(file, {"a": 1})
    with pytest.raises(TypeError):
        statefile.write(file, {"a": object()})
    assert json.loads(file.read_text("utf-8")) == {"a": 1}
