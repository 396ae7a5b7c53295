"""A receiver runs as a user of its own: what root's commands write beside it, it can read."""

import os
import pwd
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from receiver import account_file, accounts
from receiver.cli import main
from receiver.errors import ConfigError
from receiver.journal import Reader
from receiver.journal.folder import Folder, withheld
from receiver.journal.opening import open_journal
from receiver.journal.records import SCHEMA
from receiver.managed import ManagedStore
from receiver.on_test import Ticket, ask_begin
from receiver.outputs.orders import ask
from receiver.sightings import Order

SERVICE = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder that belongs to the service's user."""
    found = tmp_path / "data"
    found.mkdir(mode=0o700)
    os.chown(found, SERVICE, SERVICE)
    return found


def owners(folder: Path) -> set[tuple[int, int]]:
    return {(found.lstat().st_uid, found.lstat().st_gid) for found in folder.rglob("*")}


@as_root
def test_what_roots_commands_lay_into_the_data_folder_belongs_to_the_service(folder: Path) -> None:
    ask_begin(folder, Ticket("1234", True, (), (), "service", "A. Jansen", 0, 1))
    ask(folder, "events", [1])
    Order(folder, "1234")
    ManagedStore(folder, None).close()
    assert {found.suffix for found in (folder / "orders").iterdir()} >= {".test", ".replay"}
    assert owners(folder) == {(SERVICE, SERVICE)}


@as_root
def test_a_folder_that_root_made_for_itself_before_is_handed_over(folder: Path) -> None:
    (folder / "orders").mkdir(mode=0o700)
    ask(folder, "events", None)
    assert owners(folder) == {(SERVICE, SERVICE)}


@as_root
def test_a_register_that_root_changes_stays_readable_for_the_service(folder: Path) -> None:
    file, settings = folder / "accounts.csv", folder / "receiver.toml"
    settings.write_text('[accounts]\nfile = "accounts.csv"\n', "utf-8")
    for command in (["add", "1234"], ["add", "5678"], ["remove", "1234"]):
        assert CliRunner().invoke(main, ["accounts", *command, "--config", str(settings)]).exit_code == 0
        assert (file.stat().st_uid, file.stat().st_gid, file.stat().st_mode & 0o777) == (SERVICE, SERVICE, 0o600)
    os.chown(file, 0, SERVICE)
    file.chmod(0o640)
    assert CliRunner().invoke(main, ["accounts", "add", "9999", "--config", str(settings)]).exit_code == 0
    assert (file.stat().st_uid, file.stat().st_gid, file.stat().st_mode & 0o777) == (0, SERVICE, 0o640)


def test_a_register_keeps_its_mode_and_a_new_one_is_private(tmp_path: Path) -> None:
    file, settings = tmp_path / "accounts.csv", tmp_path / "receiver.toml"
    settings.write_text('[accounts]\nfile = "accounts.csv"\n', "utf-8")
    for mode in (0o600, 0o640):
        assert CliRunner().invoke(main, ["accounts", "add", "1234", "--config", str(settings)]).exit_code == 0
        assert file.stat().st_mode & 0o777 == mode
        file.chmod(0o640)


@pytest.fixture
def linked(tmp_path: Path) -> tuple[Path, Path]:
    """Return settings whose register is a link to a link, and what that leads to elsewhere; it is not there yet."""
    far, near, settings = tmp_path / "far" / "register.csv", tmp_path / "near" / "accounts.csv", tmp_path / "receiver.toml"
    for file in (far, near):
        file.parent.mkdir()
    (tmp_path / "middle").symlink_to(far)
    near.symlink_to("../middle")
    settings.write_text('[accounts]\nfile = "near/accounts.csv"\n', "utf-8")
    return settings, far


def test_a_register_that_is_a_link_stays_one_and_what_it_leads_to_is_changed(linked: tuple[Path, Path]) -> None:
    settings, far = linked
    near = settings.parent / "near" / "accounts.csv"
    (near.parent / "key").write_text("0123456789ABCDEF0123456789ABCDEF", "utf-8")
    more = settings.parent / "more.csv"
    more.write_text("account,key\n5678,FEDCBA9876543210FEDCBA9876543210\n", "utf-8")
    for command in (["add", "1234"], ["add", "9999"], ["import", str(more)], ["remove", "9999"]):
        before = far.stat().st_ino if far.exists() else None
        done = CliRunner().invoke(main, ["accounts", *command, "--config", str(settings)])
        assert done.exit_code == 0, done.output
        assert (near.is_symlink(), far.is_symlink(), far.stat().st_ino != before) == (True, False, True)
        assert [found.name for found in far.parent.iterdir()] == ["register.csv"]
        assert {found.name for found in near.parent.iterdir()} == {"accounts.csv", "key"}
    far.write_text("account,key_file\n1234,key\n", "utf-8")  # found beside the link, as when the receiver reads it
    done = CliRunner().invoke(main, ["accounts", "add", "7777", "--config", str(settings)])
    assert (done.exit_code, sorted(accounts.read_csv(near))) == (0, ["1234", "7777"]), done.output


@as_root
def test_the_register_a_link_leads_to_keeps_its_owner_and_a_new_one_is_its_folders(linked: tuple[Path, Path]) -> None:
    settings, far = linked
    os.chown(far.parent, SERVICE, SERVICE)
    assert CliRunner().invoke(main, ["accounts", "add", "1234", "--config", str(settings)]).exit_code == 0
    assert (far.stat().st_uid, far.stat().st_gid, far.stat().st_mode & 0o777) == (SERVICE, SERVICE, 0o600)
    os.chown(far, SERVICE, 0)
    far.chmod(0o640)
    assert CliRunner().invoke(main, ["accounts", "add", "5678", "--config", str(settings)]).exit_code == 0
    assert (far.stat().st_uid, far.stat().st_gid, far.stat().st_mode & 0o777) == (SERVICE, 0, 0o640)


