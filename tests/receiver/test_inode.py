"""Which file a path leads to, asked for without its times."""

import ctypes
import os
from pathlib import Path

import pytest

from receiver.journal.inode import inode


def test_it_is_what_stat_says(tmp_path: Path) -> None:
    file = tmp_path / "journal é"
    file.write_bytes(b"")
    found = os.stat(file)
    assert inode(str(file)) == (found.st_ino, os.major(found.st_dev), os.minor(found.st_dev))


def test_a_file_in_the_place_of_another_is_another(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"")
    before = inode(str(file))
    other.write_bytes(b"")
    other.rename(file)
    assert inode(str(file)) != before


def test_a_path_that_leads_nowhere_says_so_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as failed:
        inode(str(tmp_path / "gone"))
    assert failed.value.filename == str(tmp_path / "gone")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "statx"), reason="this system's library has no statx")
def test_times_are_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: object) -> None:
        raise AssertionError(f"os.stat asks for the times of {path}")

    monkeypatch.setattr(os, "stat", refuse)
    inode(str(tmp_path))