def test_a_link_that_leads_nowhere_or_to_itself_is_told_and_stays(linked: tuple[Path, Path]) -> None:
    settings, far = linked
    near = settings.parent / "near" / "accounts.csv"
    far.parent.rmdir()
    done = CliRunner().invoke(main, ["accounts", "add", "1234", "--config", str(settings)])
    assert (done.exit_code, f"leads to {far}, and there is no folder {far.parent}" in done.output) == (2, True)
    (settings.parent / "middle").unlink()
    (settings.parent / "middle").symlink_to(near)
    done = CliRunner().invoke(main, ["accounts", "add", "1234", "--config", str(settings)])
    assert (done.exit_code, near.is_symlink()) == (2, True)
    with pytest.raises(ConfigError, match="is a link that leads back to itself"):
        account_file.edit(near, dict.clear)
    assert near.is_symlink()


@as_root
def test_root_is_led_nowhere_by_a_link_of_somebody_else(linked: tuple[Path, Path]) -> None:
    settings, far = linked
    middle = settings.parent / "middle"
    os.chown(middle, SERVICE, SERVICE, follow_symlinks=False)
    done = CliRunner().invoke(main, ["accounts", "add", "1234", "--config", str(settings)])
    assert (done.exit_code, f"is a link of another user than {far} is" in done.output, far.exists()) == (2, True, False)
    os.chown(far.parent, SERVICE, SERVICE)
    assert CliRunner().invoke(main, ["accounts", "add", "1234", "--config", str(settings)]).exit_code == 0


@as_root
def test_nobody_but_root_takes_a_register_from_its_owner() -> None:
    folder = Path(tempfile.mkdtemp())  # others may go there; nothing of pytest's is
    folder.chmod(0o777)
    file = folder / "accounts.csv"
    file.write_text("account\n1234\n", "utf-8")
    file.chmod(0o644)
    try:
        os.seteuid(SERVICE)
        with pytest.raises(ConfigError, match="belongs to another user or group: run the command as its owner"):
            account_file.edit(file, dict.clear)
    finally:
        os.seteuid(0)
    assert file.read_text("utf-8") == "account\n1234\n"
    assert [found.name for found in folder.iterdir()] == ["accounts.csv"]
    shutil.rmtree(folder)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return a folder of the service's user where it can get to; nothing of pytest's is."""
    folder = Path(tempfile.mkdtemp())
    os.chown(folder, SERVICE, SERVICE)
    yield folder
    os.seteuid(0)
    shutil.rmtree(folder)


@as_root
def test_a_lock_of_another_user_is_told_with_its_owner_and_what_to_do(open_folder: Path) -> None:
    (open_folder / "lock").touch(0o600)
    we = pwd.getpwuid(SERVICE).pw_name
    os.seteuid(SERVICE)
    with pytest.raises(ConfigError) as caught:
        Folder(open_folder)
    assert str(caught.value) == (
        f"data_dir {open_folder} cannot be used: {open_folder / 'lock'} belongs to root, and we run as {we}; was a receiver "
        f"or a command run there as root? Give the folder and all in it to one user: chown -R {we} {open_folder}"
    )
    os.seteuid(0)
    os.chown(open_folder / "lock", SERVICE, SERVICE)
    (open_folder / "lock").chmod(0o400)
    os.seteuid(SERVICE)
    with pytest.raises(ConfigError, match=r"lock has mode 0400, in which we may not read and write it; chmod u\+rwX /"):
        Folder(open_folder)


@as_root
@pytest.mark.parametrize("name", ["journal.sqlite", "journal.sqlite-wal"])
def test_a_journal_of_another_user_is_told_with_its_owner_and_what_to_do(open_folder: Path, name: str) -> None:
    file = open_folder / "journal.sqlite"
    with closing(sqlite3.connect(file)) as db:
        db.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)
        shutil.copy(f"{file}-wal", open_folder / "kept")
    (open_folder / "kept").rename(f"{file}-wal")
    for found in open_folder.iterdir():
        os.chown(found, SERVICE, SERVICE)
    os.chown(open_folder / name, 0, 0)
    (open_folder / name).chmod(0o600)
    os.seteuid(SERVICE)
    with pytest.raises(ConfigError, match=f"the journal {file} cannot be opened: {open_folder / name} belongs to root"):
        open_journal(file, [], lambda _: None)
    assert file.exists()
    assert not list(open_folder.glob("damaged-*"))


@as_root
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_a_journal_that_another_user_may_not_read_is_not_called_damaged(open_folder: Path, mode: int) -> None:
    with closing(sqlite3.connect(open_folder / "journal.sqlite")) as db:
        db.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)
    os.chown(open_folder, 0, 0)
    open_folder.chmod(mode)
    (open_folder / "journal.sqlite").chmod(0o600)
    os.seteuid(SERVICE)
    with pytest.raises(ConfigError, match=rf"journal.sqlite cannot be read: {open_folder}[^ ]* belongs to root") as caught:
        Reader(open_folder)
    assert str(caught.value).endswith("run the command as root")


def test_what_else_a_folder_cannot_do_is_told_in_the_systems_words(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder", "utf-8")
    with pytest.raises(ConfigError, match="data cannot be used: File exists"):
        Folder(tmp_path / "data")
    assert withheld(tmp_path) is None
